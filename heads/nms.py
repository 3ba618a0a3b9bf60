"""Soft-NMS and voting over many videos at once: at most a loop over the detections to keep, none over videos or boxes.

Shapes: B videos, N boxes of each, K of them kept.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

# Boxes that go through together: few enough that they stay in a core's cache.
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


# --- Voting -----------------------------------------------------------------------------------------------------------


def vote(
    kept_BK2: Tensor,
    segments_BN2: Tensor,
    scores_BN: Tensor,
    *,
    threshold: float,
    weight: Literal["score-iou", "score"] = "score-iou",
) -> Tensor:
    """The segments that soft-NMS has kept (B, K, 2), each moved to the mean of all that it stands for.

    Every segment that soft-NMS was given, kept or not, votes for each kept one that it overlaps with an IoU of at least
    `threshold`. The mean of its voters' starts is a kept one's new start, that of their ends its new end (box voting,
    Gidaris and Komodakis, 2015).

    Args:
        kept_BK2: starts and ends, in any unit.
        segments_BN2: those that soft-NMS was given, likewise.
        scores_BN: their scores from before soft-NMS; those of score zero have no vote.
        threshold: above 0.
        weight: of a vote: `score-iou`, the score of the voter times the IoU (ActionFormer's public code), or `score`
            alone (TriDet's, and OpenTAD).

    Returns:
        Segments (B, K, 2); those without a voter, such as padding, are as they were.
    """
    at_a_time = max(1, _BOXES_AT_A_TIME // max(1, scores_BN.numel()))
    chunks = [
        _vote(part_BK2, segments_BN2, scores_BN, threshold, weight == "score-iou")
        for part_BK2 in torch.split(kept_BK2, at_a_time, dim=1)
    ]
    return torch.cat(chunks, dim=1)


def _vote(kept_BK2: Tensor, segments_BN2: Tensor, scores_BN: Tensor, threshold: float, weigh_by_iou: bool) -> Tensor:
    """`vote` for some of the kept segments."""
    start_BK1, end_BK1 = kept_BK2[..., :1], kept_BK2[..., 1:]
    start_B1N, end_B1N = segments_BN2.mT[:, :1], segments_BN2.mT[:, 1:]
    overlap_BKN = (torch.minimum(end_BK1, end_B1N) - torch.maximum(start_BK1, start_B1N)).clamp(min=0)
    union_BKN = (end_BK1 - start_BK1) + (end_B1N - start_B1N) - overlap_BKN
    iou_BKN = overlap_BKN / union_BKN.clamp(min=torch.finfo(union_BKN.dtype).tiny)
    weight_BKN = scores_BN[:, None] * (iou_BKN >= threshold)
    if weigh_by_iou:
        weight_BKN = weight_BKN * iou_BKN
    total_BK1 = weight_BKN.sum(dim=2, keepdim=True)
    # (B, K, N) x (B, N, 2) -> (B, K, 2)
    return torch.where(total_BK1 > 0, weight_BKN @ segments_BN2 / total_BK1, kept_BK2)
