"""Which point finds which segment, against a loop over points and segments."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_actionformer import assign as slow_assign
from reference_actionformer import points as slow_points

from heads.assignment import Assignment, assign_segments
from heads.points import pyramid_points

NUM_CLASSES = 3


def assign(num_rows: int, videos: list[list[tuple[float, float, int]]], *, levels: int = 4) -> Assignment:
    """Each video's (start, end, class), laid side by side with segments of no length behind."""
    most = max(len(video) for video in videos)
    filled = [video + [(0.0, 0.0, 0)] * (most - len(video)) for video in videos]
    together = torch.tensor(filled, dtype=torch.float).view(len(videos), most, 3)
    points = pyramid_points(num_rows, levels)
    valid_BP = torch.ones(len(videos), len(points.time), dtype=torch.bool)
    return assign_segments(points, valid_BP, together[..., :2], together[..., 2].long(), NUM_CLASSES)


def assert_as_slow(found: Assignment, num_rows: int, videos: list[list[tuple[float, float, int]]], levels: int) -> None:
    for video, segments in enumerate(videos):
        expected = slow_assign(slow_points(num_rows, levels), [x[:2] for x in segments], [x[2] for x in segments])
        assert found.positive[video].tolist() == [own is not None for own in expected]
        for place, own in enumerate(expected):
            classes, offsets = own or (set(), (0, 0))
            assert set(found.classes[video, place].nonzero()[:, 0].tolist()) == classes
            assert found.offsets[video, place].tolist() == list(offsets)


@st.composite
def segments(draw: st.DrawFn, num_rows: int) -> tuple[float, float, int]:
    """On a grid of quarters, on which points and ends often meet, and -1 for no class."""
    start, end = draw(st.integers(0, 4 * num_rows)), draw(st.integers(0, 4 * num_rows))
    return min(start, end) / 4, max(start, end) / 4, draw(st.integers(-1, NUM_CLASSES - 1))


@given(st.data())
def test_assignment_is_that_of_a_loop(data: st.DataObject) -> None:
    num_rows, levels = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 5))
    videos = data.draw(st.lists(st.lists(segments(num_rows), max_size=6), min_size=1, max_size=2))
    assert_as_slow(assign(num_rows, videos, levels=levels), num_rows, videos, levels)


def test_a_crowd() -> None:
    """Segments of all lengths, of which every level gets some."""
    generator = torch.Generator().manual_seed(0)
    middle, half = 200 * torch.rand(300, generator=generator), 0.1 * 1000 ** torch.rand(300, generator=generator)
    crowd = torch.stack([(middle - half).clamp(0, 200), (middle + half).clamp(0, 200)], dim=1)
    # On a grid, so that single and double precision agree.
    videos = [[(*ends, index % 3) for index, ends in enumerate(((crowd * 64).round() / 64).tolist())]]
    found = assign(200, videos)
    assert_as_slow(found, 200, videos, 4)
    assert all(level.any() for level in torch.split(found.positive[0], pyramid_points(200, 4).sizes))


def test_segments_of_nearly_one_length_share_their_points_and_the_shortest_gives_the_ends() -> None:
    for order in ((0, 1, 2), (1, 0, 2)):
        found = assign(20, [[[(8.0, 12.0, 0), (8.0, 12.0005, 2), (7.0, 12.0, 1)][index] for index in order]])
        assert found.classes[0, 9].tolist() == [True, False, True]
        assert found.offsets[0, 9].tolist() == [1.5, 2.5]
    apart = assign(20, [[(8.0, 12.0, 0), (8.0, 12.002, 2)]])
    assert apart.classes[0, 9].tolist() == [True, False, False]


def test_points_that_are_padding_get_nothing() -> None:
    points = pyramid_points(16, 2)
    valid_BP = torch.arange(24)[None] != 7
    found = assign_segments(points, valid_BP, torch.tensor([[[6.0, 9.0]]]), torch.tensor([[1]]), NUM_CLASSES)
    assert found.positive[0].nonzero()[:, 0].tolist() == [6, 8]


@pytest.mark.parametrize(
    ("segment", "points"),
    [
        ((3.0, 3.0), []),
        ((5.0, 2.0), []),
        ((3.6, 4.4), []),  # between two points
        ((3.0, 4.0), [3]),
        ((2.5, 4.5), [3]),  # the points at its very ends are not inside
        ((3.0, 6.0), [3, 4, 5]),
        ((1.0, 7.0), [3, 4]),  # those at 2.5 and 5.5 are 1.5 away from the middle
    ],
)
def test_points_near_the_middle(segment: tuple[float, float], points: list[int]) -> None:
    found = assign(8, [[(*segment, 0)]], levels=1)
    assert found.positive[0].nonzero()[:, 0].tolist() == points


def test_the_last_level_takes_segments_of_any_length() -> None:
    points = pyramid_points(40_000, 6)
    valid_BP = torch.ones(1, len(points.time), dtype=torch.bool)
    found = assign_segments(points, valid_BP, torch.tensor([[[0.0, 40_000.0]]]), torch.tensor([[0]]), 1)
    assert points.stride[found.positive[0]].tolist() == [32.0] * int(found.positive.sum())
    assert found.positive.sum() == 3


def test_no_segment_at_all() -> None:
    found = assign(8, [[], []])
    assert not found.positive.any()
    assert not found.classes.any()
    assert not found.offsets.any()
