"""The pretrain stage: clips to encoder weights that other commands take."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_files import write_clips
from flow_encoder import register

from encoders import build_encoder
from encoders.weights import fingerprint
from pipeline.clips import batches as clip_batches
from pipeline.commands.pretrain import command as pretrain
from pipeline.commands.pretrain.options import PretrainConfig
from pipeline.training.options import TrainingConfig

TRAINING = TrainingConfig(
    epochs=2, batch_size=8, lr=3e-3, optimizer="adamw", lr_schedule="cosine", device="cpu", num_workers=2
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"), 8, 2)


@pytest.fixture
def config(clips: Path, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(clips=clips, out=tmp_path / "run", encoder="tsm_tiny", training=TRAINING, dropout=0.1)


def metrics_of(config: PretrainConfig) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((config.out / "metrics.json").read_text())
    return metrics


@pytest.fixture(scope="module")
def finished(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    """A run that is long enough to learn."""
    out = tmp_path_factory.mktemp("pretrain") / "run"
    config = PretrainConfig(clips=clips, out=out, encoder="tsm_tiny", training=replace(TRAINING, epochs=20))
    assert not pretrain.run(config).failed
    return config


@pytest.mark.slow
def test_it_learns_motions_that_single_frames_do_not_tell(finished: PretrainConfig) -> None:
    lines = [json.loads(line) for line in (finished.out / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["train_loss"] < 0.4 < lines[0]["train_loss"]
    assert metrics_of(finished)["top1"] == max(line["val_top1"] for line in lines) == 100


@pytest.mark.slow
def test_the_run_is_accepted_as_weights(finished: PretrainConfig) -> None:
    described = json.loads((finished.out / "encoder.json").read_text())
    encoder = build_encoder(**described["encoder"], weights=finished.out)
    assert fingerprint(encoder) == described["weights"]
    assert described["labels"] == ["fall", "rise"]
    best = torch.load(finished.out / "best.ckpt", weights_only=True)["state_dict"]
    for name, weight in encoder.state_dict().items():
        assert torch.equal(weight, best[f"model.encoder.{name}"])


def test_the_run_folder_and_the_output(config: PretrainConfig, capfd: pytest.CaptureFixture[str]) -> None:
    assert not pretrain.run(config).failed
    assert {path.name for path in config.out.iterdir()} == {
        "config.yaml", "log.jsonl", "best.ckpt", "last.ckpt",
        "encoder.safetensors", "encoder.json", "classifier.safetensors", "metrics.json",
    }  # fmt: skip
    assert capfd.readouterr().out.startswith("top-1 accuracy")
    assert not pretrain.run(config).failed
    assert "is finished" in capfd.readouterr().out


def test_clips_decoded_in_every_epoch_give_the_same_weights(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(config, training=replace(TRAINING, num_workers=0))
    pretrain.run(here)
    monkeypatch.setattr(clip_batches, "CACHE_BYTES", 0)
    again = replace(here, out=config.out.parent / "again")
    pretrain.run(again)
    fingerprints = [json.loads((run.out / "encoder.json").read_text())["weights"] for run in (here, again)]
    assert fingerprints[0] == fingerprints[1]


@pytest.mark.parametrize("in_memory", [True, False])
def test_broken_clips_are_skipped_and_named(
    tmp_path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not in_memory:
        monkeypatch.setattr(clip_batches, "CACHE_BYTES", 0)
    folder = write_clips(tmp_path / "clips", 2, 1)
    broken = folder / "train" / "rise" / "broken.mp4"
    broken.write_bytes(b"no video")
    training = replace(TRAINING, epochs=1, num_workers=0)
    config = PretrainConfig(clips=folder, out=tmp_path / "run", encoder="tsm_tiny", training=training)
    assert pretrain.run(config).failed
    assert list(metrics_of(config)["skipped"]) == [str(broken)]
    assert "1 clips could not be used and were skipped; the others were:" in capsys.readouterr().err
    assert pretrain.run(config).failed  # finished: the same is said again
    assert str(broken) in capsys.readouterr().err


def test_no_clip_decodes(tmp_path: Path) -> None:
    for label in ("fall", "rise"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for index in range(9):
            (tmp_path / "clips" / label / f"{label}{index}.mp4").write_bytes(b"no video")
    config = PretrainConfig(clips=tmp_path / "clips", out=tmp_path / "run", encoder="tsm_tiny", training=TRAINING)
    with pytest.raises(ValueError, match=r"none of .* training clips can be decoded: .*\.mp4"):
        pretrain.run(config)


def test_without_validation_clips_the_last_epoch_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_clips(tmp_path / "clips", 2, 0)
    config = PretrainConfig(clips=folder, out=tmp_path / "run", encoder="tsm_tiny", training=TRAINING)
    assert not pretrain.run(config).failed
    assert metrics_of(config) == {"top1": None, "epoch": 1, "skipped": {}}
    assert "no validation clips" in capsys.readouterr().out


def test_validation_clips_that_do_not_decode_are_as_good_as_none(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips", 2, 1)
    for path in (folder / "val").rglob("*.mp4"):
        path.write_bytes(b"no video")
    config = PretrainConfig(clips=folder, out=tmp_path / "run", encoder="tsm_tiny", training=TRAINING)
    assert pretrain.run(config).failed
    assert metrics_of(config)["top1"] is None
    assert len(metrics_of(config)["skipped"]) == 2


def test_one_class_is_refused(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips", 1, 0, labels=("rise",))
    config = PretrainConfig(clips=folder, out=tmp_path / "run", encoder="tsm_tiny", training=TRAINING)
    with pytest.raises(ValueError, match="all training clips are of class 'rise'"):
        pretrain.run(config)


def test_no_training_clips(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips", 0, 1)
    config = PretrainConfig(clips=folder, out=tmp_path / "run", encoder="tsm_tiny", training=TRAINING)
    with pytest.raises(ValueError, match="no clip is in the subset 'training'"):
        pretrain.run(config)


def test_an_unknown_encoder(config: PretrainConfig) -> None:
    with pytest.raises(ValueError, match="there is no encoder 'tsm_huge'"):
        pretrain.run(replace(config, encoder="tsm_huge"))


def test_an_encoder_of_flow(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = replace(config, encoder=register(monkeypatch), weights="random")
    with pytest.raises(ValueError, match="sees optical flow"):
        pretrain.run(flow)
