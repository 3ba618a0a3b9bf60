"""G-TAD's losses (G-TAD, section 3.4, in the form of its ActivityNet code), and the one on our action classes.

Every one is taken over the whole batch, and is zero, not NaN, for what the batch has no example of.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6
HIGH_IOU, LOW_IOU = 0.7, 0.3
POSITIVE_IOU = 0.9


def balanced_bce(probability: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy in which the positives and the negatives weigh one half each, whatever their numbers.

    This is BSN's weighting by r = N/N₊ and r/(r-1), with the sums written out. Of a kind without an example, the half
    is zero.
    """
    positive, negative = positive & valid, ~positive & valid
    log_likelihood = _mean(torch.log(probability + EPSILON), positive)
    log_likelihood = log_likelihood + _mean(torch.log(1 - probability + EPSILON), negative)
    return -0.5 * log_likelihood


def node_loss(start_BT: Tensor, end_BT: Tensor, target_start_BT: Tensor, target_end_BT: Tensor) -> Tensor:
    """Start and end probabilities against rows whose anchor lies by more than half in a boundary's region."""
    every = torch.ones_like(start_BT, dtype=torch.bool)
    return balanced_bce(start_BT, target_start_BT > 0.5, every) + balanced_bce(end_BT, target_end_BT > 0.5, every)


def iou_classification_loss(prediction_BDT: Tensor, iou_BDT: Tensor, valid_DT: Tensor) -> Tensor:
    """The map's second channel against the cells with an IoU above 0.9."""
    return balanced_bce(prediction_BDT, iou_BDT > POSITIVE_IOU, valid_DT.expand_as(iou_BDT))


def iou_regression_loss(prediction_BDT: Tensor, iou_BDT: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Half the squared error of the map's first channel, on as many low and middle cells as there are high ones.

    High cells, with an IoU above 0.7, are all taken; of those in (0.3, 0.7] and in (0, 0.3] a random choice, as many
    as the high ones on average. Where there are fewer than that, all of them are taken (the original then takes every
    cell of the map, valid or not). Without a high cell the loss is zero.
    """
    high = iou_BDT > HIGH_IOU
    middle = (iou_BDT > LOW_IOU) & ~high
    low = (iou_BDT > 0) & (iou_BDT <= LOW_IOU)
    draw = torch.rand(iou_BDT.shape, generator=generator, device=iou_BDT.device)
    num_high = high.sum()
    chosen = high | (middle & (draw * middle.sum() < num_high)) | (low & (draw * low.sum() < num_high))
    return 0.5 * _mean((prediction_BDT - iou_BDT) ** 2, chosen)


def class_loss(logits_BKDT: Tensor, label_BDT: Tensor) -> Tensor:
    """Softmax cross-entropy, the mean over the cells that have a class (label >= 0)."""
    labelled = label_BDT >= 0
    logits_PK = logits_BKDT.movedim(1, -1)[labelled]
    return F.cross_entropy(logits_PK, label_BDT[labelled], reduction="sum") / labelled.sum().clamp(min=1)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)
