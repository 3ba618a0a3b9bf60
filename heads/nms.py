"""Soft-NMS over many videos at once: a loop over the detections to keep, none over videos or boxes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

# Rows that go through together: few enough that their boxes stay in a core's cache.
_BOXES_AT_A_TIME = 1 << 17


def soft_nms(
    segments_BN2: Tensor,
    scores_BN: Tensor,
    *,
    keep: int,
    sigma: float = 0.8,
    method: Literal["gaussian", "bmn"] = "gaussian",
    length: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The `keep` best segments of each row, each having lowered the scores of the ones it overlaps.

    Take the segment with the highest score (the first of equals), multiply the score of every other one by
    exp(-IoU²/sigma), and so on (Bodla et al., 2017). BMN's variant spares a segment unless its IoU with the one taken
    is above 0.5 + 0.4·width, where width is the length of the one taken as a share of `length`.

    Args:
        segments_BN2: starts and ends, in any unit.
        scores_BN: scores; boxes with a score of zero are padding and are never taken.
        keep: how many to keep in a row.
        sigma: width of the Gaussian (G-TAD: 0.8; alpha of BMN: 0.4).
        method: the rule for which scores are lowered.
        length: length of the video (or window) in the unit of the segments; only BMN's variant needs it.

    Returns:
        Segments (B, keep, 2), scores (B, keep) in descending order, and places in N (B, keep). A row with fewer than
        `keep` boxes is filled up with segment [0, 0], score 0 and place 0.
    """
    if method == "bmn" and length is None:
        raise ValueError("soft_nms: method 'bmn' compares widths with the length of the video; give length=")
    rows = max(1, _BOXES_AT_A_TIME // max(1, scores_BN.shape[1])) if scores_BN.device.type == "cpu" else len(scores_BN)
    chunks = [
        _soft_nms(segments, scores.clone(), keep, sigma, length if method == "bmn" else None)
        for segments, scores in zip(torch.split(segments_BN2, rows), torch.split(scores_BN, rows), strict=True)
    ]
    segments, scores, index = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return segments, scores, index


def _soft_nms(
    segments_BN2: Tensor, scores_BN: Tensor, keep: int, sigma: float, length: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`soft_nms` of one chunk; changes `scores_BN`. BMN's variant where `length` is given."""
    start_BN, end_BN = (edge.contiguous() for edge in segments_BN2.unbind(-1))
    width_BN = end_BN - start_BN
    kept_BK2 = segments_BN2.new_zeros(len(scores_BN), keep, 2)
    kept_BK = scores_BN.new_zeros(len(scores_BN), keep)
    index_BK = torch.zeros_like(kept_BK, dtype=torch.long)
    for step in range(min(keep, scores_BN.shape[1])):
        best_B1, place_B1 = scores_BN.max(dim=1, keepdim=True)
        if not best_B1.any():
            break
        start_B1, end_B1 = start_BN.gather(1, place_B1), end_BN.gather(1, place_B1)
        is_box_B1 = best_B1 > 0
        kept_BK2[:, step] = torch.cat([start_B1, end_B1], dim=1) * is_box_B1
        kept_BK[:, step], index_BK[:, step] = best_B1[:, 0], (place_B1 * is_box_B1)[:, 0]

        overlap_BN = torch.minimum(end_BN, end_B1).sub_(torch.maximum(start_BN, start_B1)).clamp_(min=0)
        union_BN = (width_BN + (end_B1 - start_B1)).sub_(overlap_BN).clamp_(min=torch.finfo(width_BN.dtype).tiny)
        iou_BN = overlap_BN.div_(union_BN)
        decay_BN = torch.exp(iou_BN.square().mul_(-1 / sigma))
        if length is not None:
            decay_BN[iou_BN <= 0.5 + 0.4 * (end_B1 - start_B1) / length] = 1
        scores_BN.mul_(decay_BN).scatter_(1, place_B1, 0)
    return kept_BK2, kept_BK, index_BK
