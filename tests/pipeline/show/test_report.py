"""The page: what it holds, that text stays text, and that its videos are found from where it lies."""

import json
import os
import sys
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.annotations import Segment
from pipeline.data.detections import Detection
from pipeline.show.report import MetricRow, MetricTable, ReportVideo, relative_url, write_report

HOSTILE = "</script><script>alert(1)</script><!-- \"quoted\" & 'ünïcode' ラーメン \u2028"


class Page(HTMLParser):
    """Every element with its attributes and the text directly inside it, in document order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.elements:
            tag, attrs, text = self.elements[-1]
            self.elements[-1] = (tag, attrs, text + data)

    def texts(self, tag: str) -> list[str]:
        return [text.strip() for name, _, text in self.elements if name == tag]

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs, _ in self.elements if name == tag]

    @property
    def data(self) -> Any:
        return json.loads(next(text for _, attrs, text in self.elements if attrs.get("id") == "data"))


def make_page(folder: Path, **content: Any) -> Page:
    write_report(folder / "report.html", **{"title": "A title", "description": "What it is.", **content})
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def make_video(path: Path, **fields: Any) -> ReportVideo:
    return ReportVideo(**{"id": path.stem, "path": path, "duration": 10.0, "predictions": (), **fields})


def test_segments_reach_the_script_rounded_and_with_numbered_labels(tmp_path: Path) -> None:
    video = make_video(
        tmp_path / "a.mp4",
        duration=12.34567,
        truth=[Segment(1.00049, 2.5, "spin")],
        predictions=[Detection(0.25, 3.0, "bounce", 0.123456), Detection(1.0, 2.0, "spin", 1e-7)],
    )
    assert make_page(tmp_path, videos=[video]).data == {
        "labels": ["bounce", "spin"],
        "videos": [
            {"duration": 12.346, "truth": [[1.0, 2.5, 1]], "predictions": [[0.25, 3.0, 0, 0.1235], [1.0, 2.0, 1, 1e-7]]}
        ],
    }


def test_each_video_has_a_player_that_waits(tmp_path: Path) -> None:
    page = make_page(tmp_path, videos=[make_video(tmp_path / f"{name}.mp4") for name in "ab"])
    assert page.texts("h2") == ["a", "b"]
    players = page.attributes("video")
    assert [player["src"] for player in players] == ["a.mp4", "b.mp4"]
    for player in players:
        assert {"controls", "muted", "playsinline"} <= player.keys()
        assert player["preload"] == "none"  # hundreds of players must not load at once: the script loads those in view


def test_metric_tables_show_percent_and_a_dash_for_nan(tmp_path: Path) -> None:
    table = MetricTable("Validation", (0.5, 0.75), (MetricRow("G-TAD", (61.26, float("nan")), 40.0),))
    page = make_page(tmp_path, tables=[table])
    assert page.texts("caption") == ["Validation"]
    assert page.texts("th") == ["mAP (%) at tIoU", "0.5", "0.75", "average", "G-TAD"]
    assert page.texts("td") == ["61.3", "–", "40.0"]


def test_a_row_must_fit_its_thresholds() -> None:
    with pytest.raises(ValueError, match=r"row 'G-TAD': 1 values for 2 tIoU thresholds"):
        MetricTable("Validation", (0.5, 0.75), (MetricRow("G-TAD", (61.26,), 40.0),))


@pytest.mark.parametrize("duration", [0.0, -1.0, float("nan"), float("inf")])
def test_a_video_needs_a_duration(duration: float) -> None:
    with pytest.raises(ValueError, match=r"video 'a' has a duration of .* s"):
        make_video(Path("a.mp4"), duration=duration)


def test_text_of_others_stays_text(tmp_path: Path) -> None:
    video = make_video(
        tmp_path / "a.mp4",
        id=HOSTILE,
        truth=[Segment(0.0, 1.0, HOSTILE)],
        predictions=[Detection(0.0, 1.0, HOSTILE + "!", 0.5)],
    )
    table = MetricTable(HOSTILE, (0.5,), (MetricRow(HOSTILE, (1.0,), 1.0),))
    page = make_page(tmp_path, title=HOSTILE, description=HOSTILE, tables=[table], videos=[video])
    assert page.texts("h1") == page.texts("h2") == page.texts("caption") == page.texts("title") == [HOSTILE.strip()]
    assert page.attributes("video")[0]["aria-label"] == HOSTILE
    assert page.data["labels"] == [HOSTILE, HOSTILE + "!"]
    assert [attrs.get("id") for attrs in page.attributes("script")] == ["data", None]


@given(label=st.text(min_size=1))
def test_any_label_survives(tmp_path_factory: pytest.TempPathFactory, label: str) -> None:
    folder = tmp_path_factory.mktemp("page")
    page = make_page(folder, videos=[make_video(folder / "a.mp4", predictions=[Detection(0.0, 1.0, label, 0.5)])])
    assert page.data["labels"] == [label]


def test_a_dollar_in_text_is_no_placeholder(tmp_path: Path) -> None:
    assert make_page(tmp_path, title="$script costs $5").texts("h1") == ["$script costs $5"]


def test_videos_are_named_relative_to_the_page(tmp_path: Path) -> None:
    file = tmp_path / "videos" / "50% off #1? a:b ü's.mp4"
    page = make_page(tmp_path / "out" / "deep", videos=[make_video(file)])
    source = page.attributes("video")[0]["src"]
    assert source is not None
    assert not urlsplit(source).scheme
    assert source.startswith("../../videos/")
    url = urljoin((tmp_path / "out" / "deep" / "report.html").as_uri(), source)
    assert unquote(urlsplit(url).path) == file.as_posix()


def test_a_name_with_a_colon_is_no_scheme(tmp_path: Path) -> None:
    assert relative_url(tmp_path / "javascript:alert(1).mp4", tmp_path) == "javascript%3Aalert%281%29.mp4"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no file names that are not Unicode")
def test_a_file_name_that_is_not_unicode_can_be_shown(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    page = make_page(tmp_path, videos=[make_video(file)])
    assert page.attributes("video")[0]["src"] == "caf%E9.mp4"


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    page = make_page(tmp_path, videos=[make_video(tmp_path / "a.mp4")])
    assert page.attributes("link") == []
    assert [attrs["src"] for _, attrs, _ in page.elements if "src" in attrs] == ["a.mp4"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not any(word in text for word in ("http:", "https:", "@import", "url(", "fetch("))


def test_the_script_never_reads_text_as_html() -> None:
    script = resources.files("pipeline.show").joinpath("report.js").read_text(encoding="utf-8")
    assert not any(word in script for word in (".innerHTML", "insertAdjacentHTML", "document.write", "eval(", "</"))


def test_a_failed_page_leaves_the_old_one(tmp_path: Path) -> None:
    make_page(tmp_path, title="old")
    broken = make_video(tmp_path / "a.mp4", predictions=[Detection(0.0, 1.0, "spin", 0.5)])
    object.__setattr__(broken.predictions[0], "score", float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        make_page(tmp_path, title="new", videos=[broken])
    assert Page((tmp_path / "report.html").read_text(encoding="utf-8")).texts("h1") == ["old"]
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
