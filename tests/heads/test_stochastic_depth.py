"""Stochastic depth: what a branch adds in training and after it."""

from __future__ import annotations

import pytest
import torch

from heads.stochastic_depth import ScaledDropPath


def test_each_channel_has_its_scale_which_begins_near_zero() -> None:
    path = ScaledDropPath(3, 0.5).eval()
    branch = torch.randn(2, 3, 4)
    torch.testing.assert_close(path(branch), 1e-4 * branch)
    path.scale.data = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(path(branch), branch * torch.tensor([1.0, 2.0, 3.0])[:, None])


def test_in_training_whole_samples_are_left_out_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    path = ScaledDropPath(2, 0.25)
    torch.nn.init.ones_(path.scale)
    out = path(torch.ones(4000, 2, 3)).flatten(1)
    assert torch.equal(out.amin(dim=1), out.amax(dim=1))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.05)


def test_a_rate_of_zero_leaves_nothing_out() -> None:
    path = ScaledDropPath(2, 0.0)
    branch = torch.randn(50, 2, 3)
    torch.testing.assert_close(path(branch), 1e-4 * branch)
