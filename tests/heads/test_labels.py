"""Label maps against the definition in units of the window, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_gtad import boundary_scores as slow_boundary_scores
from reference_gtad import iou_map as slow_iou_map

from heads.labels import boundary_scores, cell_ious, clip_segments

times = st.floats(0, 12, width=32)
segments = st.lists(st.tuples(times, times).filter(lambda s: s[0] + 0.01 < s[1]), min_size=1, max_size=4)


@given(segments=segments, max_duration=st.integers(1, 12))
def test_ious(segments: list[tuple[float, float]], max_duration: int) -> None:
    ours = cell_ious(torch.tensor(segments), 12, max_duration).amax(dim=0)
    np.testing.assert_allclose(ours, slow_iou_map(segments, 12, max_duration), atol=1e-5)


def test_ious_by_hand() -> None:
    # Cell (1, 1) is [1, 3]; cell (3, 0) is [3, 4]; cell (3, 1) would end at 5.
    iou_DT = cell_ious(torch.tensor([[1.0, 4.0]]), 4, 2)[0]
    torch.testing.assert_close(iou_DT, torch.tensor([[0, 1 / 3, 1 / 3, 1 / 3], [1 / 4, 2 / 3, 2 / 3, 0]]))


@given(boundaries=st.lists(times, min_size=1, max_size=4))
def test_boundary_scores(boundaries: list[float]) -> None:
    ours = boundary_scores(torch.tensor(boundaries), 12)
    np.testing.assert_allclose(ours, slow_boundary_scores(boundaries, 12), atol=1e-5)


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [
        (3.0, [0, 0.5, 1, 1, 0.5, 0]),
        (2.5, [0.25, 0.75, 1, 0.75, 0.25, 0]),
        (0.0, [1, 0.5, 0, 0, 0, 0]),
        (6.0, [0, 0, 0, 0, 0.5, 1]),
    ],
)
def test_boundary_scores_by_hand(boundary: float, expected: list[float]) -> None:
    assert boundary_scores(torch.tensor([boundary]), 6).tolist() == pytest.approx(expected)


def test_no_boundary() -> None:
    assert boundary_scores(torch.zeros(0), 3).tolist() == [0, 0, 0]


def test_clip_segments_leaves_out_those_outside() -> None:
    segments = torch.tensor([[-2.0, 3.0], [-3.0, 0.0], [8.0, 15.0], [10.0, 12.0], [4.0, 5.0]])
    clipped, labels = clip_segments(segments, torch.arange(5), 10)
    assert clipped.tolist() == [[0, 3], [8, 10], [4, 5]]
    assert labels.tolist() == [0, 2, 4]
