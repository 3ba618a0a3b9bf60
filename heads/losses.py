"""G-TAD's losses (G-TAD, section 3.4, in the form of its ActivityNet code), and the one on our action classes.

Each is taken over the whole batch. A mean over examples of which the batch has none is zero, not NaN: a batch without
any segment trains the negatives alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6
HIGH_IOU, LOW_IOU = 0.7, 0.3
POSITIVE_IOU = 0.9


def balanced_bce(probability: Tensor, positive: Tensor, *, pseudocount: int = 0) -> Tensor:
    """Binary cross-entropy in which the positives and the negatives weigh one half each, whatever their numbers.

    This is BSN's weighting, by r/2 and r/(2r-2) with r = N/N₊, with the sums written out. `pseudocount` is added to
    both numbers, so that few positives weigh less than one half.
    """
    log_positive = _mean(torch.log(probability + EPSILON), positive, pseudocount)
    log_negative = _mean(torch.log(1 - probability + EPSILON), ~positive, pseudocount)
    return -0.5 * (log_positive + log_negative)


def node_loss(start_BT: Tensor, end_BT: Tensor, target_start_BT: Tensor, target_end_BT: Tensor) -> Tensor:
    """Start and end probabilities against the rows whose anchor lies by more than half in a boundary's region."""
    return balanced_bce(start_BT, target_start_BT > 0.5) + balanced_bce(end_BT, target_end_BT > 0.5)


def iou_classification_loss(prediction_BN: Tensor, iou_BN: Tensor, *, pseudocount: int = 0) -> Tensor:
    """The map's second channel, at the valid cells, against those with an IoU above 0.9.

    G-TAD's THUMOS14 code has a pseudocount of 10.
    """
    return balanced_bce(prediction_BN, iou_BN > POSITIVE_IOU, pseudocount=pseudocount)


def iou_regression_loss(prediction_BN: Tensor, iou_BN: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Half the mean squared error of the map's first channel, on as many low and middle valid cells as high ones.

    High cells, with an IoU above 0.7, are all taken; of those in (0.3, 0.7] and in (0, 0.3] a random choice, as many
    as the high ones on average. Where there are fewer than that, all of them are taken (the original then takes every
    cell of the map, valid or not). Without a high cell the loss is zero.
    """
    high = iou_BN > HIGH_IOU
    middle = (iou_BN > LOW_IOU) & ~high
    low = (iou_BN > 0) & (iou_BN <= LOW_IOU)
    draw = torch.rand(iou_BN.shape, generator=generator, device=iou_BN.device)
    num_high = high.sum()
    chosen = high | (middle & (draw * middle.sum() < num_high)) | (low & (draw * low.sum() < num_high))
    return 0.5 * _mean((prediction_BN - iou_BN) ** 2, chosen)


def class_loss(logits_BNK: Tensor, label_BN: Tensor) -> Tensor:
    """Softmax cross-entropy, the mean over the cells that have a class (label >= 0)."""
    labelled = label_BN >= 0
    total = F.cross_entropy(logits_BNK[labelled], label_BN[labelled], reduction="sum")
    return total / labelled.sum().clamp(min=1)


def _mean(values: Tensor, where: Tensor, pseudocount: int = 0) -> Tensor:
    return (values * where).sum() / (where.sum() + pseudocount).clamp(min=1)
