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
        _soft_nms(segments, scores, keep, sigma, length if method == "bmn" else None)
        for segments, scores in zip(torch.split(segments_BN2, rows), torch.split(scores_BN, rows), strict=True)
    ]
    segments, scores, index = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return segments, scores, index


def _soft_nms(
    segments_BN2: Tensor, scores_BN: Tensor, keep: int, sigma: float, length: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`soft_nms` of one chunk. BMN's variant where `length` is given.

    Nearly all of the time goes into passes over (B, N), so they are few: in logarithms, multiplying by exp(-IoU²/sigma)
    is one of them.
    """
    start_BN, end_BN = (edge.contiguous() for edge in segments_BN2.unbind(-1))
    # Above 0, so that unions are. An overlap is never longer than either segment, rounded or not.
    width_BN = (end_BN - start_BN).clamp(min=torch.finfo(start_BN.dtype).tiny)
    log_BN = scores_BN.clamp(min=0).log()
    kept_BK2 = segments_BN2.new_zeros(len(scores_BN), keep, 2)
    kept_BK = scores_BN.new_full((len(scores_BN), keep), -torch.inf)
    index_BK = torch.zeros_like(kept_BK, dtype=torch.long)
    for step in range(min(keep, scores_BN.shape[1])):
        best_B1, place_B1 = log_BN.max(dim=1, keepdim=True)
        is_box_B1 = best_B1 > -torch.inf
        if not is_box_B1.any():
            break
        start_B1, end_B1, width_B1 = (edge_BN.gather(1, place_B1) for edge_BN in (start_BN, end_BN, width_BN))
        kept_BK2[:, step] = torch.cat([start_B1, end_B1], dim=1) * is_box_B1
        kept_BK[:, step], index_BK[:, step] = best_B1[:, 0], (place_B1 * is_box_B1)[:, 0]

        overlap_BN = torch.minimum(end_BN, end_B1).sub_(torch.maximum(start_BN, start_B1)).clamp_(min=0)
        iou_BN = overlap_BN.div_((width_BN + width_B1).sub_(overlap_BN))
        if length is not None:
            iou_BN.mul_(iou_BN > 0.5 + 0.4 * width_B1 / length)
        log_BN.addcmul_(iou_BN, iou_BN, value=-1 / sigma).scatter_(1, place_B1, -torch.inf)
    # Scores that nothing lowered are returned to the bit; the others as much lowered as their logarithms, in order.
    first_BK = scores_BN.gather(1, index_BK) if scores_BN.shape[1] else torch.zeros_like(kept_BK)
    scores_BK = (first_BK * (kept_BK - first_BK.log()).exp()).where(kept_BK > -torch.inf, 0)
    return kept_BK2, scores_BK.cummin(dim=1).values, index_BK
