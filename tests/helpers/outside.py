"""A head, an encoder and an annotation reader as somebody else would write them, outside of the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders import Encoder
from heads.base import Proposals
from pipeline.data.annotations import Entry


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """Every row by itself."""

    num_snippets: int = 16
    """Rows of a window."""
    longest: int = 4
    """Longest segment in rows."""


class Rows(nn.Module):
    """Scores each row for each class; a segment's score is the mean of its rows'."""

    Options = RowOptions

    def __init__(self, in_channels: int, *, num_classes: int, num_snippets: int, longest: int) -> None:
        super().__init__()
        self.num_snippets, self.longest = num_snippets, longest
        self.score = nn.Conv1d(in_channels, max(num_classes, 1), 3, padding=1)

    def forward(self, feats_BCT: Tensor) -> Tensor:
        scores_BKT: Tensor = self.score(feats_BCT)
        return scores_BKT

    def targets(self, segments: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        target_BKT = torch.zeros(len(segments), self.score.out_channels, self.num_snippets)
        for target_KT, segments_N2, labels_N in zip(target_BKT, segments, labels, strict=True):
            for (start, end), label in zip(segments_N2.tolist(), labels_N.tolist(), strict=True):
                target_KT[label, int(start) : max(int(start) + 1, round(end))] = 1
        return target_BKT

    def loss(self, output: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss": F.binary_cross_entropy_with_logits(output, targets)}

    def decode(self, output: Tensor) -> Proposals:
        rows = range(self.num_snippets)
        pairs = [(s, s + d) for s in rows for d in range(1, self.longest + 1) if s + d <= self.num_snippets]
        scores_BNK = torch.stack([output.sigmoid()[:, :, start:end].mean(dim=2) for start, end in pairs], dim=1)
        return Proposals(torch.tensor(pairs, dtype=torch.float32).expand(len(output), -1, -1), scores_BNK)


class MeanColour(nn.Module):
    """Clips (B,3,L,H,W) to the mean and the spread of each colour, (B, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(6))

    def forward(self, clips: Tensor) -> Tensor:
        flat_B3N = clips.flatten(2)
        return torch.cat([flat_B3N.mean(dim=2), flat_B3N.std(dim=2)], dim=1) * self.gain


def build(name: str, *, num_frames: int = 4, frame_stride: int = 1, size: int = 32) -> Encoder:
    return Encoder(MeanColour(), name=name, channels=6, num_frames=num_frames, frame_stride=frame_stride, size=size)


def read(path: Path) -> dict[str, Entry]:
    """Lines such as `video|start|end|label|subset`."""
    entries: dict[str, Entry] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        video, start, end, label, subset = line.split("|")
        entry = entries.setdefault(video, Entry(subset=subset))
        entry.segments.append((float(start), float(end), label))
    return entries


NOT_CALLABLE = 3


def not_an_encoder(name: str) -> nn.Module:
    return nn.Identity()


class NoHead(nn.Module):
    pass
