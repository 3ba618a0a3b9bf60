"""ActionFormer's parts as its definitions say them: slow, direct, one row, one point or one segment at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Segment = tuple[float, float]


def attention(
    query_TE: np.ndarray, key_TE: np.ndarray, value_TE: np.ndarray, valid_T: Sequence[bool], radius: float
) -> np.ndarray:
    """One head's attention (T, E): dense, with -inf outside of the window and -10,000 on padding."""
    out_TE = np.zeros_like(value_TE)
    for i in range(len(query_TE)):
        if not valid_T[i]:
            continue
        scores = np.full(len(key_TE), -np.inf)
        for j in range(len(key_TE)):
            if abs(i - j) <= radius:
                scores[j] = query_TE[i] @ key_TE[j] / math.sqrt(query_TE.shape[1]) - (0 if valid_T[j] else 1e4)
        weights = np.exp(scores - scores.max())
        out_TE[i] = weights @ value_TE / weights.sum()
    return out_TE


def layer_norm(norm: nn.Module, feats_CT: Tensor) -> Tensor:
    mean, variance = feats_CT.mean(dim=0), feats_CT.var(dim=0, unbiased=False)
    return (feats_CT - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None] + norm.bias[:, None]


def convolve(convolution: nn.Conv1d, feats_CT: Tensor, stride: int = 1) -> Tensor:
    """A convolution of size 1 or 3 that sees zeros outside, one row of the result at a time."""
    weight, groups, num_rows = convolution.weight, convolution.groups, feats_CT.shape[1]
    size = weight.shape[2]
    columns = []
    for centre in range(0, num_rows, stride):
        column = torch.zeros(weight.shape[0]) if convolution.bias is None else convolution.bias
        for tap in range(size):
            row = centre + tap - size // 2
            if 0 <= row < num_rows:
                # (outputs, inputs of a group), and the inputs group by group
                inputs = feats_CT[:, row].view(groups, -1).repeat_interleave(weight.shape[0] // groups, dim=0)
                column = column + (weight[:, :, tap] * inputs).sum(dim=1)
        columns.append(column)
    return torch.stack(columns, dim=1)


def stack(convs: nn.Module, feats_CT: Tensor) -> Tensor:
    """Convolution, normalisation, ReLU, and so on."""
    for convolution, norm in zip(convs.convolutions, convs.norms, strict=True):
        feats_CT = layer_norm(norm, convolve(convolution.convolution, feats_CT)).relu()
    return feats_CT


def block(module: nn.Module, feats_CT: Tensor, *, num_heads: int, window: int, stride: int) -> Tensor:
    """A transformer block in evaluation, on one sequence without padding."""
    normed_CT = layer_norm(module.norm1, feats_CT)
    parts = []
    for convolution, projection in zip(module.attention.convolutions, module.attention.projections, strict=True):
        convolved_CT = convolve(convolution.convolution, normed_CT, stride)
        parts.append(convolve(projection[1], layer_norm(projection[0], convolved_CT)).detach().numpy())
    width = len(feats_CT) // num_heads
    heads = []
    for head in range(num_heads):
        query, key, value = (part[head * width : (head + 1) * width].T for part in parts)
        heads.append(attention(query, key, value, [True] * len(query), window // 2 if window else math.inf).T)
    attended_CT = convolve(module.attention.out[0], torch.from_numpy(np.concatenate(heads)))
    if stride == 2:
        last = feats_CT.shape[1]
        maxima = [feats_CT[:, max(0, row - 1) : row + 2].amax(dim=1) for row in range(0, last, 2)]
        feats_CT = torch.stack(maxima, dim=1)
    feats_CT = feats_CT + module.drop1.scale[:, None] * attended_CT
    hidden_CT = F.gelu(convolve(module.mlp[0], layer_norm(module.norm2, feats_CT)))
    return feats_CT + module.drop2.scale[:, None] * convolve(module.mlp[3], hidden_CT)


def position(channel: int, time: int, channels: int) -> float:
    angle = time / 10000 ** (2 * (channel // 2) / channels)
    return (math.sin(angle) if channel % 2 == 0 else math.cos(angle)) / math.sqrt(channels)


def network(
    head: nn.Module, feats_CT: Tensor, *, num_heads: int, window: int, last_window: int
) -> tuple[Tensor, Tensor]:
    """Logits (P, K) and offsets (P, 2) of one sequence without padding, in evaluation; without positions."""
    feats_CT = stack(head.embedding, feats_CT)
    windows = [window] * (head.num_levels - 1) + [last_window]
    for module in head.stem:
        feats_CT = block(module, feats_CT, num_heads=num_heads, window=windows[0], stride=1)
    logits, offsets = [], []
    for level in range(head.num_levels):
        if level:
            module = head.branch[level - 1]
            feats_CT = block(module, feats_CT, num_heads=num_heads, window=windows[level], stride=2)
        normed_CT = layer_norm(head.neck[level], feats_CT)
        out = [
            convolve(part.out.convolution, stack(part.hidden, normed_CT)).T for part in (head.classify, head.regress)
        ]
        logits.append(out[0])
        offsets.append((head.level_scale[level] * out[1]).relu())
    return torch.cat(logits), torch.cat(offsets)


def points(num_rows: int, num_levels: int, range_ratio: float = 2) -> list[tuple[float, float, float, float]]:
    """(time, stride, low, high) of all points."""
    found = []
    for level in range(num_levels):
        stride = 2**level
        low = 4 * stride / range_ratio if level else 0.0
        high = 4.0 * stride if level < num_levels - 1 else math.inf
        found += [(row + 0.5, stride, low, high) for row in range(0, num_rows, stride)]
    return found


def assign(
    all_points: list[tuple[float, float, float, float]], segments: list[Segment], labels: list[int]
) -> list[tuple[set[int], Segment] | None]:
    """For each point the classes and the offsets, in strides, of its segment; None without one."""
    result: list[tuple[set[int], Segment] | None] = []
    for time, stride, low, high in all_points:
        passing = []
        for index, (start, end) in enumerate(segments):
            centre = (start + end) / 2
            near = max(centre - 1.5 * stride, start) < time < min(centre + 1.5 * stride, end)
            if near and low <= max(time - start, end - time) <= high:
                passing.append(index)
        if not passing:
            result.append(None)
            continue
        shortest = min(passing, key=lambda index: segments[index][1] - segments[index][0])
        start, end = segments[shortest]
        classes = {labels[i] for i in passing if segments[i][1] - segments[i][0] <= end - start + 1e-3}
        result.append((classes - {-1}, ((time - start) / stride, (end - time) / stride)))
    return result


def focal(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    p_t = p * target + (1 - p) * (1 - target)
    alpha_t = 0.25 * target + 0.75 * (1 - target)
    entropy = -target * math.log(p) - (1 - target) * math.log(1 - p)
    return alpha_t * (1 - p_t) ** 2 * entropy


def diou(offsets: Segment, target: Segment) -> float:
    """From the two segments themselves, around the point 0."""
    (a, b), (c, d) = (-offsets[0], offsets[1]), (-target[0], target[1])
    overlap = min(b, d) - max(a, c)
    union = (b - a) + (d - c) - overlap
    hull = max(b, d) - min(a, c)
    return 1 - overlap / max(union, 1e-8) + (((a + b) / 2 - (c + d) / 2) / max(hull, 1e-8)) ** 2


def loss(
    logits_BPK: list,
    offsets_BP2: list,
    num_rows: list[int],
    padded_rows: int,
    num_levels: int,
    segments: list[list[Segment]],
    labels: list[list[int]],
    smoothing: float,
) -> tuple[float, float, int]:
    """Sums of both losses over the batch, before they are divided, and the number of positive points."""
    cls, reg, positives = 0.0, 0.0, 0
    all_points = points(padded_rows, num_levels)
    for video in range(len(num_rows)):
        clipped = [(min(max(s, 0), num_rows[video]), min(max(e, 0), num_rows[video])) for s, e in segments[video]]
        assigned = assign(all_points, clipped, labels[video])
        for place, (time, *_) in enumerate(all_points):
            own = assigned[place]
            if time >= num_rows[video]:
                continue
            if own is not None:
                positives += 1
                reg += diou(tuple(offsets_BP2[video][place]), own[1])
                if not own[0]:
                    continue
            num_classes = len(logits_BPK[video][place])
            for label, logit in enumerate(logits_BPK[video][place]):
                target = float(own is not None and label in own[0])
                cls += focal(logit, target * (1 - smoothing) + smoothing / (num_classes + 1))
    return cls, reg, positives


def decode(
    scores_PK: list[list[float]],
    segments_PG2: list[list[Segment]],
    sizes: list[int],
    most: int,
    min_score: float,
    min_length: float,
) -> list[tuple[Segment, float, int]]:
    """(segment, score, class) of one sequence, level by level from the best on."""
    found, first = [], 0
    for size in sizes:
        pairs = [
            (scores_PK[point][label], point, label)
            for point in range(first, first + size)
            for label in range(len(scores_PK[point]))
            if scores_PK[point][label] > min_score
        ]
        for score, point, label in sorted(pairs, reverse=True)[:most]:
            # A segment for each class, or one for all.
            start, end = segments_PG2[point][label if len(segments_PG2[point]) > 1 else 0]
            if end - start > min_length:
                found.append(((start, end), score, label))
        first += size
    return found


def vote(kept: Segment, segments: Sequence[Segment], scores: Sequence[float], threshold: float, weight: str) -> Segment:
    """The mean of the segments that overlap a kept one enough, weighted; the kept one itself if there is none."""
    start = end = total = 0.0
    for segment, score in zip(segments, scores, strict=True):
        overlap = max(0.0, min(segment[1], kept[1]) - max(segment[0], kept[0]))
        iou = overlap / ((segment[1] - segment[0]) + (kept[1] - kept[0]) - overlap)
        if iou >= threshold:
            share = score * iou if weight == "score-iou" else score
            start, end, total = start + share * segment[0], end + share * segment[1], total + share
    return (start / total, end / total) if total > 0 else kept
