"""Real clips with their actions and boundary clips with their kinds in one batch, for encoders that learn both."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.clips.batches import ClipBatches
from pipeline.commands.bsp_synth.boundary_clips import BoundaryBatches


class JointBatch(NamedTuple):
    """R real clips before S boundary clips, and why others are missing."""

    clips: Tensor  # (R + S, 3, L, H, W) uint8
    actions: Tensor  # (R,) long
    kinds: Tensor  # (S,) long
    failed: list[tuple[str, str]]  # clip, reason


class JointBatches:
    """Each place of a batch gives a boundary clip and a real one, so that a batch of B places has 2·B clips.

    Over the epochs all real clips come equally often, however many boundary clips an epoch has.
    """

    def __init__(self, real: ClipBatches, boundary: BoundaryBatches) -> None:
        self.real, self.boundary = real, boundary

    def __len__(self) -> int:
        return len(self.boundary)

    def __getitem__(self, places: list[tuple[int, int]]) -> JointBatch:
        """The batch of these (epoch, index) pairs."""
        real = self.real[[self._real_place(epoch, index) for epoch, index in places]]
        boundary = self.boundary[places]
        clips = torch.cat([real.clips.to(torch.uint8), boundary.clips])
        return JointBatch(clips, real.labels, boundary.kinds, [*real.failed, *boundary.failed])

    def _real_place(self, epoch: int, index: int) -> tuple[int, int]:
        """Pass over the real clips, and index in it."""
        return divmod(epoch * len(self) + index, len(self.real))
