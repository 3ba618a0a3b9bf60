import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.commands.evaluate import command as evaluate
from pipeline.commands.evaluate.options import EvaluateConfig
from pipeline.data.annotations import Segment, Video, write_annotations
from pipeline.data.detections import Detection, Detections


@pytest.fixture
def files(tmp_path: Path) -> EvaluateConfig:
    segments = (Segment(0, 10, "run"), Segment(20, 30, "jump"))
    write_annotations(
        tmp_path / "gt.json",
        [Video("a", 40.0, "validation", segments), Video("b", 40.0, "training", (Segment(0, 10, "run"),))],
    )
    detections = [Detection(0, 10, "run", 0.9), Detection(0, 10, "fly", 0.8), Detection(20, 27, "jump", 0.7)]
    Detections.from_videos({"v_a": detections, "b": [Detection(0, 1, "run", 0.1)]}).to_json(tmp_path / "found.json")
    return EvaluateConfig(
        ground_truth=tmp_path / "gt.json",
        predictions=tmp_path / "found.json",
        tiou=(0.5, 0.9),
        json=tmp_path / "out.json",
    )


def test_command_prints_and_writes_detection_metrics(files: EvaluateConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert not evaluate.run(files).failed
    assert files.json is not None
    assert json.loads(files.json.read_text()) == {"tiou": [0.5, 0.9], "map": [100.0, 50.0], "average_map": 75.0}
    printed = capsys.readouterr()
    assert "mAP@0.50     100.00 %" in printed.out
    assert "average mAP   75.00 %" in printed.out
    assert "classes outside the subset (ignored): 1" in printed.err
    assert "videos outside the subset (they count against the result): 1" in printed.err


def test_command_prints_and_writes_proposal_metrics(files: EvaluateConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert not evaluate.run(replace(files, task="proposal")).failed
    assert files.json is not None
    metrics = json.loads(files.json.read_text())
    assert list(metrics) == ["ar@1", "ar@5", "ar@10", "ar@100", "auc"]
    assert metrics["ar@100"] == pytest.approx(75)
    printed = capsys.readouterr()
    assert "AR@100" in printed.out
    assert "classes" not in printed.err  # proposals have none


def test_duplicates_and_late_ends_of_the_truth_count_as_written(tmp_path: Path, files: EvaluateConfig) -> None:
    annotations = [{"segment": segment, "label": "run"} for segment in ([0, 10], [0, 10], [20, 60], [9, 3])]
    entry = {"duration": 40, "subset": "validation", "annotations": annotations}
    (tmp_path / "gt.json").write_text(json.dumps({"database": {"a": entry}}))
    Detections.from_videos({"a": [Detection(0, 10, "run", 0.9), Detection(20, 60, "run", 0.8)]}).to_json(
        tmp_path / "found.json"
    )
    metrics, notes = evaluate.evaluate(files)
    assert metrics["map"] == pytest.approx([200 / 3, 200 / 3])  # two of three found, none wrong
    assert [note for note, count in notes.items() if count] == [
        "exact duplicates (kept)",
        "segments past the end of the video (kept)",
        "segments with end ≤ start (dropped)",
    ]


def test_errors_say_what_was_found_and_expected(tmp_path: Path, files: EvaluateConfig) -> None:
    with pytest.raises(ValueError, match=r"gt\.json.*'test'.*'training' \(1 videos\), 'validation' \(1 videos\)"):
        evaluate.evaluate(replace(files, subset="test"))
    with pytest.raises(ValueError, match="each above 0 and at most 1"):
        evaluate.evaluate(replace(files, tiou=(50.0,)))
    write_annotations(tmp_path / "gt.json", [Video("a", None, "validation", ())])
    with pytest.raises(ValueError, match="nothing to find: none of the 1 videos"):
        evaluate.evaluate(files)


@pytest.mark.parametrize("module", ["pipeline.commands.evaluate.command", "pipeline.commands.describe.command"])
def test_never_imports_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit(str({{'torch', 'pandas', 'lightning'}} & sys.modules.keys() or ''))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == ""
