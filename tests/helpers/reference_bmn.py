"""BMN's parts as its definitions say them: slow, direct, one point, one cell or one boundary at a time.

Maps have the axes of the original, [first row, last row]: place [i, j] is the segment from i/T to (j+1)/T.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from reference_gtad import tiou, weighted_bce
from torch import Tensor, nn

POINTS_PER_BIN = 3


def sample_points(first: int, last: int, num_samples: int) -> list[Fraction]:
    """The times that the original looks at for place [first, last], in rows."""
    xmin, xmax = Fraction(first), Fraction(last + 1)
    length = xmax - xmin + 1
    low, high = xmin - length / 2, xmax + length / 2
    steps = num_samples * POINTS_PER_BIN - 1
    return [low + (high - low) * k / steps for k in range(steps + 1)]


def point_weights(time: Fraction, num_snippets: int) -> np.ndarray:
    """How much of each row (T,) a point takes."""
    weights = np.zeros(num_snippets)
    if -1 < time < 0:
        weights[0] = 1.0
    elif time >= 0:
        below = math.floor(time)
        for row, weight in ((below, 1 - (time - below)), (below + 1, time - below)):
            if row < num_snippets:
                weights[row] += float(weight)
    return weights


def cell_mask(first: int, last: int, num_samples: int, num_snippets: int) -> np.ndarray:
    """(N, T): the weights of each sample of place [first, last]."""
    points = sample_points(first, last, num_samples)
    samples = []
    for n in range(num_samples):
        of_sample = points[n * POINTS_PER_BIN : (n + 1) * POINTS_PER_BIN]
        samples.append(sum(point_weights(time, num_snippets) for time in of_sample) / POINTS_PER_BIN)
    return np.stack(samples)


def sampling_mask(num_samples: int, num_snippets: int, max_duration: int | None = None) -> Tensor:
    """The original's fixed mask (T, N, T, T), zero where the segment would end before it starts or is too long."""
    mask = np.zeros((num_snippets, num_samples, num_snippets, num_snippets))
    for first, last in places(num_snippets, max_duration):
        mask[:, :, first, last] = cell_mask(first, last, num_samples, num_snippets).T
    return torch.from_numpy(mask).float()


def places(num_snippets: int, max_duration: int | None = None) -> list[tuple[int, int]]:
    longest = num_snippets if max_duration is None else max_duration
    return [(i, j) for i in range(num_snippets) for j in range(i, min(num_snippets, i + longest))]


class DirectBoundaryMatching:
    """The boundary-matching layer and the 3-D convolution as the paper draws them, with the whole (C, N, T, T) map."""

    def __init__(self, num_samples: int, num_snippets: int, max_duration: int | None = None) -> None:
        self.mask_TNSE = sampling_mask(num_samples, num_snippets, max_duration)

    def __call__(self, feats_BCT: Tensor, weight_OCN: Tensor, bias_O: Tensor) -> Tensor:
        samples_BCNSE = torch.tensordot(feats_BCT, self.mask_TNSE, dims=1)
        stride = (weight_OCN.shape[2], 1, 1)
        return F.conv3d(samples_BCNSE, weight_OCN[..., None, None], bias_O, stride=stride).squeeze(2).relu()


def convolution_weight(samples: Tensor, num_samples: int) -> Tensor:
    """The weights (O, C, N) of the 3-D convolution from those of `BoundaryMatching`, (N * O, C)."""
    return samples.view(num_samples, -1, samples.shape[1]).permute(1, 2, 0)


def network(head: nn.Module, feats_BCT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Start (B, T), end (B, T) and cells (B, 2 + K, T, T), all before the sigmoid, with the head's weights.

    Whatever is no segment is set to zero before each convolution that sees neighbours.
    """
    weights = dict(head.named_parameters())

    def conv1d(feats: Tensor, name: str) -> Tensor:
        weight = weights[f"{name}.weight"]
        groups = feats.shape[1] // weight.shape[1]
        return F.conv1d(feats, weight, weights[f"{name}.bias"], padding=weight.shape[2] // 2, groups=groups)

    def conv2d(map_: Tensor, name: str) -> Tensor:
        weight = weights[f"{name}.weight"]
        weight = weight if weight.ndim == 4 else weight[..., None, None]
        return F.conv2d(map_ * is_segment, weight, weights[f"{name}.bias"], padding=weight.shape[2] // 2)

    num_snippets, num_samples = feats_BCT.shape[2], head.match.num_samples
    is_segment = torch.zeros(num_snippets, num_snippets)
    for place in places(num_snippets, head.max_duration):
        is_segment[place] = 1
    base = conv1d(conv1d(feats_BCT, "base.0").relu(), "base.2").relu()
    start, end = (conv1d(conv1d(base, f"{name}.0").relu(), f"{name}.2").squeeze(1) for name in ("start", "end"))
    direct = DirectBoundaryMatching(num_samples, num_snippets, head.max_duration)
    weight_OCN = convolution_weight(weights["match.samples.weight"], num_samples)
    map_ = direct(conv1d(base, "proposal.0").relu(), weight_OCN, weights["match.bias"])
    for name in ("localize.0", "localize.2.convolution", "localize.4.convolution"):
        map_ = conv2d(map_, name).relu()
    return start, end, conv2d(map_, "localize.6")


def iou_map(segments: list[tuple[float, float]], num_snippets: int) -> np.ndarray:
    gap = 1 / num_snippets
    result = np.zeros((num_snippets, num_snippets))
    for i, j in places(num_snippets):
        cell = (i * gap, (j + 1) * gap)
        result[i, j] = max((tiou(cell, (s * gap, e * gap)) for s, e in segments), default=0.0)
    return result


def boundary_scores(boundaries: list[float], num_snippets: int) -> np.ndarray:
    """Boundaries in rows; anchors and regions as shares of the window. At T = 100 a region is 0.015 to both sides."""
    gap = 1 / num_snippets
    result = np.zeros(num_snippets)
    for i in range(num_snippets):
        low, high = (i - 0.5) * gap, (i + 0.5) * gap
        for boundary in boundaries:
            region = (boundary * gap - 1.5 * gap, boundary * gap + 1.5 * gap)
            result[i] = max(result[i], max(0.0, min(high, region[1]) - max(low, region[0])) / (high - low))
    return result


def losses(
    start: np.ndarray,
    end: np.ndarray,
    reg: np.ndarray,
    cls: np.ndarray,
    segments: list[tuple[float, float]],
    draws: dict[tuple[int, int], float],
) -> dict[str, float]:
    """The original's losses of one window; a place is chosen for the regression if its draw is below the share."""
    num_snippets = len(start)
    rows = np.ones(num_snippets, dtype=bool)
    node = 0.0
    for probability, boundaries in ((start, [s for s, _ in segments]), (end, [e for _, e in segments])):
        node += weighted_bce(probability, boundary_scores(boundaries, num_snippets) > 0.5, rows)
    iou = iou_map(segments, num_snippets)
    is_segment = np.triu(np.ones_like(iou)) > 0
    counts = {"high": 0, "middle": 0, "low": 0}
    for place in places(num_snippets):
        if (kind := _kind(iou[place])) is not None:
            counts[kind] += 1
    error, chosen = 0.0, 0
    for place in places(num_snippets):
        kind = _kind(iou[place])
        if kind is not None and (kind == "high" or draws[place] < counts["high"] / counts[kind]):
            error += (reg[place] - iou[place]) ** 2
            chosen += 1
    parts = {"node": node, "reg": 0.5 * error / chosen, "cls": weighted_bce(cls, iou > 0.9, is_segment)}
    return {"loss": parts["node"] + 10 * parts["reg"] + parts["cls"], **parts}


def _kind(iou: float) -> str | None:
    if iou > 0.7:
        return "high"
    if iou > 0.3:
        return "middle"
    return "low" if iou > 0 else None


def decode(start: np.ndarray, end: np.ndarray, reg: np.ndarray, cls: np.ndarray) -> dict[tuple[int, int], float]:
    """The original's proposals, {(start, end) in rows: score}: all pairs with an end below T."""
    num_snippets = len(start)
    found = {}
    for i in range(num_snippets):
        for j in range(i, num_snippets):
            if j + 1 < num_snippets:
                found[i, j + 1] = float(start[i] * end[j + 1] * cls[i, j] * reg[i, j])
    return found
