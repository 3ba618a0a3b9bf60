"""From scores and segments at the points of a pyramid to a list of scored segments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from heads.base import ScoredSegments


def best_of_levels(
    scores_BPK: Tensor,
    segments_BPG2: Tensor,
    sizes: Sequence[int],
    *,
    most: int,
    min_score: float,
    min_length: float,
) -> ScoredSegments:
    """The best (point, class) pairs of each level, at most `most`, in descending order, level after level.

    Args:
        scores_BPK: probability of each class at each point; 0 at points that do not count.
        segments_BPG2: segments in rows, one for each class or, with G = 1, one for all.
        sizes: points of each level.
        most: pairs of a level at most.
        min_score: pairs that do not score higher are none.
        min_length: segments that are not longer, in rows, are none.
    """
    num_classes, num_segments = scores_BPK.shape[2], segments_BPG2.shape[2]
    scores, places, first = [], [], 0
    for level_BPK in torch.split(scores_BPK, list(sizes), dim=1):
        flat_BM = level_BPK.flatten(1)
        best_BM, place_BM = flat_BM.topk(min(most, flat_BM.shape[1]))
        scores.append(best_BM)
        places.append(place_BM + first)
        first += flat_BM.shape[1]
    scores_BN, place_BN = torch.cat(scores, dim=1), torch.cat(places, dim=1)
    point_BN, label_BN = place_BN // num_classes, place_BN % num_classes
    segment_BN = point_BN * num_segments + label_BN % num_segments
    segments_BN2 = segments_BPG2.flatten(1, 2).gather(1, segment_BN[..., None].expand(-1, -1, 2))
    length_BN = segments_BN2[..., 1] - segments_BN2[..., 0]
    return ScoredSegments(segments_BN2, scores_BN * ((scores_BN > min_score) & (length_BN > min_length)), label_BN)
