"""The best pairs of point and class of each level, against a loop."""

from __future__ import annotations

import pytest
import torch
from reference_actionformer import decode as slow_decode

from heads.point_decoding import best_of_levels, segments_of
from heads.points import Points

SIZES = (8, 4, 2)
POINTS = Points(*torch.rand(4, sum(SIZES), generator=torch.Generator().manual_seed(1)).add(0.5).unbind(), SIZES)


def random_points(num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores, half of them low, and offsets of each class, some of which are short or none."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, sum(SIZES), num_classes, generator=generator) ** 3
    return scores, 2 * torch.rand(2, sum(SIZES), num_classes, 2, generator=generator) - 0.3


@pytest.mark.parametrize("most", [1, 5, 1000])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_decoding_is_that_of_a_loop(most: int, num_classes: int) -> None:
    scores, offsets_BPK2 = random_points(num_classes)
    pairs = best_of_levels(scores, SIZES, most=most)
    offsets_BN2 = offsets_BPK2[torch.arange(2)[:, None], pairs.points, pairs.labels]
    found = segments_of(pairs, offsets_BN2, POINTS, min_score=0.05, min_length=0.4)
    assert found.scores.shape[1] == sum(min(most, size * num_classes) for size in SIZES)
    time_P11, stride_P11 = POINTS.time[:, None, None], POINTS.stride[:, None, None]
    distances_BPK2 = offsets_BPK2 * stride_P11
    ends_BPK2 = torch.cat([time_P11 - distances_BPK2[..., :1], time_P11 + distances_BPK2[..., 1:]], dim=3)
    for video in range(2):
        expected = slow_decode(scores[video].tolist(), ends_BPK2[video].tolist(), SIZES, most, 0.05, 0.4)
        real = found.scores[video] > 0
        assert 0 < real.sum() < found.scores.shape[1] or most == 1
        assert found.scores[video, real].tolist() == [score for _, score, _ in expected]
        assert found.labels[video, real].tolist() == [label for *_, label in expected]
        assert found.segments[video, real].tolist() == [list(segment) for segment, *_ in expected]


def test_scores_and_lengths_at_the_limit_are_none() -> None:
    points = Points(*torch.ones(4, 3).unbind(), (3,))
    pairs = best_of_levels(torch.tensor([[[0.25], [0.5], [0.5]]]), (3,), most=9)
    lengths_P = torch.tensor([2.0, 1.0, 2.0])
    offsets_BN2 = torch.stack([torch.ones(1, 3), lengths_P[pairs.points] - 1], dim=2)
    found = segments_of(pairs, offsets_BN2, points, min_score=0.25, min_length=1.0)
    assert sorted(found.scores[0].tolist()) == [0.0, 0.0, 0.5]
    assert found.segments[0, found.scores[0].argmax()].tolist() == [0.0, 2.0]
