"""`pipeline sola`: from a store to a better one, without labels; resumed, it comes to the same."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.similarity import target_tsm
from encoders.sola import SoLa, refine_video
from encoders.weights import save_weights
from pipeline.commands.sola import command as sola
from pipeline.commands.sola.label_choice import LabelledRows, linear_accuracy
from pipeline.commands.sola.options import SolaConfig
from pipeline.commands.sola.subsequences import NeighbourhoodBatch
from pipeline.data.annotations import Segment, Video, write_annotations
from pipeline.data.features import ENCODER_WEIGHTS, SOLA_WEIGHTS, FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline
from pipeline.encoding.options import SolaModuleConfig
from pipeline.encoding.refinement import load_refinement
from pipeline.training.options import TrainingConfig

CHANNELS, ROWS = 12, 40
TIMELINE = Timeline(0.0, 0.2, 0.4)


def random_walk(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Neighbours alike, as features of video are, around a mean that all rows share."""
    return (4 + np.cumsum(0.3 * rng.standard_normal((rows, CHANNELS)), axis=0)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "store")


def write_store(
    path: Path, weights: str = "0123456789abcdef", sampling: dict[str, int | float | None] | None = None
) -> Path:
    rng = np.random.default_rng(0)
    header = StoreHeader(encoder={"name": "tsm_tiny"}, weights=weights, sampling=sampling or {"step": 4})
    with FeatureStore.create_or_resume(path, header) as features:
        for i in range(8):
            features.add(f"v{i}", random_walk(rng, ROWS + i), TIMELINE, 0.2 * (ROWS + i))
        features.add("short", random_walk(rng, 9), TIMELINE, 2.0)
        features.add("one row", random_walk(rng, 1), TIMELINE, 0.4)
        features.add("still", np.ones((ROWS, CHANNELS), np.float32), TIMELINE, 8.0)
    (path / ENCODER_WEIGHTS).write_bytes(b"weights")
    return path


def options(store: Path, out: Path, **changes: object) -> SolaConfig:
    training = TrainingConfig(
        optimizer="adamw", lr=5e-3, batch_size=8, epochs=4, lr_schedule="constant", num_workers=0, device="cpu"
    )
    base = SolaConfig(
        features=store, out=out, module=SolaModuleConfig(hidden=16), step=1, per_video=2, steps=40, training=training
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_the_refined_store_is_the_parents_with_the_module_applied(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not sola.run(options(store, tmp_path / "run")).failed
    parent, refined = FeatureStore.open(store), FeatureStore.open(tmp_path / "run" / "features")
    assert refined.videos == parent.videos
    assert refined.header.sola is not None
    assert refined.header.sola["parent"] == str(store)
    assert replace(refined.header, sola=None) == parent.header
    assert (refined.path / ENCODER_WEIGHTS).read_bytes() == b"weights"
    module = load_refinement(tmp_path / "run", refined.header, torch.device("cpu"))
    assert module is not None
    assert np.abs(refined.load("v0") - parent.load("v0")).max() > 1e-3
    for video_id in parent.videos:
        expected_TC = refine_video(module.sola, torch.from_numpy(np.array(parent.load(video_id))))
        np.testing.assert_allclose(refined.load(video_id), expected_TC.numpy(), rtol=1e-5, atol=1e-6)
    said = capsys.readouterr()
    assert "2 videos have fewer rows than a subsequence (16)" in said.err
    assert "1 training videos have the same features in all rows" in said.err
    assert "features moved by" in said.out


def test_training_lowers_the_loss_and_brings_the_tsm_nearer_to_its_target(store: Path, tmp_path: Path) -> None:
    assert not sola.run(options(store, tmp_path / "run", steps=200)).failed
    losses = [json.loads(line)["train_loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.9 * losses[0]
    kept = np.load(tmp_path / "run" / "tsm.npz")
    distance = np.abs(kept["tsm"] - target_tsm(8, 16.0).numpy()).mean(axis=(1, 2))
    assert kept["steps"][0] == 0
    assert distance[-1] < 0.8 * distance[0]


@pytest.fixture(scope="module")
def default_weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of a module trained with the options of every test here."""
    folder = tmp_path_factory.mktemp("default")
    assert not sola.run(options(write_store(folder / "store"), folder / "run")).failed
    return (folder / "run" / SOLA_WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"k": 4.0},
        {"tsm_size": 5},
        {"step": 2},
        {"projector_hidden": 8},
        {"per_video": 3},
        {"loss": "nt-xent-in"},
        {"loss": "nt-xent-out"},
        {"projector": "symmetric"},
        {"module": SolaModuleConfig(hidden=16, form="direct")},
        {"module": SolaModuleConfig(hidden=16, kernel_size=1)},
        {"module": SolaModuleConfig(hidden=16, kernel_size=7), "tsm_size": 5, "step": 3, "k": 4.0},
    ],
)
def test_every_variant_of_the_paper_learns_something_else(
    store: Path, tmp_path: Path, default_weights: bytes, changes: dict[str, object]
) -> None:
    assert not sola.run(options(store, tmp_path / "run", **changes)).failed
    assert (tmp_path / "run" / SOLA_WEIGHTS).read_bytes() != default_weights
    before, after = FeatureStore.open(store).load("v3"), FeatureStore.open(tmp_path / "run" / "features").load("v3")
    assert np.abs(after - before).max() > 1e-3


def test_half_precision_gives_the_loss_of_full(store: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        training = replace(options(store, tmp_path).training, precision=precision)
        assert not sola.run(options(store, tmp_path / precision, training=training)).failed
        losses.append(json.loads((tmp_path / precision / "log.jsonl").read_text().splitlines()[-1])["train_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_the_gradient_flows_through_the_projected_side_alone() -> None:
    module = SoLa(CHANNELS, hidden=16)
    matching = sola.SimilarityMatching(
        module, sola.Projector(CHANNELS, 8), torch.eye(3), loss="similarity", num_steps=10
    )
    rows = torch.randn(2, 3, 5, CHANNELS)
    matching(rows).backward()
    through_projector = module.alpha.grad.clone()  # type: ignore[union-attr]

    z_BSC = module.at_centers(rows)
    columns_BSC = matching.projector(z_BSC)  # type: ignore[misc]
    module.zero_grad()
    matching.loss(z_BSC.detach(), columns_BSC, torch.eye(3)).backward()
    torch.testing.assert_close(module.alpha.grad, through_projector)  # type: ignore[union-attr]
    module.zero_grad()
    z_BSC = module.at_centers(rows)
    matching.loss(z_BSC, matching.projector(z_BSC), torch.eye(3)).backward()  # type: ignore[misc]
    assert not torch.allclose(module.alpha.grad, through_projector)  # type: ignore[union-attr]


def test_a_killed_run_comes_to_the_same_store(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not sola.run(options(store, tmp_path / "whole")).failed
    steps = iter(range(24))  # of 42, in the middle of an epoch

    def die_after_some(matching: torch.nn.Module, batch: NeighbourhoodBatch) -> dict[str, torch.Tensor]:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return losses(matching, batch)

    losses = sola._losses
    monkeypatch.setattr(sola, "_losses", die_after_some)
    with pytest.raises(KeyboardInterrupt):
        sola.run(options(store, tmp_path / "killed"))
    assert not (tmp_path / "killed" / "rows.npy").exists()
    monkeypatch.undo()
    assert not sola.run(options(store, tmp_path / "killed")).failed
    whole, killed = (FeatureStore.open(tmp_path / run / "features") for run in ("whole", "killed"))
    assert killed.header == whole.header
    for video_id in whole.videos:
        np.testing.assert_array_equal(killed.load(video_id), whole.load(video_id))
    whole_tsm, killed_tsm = (np.load(tmp_path / run / "tsm.npz")["tsm"] for run in ("whole", "killed"))
    assert len(whole_tsm) == sola.SNAPSHOTS
    np.testing.assert_array_equal(killed_tsm, whole_tsm)


def test_a_run_killed_while_refining_is_not_trained_again(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sola, "_refine", die)
    with pytest.raises(KeyboardInterrupt):
        sola.run(options(store, tmp_path / "run"))
    monkeypatch.undo()
    monkeypatch.setattr(sola, "train", die)
    assert not sola.run(options(store, tmp_path / "run")).failed


def test_videos_that_a_store_got_later_are_refined_by_the_same_module(store: Path, tmp_path: Path) -> None:
    assert not sola.run(options(store, tmp_path / "run")).failed
    weights = (tmp_path / "run" / SOLA_WEIGHTS).read_bytes()
    with FeatureStore.create_or_resume(store, FeatureStore.open(store).header) as features:
        features.add("new", random_walk(np.random.default_rng(1), ROWS), TIMELINE, 8.0)
    assert not sola.run(options(store, tmp_path / "run")).failed
    assert (tmp_path / "run" / SOLA_WEIGHTS).read_bytes() == weights
    assert "new" in FeatureStore.open(tmp_path / "run" / "features").videos


def test_a_trained_module_refines_another_store_of_the_same_encoder(store: Path, tmp_path: Path) -> None:
    assert not sola.run(options(store, tmp_path / "run")).failed
    other = write_store(tmp_path / "other")
    assert not sola.run(options(other, tmp_path / "more", weights=tmp_path / "run")).failed
    first, second = (FeatureStore.open(tmp_path / run / "features") for run in ("run", "more"))
    np.testing.assert_array_equal(second.load("v3"), first.load("v3"))
    assert not (tmp_path / "more" / "log.jsonl").exists()
    assert load_refinement(second.path, second.header, torch.device("cpu")) is not None


def test_a_module_is_not_put_on_features_of_another_kind(store: Path, tmp_path: Path) -> None:
    assert not sola.run(options(store, tmp_path / "run")).failed
    other = write_store(tmp_path / "other", weights="fedcba9876543210")
    with pytest.raises(
        ValueError, match=r"other was made by encoder weights \['fedcba.*trained on features of \['0123"
    ):
        sola.run(options(other, tmp_path / "more", weights=tmp_path / "run"))
    with FeatureStore.create_or_resume(tmp_path / "narrow", StoreHeader()) as features:
        features.add("v", np.ones((ROWS, 5), np.float32), TIMELINE, 8.0)
    with pytest.raises(ValueError, match=r"features of 5 channels, the module in .* was trained on 12"):
        sola.run(options(tmp_path / "narrow", tmp_path / "third", weights=tmp_path / "run"))
    with pytest.raises(FileNotFoundError, match="no such run folder; `pipeline sola` makes one"):
        sola.run(options(store, tmp_path / "fourth", weights=tmp_path / "absent"))


def test_only_the_training_subset_is_trained_on_and_its_segments_are_not_looked_at(store: Path, tmp_path: Path) -> None:
    subsets = {f"v{i}": "training" if i < 4 else "validation" for i in range(8)}
    runs = []
    for name, end in (("a", 1.0), ("b", 3.0)):
        videos = [Video(v, 8.0, subset, (Segment(0.5, end, "x"),)) for v, subset in subsets.items()]
        write_annotations(tmp_path / f"{name}.json", videos)
        runs.append(tmp_path / name)
        assert not sola.run(options(store, runs[-1], annotations=tmp_path / f"{name}.json")).failed
    assert json.loads((runs[0] / "metrics.json").read_text())["training_videos"] == 4
    assert (runs[0] / SOLA_WEIGHTS).read_bytes() == (runs[1] / SOLA_WEIGHTS).read_bytes()
    assert set(FeatureStore.open(runs[0] / "features").videos) == set(FeatureStore.open(store).videos)


def test_a_finished_run_is_left_as_it_is(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not sola.run(options(store, tmp_path / "run")).failed
    written = (tmp_path / "run" / SOLA_WEIGHTS).stat().st_mtime_ns
    assert not sola.run(options(store, tmp_path / "run")).failed
    assert (tmp_path / "run" / SOLA_WEIGHTS).stat().st_mtime_ns == written
    assert "is finished" in capsys.readouterr().out


def test_a_gate_that_stayed_shut_is_said(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = replace(options(store, tmp_path).training, lr=1e-5)
    assert not sola.run(options(store, tmp_path / "run", training=training)).failed
    assert "warning: the gate ends below 0.05 and the features hardly moved" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "begins"), [(0.09, "warning: the gate ends"), (0.11, "note: the gate ends")])
def test_a_shut_gate_is_no_matter_where_the_features_moved(change: float, begins: str) -> None:
    assert sola._about_a_shut_gate(change).startswith(begins)


def test_a_subsequence_as_long_as_the_videos_is_warned_of(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not sola.run(options(store, tmp_path / "run", step=3)).failed  # 30 rows of about 43
    assert "a subsequence of 30 rows (6.0 s) spans" in capsys.readouterr().err


def test_an_epoch_can_be_chosen_by_labels(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = [
        Video(f"v{i}", 8.0, "training" if i < 4 else "validation", (Segment(0.5 * i, 0.5 * i + 4, "x"),))
        for i in range(8)
    ]
    write_annotations(tmp_path / "gt.json", videos)
    run = tmp_path / "run"
    assert not sola.run(options(store, run, annotations=tmp_path / "gt.json", choose="linear-evaluation")).failed
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    best = max(log, key=lambda line: line["val_accuracy"])["epoch"]
    assert f"kept the module of epoch {best}, chosen by labels" in capsys.readouterr().err

    module = load_refinement(run / "features", FeatureStore.open(run / "features").header, torch.device("cpu"))
    assert module is not None
    rows = LabelledRows(FeatureStore.open(store), *({v.id: v for v in part} for part in (videos[:4], videos[4:])))
    assert linear_accuracy(module.sola, rows[[(0, 0)]]) == pytest.approx(log[best]["val_accuracy"], abs=1e-3)

    steps_per_epoch = 1  # 2 subsequences of each of 4 videos, 8 in a batch
    assert json.loads((run / "metrics.json").read_text())["steps"] == (best + 1) * steps_per_epoch
    kept = np.load(run / "tsm.npz")
    assert kept["steps"].max() < (best + 1) * steps_per_epoch
    assert len(kept["tsm"]) == len(kept["steps"])


def test_choosing_by_labels_needs_labels(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uses labels: give --annotations"):
        sola.run(options(store, tmp_path / "run", choose="linear-evaluation"))


# --- Bad input --------------------------------------------------------------------------------------------------------


def test_videos_shorter_than_a_subsequence_alone_are_no_training_data(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no video has the 65 rows of a subsequence, the longest has 47.*--step"):
        sola.run(options(store, tmp_path / "run", step=8))


def test_features_that_never_change_are_refused(tmp_path: Path) -> None:
    with FeatureStore.create_or_resume(tmp_path / "still", StoreHeader()) as features:
        features.add("v", np.ones((ROWS, CHANNELS), np.float32), TIMELINE, 8.0)
    with pytest.raises(ValueError, match="do not change within any video"):
        sola.run(options(tmp_path / "still", tmp_path / "run"))


def test_options_without_a_meaning_are_refused(store: Path, tmp_path: Path) -> None:
    averaged = replace(options(store, tmp_path).training, ema_decay=0.9)
    for changes in ({"k": 0.0}, {"per_video": 0}, {"steps": 0}, {"tsm_size": 1}, {"training": averaged}):
        with pytest.raises(ValueError, match=r"expected|ema_decay"):
            options(store, tmp_path / "run", **changes)


@pytest.mark.parametrize("loss", ["similarity", "nt-xent-out"])
def test_a_training_that_diverges_says_so(store: Path, tmp_path: Path, loss: str) -> None:
    training = replace(options(store, tmp_path).training, lr=1e30)
    with pytest.raises(ValueError, match=r"diverged.*smaller --training\.lr"):
        sola.run(options(store, tmp_path / "run", training=training, loss=loss))
    assert not (tmp_path / "run" / SOLA_WEIGHTS).exists()


def test_a_fixed_number_of_rows_a_video_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_store(tmp_path / "store", sampling={"num_snippets": 40})
    assert not sola.run(options(path, tmp_path / "run")).failed
    assert "as many rows of a short video as of a long one" in capsys.readouterr().err


def test_features_that_are_not_finite_are_refused_before_training(store: Path, tmp_path: Path) -> None:
    file = store / "v2.npy"
    features_TC = np.load(file)
    features_TC[5] = np.nan
    np.save(file, features_TC)
    with pytest.raises(ValueError, match=r"video 'v2' are NaN or infinite in 1 rows, the first being row 5"):
        sola.run(options(store, tmp_path / "run"))
    assert not (tmp_path / "run" / SOLA_WEIGHTS).exists()


def test_a_video_that_cannot_be_refined_is_listed_and_tried_again(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = np.load(store / "short.npy")
    (store / "short.npy").write_bytes(b"damaged")
    assert sola.run(options(store, tmp_path / "run")).failed
    assert "short.npy: cannot be read" in capsys.readouterr().err
    assert "short" not in FeatureStore.open(tmp_path / "run" / "features").videos
    np.save(store / "short.npy", short)
    assert not sola.run(options(store, tmp_path / "run")).failed
    assert "short" in FeatureStore.open(tmp_path / "run" / "features").videos


def test_a_refined_store_is_not_refined_again(store: Path, tmp_path: Path) -> None:
    assert not sola.run(options(store, tmp_path / "run")).failed
    with pytest.raises(ValueError, match=r"is refined already, from .*store; give"):
        sola.run(options(tmp_path / "run" / "features", tmp_path / "again"))


def test_weights_of_another_training_are_not_taken_for_those_of_the_features(store: Path, tmp_path: Path) -> None:
    assert not sola.run(options(store, tmp_path / "run")).failed
    features = FeatureStore.open(tmp_path / "run" / "features")
    save_weights(SoLa(CHANNELS, hidden=16), features.path / SOLA_WEIGHTS)
    with pytest.raises(ValueError, match="holds other weights"):
        load_refinement(features.path, features.header, torch.device("cpu"))
    (features.path / SOLA_WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot be read as the SoLa module"):
        load_refinement(features.path, features.header, torch.device("cpu"))


def test_a_subset_without_features_is_named(store: Path, tmp_path: Path) -> None:
    write_annotations(tmp_path / "gt.json", [Video("elsewhere", 8.0, "training", (Segment(0.5, 1.0, "x"),))])
    with pytest.raises(ValueError, match="has features of none of the 1 videos of subset 'training'"):
        sola.run(options(store, tmp_path / "run", annotations=tmp_path / "gt.json"))
