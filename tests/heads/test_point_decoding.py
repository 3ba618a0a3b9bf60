"""The best pairs of point and class of each level, against a loop."""

from __future__ import annotations

import pytest
import torch
from reference_actionformer import decode as slow_decode

from heads.point_decoding import best_of_levels

SIZES = (8, 4, 2)


def random_points(num_classes: int, num_segments: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, half of them low, and segments, some of which are short or none."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, sum(SIZES), num_classes, generator=generator) ** 3
    start = 10 * torch.rand(2, sum(SIZES), num_segments, generator=generator)
    length = 4 * torch.rand(2, sum(SIZES), num_segments, generator=generator) - 0.5
    return scores, torch.stack([start, start + length], dim=3)


@pytest.mark.parametrize("most", [1, 5, 1000])
@pytest.mark.parametrize(("num_classes", "num_segments"), [(1, 1), (3, 1), (3, 3)])
def test_decoding_is_that_of_a_loop(most: int, num_classes: int, num_segments: int) -> None:
    scores, segments = random_points(num_classes, num_segments)
    found = best_of_levels(scores, segments, SIZES, most=most, min_score=0.05, min_length=0.4)
    assert found.scores.shape[1] == sum(min(most, size * num_classes) for size in SIZES)
    for video in range(2):
        expected = slow_decode(scores[video].tolist(), segments[video].tolist(), SIZES, most, 0.05, 0.4)
        real = found.scores[video] > 0
        assert found.scores[video, real].tolist() == [score for _, score, _ in expected]
        assert found.labels[video, real].tolist() == [label for *_, label in expected]
        assert found.segments[video, real].tolist() == [list(segment) for segment, *_ in expected]


def test_scores_and_lengths_at_the_limit_are_none() -> None:
    scores = torch.tensor([[[0.25], [0.5], [0.5]]])
    segments = torch.tensor([[[[0.0, 2.0]], [[0.0, 1.0]], [[0.0, 2.0]]]])
    found = best_of_levels(scores, segments, (3,), most=9, min_score=0.25, min_length=1.0)
    assert sorted(found.scores[0].tolist()) == [0.0, 0.0, 0.5]
    assert found.segments[0, found.scores[0].argmax()].tolist() == [0.0, 2.0]
