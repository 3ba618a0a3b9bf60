"""Losses on points of a pyramid: which classes a point is for, and how far the ends of its segment are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA, GAMMA = 0.25, 2.0
EPSILON = 1e-8
MOMENTUM = 0.9


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Focal loss (Lin et al., 2017) of each element, any shape: αₜ(1 - pₜ)² times the binary cross-entropy.

    Targets may lie between 0 and 1: pₜ and αₜ are then between those of a negative and a positive.
    """
    probability = logits.sigmoid()
    right = probability * targets + (1 - probability) * (1 - targets)
    alpha = ALPHA * targets + (1 - ALPHA) * (1 - targets)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return alpha * (1 - right) ** GAMMA * entropy


def smooth_labels(classes: Tensor, smoothing: float) -> Tensor:
    """Classes (..., K), 0 or 1, moved towards 1/(K+1)."""
    return classes * (1 - smoothing) + smoothing / (classes.shape[-1] + 1)


def iou(offsets: Tensor, targets: Tensor) -> Tensor:
    """Intersection over union, (..., 2) -> (...).

    Both segments are given as distances, not below zero, from a common point back to the start and on to the end.
    """
    overlap = torch.minimum(offsets, targets).sum(dim=-1)
    union = offsets.sum(dim=-1) + targets.sum(dim=-1) - overlap
    return overlap / union.clamp(min=EPSILON)


def diou_loss(offsets: Tensor, targets: Tensor) -> Tensor:
    """1 - IoU + (distance of the middles / length of the hull)² (Zheng et al., 2020), of the segments of `iou`."""
    hull = torch.maximum(offsets, targets).sum(dim=-1)
    back, on = (offsets - targets).unbind(dim=-1)
    return 1 - iou(offsets, targets) + ((on - back) / 2 / hull.clamp(min=EPSILON)) ** 2


def count_positives(running: Tensor, positives: Tensor, *, training: bool) -> Tensor:
    """The running number of positive points (), which losses are divided by; in training it takes in this batch's.

    `running` changes in place; what is returned is a copy, for backward, which the next batch does not change.
    """
    if training:
        running.mul_(MOMENTUM).add_((1 - MOMENTUM) * positives.clamp(min=1))
    return running.clone()
