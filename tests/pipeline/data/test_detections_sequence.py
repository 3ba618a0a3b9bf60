"""`Detections` as what a notebook user holds: an immutable sequence that can be cut down and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.annotations import read_annotations
from pipeline.data.detections import Detection, Detections

SERVE = Detection(1.0, 2.5, "serve", 0.9, "monday")
RALLY = Detection(2.0, 9.0, "rally", 0.6, "monday")
AGAIN = Detection(1.1, 2.4, "serve", 0.3, "monday")
OTHER = Detection(0.0, 4.0, "serve", 0.7, "tuesday")


def of(*detections: Detection, empty: tuple[str, ...] = ()) -> Detections:
    videos: dict[str, list[Detection]] = {}
    for detection in detections:
        videos.setdefault(detection.video, []).append(detection)
    return Detections.from_videos({**videos, **{video_id: [] for video_id in empty}})


@pytest.fixture
def found() -> Detections:
    return of(SERVE, RALLY, AGAIN, OTHER, empty=("empty",))


def test_it_is_a_sequence(found: Detections) -> None:
    assert list(found) == [SERVE, RALLY, AGAIN, OTHER]
    assert (found[0], found[-1], len(found)) == (SERVE, OTHER, 4)
    assert list(found[1:3]) == [RALLY, AGAIN]
    assert found[::-1][0] == OTHER
    assert RALLY in found
    assert found.index(AGAIN) == 2
    with pytest.raises(IndexError):
        found[4]


def test_it_cannot_be_changed(found: Detections) -> None:
    with pytest.raises(ValueError, match="read-only"):
        found.scores_N[0] = 1.0
    with pytest.raises(AttributeError):
        found.labels = ()  # type: ignore[misc]


def test_some_of_them(found: Detections) -> None:
    assert list(found.at_least(0.6)) == [SERVE, RALLY, OTHER]
    assert list(found.of("serve")) == [SERVE, AGAIN, OTHER]
    assert list(found.of("rally", "nothing")) == [RALLY]
    assert list(found.between(1.0, 2.5)) == [SERVE, AGAIN]
    assert list(found.at_least(0.5).of("serve").between(0, 5)) == [SERVE, OTHER]
    assert found.at_least(2).video_ids == ("monday", "tuesday", "empty")


seconds = st.floats(0, 9)
some = st.builds(Detection, seconds, seconds, st.sampled_from("ab"), st.floats(0, 1), st.sampled_from("xy"))


@given(st.lists(some))
def test_filters_agree_with_lists(detections: list[Detection]) -> None:
    found = of(*detections)
    everything = list(found)
    assert sorted(everything, key=str) == sorted(detections, key=str)
    assert list(found.at_least(0.5)) == [d for d in everything if d.score >= 0.5]
    assert list(found.of("a")) == [d for d in everything if d.label == "a"]
    assert list(found.between(2, 6)) == [d for d in everything if d.start >= 2 and d.end <= 6]
    for video_id, of_video in found.by_video().items():
        assert list(of_video) == [d for d in everything if d.video == video_id]
        assert of_video.video_ids == (video_id,)


def test_two_are_equal_if_all_is(found: Detections, tmp_path: Path) -> None:
    found.to_json(tmp_path / "found.json")
    assert Detections.from_json(tmp_path / "found.json") == found
    assert found[:2] != found
    assert of(SERVE) != of(SERVE, empty=("empty",))
    assert of(SERVE) != [SERVE]


def test_a_table(found: Detections) -> None:
    frame = found.to_frame()
    assert list(frame.columns) == ["video", "start", "end", "label", "score"]
    assert frame.iloc[3].to_dict() == {"video": "tuesday", "start": 0.0, "end": 4.0, "label": "serve", "score": 0.7}
    np.testing.assert_array_equal(frame["score"], found.scores_N)


def test_the_csv_reads_back_as_annotations(found: Detections, tmp_path: Path) -> None:
    found.to_csv(tmp_path / "found.csv")
    videos = read_annotations(tmp_path / "found.csv").videos
    assert [segment.end for segment in videos["monday"].segments] == [2.5, 9.0, 2.4]
    assert videos["empty"].segments == ()


def test_subtitles_are_of_one_video(found: Detections, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="detections in 3 videos"):
        found.to_vtt(tmp_path / "a.vtt")
    found.by_video()["monday"].to_vtt(tmp_path / "a.vtt", least_share=0.5)
    cues = (tmp_path / "a.vtt").read_text(encoding="utf-8").split("\n\n")
    assert [cue.strip().splitlines()[-1] for cue in cues[1:]] == ["serve (0.90)", "rally (0.60)"]


def test_it_says_what_it_is(found: Detections) -> None:
    assert repr(found) == "<Detections: 4 in 3 videos>"
    assert repr(of(SERVE)) == "<Detections: 1 in 'monday'>"
