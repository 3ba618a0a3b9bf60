"""Which point of a pyramid is to find which segment (ActionFormer, section 3.3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from heads.points import Points

CENTRE_RADIUS = 1.5
EQUAL_LENGTH = 1e-3


class Assignment(NamedTuple):
    positive: Tensor  # (B, P) bool: the point has a segment
    classes: Tensor  # (B, P, K) bool: those of its segment; none if the segment has no class
    offsets: Tensor  # (B, P, 2) strides back to the start and on to the end of its segment; 0 without one


def assign_segments(
    points: Points, valid_BP: Tensor, segments_BN2: Tensor, labels_BN: Tensor, num_classes: int
) -> Assignment:
    """Give points to segments in rows. A point t is for a segment [s, e] if all of this holds:

    - t is inside the segment and nearer than 1.5 strides to its middle, both strictly;
    - max(t - s, e - t) lies in the range of t's level, ends included.

    Of several segments a point has the shortest, and the first of equals. It has the classes of all whose lengths are
    within 1e-3 of the shortest. Segments without length have no point; they serve as padding.

    Only the few points near the middle are looked at, (segments x levels x 4) in all, not (segments x points).
    """
    num_segments = segments_BN2.shape[1]
    place_BNM = _near_middles(points, segments_BN2)
    start_BN1, end_BN1 = segments_BN2[..., :1], segments_BN2[..., 1:]
    length_BN1 = end_BN1 - start_BN1

    time = points.time[place_BNM]
    further = torch.maximum(time - start_BN1, end_BN1 - time)
    from_middle = (time - (start_BN1 + end_BN1) / 2).abs()
    matches = valid_BP[torch.arange(len(valid_BP), device=time.device)[:, None, None], place_BNM]
    matches &= (start_BN1 < time) & (time < end_BN1) & (from_middle < CENTRE_RADIUS * points.stride[place_BNM])
    matches &= (points.low[place_BNM] <= further) & (further <= points.high[place_BNM])

    shortest_BP = _least(length_BN1.expand_as(time), place_BNM, matches, valid_BP.shape, torch.inf)
    excess = length_BN1 - shortest_BP.gather(1, place_BNM.flatten(1)).view_as(time)
    index_BNM = torch.arange(num_segments, device=time.device)[:, None].expand_as(place_BNM)
    chosen_BP = _least(index_BNM, place_BNM, matches & (excess == 0), valid_BP.shape, num_segments)

    classes_BPK = torch.zeros(*valid_BP.shape, num_classes, dtype=torch.bool, device=time.device)
    video, segment, near = (matches & (excess <= EQUAL_LENGTH) & (labels_BN[..., None] >= 0)).nonzero(as_tuple=True)
    classes_BPK[video, place_BNM[video, segment, near], labels_BN[video, segment]] = True

    # One more segment, for points that have none.
    padded_BN2 = F.pad(segments_BN2, (0, 0, 0, 1))
    own_BP2 = padded_BN2.gather(1, chosen_BP[..., None].expand(-1, -1, 2))
    positive_BP = chosen_BP < num_segments
    distances_BP2 = torch.stack([points.time - own_BP2[..., 0], own_BP2[..., 1] - points.time], dim=2)
    return Assignment(positive_BP, classes_BPK, distances_BP2 / points.stride[:, None] * positive_BP[..., None])


def _near_middles(points: Points, segments_BN2: Tensor) -> Tensor:
    """Places among the P points (B, N, M) of those of each level that may be near enough to the middle of a segment.

    At both ends of a level the same point may come several times.
    """
    size_L1 = torch.tensor(points.sizes, device=segments_BN2.device)[:, None]
    first_L1 = size_L1.cumsum(0) - size_L1
    before_BNL1 = ((segments_BN2.mean(dim=2)[..., None, None] - 0.5) / points.stride[first_L1]).floor().long()
    around = torch.arange(-math.floor(CENTRE_RADIUS), math.ceil(CENTRE_RADIUS) + 1, device=segments_BN2.device)
    column_BNLA = before_BNL1 + around
    return (first_L1 + column_BNLA.clamp(min=0).minimum(size_L1 - 1)).flatten(2)


def _least(values: Tensor, places: Tensor, where: Tensor, shape: torch.Size, none: float) -> Tensor:
    """The least of the values (B, N, M) that go to each place (B, P), of those `where`."""
    least_BP = torch.full(shape, none, dtype=values.dtype, device=values.device)
    return least_BP.scatter_reduce(1, places.flatten(1), values.where(where, none).flatten(1), "amin")
