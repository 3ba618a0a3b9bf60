import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_sola as reference

from pipeline import cli
from pipeline.commands.analyze.command import _names, _video_tsm, choose_videos, run
from pipeline.commands.analyze.options import AnalyzeConfig, LinearEvaluationConfig
from pipeline.data.annotations import Segment, Video, write_annotations
from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline

SUBSETS = {"training": ("t0", "t1", "t2"), "validation": ("v0", "v1")}
ROWS = 24
TIMELINE = Timeline(offset=0.0, stride=0.5, length=0.5)
QUICK = LinearEvaluationConfig(epochs=8, last_epochs=3, lr=0.1, batch_size=8, seeds=(0, 1))


def walk(seed: int, sensitivity: float, rows: int = ROWS) -> np.ndarray:
    """Features that drift, and that the action (rows 8 to 15) turns into another direction."""
    random = np.random.default_rng(seed)
    features_TC = np.cumsum(random.normal(scale=0.2, size=(rows, 6)), axis=0) + 3
    features_TC[8:16, 0] += sensitivity
    features_TC[8:16, 1] -= sensitivity
    return features_TC.astype(np.float32)


def write_store(path: Path, features_of: dict[str, np.ndarray]) -> Path:
    with FeatureStore.create_or_resume(path, StoreHeader()) as store:
        for video_id, features_TC in features_of.items():
            store.add(video_id, features_TC, TIMELINE, 0.5 * len(features_TC))
    return path


def write_walks(path: Path, sensitivity: float) -> Path:
    ids = [video_id for subset in SUBSETS.values() for video_id in subset]
    return write_store(path, {video_id: walk(seed, sensitivity) for seed, video_id in enumerate(ids)})


@pytest.fixture
def dull(tmp_path: Path) -> Path:
    return write_walks(tmp_path / "dull" / "features", sensitivity=0.0)


@pytest.fixture
def keen(tmp_path: Path) -> Path:
    return write_walks(tmp_path / "keen" / "features", sensitivity=5.0)


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    videos = [
        Video(video_id, ROWS / 2, subset, (Segment(4.0, 8.0, "turn"),))
        for subset, ids in SUBSETS.items()
        for video_id in ids
    ]
    write_annotations(tmp_path / "annotations.json", videos)
    return tmp_path / "annotations.json"


def analyze(out: Path, *stores: Path, **options: Any) -> dict[str, Any]:
    """Run the command on subsequences of 4 rows, 3 apart; what it wrote."""
    defaults: dict[str, Any] = {"tsm_size": 4, "step": 3, "linear": QUICK}
    assert not run(AnalyzeConfig(features=stores, out=out, **(defaults | options))).failed
    numbers: dict[str, Any] = json.loads((out / "analysis.json").read_text())
    return numbers


def texts(figure: Path) -> list[str]:
    """What is written in an SVG figure; its PNG twin is there too, and no part of either is left over."""
    assert figure.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert not list(figure.parent.glob("*.partial"))
    return re.findall(r"<text[^>]*>([^<]*)</text>", figure.read_text(encoding="utf-8"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a test's time, and most tests do not look at them."""
    monkeypatch.setattr("pipeline.commands.analyze.command._draw", lambda *_: None)


# --- Numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_similarities_are_those_of_the_definitions(tmp_path: Path, dull: Path, keen: Path) -> None:
    numbers = analyze(tmp_path / "out", dull, keen)
    assert numbers["stores"] == {"dull": str(dull), "keen": str(keen)}
    assert numbers["videos"] == 5
    similarity = numbers["similarity"]
    np.testing.assert_allclose(similarity["target"]["matrix"], reference.target_tsm(4, 16.0), atol=1e-6)
    for name, sensitivity in (("dull", 0.0), ("keen", 5.0)):
        features = [walk(seed, sensitivity).astype(np.float64) for seed in range(5)]
        averages = [(1 + reference.average_tsm(features_TC, 4, 3)) / 2 for features_TC in features]
        stds = [float(np.std(reference.self_similarity(features_TC))) for features_TC in features]
        found = similarity["stores"][name]
        np.testing.assert_allclose(found["average_tsm"]["matrix"], np.mean(averages, axis=0), atol=1e-9)
        assert found["videos_in_average"] == 5
        assert list(found["std"].values()) == pytest.approx(stds, abs=1e-7)
        assert found["mean_of_std"] == pytest.approx(np.mean(stds), abs=1e-7)
    assert "linear_evaluation" not in numbers
    assert "snapshots" not in numbers


@pytest.mark.usefixtures("undrawn")
def test_linear_evaluation_tells_a_keen_store_from_a_dull_one(
    tmp_path: Path, dull: Path, keen: Path, annotations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = analyze(tmp_path / "out", dull, keen, annotations=annotations)
    assert numbers["videos"] == 2  # of the validation subset
    results = numbers["linear_evaluation"]
    for result in results.values():
        assert result["rows"] == {
            "train": {"foreground": 24, "background": 48},
            "val": {"foreground": 16, "background": 32},
        }
        curves_RE = np.array(result["accuracy_by_seed_and_epoch"])
        assert curves_RE.shape == (2, 8)
        assert result["accuracy_by_seed"] == pytest.approx(curves_RE[:, -3:].mean(axis=1).tolist())
        assert result["accuracy"] == pytest.approx(np.mean(result["accuracy_by_seed"]))
        assert result["majority"] == pytest.approx(200 / 3)
    assert results["keen"]["accuracy"] > 95 > results["dull"]["accuracy"]
    assert f"linear evaluation {results['keen']['accuracy']:.2f} %" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_a_keen_store_differs_more_at_boundaries_than_elsewhere(
    tmp_path: Path, dull: Path, keen: Path, annotations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = analyze(tmp_path / "out", dull, keen, annotations=annotations)["boundary_differences"]
    for store in found["stores"].values():
        assert store["boundary"]["pairs"] == 4  # the ends of one segment in each of two videos, on edges of rows
        assert store["elsewhere"]["pairs"] == 2 * (ROWS - 1) - 4
    keen_one = found["stores"]["keen"]
    assert keen_one["auc"] == 1
    assert keen_one["boundary"]["mean"] > 2 * keen_one["elsewhere"]["mean"]
    for sort in ("boundary", "elsewhere"):
        assert len(keen_one[sort]["density"]) == len(found["edges"]) - 1
    assert "(AUC 1.000)" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_videos_are_found_with_or_without_the_prefix_v(tmp_path: Path, dull: Path, annotations: Path) -> None:
    prefixed = {f"v_{video_id}": walk(seed, 0.0) for seed, video_id in enumerate(("t0", "t1", "t2", "v0", "v1"))}
    other = write_store(tmp_path / "prefixed", prefixed)
    numbers = analyze(tmp_path / "out", dull, other, annotations=annotations)
    assert numbers["videos"] == 2
    first, second = numbers["linear_evaluation"].values()
    assert first == second


@pytest.mark.usefixtures("undrawn")
def test_what_cannot_be_measured_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_zeros = walk(0, 0.0)
    with_zeros[3:5] = 0
    odd = {"a": with_zeros, "b": walk(1, 0.0)[:1], "c": walk(2, 0.0)[:9], "d": np.ones((12, 6), np.float32)}
    numbers = analyze(tmp_path / "out", write_store(tmp_path / "odd", odd))
    expected = {
        "odd: videos of one row (left out)": 1,
        "odd: videos of fewer than 10 rows (left out of the average TSM)": 1,
        "odd: videos whose rows are all the same": 1,
        "odd: rows of zeros (similar to nothing)": 2,
    }
    assert numbers["notes"] == expected
    printed = capsys.readouterr().err
    assert all(f"{what}: {count}" in printed for what, count in expected.items())
    found = numbers["similarity"]["stores"]["odd"]
    assert found["videos_in_average"] == 2
    assert list(found["std"]) == ["a", "c", "d"]
    assert found["std"]["d"] < 1e-7


@pytest.mark.usefixtures("undrawn")
def test_only_videos_of_all_stores_are_compared(tmp_path: Path, dull: Path, annotations: Path) -> None:
    fewer = write_store(tmp_path / "fewer", {video_id: walk(0, 1.0) for video_id in ("t1", "v1", "new")})
    numbers = analyze(tmp_path / "out", dull, fewer, annotations=annotations)
    assert numbers["notes"] == {
        "videos of subset 'training' without features in every store (left out)": 2,
        "videos of subset 'validation' without features in every store (left out)": 1,
    }
    for name, store in numbers["similarity"]["stores"].items():
        assert list(store["std"]) == ["v1"], name


# --- Figures ----------------------------------------------------------------------------------------------------------


def test_figures_name_what_they_show(tmp_path: Path, dull: Path, keen: Path, annotations: Path) -> None:
    out = tmp_path / "out"
    names = ("before", "after $SoLa$")
    numbers = analyze(out, dull, keen, annotations=annotations, names=names, videos=("v1",))
    assert {"target", *names} <= set(texts(out / "average_tsm.svg"))
    drawn = texts(out / "video_tsms.svg")
    stores = numbers["similarity"]["stores"]
    for name in names:
        assert name in drawn
        assert f"mean of std-dev {stores[name]['mean_of_std']:.4f}" in drawn
        assert f"std-dev {stores[name]['std']['v1']:.4f}" in drawn
    assert "v1 (s)" in drawn
    assert "v0 (s)" not in drawn
    frames = re.findall("stroke: #ff0000", (out / "video_tsms.svg").read_text())
    assert len(frames) == 2  # the true segment, in each store
    assert {*names, "the more frequent class alone: 66.7"} <= set(texts(out / "linear_evaluation.svg"))
    boundaries = texts(out / "boundaries.svg")
    found = numbers["boundary_differences"]["stores"]
    assert {*names, "v1, boundary", "v1, elsewhere", "boundary", "elsewhere"} <= set(boundaries)
    assert {f"AUC {store['auc']:.3f}" for store in found.values()} <= set(boundaries)
    assert not (out / "snapshots.svg").exists()


def test_a_long_video_is_drawn_by_some_of_its_rows(dull: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.commands.analyze.command.MAX_DRAWN_ROWS", 10)
    (source,) = choose_videos(AnalyzeConfig(features=(dull,), out=dull), Counter()).sources
    drawn = _video_tsm(source, "t1")
    every_third = walk(1, 0.0)[::3].astype(np.float64)
    np.testing.assert_allclose(drawn.tsm_TT, (1 + reference.self_similarity(every_third)) / 2, atol=1e-9)
    assert (drawn.start, drawn.end) == (0.0, ROWS / 2)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["rows/acp/features"], ("features",)),
        (["rows/acp/features", "sola/features"], ("rows/acp", "sola")),
        (["a/x", "a/x/sola"], ("x", "x/sola")),
        (["a/x", "a/y", "a/z"], ("x", "y", "z")),
    ],
)
def test_stores_are_called_by_what_tells_their_paths_apart(paths: list[str], names: tuple[str, ...]) -> None:
    assert _names(AnalyzeConfig(features=tuple(map(Path, paths)), out=Path("out"))) == names


def test_the_same_numbers_make_the_same_files(tmp_path: Path, dull: Path, annotations: Path) -> None:
    for out in ("first", "second"):
        analyze(tmp_path / out, dull, annotations=annotations)
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name


def write_run(path: Path, **arrays: np.ndarray) -> Path:
    path.mkdir()
    (path / "config.yaml").write_text("k: 4.0\n")
    np.savez(path / "tsm.npz", **arrays)
    return path


def test_snapshots_are_drawn_along_the_training(tmp_path: Path, dull: Path) -> None:
    steps_N = np.arange(9) * 50
    target_SS = reference.target_tsm(4, 4.0)
    tsm_NSS = target_SS + np.linspace(0.08, 0, 9)[:, None, None]
    training = write_run(tmp_path / "sola", steps=steps_N, tsm=tsm_NSS.astype(np.float32))
    numbers = analyze(tmp_path / "out", dull, run=training)
    assert numbers["snapshots"]["k"] == 4.0
    assert numbers["snapshots"]["steps"] == steps_N.tolist()
    assert numbers["snapshots"]["mean_difference_from_target"] == pytest.approx(np.linspace(0.08, 0, 9), abs=1e-6)
    titles = [text for text in texts(tmp_path / "out" / "snapshots.svg") if text.startswith(("step", "target"))]
    assert titles == ["step 0", "step 100", "step 150", "step 250", "step 300", "step 400", "target"]


# --- Errors -----------------------------------------------------------------------------------------------------------


def test_stores_that_cannot_be_compared_are_errors(tmp_path: Path, dull: Path, annotations: Path) -> None:
    strangers = write_store(tmp_path / "strangers", {"x": walk(0, 0.0)})
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="each of them once"):
        analyze(out, dull, dull)
    with pytest.raises(ValueError, match="expected 1 different names"):
        analyze(out, dull, names=("a", "b"))
    with pytest.raises(ValueError, match=r"strangers has features of none of the 5 videos of the first store; "):
        analyze(out, dull, strangers)
    with pytest.raises(ValueError, match="none of the 1 videos of the first store that the stores before it have"):
        analyze(
            out, dull, write_store(tmp_path / "t0", {"t0": walk(0, 0.0)}), write_walks(tmp_path / "b", 0), strangers
        )
    with pytest.raises(ValueError, match=r"strangers has features of none of the 3 videos of subset 'training'"):
        analyze(out, strangers, annotations=annotations)
    with pytest.raises(ValueError, match="no video is in the subset 'held'"):
        analyze(out, dull, annotations=annotations, val_subset="held")
    with pytest.raises(ValueError, match="--videos v7"):
        analyze(out, dull, annotations=annotations, videos=("v0", "v7"))
    with pytest.raises(ValueError, match=r"spans 57 rows .* the longest video has 24"):
        analyze(out, dull, tsm_size=8, step=8)
    assert not out.exists()


def test_rows_of_one_class_are_an_error_that_names_the_files(tmp_path: Path, dull: Path) -> None:
    nothing = [Video(video_id, None, subset, ()) for subset, ids in SUBSETS.items() for video_id in ids]
    write_annotations(tmp_path / "nothing.json", nothing)
    with pytest.raises(ValueError, match=r"features, .*nothing\.json: .* 0 of 72 training rows are foreground"):
        analyze(tmp_path / "out", dull, annotations=tmp_path / "nothing.json")


def test_damaged_features_are_errors_that_name_the_video(tmp_path: Path, dull: Path) -> None:
    np.save(dull / "t2.npy", np.full((ROWS, 6), np.inf, np.float32))
    with pytest.raises(ValueError, match="video 't2' are NaN or infinite"):
        analyze(tmp_path / "out", dull)
    manifest = dull / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"channels": 6', '"channels": 7', 1))
    with pytest.raises(ValueError, match=r"different numbers of channels \(6 in v1, 7 in t0\)"):
        analyze(tmp_path / "out", dull)


def test_an_unusable_run_is_an_error_that_names_it(tmp_path: Path, dull: Path) -> None:
    square = np.ones((3, 4, 4))
    for name, arrays, said in [
        ("keys", {"tsm": square}, "cannot read the snapshots"),
        ("shapes", {"tsm": square, "steps": np.arange(4)}, r"\(3, 4, 4\) matrices of \(4,\) steps"),
        ("values", {"tsm": square * np.nan, "steps": np.arange(3)}, "the training diverged"),
    ]:
        with pytest.raises(ValueError, match=f"{name}.*{said}"):
            analyze(tmp_path / "out", dull, run=write_run(tmp_path / name, **arrays))
    (tmp_path / "keys" / "tsm.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="cannot read the snapshots"):
        analyze(tmp_path / "out", dull, run=tmp_path / "keys")
    with pytest.raises(ValueError, match="no finished run of `pipeline sola`"):
        analyze(tmp_path / "out", dull, run=tmp_path)


def test_options_that_make_no_sense_are_errors() -> None:
    for options in ({"tsm_size": 1}, {"step": 0}):
        with pytest.raises(ValueError, match="tsm_size is"):
            AnalyzeConfig(features=(Path("a"),), out=Path("b"), **options)
    for options in ({"epochs": 5, "last_epochs": 6}, {"last_epochs": 0}, {"seeds": ()}, {"max_rows": 0}):
        with pytest.raises(ValueError, match="linear"):
            LinearEvaluationConfig(**options)


def test_without_matplotlib_the_error_says_what_to_install(
    tmp_path: Path, dull: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install 'tal-pipeline\[figures\]'"):
        analyze(tmp_path / "out", dull)


def test_the_command_takes_stores_with_commas(tmp_path: Path, dull: Path, keen: Path) -> None:
    words = ["analyze", "--features", f"{dull},{keen}", "--out", str(tmp_path / "out"), "--tsm-size", "4", "--step=3"]
    assert cli.main(words) == 0
    assert cli.main(["analyze", "--features", str(dull / "none"), "--out", str(tmp_path / "out")]) == 1
