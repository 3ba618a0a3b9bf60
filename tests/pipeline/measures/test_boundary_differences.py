"""Differences of features at boundaries and elsewhere, against a reference written from the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.annotations import Segment
from pipeline.data.snippets import Timeline
from pipeline.measures.boundary_differences import EDGES, absolute_differences, boundary_differences, find_pairs


def reference_pairs(
    boundaries: list[float], timeline: Timeline, num_rows: int, gap: int
) -> tuple[list[int], list[int]]:
    at, away = [], []
    for t in range(num_rows - gap):
        first, second = (timeline.offset + timeline.stride * row for row in (t, t + gap))
        in_first = [b for b in boundaries if first < b <= second]
        in_second = [b for b in boundaries if second < b < second + timeline.length]
        if not in_second:
            (at if in_first else away).append(t)
    return at, away


# Quarters, so that sums are exact and boundaries fall on edges.
quarters = st.integers(0, 40).map(lambda n: n / 4)
segments = st.lists(st.tuples(quarters, st.integers(1, 12)), max_size=4)


@given(segments, st.integers(1, 3), st.integers(1, 9), st.integers(0, 4), st.integers(1, 30))
def test_pairs_are_those_of_the_definition(
    spans: list[tuple[float, int]], stride: int, length: int, offset: int, num_rows: int
) -> None:
    timeline = Timeline(offset / 4, stride / 4, length / 4)
    true = [Segment(start, start + quarters / 4, "x") for start, quarters in spans]
    found = find_pairs(true, timeline, num_rows)
    assert found.gap == next(gap for gap in range(1, 99) if gap * stride >= length)
    boundaries = [second for segment in true for second in (segment.start, segment.end)]
    at, away = reference_pairs(boundaries, timeline, num_rows, found.gap)
    assert found.boundary.tolist() == at
    assert found.elsewhere.tolist() == away


def test_rows_of_any_scale_and_number_of_channels_compare() -> None:
    rng = np.random.default_rng(0)
    features_TC = rng.random((5, 6))
    first_P = np.array([0, 2])
    expected = []
    for t in first_P:
        one, other = (row / np.sqrt(np.mean(row**2)) for row in (features_TC[t], features_TC[t + 2]))
        expected.append(np.abs(other - one))
    found = absolute_differences(features_TC, first_P, gap=2)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    louder = features_TC * rng.random((5, 1))
    np.testing.assert_allclose(absolute_differences(louder, first_P, gap=2), expected, atol=1e-12)
    twice = np.concatenate([features_TC, features_TC], axis=1)
    assert absolute_differences(twice, first_P, gap=2).mean() == pytest.approx(np.mean(expected))
    features_TC[2] = 0
    assert np.isfinite(absolute_differences(features_TC, first_P, gap=2)).all()


def test_a_store_that_feels_boundaries_is_told_from_one_that_does_not() -> None:
    rng = np.random.default_rng(0)
    timeline = Timeline(0.0, 1.0, 1.0)
    videos = {"feels": [], "not": []}  # type: ignore[var-annotated]
    for _ in range(20):
        true = [Segment(5.5, 9.5, "x")]
        for name, step in (("feels", 3.0), ("not", 0.0)):
            features_TC = 1 + 0.1 * rng.standard_normal((16, 8))
            features_TC[6:10, :4] += step
            videos[name].append((features_TC, timeline, true))
    feels, not_ = (boundary_differences(videos[name]) for name in ("feels", "not"))
    assert feels is not None
    assert not_ is not None
    assert feels.auc > 0.95
    assert 0.3 < not_.auc < 0.7
    assert len(feels.boundary.means_P) == 40
    assert feels.boundary.mean > 2 * feels.elsewhere.mean
    at_P, away_P = feels.boundary.means_P, feels.elsewhere.means_P
    wins = np.mean([(a > b) + 0.5 * (a == b) for a in at_P for b in away_P])
    assert feels.auc == pytest.approx(wins)
    flat = boundary_differences([(np.ones((16, 8)), timeline, true)])
    assert flat is not None
    assert flat.auc == 0.5
    for pairs in (feels.boundary, feels.elsewhere):
        assert pairs.counts.sum() == 8 * len(pairs.means_P)
        assert (pairs.density * np.diff(EDGES)).sum() == pytest.approx(1)


def test_without_pairs_of_both_sorts_there_is_nothing_to_compare() -> None:
    features_TC = np.ones((4, 3))
    timeline = Timeline(0.0, 1.0, 1.0)
    assert boundary_differences([(features_TC, timeline, [])]) is None
    assert boundary_differences([(features_TC[:1], timeline, [Segment(0.2, 0.5, "x")])]) is None
