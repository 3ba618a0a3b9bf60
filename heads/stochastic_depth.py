"""Stochastic depth (Huang et al., ECCV 2016) with a scale for each channel, LayerScale (Touvron et al., ICCV 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

INITIAL_SCALE = 1e-4


class ScaledDropPath(nn.Module):
    """What a residual branch adds: (B, C, T) times a learned scale a channel; in training, nothing for some samples.

    A sample's branch is dropped with probability `rate`, and the others are scaled up, so that the mean stays. The
    scales begin near zero: an untrained block is nearly the identity.
    """

    def __init__(self, channels: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.scale = nn.Parameter(torch.full((channels,), INITIAL_SCALE))

    def forward(self, branch_BCT: Tensor) -> Tensor:
        scaled_BCT = branch_BCT * self.scale[:, None]
        if not self.training or self.rate == 0:
            return scaled_BCT
        kept_B11 = torch.rand(len(branch_BCT), 1, 1, device=branch_BCT.device) >= self.rate
        return scaled_BCT * kept_B11 / (1 - self.rate)
