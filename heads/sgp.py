"""Scalable-granularity perception, the layer of TriDet (Shi et al., CVPR 2023, section 3.2), in place of attention.

A layer of attention makes all rows of a video alike, since each becomes a mean of others. This one adds to every row
what a scale tells from the whole video (instant level), and what two convolutions, one wide and one narrow, gather
around it, times what a third makes of its neighbourhood (window level). All work channel by channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heads.masked import ChannelNorm, MaskedGroupNorm, MaskedMaxPool, masked
from heads.stochastic_depth import ScaledDropPath

NORM_GROUPS = 16


def wide_size(size: int, ratio: float) -> int:
    """Rows that the wide convolution sees, odd, where the narrow one sees `size`."""
    wide = round((size + 1) * ratio)
    return wide + 1 - wide % 2


class SGP(nn.Module):
    """(B, C, T) kept: f(x)·φ(x) + ψ(x)·(narrow(x) + wide(x)) + x, with φ of the mean over all rows.

    Rows outside of the sequence are zeros, and take no part in the mean.

    Args:
        channels: C.
        size: rows that the narrow convolution and ψ see, odd.
        wide_ratio: see `wide_size`.
        deviation: standard deviation of the first weights. With 0, all of f, φ, ψ and the two convolutions are 0 at
            first, and so are the gradients of them all, for each is multiplied with another: they stay 0.
    """

    def __init__(self, channels: int, *, size: int, wide_ratio: float, deviation: float) -> None:
        super().__init__()

        def depthwise(size: int) -> nn.Conv1d:
            return nn.Conv1d(channels, channels, size, padding=size // 2, groups=channels)

        self.instant, self.whole = depthwise(1), depthwise(1)
        self.narrow, self.wide, self.gate = depthwise(size), depthwise(wide_size(size, wide_ratio)), depthwise(size)
        for convolution in self.children():
            assert isinstance(convolution, nn.Conv1d)
            nn.init.normal_(convolution.weight, std=deviation)

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> Tensor:
        feats_BCT = masked(feats_BCT, valid_BT)
        mean_BC1 = (feats_BCT.sum(dim=2) / valid_BT.sum(dim=1, keepdim=True).clamp(min=1))[..., None]
        instant_BCT = _convolve(self.instant, feats_BCT) * _convolve(self.whole, mean_BC1).relu()
        window_BCT = _convolve(self.narrow, feats_BCT) + _convolve(self.wide, feats_BCT)
        window_BCT = window_BCT * _convolve(self.gate, feats_BCT)
        return instant_BCT + window_BCT + feats_BCT


def _convolve(depthwise: nn.Conv1d, feats_BCT: Tensor) -> Tensor:
    """The convolution; of size 1 it is a product, which torch's own on the CPU makes channel after channel, slowly."""
    convolved_BCT: Tensor
    if depthwise.kernel_size == (1,):
        assert depthwise.bias is not None
        convolved_BCT = feats_BCT * depthwise.weight[:, 0] + depthwise.bias[:, None]
    else:
        convolved_BCT = depthwise(feats_BCT)
    return convolved_BCT


class SGPBlock(nn.Module):
    """SGP and an MLP on each row, both as branches, (B, C, T) -> (B, C, T), or ceil(T/2) rows with `halve`.

    Args:
        channels: C, a multiple of 16.
        hidden: channels of the MLP.
        halve: pool first.
        drop_path: probability that a branch is left out, for a sequence in training, with a scale for each channel;
            None: branches have no scale, and are never left out.
        over_padding: padding takes part like rows of the sequence, in the means, in what convolutions see and in
            pooling; only the identity is without it, as in the public code.
        size, wide_ratio, deviation: as in `SGP`.
    """

    def __init__(
        self,
        channels: int,
        *,
        size: int,
        wide_ratio: float,
        deviation: float,
        hidden: int,
        halve: bool,
        drop_path: float | None,
        over_padding: bool,
    ) -> None:
        super().__init__()
        self.over_padding = over_padding
        self.pool = MaskedMaxPool() if halve else None
        self.norm, self.mlp_norm = ChannelNorm(channels), MaskedGroupNorm(NORM_GROUPS, channels)
        self.sgp = SGP(channels, size=size, wide_ratio=wide_ratio, deviation=deviation)
        self.mlp = nn.Sequential(nn.Conv1d(channels, hidden, 1), nn.GELU(), nn.Conv1d(hidden, channels, 1))
        self.drop1, self.drop2 = (
            nn.Identity() if drop_path is None else ScaledDropPath(channels, drop_path) for _ in range(2)
        )

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        seen_BT = torch.ones_like(valid_BT) if self.over_padding else valid_BT
        if self.pool is not None:
            feats_BCT, seen_BT = self.pool(feats_BCT, seen_BT)
            valid_BT = valid_BT[:, ::2]
        mixed_BCT = self.sgp(self.norm(feats_BCT), seen_BT)
        feats_BCT = masked(feats_BCT, valid_BT) + self.drop1(mixed_BCT)
        return feats_BCT + self.drop2(self.mlp(self.mlp_norm(feats_BCT, seen_BT))), valid_BT
