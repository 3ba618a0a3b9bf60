"""WebVTT files, by hand-written cues and by a small parser that follows the standard."""

import html
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.detections import Detection
from pipeline.data.subtitles import format_subtitles, without_repeats, write_subtitles

CLOCK = r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})"
CUE = re.compile(rf"{CLOCK} --> {CLOCK}\n([^\n]+) \(([\d.]+)\)")


def parse(text: str) -> list[tuple[float, float, str]]:
    """Cues as (start s, end s, label). AssertionError where the standard is not kept."""
    header, *blocks = text.removesuffix("\n").split("\n\n")
    assert header == "WEBVTT"
    cues = []
    for block in blocks:
        match = CUE.fullmatch(block)
        assert match, block
        *times, label, _ = match.groups()
        assert not set("<>") & set(label)
        start, end = (3600 * int(h) + 60 * int(m) + int(s) + int(ms) / 1000 for h, m, s, ms in (times[:4], times[4:]))
        assert start < end
        cues.append((start, end, html.unescape(label)))
    assert [cue[0] for cue in cues] == sorted(cue[0] for cue in cues)
    return cues


def test_cues_in_order_of_time() -> None:
    detections = [
        Detection(3599.9996, 3723.5, "long jump", 0.934),
        Detection(1.25, 4.0, "run", 0.2),
        Detection(1.25, 2.0, "spin", 0.5),
    ]
    assert format_subtitles(detections) == (
        "WEBVTT\n\n"
        "00:00:01.250 --> 00:00:02.000\nspin (0.50)\n\n"
        "00:00:01.250 --> 00:00:04.000\nrun (0.20)\n\n"
        "01:00:00.000 --> 01:02:03.500\nlong jump (0.93)\n"
    )


@pytest.mark.parametrize(
    ("start", "end", "label", "is_kept"),
    [
        (10.0, 14.0, "spin", True),  # touches
        (9.0, 13.0, "spin", True),  # shares a quarter of itself
        (6.0, 14.0, "spin", True),  # shares half of itself
        (5.9, 13.9, "spin", False),  # shares more than half of itself
        (4.0, 5.0, "spin", False),  # lies inside
        (1.0, 50.0, "spin", False),  # holds nearly all of the better one
        (0.0, 10.0, "run", True),  # another action
    ],
)
def test_a_repeat_shares_more_than_half_with_a_better_one(start: float, end: float, label: str, is_kept: bool) -> None:
    best, other = Detection(0.0, 10.0, "spin", 0.9), Detection(start, end, label, 0.5)
    assert without_repeats([other, best]) == [best, other][: 1 + is_kept]


def test_what_repeats_a_repeat_is_kept() -> None:
    chain = [Detection(0.0, 10.0, "spin", 0.9), Detection(4.0, 14.0, "spin", 0.8), Detection(8.5, 18.5, "spin", 0.7)]
    assert without_repeats(chain) == [chain[0], chain[2]]


def test_subtitles_say_a_thing_once(tmp_path: Path) -> None:
    write_subtitles(tmp_path / "a.vtt", [Detection(0.0, 2.0, "spin", 0.9), Detection(0.1, 2.1, "spin", 0.8)])
    assert parse((tmp_path / "a.vtt").read_text(encoding="utf-8")) == [(0.0, 2.0, "spin")]


def test_no_detections_still_make_a_subtitle_file() -> None:
    assert format_subtitles([]) == "WEBVTT\n"


def test_text_is_escaped_and_stays_on_one_line() -> None:
    text = format_subtitles([Detection(0.0, 1.0, "<b>cut</b> & paste -->\n\nNOTE", 1.0)])
    assert text.endswith("\n&lt;b&gt;cut&lt;/b&gt; &amp; paste --&gt; NOTE (1.00)\n")


def test_the_threshold_is_a_share_of_the_best_score(tmp_path: Path) -> None:
    detections = [Detection(float(i), i + 0.5, str(i), score) for i, score in enumerate([0.004, 0.0011, 0.0012])]
    write_subtitles(tmp_path / "a.vtt", detections, least_share=0.3)
    assert [label for _, _, label in parse((tmp_path / "a.vtt").read_text(encoding="utf-8"))] == ["0", "2"]


@given(
    st.lists(
        st.builds(
            lambda start, length, label, score: Detection(start, start + length, label, score),
            st.floats(0, 1e6),
            st.floats(0, 1e5),
            st.text(min_size=1).filter(str.strip),
            st.floats(0, 1),
        )
    )
)
def test_any_detections_make_a_file_that_parses(detections: list[Detection]) -> None:
    cues = parse(format_subtitles(detections))
    expected = sorted(" ".join(detection.label.split()) for detection in detections)
    assert sorted(label for _, _, label in cues) == expected
