"""Segments of a batch of sequences, laid side by side until the points are known that are to find them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class PaddedSegments(NamedTuple):
    """Segments of each sequence; behind the last one, segments [0, 0].

    Which point is for which segment depends on the length of the sequences, so that only the loss knows it.
    """

    segments: Tensor  # (B, N, 2) rows
    labels: Tensor  # (B, N) long, -1: no class

    def cut(self, num_rows_B: Tensor) -> Tensor:
        """The segments (B, N, 2), no more of each than lies in its sequence; of one outside, nothing is left."""
        return self.segments.clamp(min=0).minimum(num_rows_B[:, None, None].to(self.segments.dtype))


def pad_segments(
    segments: Sequence[Tensor], labels: Sequence[Tensor], *, classes: bool, device: torch.device
) -> PaddedSegments:
    """Of each sequence segments (N, 2) in rows and class indices (N,), -1 for no class; all alike without `classes`."""
    segments_BN2 = pad_sequence([x.float() for x in segments], batch_first=True).to(device)
    labels_BN = pad_sequence([x.long() for x in labels], batch_first=True, padding_value=-1).to(device)
    return PaddedSegments(segments_BN2, labels_BN if classes else torch.zeros_like(labels_BN))
