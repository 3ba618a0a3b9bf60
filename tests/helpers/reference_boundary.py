"""BSP's losses as its formulas read (sections 3.3 and 3.4), in loops."""

import math
from collections.abc import Sequence

import numpy as np


def heatmap_loss(predicted_BL: np.ndarray, change_points: Sequence[float], tau: float) -> float:
    """Smooth L1 between y_t = exp[-(t - μ)² / 2τ], t in [1, L], and r."""
    losses = []
    for predicted_L, mu in zip(predicted_BL, change_points, strict=True):
        for t, r in enumerate(predicted_L, start=1):
            error = abs(math.exp(-((t - mu) ** 2) / (2 * tau)) - r)
            losses.append(0.5 * error**2 if error < 1 else error - 0.5)
    return float(np.mean(losses))


def matching_loss(projected_BC: np.ndarray, teacher_BC: np.ndarray) -> float:
    """The squared norm of the difference, for each channel, and the mean over clips."""
    norms = [float(((t - p) ** 2).sum()) for t, p in zip(teacher_BC, projected_BC, strict=True)]
    return float(np.mean(norms)) / projected_BC.shape[1]


def cross_entropy(logits_BK: np.ndarray, classes: Sequence[int]) -> float:
    """-log of the softmax at the true class, the mean over clips."""
    losses = []
    for logits_K, k in zip(logits_BK, classes, strict=True):
        exponentials = [math.exp(value) for value in logits_K]
        losses.append(-math.log(exponentials[k] / sum(exponentials)))
    return float(np.mean(losses))
