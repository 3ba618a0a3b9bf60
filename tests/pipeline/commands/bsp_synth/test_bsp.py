"""`pipeline bsp-synth`: clips to an encoder that feels boundaries, for every task and integration of the paper."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reference_boundary as reference
import torch
from clip_files import write_clips
from torch import nn

from encoders import build_encoder
from encoders.boundary import Matching
from encoders.weights import fingerprint
from pipeline import cli
from pipeline.clips import batches as clip_batches
from pipeline.clips.batches import ClipBatches, ClipForm
from pipeline.clips.reading import read_clips
from pipeline.commands.bsp_synth import command as bsp
from pipeline.commands.bsp_synth.boundary_clips import BoundaryBatch, BoundaryBatches
from pipeline.commands.bsp_synth.boundary_scores import score_change_points, score_kinds
from pipeline.commands.bsp_synth.joint_batches import JointBatch, JointBatches
from pipeline.commands.bsp_synth.options import BspConfig
from pipeline.training.encoder_run import save_encoder
from pipeline.training.options import TrainingConfig
from synth.boundaries import Synthesis
from synth.render import write_video
from synth.scenes import write_dataset

TRAINING = TrainingConfig(
    epochs=1, batch_size=4, lr=2e-3, optimizer="adamw", lr_schedule="cosine", device="cpu", num_workers=0
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"), 4, 2)


@pytest.fixture
def config(clips: Path, tmp_path: Path) -> BspConfig:
    return BspConfig(clips=clips, out=tmp_path / "run", encoder="tsm_tiny", size=32, training=TRAINING)


def metrics_of(config: BspConfig) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((config.out / "metrics.json").read_text())
    return metrics


def weights_of(config: BspConfig) -> str:
    return str(json.loads((config.out / "encoder.json").read_text())["weights"])


# --- Every task and integration ---------------------------------------------------------------------------------------


def test_the_run_folder_is_accepted_as_weights(config: BspConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert not bsp.run(config).failed
    assert {path.name for path in config.out.iterdir()} == {
        "config.yaml", "log.jsonl", "best.ckpt", "last.ckpt", "encoder.safetensors", "encoder.json", "metrics.json",
    }  # fmt: skip
    described = json.loads((config.out / "encoder.json").read_text())
    encoder = build_encoder(**described["encoder"], weights=config.out)
    assert fingerprint(encoder) == described["weights"]
    metrics = metrics_of(config)
    assert metrics["kinds"] == ["diff-class", "same-class", "diff-speed", "same-speed"]
    confusion_KK = np.array(metrics["confusion"])
    assert confusion_KK.sum(axis=1).tolist() == [1, 1, 1, 1]  # in turns
    assert metrics["top1"] == 100 * confusion_KK.trace() / confusion_KK.sum()
    assert "on the validation clips, after epoch 0: " in capsys.readouterr().out
    assert not bsp.run(config).failed
    assert "is finished" in capsys.readouterr().out


def test_a_binary_task_has_two_classes(config: BspConfig) -> None:
    assert not bsp.run(replace(config, kinds=("diff-speed", "same-speed"))).failed
    assert np.array(metrics_of(config)["confusion"]).shape == (2, 2)


def test_change_points_are_regressed(config: BspConfig) -> None:
    assert not bsp.run(replace(config, task="regression", kinds=("diff-speed",))).failed
    metrics = metrics_of(config)
    assert {"loss", "constant_loss", "error", "constant_error"} <= metrics.keys()
    assert np.isfinite(metrics["loss"])


def test_two_heads_learn_both(config: BspConfig) -> None:
    assert not bsp.run(replace(config, integration="two-head")).failed
    assert {"action_top1", "kind_top1"} <= metrics_of(config).keys()
    described = json.loads((config.out / "encoder.json").read_text())
    assert described["labels"] == ["fall", "rise"]
    build_encoder(**described["encoder"], weights=config.out)


def test_a_student_is_distilled_from_two_runs(config: BspConfig, tmp_path: Path) -> None:
    teachers = [tmp_path / name for name in ("actions", "boundaries")]
    for seed, run in enumerate(teachers, start=1):
        run.mkdir()
        save_encoder(run, build_encoder("tsm_tiny", weights="random", size=32, seed=seed))
    student = replace(config, integration="distillation", action_teacher=teachers[0], boundary_teacher=teachers[1])
    assert not bsp.run(student).failed
    assert {"action_top1", "action_features", "boundary_features"} <= metrics_of(student).keys()
    described = json.loads((student.out / "encoder.json").read_text())
    assert fingerprint(build_encoder(**described["encoder"], weights=student.out)) == described["weights"]
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        bsp.run(replace(student, out=tmp_path / "again", action_teacher=tmp_path / "absent"))


def write_flat_clips(folder: Path, num_train: int, num_val: int) -> Path:
    """Clips of one grey each, in two classes; a clip made of two of them has an edge in time that is plain to see."""
    rng = np.random.default_rng(0)
    for split, number in (("train", num_train), ("val", num_val)):
        for index in range(number):
            for label in ("dark", "light"):
                path = folder / split / label / f"{split}_{label}_{index}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                grey = rng.integers(0, 100) + (155 if label == "light" else 0)
                write_video(path, (np.full((32, 32, 3), grey, np.uint8) for _ in range(20)), 10)
    return folder


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flat_clips(tmp_path_factory.mktemp("flat"), 8, 8)


@pytest.fixture
def long_enough_to_learn(flat: Path, tmp_path: Path) -> BspConfig:
    training = replace(TRAINING, epochs=6, batch_size=16, lr=4e-3)
    return BspConfig(
        clips=flat, out=tmp_path / "run", encoder="tsm_tiny", size=32, samples=96, dropout=0.0, training=training
    )


@pytest.mark.slow
def test_it_learns_to_tell_cuts_from_clips(long_enough_to_learn: BspConfig) -> None:
    config = replace(long_enough_to_learn, kinds=("diff-class", "same-speed"))
    assert not bsp.run(config).failed
    assert metrics_of(config)["top1"] == 100


@pytest.mark.slow
def test_the_best_constant_loses_to_regression(long_enough_to_learn: BspConfig) -> None:
    config = replace(long_enough_to_learn, task="regression", kinds=("diff-class",))
    assert not bsp.run(config).failed
    metrics = metrics_of(config)
    assert metrics["loss"] < 0.5 * metrics["constant_loss"]
    assert metrics["error"] < 0.5 * metrics["constant_error"]


# --- Interruption -----------------------------------------------------------------------------------------------------


def test_a_killed_run_comes_to_the_same_weights(
    config: BspConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_epochs = replace(config, integration="two-head", training=replace(TRAINING, epochs=2))
    whole, killed = (replace(two_epochs, out=tmp_path / name) for name in ("whole", "killed"))
    assert not bsp.run(whole).failed
    made = JointBatches.__getitem__

    def die_in_the_second_epoch(batches: JointBatches, places: list[tuple[int, int]]) -> Any:
        if places[0][0] == 1:
            raise KeyboardInterrupt
        return made(batches, places)

    monkeypatch.setattr(JointBatches, "__getitem__", die_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        bsp.run(killed)
    monkeypatch.undo()
    assert (killed.out / "last.ckpt").exists()
    assert not bsp.run(killed).failed
    assert weights_of(killed) == weights_of(whole)
    assert metrics_of(killed) == metrics_of(whole)


def test_clips_decoded_in_every_epoch_give_the_same_weights(
    config: BspConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(config, size=64)
    assert not bsp.run(here).failed
    monkeypatch.setattr(clip_batches, "CACHE_BYTES", 0)
    again = replace(here, out=tmp_path / "again")
    assert not bsp.run(again).failed
    assert weights_of(again) == weights_of(here)


def test_writing_alone(config: BspConfig, capsys: pytest.CaptureFixture[str]) -> None:
    alone = replace(config, task="none", write=5)
    assert not bsp.run(alone).failed
    assert {path.name for path in config.out.iterdir()} == {"config.yaml", "boundary_clips", "metrics.json"}
    assert len(pd.read_csv(config.out / "boundary_clips" / "boundary_clips.csv")) == 5
    assert f"5 of 5 boundary clips are in {config.out}" in capsys.readouterr().out
    assert not bsp.run(alone).failed
    assert "is finished" in capsys.readouterr().out


def test_clips_written_by_a_run_that_was_stopped_early_fit_its_options(
    config: BspConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay with the same options, and go with those that they were made with."""

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(bsp, "fit", stop)
    written = config.out / "boundary_clips"
    with pytest.raises(KeyboardInterrupt):
        bsp.run(replace(config, write=4))
    (written / "clips" / "diff-class" / "000000.mp4").write_bytes(b"seen")
    with pytest.raises(KeyboardInterrupt):
        bsp.run(replace(config, write=4))
    assert (written / "clips" / "diff-class" / "000000.mp4").read_bytes() == b"seen"
    with pytest.raises(KeyboardInterrupt):
        bsp.run(replace(config, write=2, kinds=("diff-speed", "same-speed")))
    assert sorted(path.name for path in written.rglob("*.*")) == [
        "000000.mp4", "000001.mp4", "boundary_clips.csv", "diff-speed.png", "same-speed.png"
    ]  # fmt: skip
    assert len(pd.read_csv(written / "boundary_clips.csv")) == 2


# --- Batches and scores -----------------------------------------------------------------------------------------------


def test_over_the_epochs_all_real_clips_come_equally_often(clips: Path) -> None:
    train = read_clips(clips).in_subset("training")
    form = ClipForm(8, 2, 64, 64)
    frames = [np.full((20, 64, 64, 3), index, np.uint8) for index in range(len(train))]
    real = ClipBatches(train, range(len(train)), form, frames=frames)
    boundary = BoundaryBatches(train, form, Synthesis(), seed=0, size=3, frames=frames)
    joint = JointBatches(real, boundary)
    seen: list[int] = []
    for epoch in range(8):
        batch = joint[[(epoch, index) for index in range(3)]]
        assert batch.clips.dtype == torch.uint8
        assert batch.clips.shape == (6, 3, 8, 64, 64)
        assert batch.clips[:3, 0, 0, 0, 0].tolist() == batch.actions.tolist()
        torch.testing.assert_close(batch.clips[3:], boundary[[(epoch, index) for index in range(3)]].clips)
        assert batch.kinds.tolist() == [0, 1, 2]
        seen += batch.actions.tolist()
    assert sorted(seen) == sorted(3 * list(range(8)))


class Canned(nn.Module):
    """Answers with what the first pixels of a clip say."""

    def __init__(self, answers: dict[int, Sequence[float]]) -> None:
        super().__init__()
        self.answers = answers
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return torch.tensor([self.answers[int(clip.flatten()[0])] for clip in clips])


def batch_of(kinds: Sequence[int], points: Sequence[float], first: int) -> BoundaryBatch:
    clips = torch.arange(first, first + len(kinds), dtype=torch.uint8).view(-1, 1, 1, 1, 1)
    return BoundaryBatch(clips, torch.tensor(kinds), torch.tensor(points), [])


@pytest.mark.parametrize("num_real", [3, 0])
def test_losses_are_the_sums_of_the_formulas(num_real: int) -> None:
    rng = np.random.default_rng(num_real)
    actions_RK, kinds_SK = rng.normal(size=(num_real, 5)), rng.normal(size=(4, 3))
    actions, kinds = [4, 0, 2][:num_real], [1, 1, 0, 2]
    batch = JointBatch(torch.zeros(num_real + 4, 1), torch.tensor(actions).long(), torch.tensor(kinds), [])
    on_actions = reference.cross_entropy(actions_RK, actions) if num_real else 0.0

    def two_heads(clips: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert (clips is batch.clips, count) == (True, num_real)
        return torch.from_numpy(actions_RK), torch.from_numpy(kinds_SK)

    found = bsp._two_head_losses(two_heads, batch)  # type: ignore[arg-type]
    assert found["loss"].item() == pytest.approx(on_actions + reference.cross_entropy(kinds_SK, kinds))
    assert found["kind_top1"].item() == 100 * np.mean(kinds_SK.argmax(axis=1) == kinds)

    def distillation(clips: torch.Tensor, count: int) -> Matching:
        assert (clips is batch.clips, count) == (True, num_real)
        return Matching(torch.tensor(0.25), torch.tensor(2.0), torch.from_numpy(actions_RK))

    found = bsp._distillation_losses(distillation, batch)  # type: ignore[arg-type]
    assert found["loss"].item() == pytest.approx(0.25 + 2.0 + on_actions)


def test_scores_are_those_of_the_definitions() -> None:
    rng = np.random.default_rng(0)
    answers_BL = rng.random((7, 8)).astype(np.float32)
    points = [2.0, 3.0, 6.0, 5.0, 2.0, 4.0, 4.0]
    kinds = [0, 1, 2, 2, 1, 0, 2]
    empty = BoundaryBatch(torch.empty(0, 1, 1, 1, 1), torch.empty(0).long(), torch.empty(0), [])
    batches = [batch_of(kinds[:4], points[:4], 0), empty, batch_of(kinds[4:], points[4:], 4)]
    canned = Canned(dict(enumerate(answers_BL.tolist())))

    found = score_change_points(canned, batches, tau=4)
    distances = [abs(1 + int(np.argmax(answer_L)) - mu) for answer_L, mu in zip(answers_BL, points, strict=True)]
    assert found["error"] == pytest.approx(np.mean(distances))
    assert found["constant_error"] == pytest.approx(min(np.mean([abs(c - mu) for mu in points]) for c in range(9)))
    grid = [reference.heatmap_loss(np.full((7, 8), level), points, 4) for level in np.linspace(0, 1, 21)]
    assert found["constant_loss"] < min(grid)
    heatmaps_BL = np.array([[np.exp(-((t - mu) ** 2) / 8) for t in range(1, 9)] for mu in points])
    for _ in range(20):
        near = np.tile(heatmaps_BL.mean(axis=0) + rng.normal(scale=0.01, size=8), (7, 1))
        assert reference.heatmap_loss(near, points, 4) > found["constant_loss"]

    kind_answers = Canned(dict(enumerate(answers_BL[:, :3].tolist())))
    expected_KK = np.zeros((3, 3), int)
    for kind, answer_L in zip(kinds, answers_BL, strict=True):
        expected_KK[kind, int(np.argmax(answer_L[:3]))] += 1
    assert score_kinds(kind_answers, batches)["confusion"] == expected_KK.tolist()


# --- Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [True, False])
def test_broken_clips_are_skipped_and_named(
    tmp_path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not in_memory:
        monkeypatch.setattr(clip_batches, "CACHE_BYTES", 0)
    folder = write_clips(tmp_path / "clips", 2, 1)
    broken = folder / "train" / "rise" / "broken.mp4"
    broken.write_bytes(b"no video")
    config = BspConfig(clips=folder, out=tmp_path / "run", encoder="tsm_tiny", size=32, samples=16, training=TRAINING)
    assert bsp.run(config).failed
    assert list(metrics_of(config)["skipped"]) == [str(broken)]
    said = capsys.readouterr()
    assert "1 clips could not be used and were skipped; the others were:" in said.err
    # One validation clip of each class gives no same-class boundary.
    assert "note: the validation clips are not used: no class of the 2 clips has two" in said.err
    assert "no validation clips to score on" in said.out
    assert bsp.run(config).failed  # finished: the same is said again
    assert str(broken) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kinds": ("same-class", "same-speed")}, r"clips: no class of the 2 clips has two"),
        ({"integration": "two-head", "kinds": ("diff-class", "same-speed")}, None),
    ],
)
def test_a_class_with_one_clip_gives_no_same_class_boundary(
    tmp_path: Path, changes: dict[str, Any], said: str | None
) -> None:
    folder = write_clips(tmp_path / "clips", 1, 0)
    config = BspConfig(clips=folder, out=tmp_path / "run", encoder="tsm_tiny", size=32, training=TRAINING, **changes)
    if said is None:
        assert not bsp.run(config).failed
    else:
        with pytest.raises(ValueError, match=said):
            bsp.run(config)


def test_an_encoder_of_an_odd_number_of_frames_is_refused(config: BspConfig) -> None:
    with pytest.raises(ValueError, match="even number of frames, and the encoder sees 7"):
        bsp.run(replace(config, num_frames=7))


def test_one_class_gives_no_actions(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips", 2, 0, labels=("rise",))
    options = {"kinds": ("diff-speed", "same-speed"), "integration": "two-head", "training": TRAINING}
    config = BspConfig(clips=folder, out=tmp_path / "run", encoder="tsm_tiny", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="all training clips are of class 'rise'"):
        bsp.run(config)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "regression"}, "kinds with a change point, so not same-speed"),
        ({"kinds": ("diff-class",)}, "two different ones"),
        ({"kinds": ("diff-class", "same-class", "diff-class")}, "each of them once"),
        ({"task": "regression", "kinds": ("diff-class",), "integration": "two-head"}, "leave task out"),
        ({"integration": "distillation"}, "takes both teachers"),
        ({"boundary_teacher": Path("b")}, "takes both teachers"),
        ({"samples": 0}, "samples is 0"),
        ({"write": 0}, "write 0"),
        ({"task": "none"}, "give --write N"),
    ],
)
def test_options_that_make_no_sense_are_errors(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BspConfig(clips=Path("a"), out=Path("b"), encoder="tsm_tiny", **options)


# --- The whole way ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_clips_to_detections(tmp_path: Path) -> None:
    """The command line alone: clips → boundary clips and weights → two-stream features → a trained head."""
    write_dataset(tmp_path / "data", size="tiny", seed=0, workers=1)
    data, run = tmp_path / "data", tmp_path / "bsp"
    quick = ["--training.epochs", "1", "--training.device", "cpu", "--training.num_workers", "0"]
    words = ["--clips", data / "trimmed" / "clips.csv", "--encoder", "tsm_tiny"]
    write = ["--write", "8", "--training.batch_size", "4"]
    assert cli.main([*map(str, ["bsp-synth", *words, "--out", run, *write]), *quick]) == 0
    assert len(list((run / "boundary_clips" / "clips").rglob("*.mp4"))) == 8
    for name, weights in (("vanilla", "random"), ("boundary", run)):
        extract = ["--videos", data / "untrimmed" / "videos", "--out", tmp_path / name, "--weights", weights]
        assert cli.main(list(map(str, ["extract", "--config", "demo/extract", *extract]))) == 0
    stores = [str(tmp_path / name) for name in ("vanilla", "boundary", "merged")]
    assert cli.main(["merge-features", *stores[:2], "--out", stores[2]]) == 0
    annotations = str(data / "untrimmed" / "annotations.json")
    localize = ["--features", stores[2], "--annotations", annotations, "--out", str(tmp_path / "head")]
    assert cli.main(["localize", "--config", "demo/localize", *localize, *quick]) == 0
    metrics = json.loads((tmp_path / "head" / "metrics.json").read_text())
    assert np.isfinite(metrics["average_map"])
