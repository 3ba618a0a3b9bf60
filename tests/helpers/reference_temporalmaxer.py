"""TemporalMaxer's parts as its definitions say them: one row, one point, one segment at a time."""

from __future__ import annotations

import math

import torch
from reference_actionformer import Segment, assign, convolve, diou, focal, layer_norm, points, stack
from torch import Tensor, nn


def pool(feats_CT: Tensor) -> Tensor:
    """The greatest of three rows at every second one."""
    num_rows = feats_CT.shape[1]
    maxima = [feats_CT[:, max(0, row - 1) : row + 2].amax(dim=1) for row in range(0, num_rows, 2)]
    return torch.stack(maxima, dim=1)


def group_norm(feats_CT: Tensor, groups: int, num_rows: int | None = None) -> Tensor:
    """Over the channels of a group and all rows, of which there are `num_rows` with those of zeros behind the end."""
    num_rows = feats_CT.shape[1] if num_rows is None else num_rows
    normed = []
    for group_ET in feats_CT.chunk(groups):
        count = len(group_ET) * num_rows
        mean = group_ET.sum() / count
        variance = group_ET.square().sum() / count - mean**2
        normed.append((group_ET - mean) / (variance + 1e-5).sqrt())
    return torch.cat(normed)


def network(head: nn.Module, feats_CT: Tensor, *, padded_rows: int | None = None) -> tuple[Tensor, Tensor]:
    """Logits (P, K) and offsets (P, 2) of one sequence; `padded_rows`: with those that count zeros."""
    feats_CT = stack(head.embedding, feats_CT)
    logits, offsets = [], []
    for level in range(head.num_levels):
        if level:
            feats_CT = pool(feats_CT)
        if hasattr(head.norm, "groups"):
            counted = None if padded_rows is None else math.ceil(padded_rows / 2**level)
            normed_CT = group_norm(feats_CT, 4, counted)
        else:
            normed_CT = layer_norm(head.norm, feats_CT)
        out = [
            convolve(part.out.convolution, stack(part.hidden, normed_CT)).T for part in (head.classify, head.regress)
        ]
        logits.append(out[0])
        offsets.append((head.level_scale[level] * out[1]).relu())
    return torch.cat(logits), torch.cat(offsets)


def cheapest(
    time: float, stride: float, logits: list[float], offsets: Segment, segments: list[Segment], labels: list[int]
) -> Segment:
    """The offsets, in strides, to the ends of the segment that the point lies in and that costs it least."""
    costs = []
    for (start, end), label in zip(segments, labels, strict=True):
        if start <= time <= end and end > start:
            own = ((time - start) / stride, (end - time) / stride)
            classification = sum(focal(logit, float(k == label)) for k, logit in enumerate(logits))
            costs.append((classification + 2 * diou(offsets, own), own))
    return min(costs)[1]


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
        for place, (time, stride, *_) in enumerate(all_points):
            own, logits = assigned[place], logits_BPK[video][place]
            if time >= num_rows[video]:
                continue
            if own is not None:
                positives += 1
                offsets = tuple(offsets_BP2[video][place])
                reg += diou(offsets, cheapest(time, stride, logits, offsets, clipped, labels[video]))
                if not own[0]:
                    continue
            for label, logit in enumerate(logits):
                target = float(own is not None and label in own[0])
                cls += focal(logit, target * (1 - smoothing) + smoothing / (len(logits) + 1))
    return cls, reg, positives
