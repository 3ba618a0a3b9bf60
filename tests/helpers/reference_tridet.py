"""TriDet's parts as its definitions say them: one row, one point, one class, one place at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from reference_actionformer import Segment, assign, convolve, diou, focal, layer_norm, points, stack
from reference_temporalmaxer import group_norm, pool
from torch import Tensor, nn


def sgp(module: nn.Module, feats_CT: Tensor) -> Tensor:
    """f(x)·φ(x) + ψ(x)·(narrow(x) + wide(x)) + x of one sequence without padding."""
    mean_C1 = torch.stack([channel.mean() for channel in feats_CT])[:, None]
    whole_C1 = convolve(module.whole, mean_C1).relu()
    instant_CT = convolve(module.instant, feats_CT) * whole_C1
    window_CT = convolve(module.gate, feats_CT) * (convolve(module.narrow, feats_CT) + convolve(module.wide, feats_CT))
    return instant_CT + window_CT + feats_CT


def scaled(drop: nn.Module, feats_CT: Tensor) -> Tensor:
    return drop.scale[:, None] * feats_CT if hasattr(drop, "scale") else feats_CT


def block(module: nn.Module, feats_CT: Tensor, num_rows: int) -> Tensor:
    """A block in evaluation. Only the first `num_rows` rows that come out have an identity; all others are as real."""
    if module.pool is not None:
        feats_CT = pool(feats_CT)
    mixed_CT = scaled(module.drop1, sgp(module.sgp, layer_norm(module.norm, feats_CT)))
    identity_CT = feats_CT.clone()
    identity_CT[:, num_rows:] = 0
    feats_CT = identity_CT + mixed_CT
    norm = module.mlp_norm
    normed_CT = group_norm(feats_CT, 16) * norm.weight[:, None] + norm.bias[:, None]
    hidden_CT = F.gelu(convolve(module.mlp[0], normed_CT))
    return feats_CT + scaled(module.drop2, convolve(module.mlp[2], hidden_CT))


def network(head: nn.Module, feats_CT: Tensor, *, padded_rows: int | None = None) -> tuple[Tensor, ...]:
    """Logits, starts, ends (P, K) and centres (P, 2 D) of one sequence; with `padded_rows`, zeros follow it."""
    num_rows = feats_CT.shape[1]
    feats_CT = stack(head.embedding, feats_CT)
    if padded_rows is not None:
        feats_CT = F.pad(feats_CT, (0, padded_rows - num_rows))
    for module in head.stem:
        feats_CT = block(module, feats_CT, num_rows)
    out: tuple[list[Tensor], ...] = ([], [], [], [])
    for level in range(head.num_levels):
        if level:
            num_rows = math.ceil(num_rows / 2)
            feats_CT = block(head.branch[level - 1], feats_CT, num_rows)
        normed_CT = layer_norm(head.neck[level], feats_CT[:, :num_rows])
        for found, part in zip(out, (head.classify, head.start, head.end, head.centre), strict=True):
            found.append(convolve(part.out.convolution, stack(part.hidden, normed_CT)).T)
        out[3][-1] = (head.level_scale[level] * out[3][-1]).relu()
    return tuple(torch.cat(found) for found in out)


def trident(
    starts: Sequence[float], ends: Sequence[float], point: int, back: Sequence[float], on: Sequence[float]
) -> Segment:
    """Offsets of a point among those of its level, for one class.

    Args:
        starts: logit of a start at each point of the level.
        ends: logit of an end at each point of the level.
        point: which of them it is.
        back: what the point itself says of the places 0, 1, … before it.
        on: what it says of those behind it.
    """

    def mean(boundary: Sequence[float], own: Sequence[float], direction: int) -> float:
        votes = []
        for distance, vote in enumerate(own):
            place = point + direction * distance
            votes.append(math.exp(vote + (boundary[place] if 0 <= place < len(boundary) else 0)))
        return sum(distance * vote for distance, vote in enumerate(votes)) / sum(votes)

    return mean(starts, back, -1), mean(ends, on, 1)


def offsets_of(starts_PK: Tensor, ends_PK: Tensor, centres_P2D: Tensor, sizes: Sequence[int]) -> list[list[Segment]]:
    """Offsets of every class at every point."""
    found, first = [], 0
    for size in sizes:
        for point in range(size):
            back, on = centres_P2D[first + point].tolist()
            found.append(
                [
                    trident(
                        starts_PK[first : first + size, k].tolist(),
                        ends_PK[first : first + size, k].tolist(),
                        point,
                        back[::-1],
                        on,
                    )
                    for k in range(starts_PK.shape[1])
                ]
            )
        first += size
    return found


def iou(offsets: Segment, target: Segment) -> float:
    overlap = min(offsets[0], target[0]) + min(offsets[1], target[1])
    return overlap / max(sum(offsets) + sum(target) - overlap, 1e-8)


def loss(
    logits_BPK: list,
    offsets_BPK: list[list[list[Segment]]],
    num_rows: list[int],
    padded_rows: int,
    num_levels: int,
    segments: list[list[Segment]],
    labels: list[list[int]],
    smoothing: float,
    power: float,
) -> tuple[float, float, int]:
    """Sums of both losses over the batch, before they are divided, and the number of positive points."""
    cls, reg, positives = 0.0, 0.0, 0
    all_points = points(padded_rows, num_levels)
    for video in range(len(num_rows)):
        clipped = [(min(max(s, 0), num_rows[video]), min(max(e, 0), num_rows[video])) for s, e in segments[video]]
        assigned = assign(all_points, clipped, labels[video])
        for place, (time, *_) in enumerate(all_points):
            own = assigned[place]
            if time >= num_rows[video] or (own is not None and not own[0]):
                continue
            positives += own is not None
            num_classes = len(logits_BPK[video][place])
            for label, logit in enumerate(logits_BPK[video][place]):
                target = float(own is not None and label in own[0])
                lost = focal(logit, target * (1 - smoothing) + smoothing / (num_classes + 1))
                if own is not None and target:
                    lost *= iou(offsets_BPK[video][place][label], own[1]) ** power
                    reg += diou(offsets_BPK[video][place][label], own[1])
                cls += lost
    return cls, reg, positives
