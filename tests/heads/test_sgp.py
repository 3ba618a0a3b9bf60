"""SGP and its block against their literal forms, and what their first weights mean."""

from __future__ import annotations

import pytest
import torch
from reference_tridet import block as slow_block
from reference_tridet import sgp as slow_sgp
from torch import nn

from heads.sgp import SGP, SGPBlock, wide_size


def make_block(*, size: int = 3, halve: bool, drop_path: float | None = 0.0, over_padding: bool = False) -> SGPBlock:
    torch.manual_seed(0)
    block = SGPBlock(
        16,
        size=size,
        wide_ratio=1.5,
        deviation=0.5,
        hidden=24,
        halve=halve,
        drop_path=drop_path,
        over_padding=over_padding,
    )
    for parameter in block.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.2, 1)
    return block


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [
        (1, 5, 11),  # THUMOS14
        (15, 1.3, 21),  # ActivityNet
        (1, 1.3, 3),  # and its first two blocks
        (3, 1.2, 5),  # HACS
        (15, 1.2, 19),  # HACS with I3D
        (1, 4, 9),  # EPIC-Kitchens' nouns
        (5, 2, 13),  # and verbs
        (1, 2, 5),
    ],
)
def test_the_wide_convolution_is_as_wide_as_in_the_original(size: int, ratio: float, expected: int) -> None:
    assert wide_size(size, ratio) == expected
    assert SGP(2, size=size, wide_ratio=ratio, deviation=1).wide.weight.shape == (2, 1, expected)


@pytest.mark.parametrize("num_rows", [1, 2, 9])
@pytest.mark.parametrize("size", [1, 5])
def test_sgp_equals_its_literal_form(size: int, num_rows: int) -> None:
    torch.manual_seed(0)
    module, feats_CT = SGP(6, size=size, wide_ratio=1.5, deviation=1), torch.randn(6, num_rows)
    out_BCT = module(feats_CT[None], torch.ones(1, num_rows, dtype=torch.bool))
    torch.testing.assert_close(out_BCT[0], slow_sgp(module, feats_CT))


@pytest.mark.parametrize("num_rows", [1, 2, 9])
@pytest.mark.parametrize("halve", [True, False])
@pytest.mark.parametrize("drop_path", [None, 0.5])
def test_a_block_equals_its_literal_form(num_rows: int, halve: bool, drop_path: float | None) -> None:
    block, feats_CT = make_block(halve=halve, drop_path=drop_path).eval(), torch.randn(16, num_rows)
    out_BCT, valid_BT = block(feats_CT[None], torch.ones(1, num_rows, dtype=torch.bool))
    assert valid_BT.all()
    torch.testing.assert_close(out_BCT[0], slow_block(block, feats_CT, num_rows), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("halve", [True, False])
def test_over_padding_it_takes_part_like_rows_without_an_identity(halve: bool) -> None:
    block, feats_CT, valid_BT = make_block(halve=halve, over_padding=True).eval(), torch.randn(16, 9), torch.ones(1, 9)
    valid_BT[:, 5:] = 0
    out_BCT, kept_BT = block(feats_CT[None], valid_BT.bool())
    assert kept_BT.tolist() == [[True] * 3 + [False] * 2] if halve else [[True] * 5 + [False] * 4]
    expected_CT = slow_block(block, feats_CT, 3 if halve else 5)
    torch.testing.assert_close(out_BCT[0], expected_CT, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("halve", [True, False])
def test_padding_changes_nothing(halve: bool) -> None:
    block, feats_BCT, valid_BT = make_block(halve=halve).eval(), torch.randn(1, 16, 9), torch.arange(9)[None] < 5
    alone_BCT, _ = block(feats_BCT[..., :5], valid_BT[:, :5])
    feats_BCT[..., 5:] = torch.nan
    out_BCT, kept_BT = block(feats_BCT, valid_BT)
    torch.testing.assert_close(out_BCT[..., kept_BT[0]], alone_BCT, rtol=0, atol=1e-5)


def test_depthwise_weights_that_begin_at_zero_have_no_gradient() -> None:
    """As its authors begin for THUMOS14: what SGP adds to its input is then nothing, and stays so."""
    module, feats_BCT, valid_BT = (
        SGP(4, size=3, wide_ratio=2, deviation=0),
        torch.randn(2, 4, 9),
        torch.ones(2, 9).bool(),
    )
    for convolution in module.children():
        nn.init.zeros_(convolution.bias)
    out_BCT = module(feats_BCT, valid_BT)
    assert torch.equal(out_BCT, feats_BCT)
    out_BCT.square().sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in module.parameters())


def test_in_training_branches_are_left_out_where_they_have_a_scale() -> None:
    feats_BCT, valid_BT = torch.randn(1, 16, 9).expand(20, -1, -1), torch.ones(20, 9).bool()
    for drop_path, different in ((0.5, True), (None, False)):
        out_BCT, _ = make_block(halve=False, drop_path=drop_path)(feats_BCT, valid_BT)
        assert (out_BCT != out_BCT[:1]).any() == different
