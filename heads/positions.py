"""Where a row stands, as sines and cosines (Vaswani et al., 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PositionEmbedding(nn.Module):
    """Adds a table of `num_rows` positions to features (B, C, T); it has nothing to learn.

    A sequence of at most `num_rows` rows has as many entries of the table as it has rows, from the first on. Over a
    longer one the whole table is stretched, linearly between its entries. The length is that of each sequence by
    itself, without its padding.
    """

    def __init__(self, channels: int, num_rows: int) -> None:
        super().__init__()
        self.register_buffer("table_TC", sinusoids(channels, num_rows), persistent=False)
        self.table_TC: Tensor

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> Tensor:
        position_BT = self._positions(valid_BT)
        below_BT = position_BT.long()
        above_BT = (below_BT + 1).clamp(max=len(self.table_TC) - 1)
        share_BT1 = (position_BT - below_BT)[..., None]
        embedded_BTC = torch.lerp(self.table_TC[below_BT], self.table_TC[above_BT], share_BT1)
        return feats_BCT + embedded_BTC.mT.to(feats_BCT.dtype) * valid_BT[:, None]

    def _positions(self, valid_BT: Tensor) -> Tensor:
        """Place of each row in the table (B, T), between two entries where the table is stretched."""
        row_T = torch.arange(valid_BT.shape[1], device=valid_BT.device)
        num_rows_B1 = valid_BT.sum(dim=1, keepdim=True).clamp(min=1)
        step_B1 = (len(self.table_TC) / num_rows_B1).clamp(max=1)
        return ((row_T + 0.5) * step_B1 - 0.5).clamp(0, len(self.table_TC) - 1)


def sinusoids(channels: int, num_rows: int) -> Tensor:
    """(T, C): the sine (even j) or cosine (odd j) of t / 10000^(2⌊j/2⌋/C), over √C."""
    channel_C = torch.arange(channels, dtype=torch.double)
    angle_TC = torch.arange(num_rows)[:, None] / 10000 ** (2 * (channel_C // 2) / channels)
    return (torch.where(channel_C % 2 == 0, angle_TC.sin(), angle_TC.cos()) / math.sqrt(channels)).float()
