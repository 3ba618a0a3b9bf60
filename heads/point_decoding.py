"""From scores and offsets at the points of a pyramid to a list of scored segments.

The pairs of a point and a class are chosen by their scores, before anything is known of their segments: only those that
are chosen need one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from heads.base import ScoredSegments
from heads.points import Points


class PointOutput(NamedTuple):
    """What a head says of each of the P points whose two offsets are the same for all classes."""

    logits: Tensor  # (B, P, K)
    offsets: Tensor  # (B, P, 2) strides of the level, back to the start and on to the end, not below 0
    valid: Tensor  # (B, P) bool: the point is no padding
    points: Points


class Pairs(NamedTuple):
    """Chosen pairs of a point and a class of each sequence."""

    scores: Tensor  # (B, N)
    points: Tensor  # (B, N) which of the P points
    labels: Tensor  # (B, N) which of the K classes


def decode_points(
    output: PointOutput, *, crop_rows: int, most_per_level: int, min_score: float, min_length: float
) -> ScoredSegments:
    """The best (point, class) pairs of each level as segments (B, N, 2) in rows with scores (B, N) and classes.

    The score is the probability of the class. Segments may reach beyond either end of the sequence. N is at most the
    number of levels times `most_per_level` for each `crop_rows` rows begun; pairs that are not proposed have score 0.
    """
    scores_BPK = output.logits.sigmoid() * output.valid[..., None]
    most = most_of_level(output.points, crop_rows, most_per_level)
    pairs = best_of_levels(scores_BPK, output.points.sizes, most=most)
    offsets_BN2 = output.offsets.gather(1, pairs.points[..., None].expand(-1, -1, 2))
    return segments_of(pairs, offsets_BN2, output.points, min_score=min_score, min_length=min_length)


def most_of_level(points: Points, crop_rows: int, most_per_level: int) -> int:
    """Pairs that a level proposes at most: of a long recording as many as of its parts, each of `crop_rows` rows."""
    return most_per_level * math.ceil(points.sizes[0] / crop_rows)


def best_of_levels(scores_BPK: Tensor, sizes: tuple[int, ...], *, most: int) -> Pairs:
    """The best pairs of each level, at most `most`, in descending order, level after level.

    Args:
        scores_BPK: probability of each class at each point; 0 at points that do not count.
        sizes: points of each level.
        most: pairs of a level at most.
    """
    num_classes = scores_BPK.shape[2]
    scores, places, first = [], [], 0
    for level_BPK in torch.split(scores_BPK, list(sizes), dim=1):
        flat_BM = level_BPK.flatten(1)
        best_BM, place_BM = flat_BM.topk(min(most, flat_BM.shape[1]))
        scores.append(best_BM)
        places.append(place_BM + first)
        first += flat_BM.shape[1]
    place_BN = torch.cat(places, dim=1)
    return Pairs(torch.cat(scores, dim=1), place_BN // num_classes, place_BN % num_classes)


def segments_of(
    pairs: Pairs, offsets_BN2: Tensor, points: Points, *, min_score: float, min_length: float
) -> ScoredSegments:
    """The pairs as segments in rows.

    Args:
        pairs: what was chosen.
        offsets_BN2: from the point of each pair back to the start and on to the end, in strides of its level.
        points: the points.
        min_score: pairs that do not score higher are none.
        min_length: segments that are not longer, in rows, are none.
    """
    time_BN, stride_BN = points.time[pairs.points], points.stride[pairs.points]
    back_BN, on_BN = (offsets_BN2 * stride_BN[..., None]).unbind(dim=2)
    segments_BN2 = torch.stack([time_BN - back_BN, time_BN + on_BN], dim=2)
    kept_BN = (pairs.scores > min_score) & (segments_BN2[..., 1] - segments_BN2[..., 0] > min_length)
    return ScoredSegments(segments_BN2, pairs.scores * kept_BN, pairs.labels)
