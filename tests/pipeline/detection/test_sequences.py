"""Stretches of whole videos to train on: where they lie, what they hold, how they are padded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.annotations import Segment, Video
from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline
from pipeline.detection.sequences import draw_stretch, pad, training_sequences

segments = st.lists(st.tuples(st.floats(0, 300), st.floats(0.01, 300)), min_size=1, max_size=6)


@given(st.integers(1, 300), segments, st.integers(1, 200), st.integers(0, 2**32))
def test_a_stretch_holds_a_segment_and_keeps_to_its_lengths(
    num_rows: int, spans: list[tuple[float, float]], longest: int, seed: int
) -> None:
    segments_N2 = np.array([(start, start + length) for start, length in spans]).clip(0, num_rows)
    segments_N2 = segments_N2[segments_N2[:, 1] > segments_N2[:, 0]]
    if not len(segments_N2):
        return
    drawn = draw_stretch(num_rows, segments_N2, longest=longest, rng=np.random.default_rng(seed))
    length = drawn.end - drawn.first
    assert 0 <= drawn.first < drawn.end <= num_rows
    assert length == longest if num_rows > longest else 0.9 * num_rows <= length <= num_rows
    assert drawn.kept.any()
    for (start, end), (cut_start, cut_end) in zip(segments_N2[drawn.kept], drawn.segments, strict=True):
        assert 0 <= cut_start < cut_end <= length
        assert (cut_start, cut_end) == (max(start, drawn.first) - drawn.first, min(end, drawn.end) - drawn.first)


def test_segments_of_which_less_than_half_is_inside_are_not_learnt_from() -> None:
    segments_N2 = np.array([[0.0, 10.0], [50.0, 60.0]])
    for seed in range(50):
        drawn = draw_stretch(60, segments_N2, longest=20, rng=np.random.default_rng(seed))
        inside = segments_N2.clip(drawn.first, drawn.end)
        assert drawn.kept.tolist() == ((inside[:, 1] - inside[:, 0]) >= 5).tolist()


def test_one_that_is_longer_than_every_stretch_is_cut() -> None:
    drawn = draw_stretch(1000, np.array([[100.0, 900.0]]), longest=50, rng=np.random.default_rng(0))
    assert drawn.kept.all()
    assert drawn.segments.tolist() == [[0.0, 50.0]]


def test_padding() -> None:
    one, two = np.ones((3, 2), np.float32), 2 * np.ones((1, 2), np.float32)
    features_BCT, valid_BT = pad([one, two])
    assert features_BCT.tolist() == [[[1, 1, 1]] * 2, [[2, 0, 0]] * 2]
    assert valid_BT.tolist() == [[True, True, True], [True, False, False]]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Rows that are their numbers, every half second from 1 s on."""
    with FeatureStore.create_or_resume(tmp_path / "store", StoreHeader()) as store:
        for name, rows in (("a", 40), ("b", 7)):
            features_TC = np.arange(rows, dtype=np.float32)[:, None].repeat(3, axis=1)
            store.add(name, features_TC, Timeline(1.0, 0.5, 0.5), 1.0 + 0.5 * rows)
    return FeatureStore.open(tmp_path / "store")


def test_segments_of_which_less_than_half_is_in_the_video_are_not_learnt_from(store: FeatureStore) -> None:
    ends = {24.0: True, 24.1: False}  # of segments from 18 s, where the video lasts until 21 s
    for end, there in ends.items():
        videos = {"a": Video("a", 21.0, "training", (Segment(3.0, 5.0, "x"), Segment(18.0, end, "x")))}
        data = training_sequences(store, videos, ["x"], longest=100, row_step=1, seed=None)
        assert data.segments[0].tolist() == [[4.0, 8.0], [34.0, 40.0]][: 1 + there]
        assert data.left_out == ([] if there else ["a at 18 s"])


def test_videos_that_are_brought_to_some_rows(store: FeatureStore) -> None:
    """40 and 7 rows as 10; stretches are then cut from the 10."""
    videos = {name: VIDEOS[name] for name in "ab"}
    data = training_sequences(store, videos, ["x", "y"], longest=10, row_step=1, rescale_rows=10, seed=3)
    for rows, expected in zip(data.segments, ([[1.0, 2.0]], [[0.0, 20 / 7]]), strict=True):
        np.testing.assert_allclose(rows, expected)
    lengths, numbers = set(), np.arange(40.0).reshape(10, 4).mean(axis=1)  # of the rows of video a, four by four
    for epoch in range(30):
        batch = data[[(epoch, 0), (epoch, 1)]]
        lengths |= set(batch.valid.sum(axis=1).tolist())
        features_T = batch.features[0, 0, batch.valid[0]]
        first = int(np.abs(numbers - features_T[0]).argmin())
        np.testing.assert_allclose(features_T, numbers[first : first + len(features_T)], rtol=1e-6)
        assert batch.segments[0][0].tolist() == [max(1.0 - first, 0.0), 2.0 - first]
    assert lengths == {9, 10}


VIDEOS = {
    "a": Video("a", 21.0, "training", (Segment(3.0, 5.0, "x"), Segment(30.0, 40.0, "x"))),
    "b": Video("b", 4.5, "training", (Segment(1.0, 2.0, "y"),)),
    "c": Video("c", 4.5, "training", ()),
}


def test_rows_of_videos_whose_timeline_does_not_begin_at_zero(store: FeatureStore) -> None:
    videos = {name: VIDEOS[name] for name in "ab"}
    data = training_sequences(store, videos, ["x", "y"], longest=100, row_step=1, seed=None)
    assert list(data.video_ids) == ["a", "b"]
    assert data.left_out == ["a at 30 s"]
    assert [rows.tolist() for rows in data.segments] == [[[4.0, 8.0]], [[0.0, 2.0]]]
    batch = data[[(0, 0), (0, 1)]]
    assert [labels.tolist() for labels in batch.labels] == [[0], [1]]
    for features_CT, valid_T, segments_N2, start in zip(
        batch.features, batch.valid, batch.segments, (4, 0), strict=True
    ):
        first = features_CT[0, 0]  # the row's number
        np.testing.assert_array_equal(features_CT[0, valid_T], first + np.arange(valid_T.sum()))
        assert segments_N2[0, 0] == max(0, start - first)
    np.testing.assert_array_equal(data[[(3, 0)]].features, data[[(8, 0)]].features)  # the same in every epoch


def test_stretches_follow_from_seed_epoch_and_index(store: FeatureStore) -> None:
    def starts(seed: int) -> list[float]:
        data = training_sequences(store, {"a": VIDEOS["a"]}, ["x"], longest=10, row_step=2, seed=seed)
        return [float(data[[(epoch, 0)]].features[0, 0, 0]) for epoch in range(20)]

    assert starts(1) == starts(1)
    assert starts(1) != starts(2)
    assert len(set(starts(1))) > 3
    assert all(start % 2 == 0 for start in starts(1))  # every second row
