"""Segments of a batch side by side, and what of them lies in their sequences."""

from __future__ import annotations

import torch

from heads.point_targets import pad_segments

SEGMENTS = [torch.tensor([[1.0, 2.0], [3.0, 9.0]], dtype=torch.double), torch.zeros(0, 2), torch.tensor([[-2.0, -1.0]])]
LABELS = [torch.tensor([2, 0]), torch.zeros(0, dtype=torch.long), torch.tensor([-1])]


def test_segments_lie_side_by_side() -> None:
    padded = pad_segments(SEGMENTS, LABELS, classes=True, device=torch.device("cpu"))
    assert padded.segments.dtype == torch.float
    assert padded.segments.tolist() == [[[1, 2], [3, 9]], [[0, 0], [0, 0]], [[-2, -1], [0, 0]]]
    assert padded.labels.tolist() == [[2, 0], [-1, -1], [-1, -1]]


def test_without_classes_all_are_alike() -> None:
    padded = pad_segments(SEGMENTS, LABELS, classes=False, device=torch.device("cpu"))
    assert not padded.labels.any()


def test_no_more_is_left_of_a_segment_than_lies_in_its_sequence() -> None:
    padded = pad_segments(SEGMENTS, LABELS, classes=True, device=torch.device("cpu"))
    cut = padded.cut(torch.tensor([5, 5, 5]))
    assert cut.tolist() == [[[1, 2], [3, 5]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]
