"""Windows: how videos are cut, which segments they have, what a batch holds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.annotations import AMBIGUOUS, Segment, Video
from pipeline.data.features import FeatureStore, StoreHeader, rescale_linear
from pipeline.data.snippets import Timeline
from pipeline.detection.windows import (
    TrainingWindows,
    Window,
    cut_row_windows,
    cut_training_windows,
    cut_windows,
    segments_inside,
    window_features,
)
from pipeline.training.batches import load_batches

SECONDS = st.floats(0.1, 2e4)
LONGEST = st.floats(10, 1000)
LABELS = ("jump", "spin")


def test_a_short_video_is_one_window() -> None:
    assert cut_windows(300.0, 300.0) == [Window(0.0, 300.0)]


def test_a_long_video_is_cut_evenly() -> None:
    starts = [0.0, 400 / 3, 800 / 3, 400.0]
    np.testing.assert_allclose(cut_windows(700.0, 300.0), [(start, start + 300) for start in starts])


@given(duration=SECONDS, longest=LONGEST)
def test_windows_cover_the_video_and_overlap_by_half(duration: float, longest: float) -> None:
    windows_W2 = np.array(cut_windows(duration, longest))
    assert windows_W2[0, 0] == 0
    assert windows_W2[-1, 1] == pytest.approx(duration)
    np.testing.assert_allclose(windows_W2[:, 1] - windows_W2[:, 0], min(longest, duration))
    assert (np.diff(windows_W2[:, 0]) <= longest / 2 * (1 + 1e-9)).all()
    assert len(windows_W2) < max(2 * duration / longest, 1) + 1  # and there are no more than that takes


def test_windows_need_a_length() -> None:
    with pytest.raises(ValueError, match=r"post.window is 0 s; it must be above zero"):
        cut_windows(10.0, 0)


@given(duration=SECONDS, longest=LONGEST, data=st.data())
def test_each_segment_of_up_to_half_a_window_is_whole_in_one(
    duration: float, longest: float, data: st.DataObject
) -> None:
    length = data.draw(st.floats(0.01, 0.999)) * min(longest / 2, duration)
    start = data.draw(st.floats(0, 1)) * (duration - length)
    windows = cut_windows(duration, longest)
    assert any(window.start <= start + 1e-6 and start + length <= window.end + 1e-6 for window in windows)


def test_a_segment_is_inside_by_more_than_nine_tenths() -> None:
    segments_N2 = np.array([[10.0, 20.0], [8.9, 18.9], [9.1, 19.1], [0.0, 5.0], [29.5, 31.0], [10.0, 30.0]])
    inside_N = segments_inside(segments_N2, Window(10.0, 30.0))
    assert inside_N.tolist() == [True, False, True, False, False, True]


@given(start=st.floats(0, 1000), length=st.floats(0.1, 1000), row=st.floats(0, 100))
def test_rows_and_seconds_are_inverse(start: float, length: float, row: float) -> None:
    window = Window(start, start + length)
    rows = np.array([row])
    assert window.to_rows(window.to_seconds(rows, 100), 100) == pytest.approx(rows, abs=1e-6)
    assert window.to_rows(np.array([start, start + length]), 100) == pytest.approx([0, 100], abs=1e-6)


# --- Windows of rows as they are --------------------------------------------------------------------------------------

TIMELINE = Timeline(0.3, 0.2, 0.5)


def first_rows(num_features: int, num_rows: int) -> list[int]:
    windows = cut_row_windows(TIMELINE, num_features, num_rows)
    for window in windows:
        assert window.end - window.start == pytest.approx(num_rows * TIMELINE.stride)
    return [TIMELINE.row_from(window.start) for window in windows]


def first_rows_of_the_original(num_features: int, num_rows: int) -> list[int]:
    """As in G-TAD's THUMOS14 code, where `num_rows` is 256: 128 to the next window, 51 rows that may stay unseen."""
    stride = num_rows // 2
    if num_features < num_rows:
        return [0]
    starts = [i * stride for i in range((num_features + stride - num_rows) // stride)]
    if num_features - starts[-1] - num_rows > num_rows // 5:
        starts.append(num_features - num_rows)
    return starts


@given(num_features=st.integers(1, 2000), num_rows=st.sampled_from([2, 20, 64, 256]))
def test_row_windows_are_the_originals_and_leave_no_row_unseen(num_features: int, num_rows: int) -> None:
    starts = first_rows(num_features, num_rows)
    originals = first_rows_of_the_original(num_features, num_rows)
    assert starts[: len(originals)] == originals
    unseen = num_features - originals[-1] - num_rows
    assert starts[len(originals) :] == ([num_features - num_rows] if unseen > 0 else [])


@given(num_features=st.integers(1, 50), num_rows=st.integers(1, 20))
def test_every_row_is_in_a_row_window(num_features: int, num_rows: int) -> None:
    starts = first_rows(num_features, num_rows)
    seen = {row for start in starts for row in range(start, start + num_rows)}
    assert seen >= set(range(num_features))
    assert max(seen) == max(num_features, num_rows) - 1
    assert starts == sorted(set(starts))


@given(num_features=st.integers(1, 40), num_rows=st.integers(1, 20))
def test_row_windows_hold_the_rows_themselves_and_zeros_behind_them(num_features: int, num_rows: int) -> None:
    features_TC = np.random.default_rng(0).standard_normal((num_features, 3)).astype(np.float32)
    padded_TC = np.concatenate([features_TC, np.zeros((num_rows, 3), np.float32)])
    for window in cut_row_windows(TIMELINE, num_features, num_rows):
        first = TIMELINE.row_from(window.start)
        found_CT = window_features(features_TC, TIMELINE, window, num_rows=num_rows, rescale="none")
        np.testing.assert_array_equal(found_CT, padded_TC[first : first + num_rows].T)


@given(row=st.integers(0, 1000), step=st.integers(1, 7))
def test_the_middle_of_a_row_is_the_middle_of_its_place_in_the_window(row: int, step: int) -> None:
    timeline = TIMELINE.every(step)
    assert timeline.centers(3)[2] == pytest.approx(TIMELINE.centers(2 * step + 1)[-1])
    window = Window(timeline.edge(row), timeline.edge(row + 10))
    assert timeline.row_from(window.start) == row
    middles = timeline.centers(row + 10)[row:]
    np.testing.assert_allclose(window.to_rows(middles, 10), np.arange(10) + 0.5, atol=1e-6)


# --- What is trained on -----------------------------------------------------------------------------------------------


def write_store(path: Path, durations: dict[str, float]) -> FeatureStore:
    """One row a second; channel 0 counts the seconds, channel 1 numbers the video."""
    with FeatureStore.create_or_resume(path, StoreHeader()) as store:
        for number, (video_id, duration) in enumerate(durations.items()):
            timeline = Timeline(0, 1, 1)
            seconds = timeline.centers(round(duration))
            features = np.stack([seconds, np.full_like(seconds, number)], axis=1).astype(np.float32)
            store.add(video_id, features, timeline, duration)
    return FeatureStore.open(path)


def cut_rows(tmp_path: Path, store: FeatureStore, *videos: Video, row_step: int = 1) -> TrainingWindows:
    """Windows of 20 rows as they are."""
    by_id = {video.id: video for video in videos}
    path = tmp_path / "windows.npy"
    return cut_training_windows(path, store, by_id, LABELS, num_rows=20, longest=1, rescale="none", row_step=row_step)


def test_row_windows_have_what_they_touch_if_one_segment_is_inside(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", {"a": 45.0})
    # Rows 0–20, 10–30, 20–40, 25–45; row i is second i.
    segments = (Segment(2, 4, "jump"), Segment(12, 28, "spin"), Segment(41, 44, "jump"))
    windows = cut_rows(tmp_path, store, Video("a", None, "training", segments))
    assert [rows.tolist() for rows in windows.segments] == [
        [[2, 4], [12, 20]],  # half of the second
        [[2, 18]],  # the whole second; the others are outside
        # The window of rows 20–40 only touches the second, and has none inside.
        [[0, 3], [16, 19]],
    ]
    assert [labels.tolist() for labels in windows.labels] == [[0, 1], [1], [1, 0]]
    assert windows.left_out == []


def test_row_windows_of_every_fifth_row(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", {"a": 60.0})
    video = Video("a", None, "training", (Segment(13, 28, "spin"), Segment(61, 70, "spin")))
    windows = cut_rows(tmp_path, store, video, row_step=5)
    features = windows[[(0, 0)]].features[0]
    assert features[0].tolist() == [0.5 + 5 * row for row in range(12)] + [0.0] * 8
    # Row 0 is second 0.5, and stands for those from -2 to 3.
    np.testing.assert_allclose(windows.segments[0], [[(13 + 2) / 5, (28 + 2) / 5]], atol=1e-6)
    assert windows.left_out == ["a at 61 s"]  # behind the end of the file, where the window holds zeros


def cut(tmp_path: Path, store: FeatureStore, *videos: Video) -> TrainingWindows:
    return cut_training_windows(
        tmp_path / "windows.npy",
        store,
        {video.id: video for video in videos},
        LABELS,
        num_rows=10,
        longest=100,
        rescale="linear",
    )


def test_windows_hold_the_segments_inside_in_rows(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", {"long": 200.0})
    video = Video("long", None, "training", (Segment(10, 30, "spin"), Segment(120, 130, "jump")))
    windows = cut(tmp_path, store, video)
    batch = windows[[(0, index) for index in range(len(windows))]]
    # Windows 0–100, 50–150 and 100–200.
    assert [rows.tolist() for rows in batch.segments] == [[[1, 3]], [[7, 8]], [[2, 3]]]
    assert [labels.tolist() for labels in batch.labels] == [[1], [0], [0]]
    expected = rescale_linear(store.load("long"), Timeline(0, 1, 1), 50, 150, 10).T
    np.testing.assert_array_equal(batch.features[1], expected)
    assert windows.left_out == []


def test_windows_without_segments_are_not_trained_on(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", {"a": 50.0, "b": 50.0, "c": 400.0})
    a, b = Video("a", 50, "training", ()), Video("b", 50, "training", (Segment(1, 2, "juggle"),))
    c = Video("c", 400, "training", (Segment(1, 2, "spin"),))
    assert len(cut(tmp_path, store, a, b, c)) == 1
    assert len(cut(tmp_path, store, a, b)) == 0


def test_ambiguous_segments_have_no_class(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", {"a": 50.0})
    windows = cut(tmp_path, store, Video("a", 50, "train", (Segment(5, 10, AMBIGUOUS), Segment(20, 30, "spin"))))
    assert [rows.tolist() for rows in windows.segments] == [[[1, 2], [4, 6]]]
    assert [labels.tolist() for labels in windows.labels] == [[-1, 1]]


def test_segments_that_no_window_holds_are_told(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", {"long": 200.0})
    too_long, kept = Segment(20, 140, "spin"), Segment(150, 160, "jump")
    behind = Segment(199, 220, "jump")  # the file is shorter than its annotation
    windows = cut(tmp_path, store, Video("long", None, "training", (too_long, kept, behind)))
    assert windows.left_out == ["long at 20 s", "long at 199 s"]
    assert [rows.tolist() for rows in windows.segments] == [[[5, 6]]]


def test_a_segment_that_reaches_out_a_little_is_cut_to_the_window(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", {"a": 50.0})
    windows = cut(tmp_path, store, Video("a", None, "training", (Segment(30, 51, "spin"),)))
    assert windows.segments[0].tolist() == [[6, 10]]


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", {"a": 50.0})
    features = np.array(store.load("a"))
    features[3] = np.nan
    np.save(tmp_path / "store" / "a.npy", features)
    with pytest.raises(ValueError, match=r"video 'a' are NaN or infinite in 1 rows, the first being row 3; delete"):
        cut(tmp_path, store, Video("a", 50, "training", (Segment(1, 9, "spin"),)))


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_loader_makes_tensors_of_them(tmp_path: Path, num_workers: int) -> None:
    store = write_store(tmp_path / "store", {"a": 50.0, "b": 60.0, "c": 70.0})
    videos = [Video(name, None, "training", (Segment(1, 9, "spin"),)) for name in "abc"]
    first, second = load_batches(cut(tmp_path, store, *videos), 2, num_workers=num_workers)
    assert first.features.shape == (2, 2, 10)
    assert second.features[0, 1].tolist() == [2.0] * 10
    assert [rows.dtype for rows in first.segments] == [torch.float32] * 2
    assert [labels.tolist() for labels in first.labels] == [[1], [1]]
