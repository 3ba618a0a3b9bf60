"""The door from Python: what `import pipeline` costs, its names, its types, and every function once."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.commands.demo import command as demo
from pipeline.commands.table import COMMANDS
from pipeline.data.features import FeatureStore
from pipeline.door import stub
from pipeline.door.signatures import fields_of
from pipeline.options.parser import field_types
from pipeline.training.options import TrainingConfig
from synth.scenes import write_dataset

PUBLIC = [
    "ActionFormerOptions", "Analysis", "BMNOptions", "DemoRun", "Description", "Detection", "DetectionMetrics",
    "Detections", "EncoderRun", "Failure", "GTADOptions", "LinearEvaluationConfig", "Outcome", "PostConfig",
    "Predicted", "Prediction", "Predictions", "ProposalMetrics", "Run", "SamplingConfig", "SolaModuleConfig",
    "SolaRun", "Store", "SynthesisConfig", "TemporalMaxerOptions", "TrainingConfig", "TriDetOptions", "analyze",
    "bsp_synth", "demo", "describe", "evaluate", "extract", "import_features", "load", "localize", "lofi_train",
    "merge_features", "predict", "pretrain", "sola",
]  # fmt: skip
TRAINING = {"epochs": 1, "batch_size": 4, "num_workers": 0, "device": "cpu"}


def test_the_public_names() -> None:
    assert sorted(pipeline.__all__) == PUBLIC
    assert {command.folder for command in COMMANDS.values()} == set(pipeline.FUNCTIONS)  # type: ignore[attr-defined]
    assert set(PUBLIC) <= set(dir(pipeline))
    for name in PUBLIC:
        assert getattr(pipeline, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'extrakt'; its names are"):
        _ = pipeline.extrakt  # type: ignore[attr-defined]


def test_importing_it_loads_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import pipeline; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - sys.stdlib_module_names == {"pipeline"}
    ours = [name for name in done.stdout.split() if name.startswith("pipeline")]
    assert ours == ["pipeline"]


def test_options_and_detections_come_without_torch() -> None:
    code = "import sys, pipeline; pipeline.TrainingConfig; pipeline.Detections; pipeline.describe; pipeline.localize; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_types_are_what_the_dataclasses_say() -> None:
    assert stub.FILE.read_text(encoding="utf-8") == stub.stub(), "run `python -m pipeline.door.stub`"
    assert (stub.FILE.parent / "py.typed").exists()


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_functions_keywords_are_the_fields_of_its_dataclass(command: Any) -> None:
    function = getattr(pipeline, command.folder)
    assert function.__name__ == command.folder
    parameters = inspect.signature(function).parameters
    assert set(field_types(command.options)) <= set(parameters)
    for argument in fields_of(command.options):
        assert argument.help
        assert f"{argument.name}: {argument.help}" in " ".join(function.__doc__.split())


# --- Every function, after all submodules were imported ---------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def every_module() -> None:
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        importlib.import_module(module.name)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("door")
    write_dataset(folder / "data", size="tiny", seed=0)
    return folder


@pytest.fixture(scope="module")
def clips(data: Path) -> Path:
    return data / "data" / "trimmed" / "clips.csv"


@pytest.fixture(scope="module")
def videos(data: Path) -> Path:
    return data / "data" / "untrimmed" / "videos"


@pytest.fixture(scope="module")
def truth(data: Path) -> Path:
    return data / "data" / "untrimmed" / "annotations.json"


@pytest.fixture(scope="module")
def store(data: Path, videos: Path) -> pipeline.Store:
    return pipeline.extract(
        videos=str(videos),
        out=data / "store",
        encoder="tsm_tiny",
        weights="random",
        sampling={"num_frames": 4, "step": 4},
        size=32,
    )


@pytest.fixture(scope="module")
def run(data: Path, store: pipeline.Store, truth: Path) -> pipeline.Run:
    return pipeline.localize(
        features=store,
        annotations=truth,
        out=data / "run",
        gtad={"num_snippets": 16, "hidden": 64},
        training=TRAINING,
        seed=3,
    )


@pytest.fixture(scope="module")
def acp(data: Path, clips: Path) -> pipeline.EncoderRun:
    return pipeline.pretrain(
        clips=clips,
        out=data / "acp",
        encoder="tsm_tiny",
        num_frames=4,
        size=32,
        training=TrainingConfig(epochs=1, batch_size=8, num_workers=0, device="cpu"),
    )


def test_extract(store: pipeline.Store, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(store, pipeline.Store)
    assert set(store.videos) == {path.stem for path in videos.iterdir()}
    name, stored = next(iter(store.videos.items()))
    assert store.load(name).shape == (stored.rows, stored.channels)
    assert store.notes == (f"{len(store.videos)} videos, 0 of them in {store.path} already",)
    assert store.failed == ()
    assert capsys.readouterr() == ("", "")


def test_what_failed_is_in_the_result(
    data: Path, videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    good = sorted(videos.iterdir())[0]
    (tmp_path / "videos" / good.name).symlink_to(good)
    store = pipeline.extract(
        videos=tmp_path / "videos", out=tmp_path / "store", encoder="tsm_tiny", weights="random", size=32
    )
    assert list(store.videos) == [good.stem]
    [failure] = store.failed
    assert failure.name == "broken"
    assert "broken.mp4" in failure.reason
    assert any("1 of 2 videos failed" in note for note in store.notes)
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_if_it_is_asked_for(
    store: pipeline.Store, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = pipeline.extract(
        videos=videos,
        out=store,
        encoder="tsm_tiny",
        weights="random",
        sampling=pipeline.SamplingConfig(num_frames=4, step=4),
        size=32,
        progress=True,
    )
    assert set(again.videos) == set(store.videos)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{len(store.videos)} videos, {len(store.videos)} of them" in shown.err


def test_localize(run: pipeline.Run, truth: Path) -> None:
    assert run.metrics == pipeline.DetectionMetrics.from_dict(json.loads((run.path / "metrics.json").read_text()))
    assert 0 <= run.metrics.average_map <= 100
    assert "seed: 3" in (run.path / "config.yaml").read_text()
    assert any("kept the weights of epoch" in note for note in run.notes)
    assert {detection.label for detection in run.detections} <= set(run.labels)


def test_load_and_predict_one_by_one(
    run: pipeline.Run, videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    first, second = sorted(videos.iterdir())[-2:]
    loaded = pipeline.load(run.path)
    predictions = loaded.predict(first, tmp_path / "broken.mp4", second)
    found = list(predictions)
    assert [prediction.video_id for prediction in found] == [first.stem, second.stem]
    assert [failure.name for failure in predictions.failed] == ["broken"]
    for prediction in found:
        expected = run.detections.by_video()[prediction.video_id]
        assert prediction.detections.scores_N.tolist() == pytest.approx(expected.scores_N.tolist(), rel=1e-3, abs=1e-5)
    assert capfd.readouterr() == ("", "")
    list(loaded.predict(first, progress=True))
    assert "1 of 1 videos" in capfd.readouterr().err


def test_load_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such run folder"):
        pipeline.load(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"has no head\.json"):
        pipeline.load(tmp_path)


def test_predict(run: pipeline.Run, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted(videos.iterdir())[:2]
    made = pipeline.predict(first, str(second), run=run, out=tmp_path / "found.json")
    assert made.detections == pipeline.Detections.from_json(made.path)
    assert made.detections.video_ids == (first.stem, second.stem)
    assert capsys.readouterr() == ("", "")


def test_evaluate(run: pipeline.Run, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = run.path / "detections.json"
    metrics = pipeline.evaluate(ground_truth=truth, predictions=predictions)
    assert metrics == run.metrics
    recall = pipeline.evaluate(ground_truth=truth, predictions=predictions, task="proposal", tiou=[0.5])
    assert isinstance(recall, pipeline.ProposalMetrics)
    assert set(recall.ar) == {1, 5, 10, 100}
    assert capsys.readouterr() == ("", "")


def test_describe(truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    description = pipeline.describe(truth)
    assert dict(description.lines)["classes"] == "4"
    assert capsys.readouterr() == ("", "")
    assert "video duration" in str(description)


def test_pretrain_bsp_and_lofi_give_encoders(
    acp: pipeline.EncoderRun, data: Path, clips: Path, videos: Path, truth: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert set(acp.metrics) == {"top1", "epoch", "skipped"}
    shared: dict[str, Any] = {"encoder": "tsm_tiny", "weights": acp, "num_frames": 4, "size": 32, "training": TRAINING}
    bsp = pipeline.bsp_synth(clips=clips, out=data / "bsp", samples=8, synthesis={"epsilon": 1}, **shared)
    assert bsp.metrics["kinds"] == ["diff-class", "same-class", "diff-speed", "same-speed"]
    lofi = pipeline.lofi_train(
        videos=videos,
        annotations=truth,
        out=data / "lofi",
        schedule="temporal",
        gtad=pipeline.GTADOptions(num_snippets=8, hidden=64),
        **shared,
    )
    assert lofi.metrics["loss"] > 0
    assert lofi.failed == ()
    shown = capfd.readouterr()
    assert shown.out == ""


def test_sola_analyze_and_merge(
    store: pipeline.Store, truth: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refined = pipeline.sola(
        features=store, out=data / "sola", module={"hidden": 8}, step=1, tsm_size=4, steps=2, training=TRAINING
    )
    assert set(refined.features.videos) == set(store.videos)
    assert "gate" in refined.metrics
    analysis = pipeline.analyze(
        features=[store, refined.features], out=data / "figures", step=1, tsm_size=4, names=["raw", "refined"]
    )
    assert set(analysis.numbers["stores"]) == {"raw", "refined"}
    shutil.copytree(store, data / "copy")
    merged = pipeline.merge_features(store, data / "copy", out=data / "merged")
    assert merged.load(next(iter(merged.videos))).shape[1] == 2 * next(iter(store.videos.values())).channels
    assert capfd.readouterr().out == ""


def test_import_features(store: pipeline.Store, truth: Path, data: Path) -> None:
    (data / "arrays").mkdir()
    for file in store.path.glob("*.npy"):
        shutil.copy(file, data / "arrays")
    imported = pipeline.import_features(features=data / "arrays", out=data / "imported", annotations=truth, axes="tc")
    assert set(imported.videos) == set(store.videos)
    assert FeatureStore.open(imported.path).header.encoder is None


@pytest.mark.slow
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "SIZE", "tiny")
    monkeypatch.setattr(demo, "ROWS", demo.ROWS[:1])
    made = pipeline.demo(out=tmp_path / "demo", all=True)
    assert [row["name"] for row in made.rows] == [demo.ROWS[0].name]
    assert made.page.exists()
    assert capfd.readouterr() == ("", "")


# --- Wrong calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: pipeline.evaluate(ground_truth="a"), ValueError, "required: predictions="),
        (lambda: pipeline.localize(feature="a"), ValueError, r"localize\(\): unknown key feature; .*features"),
        (lambda: pipeline.localize(training={"epoch": 1}), ValueError, r"unknown key training\.epoch"),
        (lambda: pipeline.localize(features=3, annotations="a", out="b"), ValueError, "features"),
        (lambda: pipeline.localize(config="no/such"), ValueError, "own/localize"),
        (lambda: pipeline.evaluate("a.json", predictions="b"), TypeError, "by name"),
        (lambda: pipeline.describe("a", "b"), TypeError, "takes one path, 2 were given"),
        (lambda: pipeline.describe("absent.json"), FileNotFoundError, r"absent\.json"),
        (
            lambda: pipeline.evaluate(ground_truth="a", predictions="b", tiou="0.3,0.5"),
            ValueError,
            "tiou='0.3,0.5': expected a list",
        ),
    ],
)
def test_a_wrong_call_raises(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()


def test_a_config_and_keywords_that_override_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("tiou: [0.3]\nsubset: testing\n")
    (tmp_path / "truth.csv").write_text("video,start,end,label,subset\na,0,1,x,validation\n")
    pipeline.Detections.from_videos({"a": [pipeline.Detection(0, 1, "x", 0.5)]}).to_json(tmp_path / "found.json")
    metrics = pipeline.evaluate(
        config=tmp_path / "mine.yaml",
        subset="validation",
        ground_truth=tmp_path / "truth.csv",
        predictions=tmp_path / "found.json",
    )
    assert isinstance(metrics, pipeline.DetectionMetrics)
    assert (metrics.tiou, metrics.map) == ((0.3,), (100.0,))
