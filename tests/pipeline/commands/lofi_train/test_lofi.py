"""The lofi-train stage: videos and segments to encoder weights that other commands take."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_encoder import register
from torch import Tensor
from video_files import write_video

import pipeline
from encoders import build_encoder
from encoders.weights import fingerprint
from heads.options import GTADOptions
from pipeline.commands.extract import command as extract
from pipeline.commands.extract.options import ExtractConfig, SamplingConfig
from pipeline.commands.lofi_train import command as lofi
from pipeline.commands.lofi_train import memory_budget
from pipeline.commands.lofi_train.end_to_end import EndToEnd
from pipeline.commands.lofi_train.options import LofiTrainConfig
from pipeline.data.features import FeatureStore
from pipeline.training.options import TrainingConfig

TRAINING = TrainingConfig(
    epochs=4, batch_size=2, lr=0.01, optimizer="sgd", momentum=0.0, lr_steps=(2,), device="cpu", num_workers=0
)
HEAD = GTADOptions(num_snippets=8, hidden=64, inner_bins=4, context_bins=2)
NUM_VIDEOS = 5  # three batches an epoch


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos and annotations; one video is shorter than a snippet."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "videos").mkdir()
    database = {}
    for number in range(NUM_VIDEOS):
        frames = 9 if number == 0 else 20 + number
        write_video(folder / "videos" / f"v_{number}.mp4", frames, fps=10)
        segment = [0.1 * number, frames / 10 - 0.4]
        annotations = [{"segment": segment, "label": ("jump", "run")[number % 2]}]
        database[f"v_{number}"] = {"subset": "training", "duration": frames / 10, "annotations": annotations}
    database["v_absent"] = database["v_1"]
    database["v_other"] = {**database["v_1"], "subset": "validation"}
    (folder / "gt.json").write_text(json.dumps({"database": database}))
    return folder


@pytest.fixture
def config(data: Path, tmp_path: Path) -> LofiTrainConfig:
    return LofiTrainConfig(
        videos=data / "videos",
        annotations=data / "gt.json",
        out=tmp_path / "run",
        encoder="tsm_tiny",
        weights="random",
        num_frames=4,
        gtad=HEAD,
        training=TRAINING,
    )


def start_of(config: LofiTrainConfig) -> dict[str, Tensor]:
    return build_encoder("tsm_tiny", weights="random", num_frames=4, seed=config.training.seed).state_dict()


def weights_of(run: Path) -> dict[str, Tensor]:
    return build_encoder("tsm_tiny", weights=run, num_frames=4).state_dict()


def moved(config: LofiTrainConfig) -> set[str]:
    """Names of the weights that training has changed."""
    start, end = start_of(config), weights_of(config.out)
    return {name for name in start if not torch.equal(start[name], end[name])}


# --- What it leaves ---------------------------------------------------------------------------------------------------


def test_the_run_folder_and_the_output(config: LofiTrainConfig, capfd: pytest.CaptureFixture[str]) -> None:
    assert not lofi.run(config).failed
    assert {path.name for path in config.out.iterdir()} == {
        "config.yaml", "log.jsonl", "last.ckpt", "encoder.safetensors", "encoder.json", "metrics.json",
    }  # fmt: skip
    out, err = capfd.readouterr()
    assert "% of the time was waiting for data" in out
    assert "5 videos, long: 8 snippets at 32×32 · 2 snippets at 64×64 · 4 snippets at 45×45" in err
    assert "note: 1 videos of subset 'training' are not in" in err
    assert "v_absent" in err
    metrics = json.loads((config.out / "metrics.json").read_text())
    log = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert metrics["loss"] == log[-1]["train_loss"]
    assert metrics["skipped"] == {}
    assert 0 <= metrics["waiting"] <= 1
    assert not lofi.run(config).failed
    assert "is finished" in capfd.readouterr().out


def test_the_run_is_accepted_as_weights(config: LofiTrainConfig, data: Path) -> None:
    lofi.run(config)
    described = json.loads((config.out / "encoder.json").read_text())
    encoder = build_encoder(**described["encoder"], weights=config.out)
    assert fingerprint(encoder) == described["weights"]
    assert described["labels"] == ["jump", "run"]
    extraction = ExtractConfig(
        videos=data / "videos",
        out=config.out.parent / "store",
        encoder="tsm_tiny",
        weights=str(config.out),
        sampling=SamplingConfig(num_frames=4, num_snippets=8),
        device="cpu",
    )
    assert not extract.run(extraction).failed
    store = FeatureStore.open(extraction.out)
    assert store.header.weights == described["weights"]
    assert len(store.videos) == NUM_VIDEOS


# --- What it learns ---------------------------------------------------------------------------------------------------


def test_the_gradient_reaches_all_of_the_encoder(config: LofiTrainConfig) -> None:
    lofi.run(replace(config, training=replace(TRAINING, epochs=1)))
    learned = {name for name, _ in build_encoder("tsm_tiny", weights="random").named_parameters()}
    assert moved(config) == learned  # and so no statistics of batch normalisation


def test_batch_normalisation_can_be_trained(config: LofiTrainConfig) -> None:
    lofi.run(replace(config, batch_norm="train", training=replace(TRAINING, epochs=1)))
    assert {"network.bn1.running_mean", "network.bn1.running_var", "network.bn1.weight"} <= moved(config)


def test_the_encoder_can_learn_more_slowly_than_the_head(config: LofiTrainConfig) -> None:
    lofi.run(replace(config, encoder_lr=0.0))
    assert moved(config) == set()
    assert json.loads((config.out / "log.jsonl").read_text().splitlines()[0])["lr"] == TRAINING.lr


def test_it_learns(config: LofiTrainConfig) -> None:
    training = replace(TRAINING, epochs=8, optimizer="adam", lr=2e-3, lr_schedule="constant")
    lofi.run(replace(config, schedule="temporal", mirror=False, training=training))
    losses = [json.loads(line)["train_loss"] for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]


def test_recomputing_changes_no_weights(config: LofiTrainConfig) -> None:
    training = replace(TRAINING, epochs=2)
    recomputed = replace(config, out=config.out.parent / "recomputed", recompute=3, training=training)
    for one in (replace(config, training=training), recomputed):
        lofi.run(one)
    for name, weight in weights_of(config.out).items():
        torch.testing.assert_close(weights_of(recomputed.out)[name], weight, rtol=1e-4, atol=1e-6)


# --- In an amount of memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("memory", "seen"), [("1GB", "16 snippets at 64×64"), ("8MB", "11 snippets at 54×54")])
def test_memory_chooses_what_is_trained_on(
    config: LofiTrainConfig, memory: str, seen: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    forward = EndToEnd.forward

    def noted(self: EndToEnd, clips: Tensor) -> Any:
        sizes.append(f"{clips.shape[1]} snippets at {clips.shape[-1]}×{clips.shape[-1]}")
        return forward(self, clips)

    monkeypatch.setattr(EndToEnd, "forward", noted)
    head, training = replace(HEAD, num_snippets=16), replace(TRAINING, epochs=1)
    assert not lofi.run(replace(config, memory=memory, gtad=head, training=training)).failed
    assert set(sizes) == {seen}
    assert seen in capsys.readouterr().out


def killed_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    """Let the model be asked only so many times."""
    forward, left = EndToEnd.forward, iter(range(steps))

    def until_killed(self: EndToEnd, clips: Tensor) -> Any:
        if next(left, None) is None:
            raise KilledError
        return forward(self, clips)

    patch.setattr(EndToEnd, "forward", until_killed)


@pytest.mark.parametrize(("steps", "lr", "measured"), [(4, 0.01, False), (1, 0.01, False), (1, 0.02, True)])
def test_a_run_that_goes_on_keeps_its_plan(
    config: LofiTrainConfig, steps: int, lr: float, measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As do processes that train along. One that has come to no checkpoint may be begun anew with other options."""
    with_memory = replace(config, memory="1GB", training=replace(TRAINING, epochs=2))
    with monkeypatch.context() as patch:
        killed_after(steps, patch)
        with pytest.raises(KilledError):
            lofi.run(with_memory)
    calls = []
    measure_costs = memory_budget.measure_costs

    def noted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return measure_costs(*arguments, **options)

    monkeypatch.setattr(lofi, "measure_costs", noted)
    assert not lofi.run(replace(with_memory, training=replace(with_memory.training, lr=lr))).failed
    assert bool(calls) == measured


def test_measuring_leaves_the_encoder_as_it_is(config: LofiTrainConfig) -> None:
    encoder = build_encoder("tsm_tiny", weights="random", num_frames=4)
    start = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    lofi._choose(replace(config, batch_norm="train"), encoder, 2, 10**9)
    assert all(torch.equal(weight, start[name]) for name, weight in encoder.state_dict().items())


def test_too_little_memory(config: LofiTrainConfig) -> None:
    with pytest.raises(ValueError, match=r"1 KB of memory are too few: the least that is tried"):
        lofi.run(replace(config, memory="1KB"))


# --- Interruptions and bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("schedule", "steps"), [("long", 7), ("short", 4)])
def test_killed_in_a_cycle_and_resumed_equals_uninterrupted(
    config: LofiTrainConfig, schedule: Any, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(config, schedule=schedule, cycle_batches=2)
    killed = replace(whole, out=config.out.parent / "killed")
    lofi.run(whole)
    with monkeypatch.context() as patch:
        killed_after(steps, patch)
        with pytest.raises(KilledError):
            lofi.run(killed)
    assert not (killed.out / "encoder.safetensors").exists()
    torch.manual_seed(99)
    assert not lofi.run(killed).failed
    weights = [(run.out / "encoder.safetensors").read_bytes() for run in (whole, killed)]
    assert weights[0] == weights[1]


def broken_copy(config: LofiTrainConfig, folder: Path, broken: set[str]) -> LofiTrainConfig:
    folder.mkdir()
    for path in config.videos.iterdir():
        content = path.read_bytes()
        (folder / path.name).write_bytes(content[:100] if path.stem in broken else content)
    return replace(config, videos=folder, training=replace(TRAINING, epochs=2))


def test_videos_that_do_not_decode_are_skipped_and_named(
    config: LofiTrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = broken_copy(config, tmp_path / "videos", {"v_1", "v_3"})
    for _ in ("trained", "finished"):
        assert lofi.run(broken).failed
        err = capsys.readouterr().err
        assert "2 videos could not be used and were skipped; the others were:" in err
        assert "v_1.mp4" in err
    skipped = json.loads((config.out / "metrics.json").read_text())["skipped"]
    assert sorted(Path(path).name for path in skipped) == ["v_1.mp4", "v_3.mp4"]


@pytest.mark.slow
def test_two_processes_train_together_under_one_plan(config: LofiTrainConfig, tmp_path: Path) -> None:
    """Whichever of them meets the broken video, it is named."""
    broken = broken_copy(config, tmp_path / "videos", {"v_3"})
    flags = {
        "videos": broken.videos, "annotations": broken.annotations, "out": broken.out, "encoder": "tsm_tiny",
        "weights": "random", "num_frames": 4, "gtad.num_snippets": 8, "gtad.hidden": 64, "memory": "1GB",
        "training.device": "cpu", "training.devices": 2, "training.epochs": 1, "training.batch_size": 1,
        "training.num_workers": 0,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in flags.items()]
    command = [sys.executable, "-m", "pipeline.cli", "lofi-train", *words]
    done = subprocess.run(
        command, cwd=Path(pipeline.__file__).parents[1], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "1 videos could not be used" in done.stderr
    assert done.stdout.count("8 snippets at 64×64, micro-batch 1 × 1") == 2
    assert [Path(path).name for path in json.loads((config.out / "metrics.json").read_text())["skipped"]] == ["v_3.mp4"]
    learned = {name for name, _ in build_encoder("tsm_tiny", weights="random").named_parameters()}
    assert moved(config) == learned


def test_no_video_decodes(config: LofiTrainConfig, tmp_path: Path) -> None:
    broken = {path.stem for path in config.videos.iterdir()}
    with pytest.raises(ValueError, match=r"none of 5 videos can be decoded: .*v_\d\.mp4"):
        lofi.run(broken_copy(config, tmp_path / "videos", broken))


def test_a_loss_that_is_not_finite_names_the_videos(config: LofiTrainConfig) -> None:
    with pytest.raises(ValueError, match=r"is not finite in epoch 0, batch \d \(v_\d, v_\d\)"):
        lofi.run(replace(config, training=replace(TRAINING, lr=1e30)))
    assert not (config.out / "encoder.safetensors").exists()


def test_a_cache_changes_no_weights(config: LofiTrainConfig, tmp_path: Path) -> None:
    config = replace(config, training=replace(TRAINING, epochs=3))
    cached = replace(config, out=tmp_path / "cached", cache=tmp_path / "cache", cache_gb=0.01)
    for one in (config, cached):
        lofi.run(one)
    assert len(list((tmp_path / "cache").iterdir())) == 3 * NUM_VIDEOS
    assert (config.out / "encoder.safetensors").read_bytes() == (cached.out / "encoder.safetensors").read_bytes()


def test_an_encoder_of_flow(config: LofiTrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="sees optical flow"):
        lofi.run(replace(config, encoder=register(monkeypatch)))


def test_pictures_that_the_encoder_cannot_see(config: LofiTrainConfig) -> None:
    with pytest.raises(ValueError, match=r"8 snippets at 16×16, which it cannot see: .* 16.*or give a smaller"):
        lofi.run(replace(config, reduction=16.0))
    with pytest.raises(ValueError, match=r"leaves tsn_bninception 4 snippets at 45×45, .*multiple of 32"):
        lofi.run(replace(config, encoder="tsn_bninception", size=64))


def test_no_video_of_the_subset(config: LofiTrainConfig) -> None:
    with pytest.raises(ValueError, match=r"none of the 1 videos of subset 'validation'.* v_other"):
        lofi.run(replace(config, train_subset="validation"))
    with pytest.raises(ValueError, match=r"gt\.json: no video is in the subset 'test'.*give --train-subset"):
        lofi.run(replace(config, train_subset="test"))
