"""Layers on padded batches of sequences (B, C, T), with a mask (B, T) that tells rows from padding.

What the layers make of a sequence does not depend on how much padding there is behind it, nor on what that holds: each
layer that sees several rows at once masks what it sees.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def masked(feats_BCT: Tensor, valid_BT: Tensor, fill: float = 0.0) -> Tensor:
    """`feats_BCT` with the padding set to `fill`, whatever it held."""
    return feats_BCT.masked_fill(~valid_BT[:, None], fill)


def filled_up(feats_BCT: Tensor, valid_BT: Tensor, *, least: int, multiple: int) -> tuple[Tensor, Tensor]:
    """Sequences and mask with more padding, of zeros: up to `least` rows at least, and to a multiple of `multiple`."""
    num_rows = -(-max(feats_BCT.shape[2], least) // multiple) * multiple
    more = (0, num_rows - feats_BCT.shape[2])
    return F.pad(masked(feats_BCT, valid_BT), more), F.pad(valid_BT, more)


class MaskedConv1d(nn.Module):
    """A convolution of odd size that sees zeros outside of each sequence, and leaves zeros there.

    With stride s, row i of the result is centred at row s·i: (B, C, T) -> (B, C', ceil(T/s)), with the mask to it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, size: int, *, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        assert size % 2 == 1
        self.stride = stride
        self.convolution = nn.Conv1d(
            in_channels, out_channels, size, stride=stride, padding=size // 2, groups=groups, bias=bias
        )

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        strided_BT = valid_BT[:, :: self.stride]
        return masked(self.convolution(masked(feats_BCT, valid_BT)), strided_BT), strided_BT


class MaskedMaxPool(nn.Module):
    """The greatest of three rows at every second one, (B, C, T) -> (B, C, ceil(T/2)); padding takes no part."""

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        strided_BT = valid_BT[:, ::2]
        pooled_BCT = F.max_pool1d(masked(feats_BCT, valid_BT, -torch.inf), 3, stride=2, padding=1)
        return masked(pooled_BCT, strided_BT), strided_BT


class ChannelNorm(nn.Module):
    """Layer normalisation of each row over its channels, (B, C, T) kept."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, feats_BCT: Tensor) -> Tensor:
        return F.layer_norm(feats_BCT.mT, self.weight.shape, self.weight, self.bias, self.eps).mT


class MaskedGroupNorm(nn.Module):
    """Group normalisation (Wu & He, ECCV 2018) over the channels of a group and all rows of a sequence, (B, C, T) kept.

    Padding takes no part. Without `affine` there is nothing to learn.
    """

    def __init__(self, groups: int, channels: int, *, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> Tensor:
        # (B, C, T) -> (B, G, C / G, T)
        grouped_BGET = torch.unflatten(masked(feats_BCT, valid_BT), 1, (self.groups, -1))
        count_B111 = grouped_BGET.shape[2] * valid_BT.sum(dim=1).clamp(min=1)[:, None, None, None]
        mean_BG11 = grouped_BGET.sum(dim=(2, 3), keepdim=True) / count_B111
        centred_BCT = masked((grouped_BGET - mean_BG11).flatten(1, 2), valid_BT)
        centred_BGET = torch.unflatten(centred_BCT, 1, (self.groups, -1))
        variance_BG11 = centred_BGET.square().sum(dim=(2, 3), keepdim=True) / count_B111
        normed_BCT: Tensor = (centred_BGET * (variance_BG11 + self.eps).rsqrt()).flatten(1, 2)
        if self.weight is None or self.bias is None:
            return normed_BCT
        return normed_BCT * self.weight[:, None] + self.bias[:, None]


class MaskedConvs(nn.Module):
    """Convolutions, each with normalisation and ReLU behind it, (B, widths[0], T) -> (B, widths[-1], T)."""

    def __init__(self, *widths: int, size: int = 3) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        # The normalisation has a bias.
        self.convolutions = nn.ModuleList(MaskedConv1d(before, after, size, bias=False) for before, after in pairs)
        self.norms = nn.ModuleList(ChannelNorm(after) for _, after in pairs)

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            feats_BCT = F.relu(norm(convolution(feats_BCT, valid_BT)[0]))
        return masked(feats_BCT, valid_BT)
