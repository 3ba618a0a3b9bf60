"""Convolutions that say something about every point of a level, shared by all levels of a pyramid."""

from __future__ import annotations

import math

from torch import Tensor, nn

from heads.masked import MaskedConv1d, MaskedConvs

# Probability of each class that an untrained head gives (Lin et al., 2017, section 4.1).
PRIOR = 0.01


class PointHead(nn.Module):
    """Three convolutions over the points of a level, (B, C, T) -> (B, outputs, T)."""

    def __init__(self, channels: int, outputs: int, *, hidden: int | None = None, size: int = 3) -> None:
        super().__init__()
        hidden = channels if hidden is None else hidden
        self.hidden = MaskedConvs(channels, hidden, hidden, size=size)
        self.out = MaskedConv1d(hidden, outputs, size)

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> Tensor:
        out: Tensor = self.out(self.hidden(feats_BCT, valid_BT), valid_BT)[0]
        return out


def reset_biases(network: nn.Module, *classify: PointHead) -> None:
    """Set the biases of all convolutions to 0, and those of what scores classes so that each begins at the prior."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for head in classify:
        bias = head.out.convolution.bias
        assert bias is not None
        nn.init.constant_(bias, -math.log((1 - PRIOR) / PRIOR))
