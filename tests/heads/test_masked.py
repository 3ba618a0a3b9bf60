"""Layers on padded sequences: what they make of a sequence alone, and that padding changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from heads.masked import (
    ChannelNorm,
    MaskedConv1d,
    MaskedConvs,
    MaskedGroupNorm,
    MaskedMaxPool,
    filled_up,
    masked,
)

LENGTHS = [1, 2, 5, 8]


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """Four sequences of 6 channels in 8 rows, with what must not be looked at behind them."""
    torch.manual_seed(0)
    valid_BT = torch.arange(8) < torch.tensor(LENGTHS)[:, None]
    return torch.randn(4, 6, 8).masked_fill(~valid_BT[:, None], torch.nan), valid_BT


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 6])
def test_a_convolution_of_padded_sequences_is_that_of_each_alone(stride: int, groups: int) -> None:
    feats_BCT, valid_BT = padded()
    module = MaskedConv1d(6, 6, 3, stride=stride, groups=groups)
    out_BCT, strided_BT = module(feats_BCT, valid_BT)
    plain = module.convolution
    for out_CT, valid_T, feats_CT, length in zip(out_BCT, strided_BT, feats_BCT, LENGTHS, strict=True):
        expected = F.conv1d(feats_CT[:, :length], plain.weight, plain.bias, stride=stride, padding=1, groups=groups)
        assert valid_T.sum() == expected.shape[1] == -(-length // stride)
        torch.testing.assert_close(out_CT[:, valid_T], expected)
        assert not out_CT[:, ~valid_T].any()


def test_pooling_takes_the_greatest_row_that_is_there() -> None:
    feats_BCT, valid_BT = padded()
    # Below zero, so that a zero from outside would be the greatest.
    feats_BCT = -feats_BCT.abs() - 1
    out_BCT, strided_BT = MaskedMaxPool()(feats_BCT, valid_BT)
    for out_CT, valid_T, feats_CT, length in zip(out_BCT, strided_BT, feats_BCT, LENGTHS, strict=True):
        expected = [feats_CT[:, max(0, row - 1) : min(row + 2, length)].amax(dim=1) for row in range(0, length, 2)]
        torch.testing.assert_close(out_CT[:, valid_T], torch.stack(expected, dim=1))
        assert not out_CT[:, ~valid_T].any()


def test_pooling_a_sequence_without_rows_has_finite_gradients() -> None:
    feats_BCT = torch.randn(1, 2, 4, requires_grad=True)
    MaskedMaxPool()(feats_BCT, torch.zeros(1, 4, dtype=torch.bool))[0].sum().backward()
    assert feats_BCT.grad is not None
    assert not feats_BCT.grad.any()


def test_the_norm_is_over_the_channels_of_each_row() -> None:
    feats_BCT = 3 + 2 * torch.randn(2, 50, 4)
    norm = ChannelNorm(50)
    out_BCT = norm(feats_BCT)
    torch.testing.assert_close(out_BCT.mean(dim=1), torch.zeros(2, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(out_BCT.var(dim=1, unbiased=False), torch.ones(2, 4), rtol=0, atol=1e-4)
    torch.nn.init.constant_(norm.weight, 2)
    torch.nn.init.constant_(norm.bias, 1)
    torch.testing.assert_close(norm(feats_BCT), 2 * out_BCT + 1)


@pytest.mark.parametrize("affine", [True, False])
def test_group_normalisation_of_padded_sequences_is_that_of_each_alone(affine: bool) -> None:
    feats_BCT, valid_BT = padded()
    feats_BCT = 3 + 2 * feats_BCT
    module = MaskedGroupNorm(3, 6, affine=affine)
    assert len(list(module.parameters())) == (2 if affine else 0)
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 2)
    out_BCT = module(feats_BCT, valid_BT)
    assert out_BCT.isfinite().all()
    for out_CT, feats_CT, length in zip(out_BCT, feats_BCT, LENGTHS, strict=True):
        expected = F.group_norm(feats_CT[None, :, :length], 3, module.weight, module.bias)
        torch.testing.assert_close(out_CT[:, :length], expected[0])


def test_group_normalisation_of_a_sequence_without_rows_has_finite_gradients() -> None:
    feats_BCT = torch.randn(1, 4, 3, requires_grad=True)
    MaskedGroupNorm(2, 4)(feats_BCT, torch.zeros(1, 3, dtype=torch.bool)).sum().backward()
    assert feats_BCT.grad is not None
    assert not feats_BCT.grad.any()


@pytest.mark.parametrize(("least", "multiple", "expected"), [(3, 1, 8), (3, 3, 9), (8, 4, 8), (9, 4, 12), (20, 1, 20)])
def test_filled_up_with_zeros(least: int, multiple: int, expected: int) -> None:
    feats_BCT, valid_BT = padded()
    filled_BCT, filled_BT = filled_up(feats_BCT, valid_BT, least=least, multiple=multiple)
    assert filled_BCT.shape == (4, 6, expected)
    assert torch.equal(filled_BT.sum(dim=1), torch.tensor(LENGTHS))
    assert torch.equal(filled_BT[:, :8], valid_BT)
    assert torch.equal(filled_BCT[..., :8], masked(feats_BCT, valid_BT))
    assert not filled_BCT[..., 8:].any()


def test_stacked_convolutions_keep_padding_out_though_the_norms_have_biases() -> None:
    feats_BCT, valid_BT = padded()
    module = MaskedConvs(6, 4, 4)
    for norm in module.norms:
        torch.nn.init.constant_(norm.bias, 1)
    out_BCT = module(feats_BCT, valid_BT)
    assert not out_BCT.masked_select(~valid_BT[:, None]).any()
    for out_CT, feats_CT, length in zip(out_BCT, feats_BCT, LENGTHS, strict=True):
        alone = module(feats_CT[None, :, :length], torch.ones(1, length, dtype=torch.bool))[0]
        torch.testing.assert_close(out_CT[:, :length], alone)


def test_stacked_convolutions_of_another_size_see_as_many_rows() -> None:
    feats_BCT, valid_BT = torch.zeros(1, 1, 11), torch.ones(1, 11, dtype=torch.bool)
    feats_BCT[..., 5] = 1
    for size in (1, 5):
        [convolution] = MaskedConvs(1, 4, size=size).convolutions
        torch.nn.init.ones_(convolution.convolution.weight)
        seen_T = convolution(feats_BCT, valid_BT)[0][0, 0]
        assert seen_T.nonzero().flatten().tolist() == list(range(5 - size // 2, 6 + size // 2))


def test_masked_fills_padding_alone() -> None:
    feats_BCT, valid_BT = padded()
    out_BCT = masked(feats_BCT, valid_BT, 7.0)
    assert (out_BCT.masked_select(~valid_BT[:, None]) == 7).all()
    assert torch.equal(out_BCT.masked_select(valid_BT[:, None]), feats_BCT.masked_select(valid_BT[:, None]))
