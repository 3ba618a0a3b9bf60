"""Others' video-level scores: the rules against slow forms, the two kinds of file, and files that cannot be used."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_files import damage_header
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.localize.video_scores import VideoScores, read_video_scores
from pipeline.data.detections import Detection

LABELS = ("jump", "spin", "wave", "fold")
PROPOSALS = [Detection(1, 5, "action", 0.9), Detection(2, 9, "action", 0.4), Detection(7, 8, "action", 0.1)]
SCORES = st.lists(st.integers(0, 1000), min_size=1, max_size=4, unique=True).filter(lambda scores: max(scores) > 0)


def as_rows(detections: list[Detection]) -> list[tuple[float, float, str, float]]:
    return [(d.start, d.end, d.label, pytest.approx(d.score)) for d in detections]


def fuse(scores: list[float], rule: str, min_score: float = 0.0) -> list[Detection]:
    video_scores = VideoScores(LABELS[: len(scores)], {"a": np.array(scores, dtype=np.float64)})
    return video_scores.fuse("a", PROPOSALS, rule, min_score)


@given(SCORES)
def test_top2_as_in_gtads_code_for_activitynet(scores: list[float]) -> None:
    """The best class for every proposal; then it is struck out, and the best one that is left."""
    expected, left = [], list(scores)
    for _ in range(min(2, len(scores))):
        best = max(left)
        label = LABELS[left.index(best)]
        expected += [Detection(p.start, p.end, label, p.score * best) for p in PROPOSALS if best > 0]
        left[left.index(best)] = -1
    found = fuse(scores, "top2")
    assert sorted(as_rows(found), key=str) == sorted(as_rows(expected), key=str)
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)


@given(SCORES)
def test_top1_share_as_in_gtads_code_for_hacs(scores: list[float]) -> None:
    two = sorted(scores)[-2:]
    label, share = LABELS[scores.index(max(scores))], max(two) / sum(two)
    expected = [Detection(p.start, p.end, label, p.score * share) for p in PROPOSALS]
    assert as_rows(fuse(scores, "top1-share")) == as_rows(expected)


@given(SCORES)
def test_top2_sqrt_as_in_actionformers_code_for_activitynet(scores: list[float]) -> None:
    """The same as `top2`, in the same order, with the square roots of its scores."""
    expected = [(d.start, d.end, d.label, pytest.approx(d.score**0.5)) for d in fuse(scores, "top2")]
    assert as_rows(fuse(scores, "top2-sqrt")) == expected


def test_square_roots_by_hand() -> None:
    found = [(d.start, d.label, round(d.score, 3)) for d in fuse([0.04, 0.64], "top2-sqrt")]
    assert found == [
        *((1, "spin", 0.759), (2, "spin", 0.506), (7, "spin", 0.253)),
        *((1, "jump", 0.19), (2, "jump", 0.126), (7, "jump", 0.063)),
    ]


def test_equal_scores_choose_two_classes() -> None:
    assert {d.label for d in fuse([0.2, 0.2, 0.2], "top2")} == {"jump", "spin"}


def test_what_scores_too_little_is_left_out() -> None:
    assert [d.score for d in fuse([0.5, 0.1], "top2", min_score=0.1)] == pytest.approx([0.45, 0.2])


def test_a_video_without_scores_has_no_detections() -> None:
    assert VideoScores(LABELS, {"a": np.ones(4)}).fuse("b", PROPOSALS, "top2", 0) == []


# --- THUMOS14 ---------------------------------------------------------------------------------------------------------


def write_array(path: Path, rows: int = 30, columns: int = 101) -> Path:
    """Row r, column c is r + c / 1000."""
    np.save(path, (np.arange(rows)[:, None] + np.arange(columns) / 1000).astype(np.float32))
    return path


def test_a_thumos_array_has_a_row_for_each_test_video_and_a_column_for_each_class_of_ucf101(tmp_path: Path) -> None:
    path = write_array(tmp_path / "uNet_test.npy")
    wanted = ["video_test_0000004", "video_test_0000030", "video_test_0000031", "video_validation_0000004", "4"]
    scores = read_video_scores(path, wanted)
    assert list(scores.by_video) == wanted[:2]
    assert (len(scores.labels), scores.labels[0], scores.labels[-1]) == (20, "BaseballPitch", "VolleyballSpiking")
    found = dict(zip(scores.labels, scores.by_video["video_test_0000004"], strict=True))
    # From the challenge's list of its 101 classes, which it numbers from 1.
    for label, column in {"BaseballPitch": 6, "CleanAndJerk": 20, "LongJump": 50, "VolleyballSpiking": 96}.items():
        assert found[label] == pytest.approx(3 + column / 1000)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (
            np.zeros((30, 100), np.float32),
            r"shape \(30, 100\); expected floating-point scores of shape \(test videos, 101",
        ),
        (np.zeros(101), r"shape \(101,\)"),
        (np.zeros((30, 101), np.int64), "holds int64"),
        (np.full((30, 101), np.nan), "'video_test_0000004': scores that are NaN or infinite"),
        (np.full((30, 101), -1.0), r"its best scores are \[-1.0, -1.0\].*give probabilities"),
        (np.zeros((30, 101)), "nor all zero"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, array: Any, said: str) -> None:
    np.save(tmp_path / "scores.npy", array)
    with pytest.raises(ValueError, match=rf"scores\.npy.*{said}"):
        read_video_scores(tmp_path / "scores.npy", ["video_test_0000004"])


def test_a_truncated_array_a_damaged_one_and_one_that_would_run_code(tmp_path: Path) -> None:
    path = write_array(tmp_path / "scores.npy")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"scores\.npy: not a \.npy file of numbers, or only a part of it"):
        read_video_scores(path, ["video_test_0000004"])
    damage_header(write_array(path))
    with pytest.raises(ValueError, match=r"scores\.npy: not a \.npy file of numbers, or only a part of it"):
        read_video_scores(path, ["video_test_0000004"])
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"scores\.npy: not a \.npy file of numbers"):
        read_video_scores(path, ["video_test_0000004"])


# --- JSON -------------------------------------------------------------------------------------------------------------


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["scores.json", "scores.json.gz"])
def test_json_with_ids_with_and_without_prefix(tmp_path: Path, name: str) -> None:
    content = json.dumps({"results": {"abc": [0.1, 0.9], "v_def": [1, 0]}, "class": ["jump", "spin"]}).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    scores = read_video_scores(tmp_path / name, ["v_abc", "v_def", "v_ghi"])
    assert scores.labels == ("jump", "spin")
    assert {video_id: row.tolist() for video_id, row in scores.by_video.items()} == {
        "v_abc": [0.1, 0.9],
        "v_def": [1, 0],
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], r'expected {"results"'),
        ({"results": {"a": [1]}}, r'expected {"results"'),
        ({"results": {"a": [1]}, "class": [1]}, r'expected {"results"'),
        ({"results": {"a": [1, 2]}, "class": ["jump"]}, r"video 'a': scores of shape \(2,\) for 1 classes"),
        ({"results": {"a": 0.5}, "class": ["jump"]}, r"video 'a': scores of shape \(\) for 1 classes"),
        ({"results": {"a": ["x"]}, "class": ["jump"]}, "video 'a': expected a list of scores"),
        ({"results": {"a": [[1], [1, 2]]}, "class": ["jump"]}, "video 'a': expected a list of scores"),
        ({"results": {"a": [10**400]}, "class": ["jump"]}, "video 'a': expected a list of scores"),
        ({"results": {"a": [float("nan")]}, "class": ["jump"]}, "video 'a': scores that are NaN"),
        (
            {"results": {"a": [2, -0.1]}, "class": ["jump", "spin"]},
            "video 'a': its best scores are .*cannot be negative",
        ),
        ({"results": {"b": [1]}, "class": ["jump"]}, "scores of none of the 1 videos, such as 'a'"),
        ({"results": {"a": []}, "class": []}, "names no class"),
    ],
)
def test_json_that_cannot_be_used(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(ValueError, match=rf"scores\.json.*{said}"):
        read_video_scores(write(tmp_path / "scores.json", content), ["a"])


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.json: there is no such file"):
        read_video_scores(tmp_path / "absent.json", ["a"])
    (tmp_path / "scores.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"come as \.npy \(THUMOS14\) or \.json, not as '\.pkl'"):
        read_video_scores(tmp_path / "scores.pkl", ["a"])
