"""The demo at the size of the tests: what it writes, and that it goes on where it stopped."""

import json
from pathlib import Path

import pytest

from pipeline.commands.demo import command as demo
from pipeline.commands.demo.options import DemoConfig


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SIZE", "tiny")
        assert not demo.run(DemoConfig(out=out, all=True)).failed
    return out


@pytest.mark.slow
def test_metrics_hold_a_row_for_each_method(finished: Path) -> None:
    rows = json.loads((finished / "metrics.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [row.name for row in demo.ROWS]
    for row in rows:
        assert len(row["map"]) == len(row["tiou"])
        assert row["average_map"] == pytest.approx(sum(row["map"]) / len(row["map"]))


@pytest.mark.slow
def test_the_page_plays_each_validation_video(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    database = json.loads((finished / "data" / "untrimmed" / "annotations.json").read_text())["database"]
    names = [name for name, video in database.items() if video["subset"] == "validation"]
    assert names
    for name in names:
        assert f'src="data/untrimmed/videos/{name}.mp4"' in page


@pytest.mark.slow
def test_a_second_run_does_nothing_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = finished / "acp" / "encoder.safetensors"
    written = weights.stat().st_mtime_ns
    before = (finished / "metrics.json").read_text()
    monkeypatch.setattr(demo, "SIZE", "tiny")
    assert not demo.run(DemoConfig(out=finished, all=True)).failed
    assert weights.stat().st_mtime_ns == written
    assert (finished / "metrics.json").read_text() == before
