"""The convolutions over the points of a level, and what they begin with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from heads.point_head import PointHead, reset_biases


@pytest.mark.parametrize(("hidden", "size"), [(None, 3), (12, 1), (12, 5)])
def test_three_convolutions(hidden: int | None, size: int) -> None:
    head, width = PointHead(6, 4, hidden=hidden, size=size), hidden or 6
    assert [tuple(m.weight.shape) for m in head.modules() if isinstance(m, nn.Conv1d)] == [
        (width, 6, size),
        (width, width, size),
        (4, width, size),
    ]
    valid_BT = torch.arange(9) < torch.tensor([[9], [4]])
    out_BCT = head(torch.randn(2, 6, 9).masked_fill(~valid_BT[:, None], torch.nan), valid_BT)
    assert out_BCT.shape == (2, 4, 9)
    assert torch.equal(out_BCT.ne(0).any(dim=1), valid_BT)


def test_biases_begin_at_zero_and_those_of_classes_at_the_prior() -> None:
    network = nn.ModuleList([PointHead(4, 3), PointHead(4, 3), nn.Conv1d(4, 4, 1)])
    reset_biases(network, network[0])
    assert not network[1].out.convolution.bias.any()
    assert not network[2].bias.any()
    torch.testing.assert_close(network[0].out.convolution.bias.sigmoid(), torch.full((3,), 0.01))
