"""The Trident head's offsets (TriDet, section 3.3): a neighbourhood tells where a segment ends, not one point.

A point looks at B + 1 places on each side, itself the first. For each of them three branches vote: those for starts
and ends say, for a class, how likely a segment of it starts or ends at that place; that for centres says, as seen from
the point, how likely its own segment ends there. The offset is the mean distance under the softmax of their sum.

Shapes: P points, K classes, D = B + 1 places, M pairs of a point and a class.
"""

from __future__ import annotations

import torch
from torch import Tensor


def trident_offsets(
    starts_BPK: Tensor,
    ends_BPK: Tensor,
    centres_BP2D: Tensor,
    sizes: tuple[int, ...],
    *,
    video: Tensor,
    point: Tensor,
    label: Tensor,
) -> Tensor:
    """Strides back to the start and on to the end, at most B each, (..., 2), of chosen pairs of a point and a class.

    Only those are ever computed: P·K·D numbers are many times what the network itself takes.

    Args:
        starts_BPK: logits of the starts branch; 0 at padding.
        ends_BPK: logits of the ends branch; 0 at padding.
        centres_BP2D: what the centres branch gives, back from the point, the furthest place first, and on from it.
        sizes: points of each level. Beyond either end of its level a point sees logits of 0.
        video: of the pairs, any shape that `point` and `label` go with, as all that follow.
        point: which of the P points.
        label: which of the K classes.
    """
    size_L = torch.tensor(sizes, device=point.device)
    end_L = size_L.cumsum(dim=0)
    first_P, end_P = (torch.repeat_interleave(place_L, size_L) for place_L in (end_L - size_L, end_L))
    distance_D = torch.arange(centres_BP2D.shape[3], device=point.device)
    back_MD, on_MD = point[..., None] - distance_D, point[..., None] + distance_D
    offsets = []
    for logits_BPK, place_MD, inside_MD, centre_MD in (
        (starts_BPK, back_MD, back_MD >= first_P[point][..., None], centres_BP2D[video, point, 0].flip(-1)),
        (ends_BPK, on_MD, on_MD < end_P[point][..., None], centres_BP2D[video, point, 1]),
    ):
        within_MD = place_MD.clamp(0, logits_BPK.shape[1] - 1)
        boundary_MD = logits_BPK[video[..., None], within_MD, label[..., None]] * inside_MD
        offsets.append(((boundary_MD + centre_MD).softmax(dim=-1) * distance_D).sum(dim=-1))
    return torch.stack(offsets, dim=-1)
