"""G-TAD's parts as its definitions say them: slow, direct, one cell or one segment at a time."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

INNER_BINS, CONTEXT_BINS = 32, 4


def interpolate(rows_TC: np.ndarray, time: Fraction) -> np.ndarray:
    """f(t) of Align1D: zero before -1 and after T, held at both edges, linear between rows."""
    last = len(rows_TC) - 1
    if time < -1 or time > len(rows_TC):
        return np.zeros_like(rows_TC[0])
    time = max(time, Fraction(0))
    below = math.floor(time)
    if below >= last:
        return rows_TC[last]
    fraction = float(time - below)
    return (1 - fraction) * rows_TC[below] + fraction * rows_TC[below + 1]


def align1d(rows_TC: np.ndarray, start: float, end: float, num_bins: int) -> np.ndarray:
    """Align1D (bins, C) of the interval [start, end]: each bin is the mean of f at g points."""
    length = max(Fraction(end) - Fraction(start), Fraction(1))
    width = length / num_bins
    points = math.ceil(width)
    bins = []
    for bin_ in range(num_bins):
        times = [Fraction(start) + bin_ * width + (point + Fraction(1, 2)) * width / points for point in range(points)]
        bins.append(sum(interpolate(rows_TC, time) for time in times) / points)
    return np.stack(bins)


def cell_interval(start: int, duration: int, num_snippets: int) -> tuple[float, float]:
    """What the original looks at for cell (s, d); [0, 0] if the cell would end after T."""
    if start + duration >= num_snippets:
        return 0.0, 0.0
    margin = (duration + 1) / 2
    return start - margin, start + duration + margin


def align_tensor(num_bins: int, num_snippets: int, max_duration: int) -> Tensor:
    """Aligning is linear: its matrix (T, bins, D, T) is what it makes of the identity."""
    identity = np.eye(num_snippets)
    cells = [
        align1d(identity, *cell_interval(start, duration, num_snippets), num_bins)
        for duration in range(max_duration)
        for start in range(num_snippets)
    ]
    matrix_NKT = torch.from_numpy(np.stack(cells)).float()
    return matrix_NKT.permute(2, 1, 0).reshape(num_snippets, num_bins, max_duration, num_snippets).contiguous()


class DirectSGAlign:
    """SGAlign and the 1x1 convolution after it as the paper draws them, with the whole (C*36, D, T) map between."""

    def __init__(
        self, num_snippets: int, max_duration: int, inner_bins: int = INNER_BINS, context_bins: int = CONTEXT_BINS
    ) -> None:
        self.inner = align_tensor(inner_bins, num_snippets, max_duration)
        self.context = align_tensor(context_bins, num_snippets, max_duration)

    def __call__(self, feats_BCT: Tensor, context_BCT: Tensor, weight_OI: Tensor, bias_O: Tensor) -> Tensor:
        inner = torch.tensordot(feats_BCT, self.inner, dims=1)
        context = torch.tensordot(context_BCT, self.context, dims=1)
        # Channel c*36 + bin.
        map_BIDT = torch.cat([inner, context], dim=2).flatten(1, 2)
        return torch.nn.functional.conv2d(map_BIDT, weight_OI[:, :, None, None], bias_O).relu()


def convolution_weight(
    inner: Tensor, context: Tensor, inner_bins: int = INNER_BINS, context_bins: int = CONTEXT_BINS
) -> Tensor:
    """The weights (O, C*36) of the convolution from SGAlign's, (32*O, C) and (4*O, C)."""
    channels = inner.shape[1]
    weight_KOC = torch.cat([inner.view(inner_bins, -1, channels), context.view(context_bins, -1, channels)])
    return weight_KOC.permute(1, 2, 0).flatten(1)


def gcnext(block: torch.nn.Module, feats_BCT: Tensor) -> Tensor:
    """GCNeXt with the features of every edge written out: (neighbour, self), 2C channels."""
    batch, channels, num_rows = feats_BCT.shape
    k = min(3, num_rows)
    edges = feats_BCT.new_zeros(batch, 2 * channels, num_rows, k)
    for sample in range(batch):
        for row in range(num_rows):
            here = feats_BCT[sample, :, row]
            distances = ((feats_BCT[sample] - here[:, None]) ** 2).sum(dim=0)
            for place, neighbour in enumerate(distances.argsort()[:k].tolist()):
                edges[sample, :, row, place] = torch.cat([feats_BCT[sample, :, neighbour], here])
    first = torch.nn.functional.conv2d(edges, block.edge.weight[..., None], block.edge.bias)
    semantic = block.semantic(first).max(dim=3).values
    return (block.temporal(feats_BCT) + feats_BCT + semantic).relu()


def tiou(first: tuple[float, float], second: tuple[float, float]) -> float:
    overlap = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    return overlap / ((first[1] - first[0]) + (second[1] - second[0]) - overlap)


def iou_map(segments: list[tuple[float, float]], num_snippets: int, max_duration: int) -> np.ndarray:
    """G-TAD's map in units of the whole window, with gap = 1/T."""
    gap = 1 / num_snippets
    result = np.zeros((max_duration, num_snippets))
    for j in range(max_duration):
        for i in range(num_snippets - j):
            cell = (i * gap, (i + j + 1) * gap)
            result[j, i] = max((tiou(cell, (s * gap, e * gap)) for s, e in segments), default=0.0)
    return result


def boundary_scores(boundaries: list[float], num_snippets: int) -> np.ndarray:
    gap = 1 / num_snippets
    result = np.zeros(num_snippets)
    for k in range(num_snippets):
        low, high = (k - 0.5) * gap, (k + 1.5) * gap
        for boundary in boundaries:
            region = (boundary * gap - 1.5 * gap, boundary * gap + 1.5 * gap)
            result[k] = max(result[k], max(0.0, min(high, region[1]) - max(low, region[0])) / (high - low))
    return result


def weighted_bce(probability: np.ndarray, positive: np.ndarray, mask: np.ndarray) -> float:
    """The weighting as BSN writes it, by r = N/N+; needs both kinds."""
    total, positives = mask.sum(), (positive & mask).sum()
    r = total / positives
    loss = 0.0
    for p, y, m in zip(probability.flat, positive.flat, mask.flat, strict=True):
        if m:
            loss -= 0.5 * r * y * math.log(p + 1e-6) + 0.5 * r / (r - 1) * (1 - y) * math.log(1 - p + 1e-6)
    return loss / total


def decode(start: list[float], end: list[float], reg: np.ndarray, cls: np.ndarray) -> dict[tuple[int, int], float]:
    """The original's proposals, {(start, end) in rows: score}: no end at T."""
    last = len(start) - 1
    start_ok = [_peak(start, i) or start[i] > 0.5 * max(start) or i == 0 for i in range(len(start))]
    end_ok = [_peak(end, i) or end[i] > 0.5 * max(end) or i == last for i in range(len(end))]
    found = {}
    for duration in range(len(reg)):
        for begin in range(len(start)):
            stop = begin + duration + 1
            if stop < len(start) and start_ok[begin] and end_ok[stop]:
                found[begin, stop] = float(reg[duration, begin] * cls[duration, begin])
    return found


def weighted_bce_with_ten(probability: np.ndarray, positive: np.ndarray) -> float:
    """The weighting as G-TAD's THUMOS14 code writes it, with 10 more positives and 20 more entries."""
    positives = 10 + positive.sum()
    total = 10 + positives + (~positive).sum()
    r = total / positives
    loss = 0.0
    for p, y in zip(probability.flat, positive.flat, strict=True):
        loss -= 0.5 * r * y * math.log(p + 1e-6) + 0.5 * r / (r - 1) * (1 - y) * math.log(1 - p + 1e-6)
    return loss / total


def _peak(values: list[float], i: int) -> bool:
    return 0 < i < len(values) - 1 and values[i - 1] < values[i] > values[i + 1]


def soft_nms(
    segments: list[tuple[float, float]], scores: list[float], keep: int, sigma: float, length: float | None = None
) -> list[tuple[int, float]]:
    """(place, score) of the kept ones of one video, box by box; BMN's variant where `length` is given."""
    scores = list(scores)
    left = [place for place, score in enumerate(scores) if score > 0]
    kept = []
    while left and len(kept) < keep:
        best = max(left, key=lambda place: scores[place])
        left.remove(best)
        kept.append((best, scores[best]))
        width = segments[best][1] - segments[best][0]
        for place in left:
            iou = tiou(segments[best], segments[place])
            if iou > (0.0 if length is None else 0.5 + 0.4 * width / length):
                scores[place] *= math.exp(-(iou**2) / sigma)
    return kept
