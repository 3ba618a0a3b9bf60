"""The Trident head's offsets: known values, and a loop over places."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_tridet import offsets_of
from torch import Tensor

from heads.trident import trident_offsets


def all_offsets(starts_BPK: Tensor, ends_BPK: Tensor, centres_BP2D: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Of every pair, (B, P, K, 2)."""
    places = torch.meshgrid(*(torch.arange(size) for size in starts_BPK.shape), indexing="ij")
    video, point, label = places
    return trident_offsets(starts_BPK, ends_BPK, centres_BP2D, sizes, video=video, point=point, label=label)


def test_known_values() -> None:
    starts_T = torch.tensor([0.0, 3.0, -1.0, -1.0, -1.0, -1.0])
    ends_T = torch.tensor([-1.0, -1.0, -1.0, -1.0, 4.0, 0.0])
    found = all_offsets(starts_T[None, :, None], ends_T[None, :, None], torch.zeros(1, 6, 2, 4), (6,))
    expected = torch.tensor([[1.5, 0.260, 1.117, 1.995, 2.896, 1.5], [1.5, 2.960, 1.998, 1.046, 0.104, 1.5]])
    torch.testing.assert_close(found[0, :, 0].T, expected, rtol=0, atol=5e-4)


@settings(deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 3), st.integers(0, 99))
def test_offsets_equal_a_loop(sizes: list[int], num_bins: int, num_classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    starts, ends = 3 * torch.randn(2, 2, sum(sizes), num_classes, generator=generator)
    centres = torch.randn(2, sum(sizes), 2, num_bins + 1, generator=generator).relu()
    found = all_offsets(starts, ends, centres, tuple(sizes))
    assert (found >= 0).all()
    assert (found <= num_bins).all()
    for video in range(2):
        expected = torch.tensor(offsets_of(starts[video], ends[video], centres[video], sizes))
        torch.testing.assert_close(found[video], expected, rtol=1e-4, atol=1e-4)


def test_one_side_does_not_see_the_other() -> None:
    torch.manual_seed(0)
    starts, ends, centres = torch.randn(1, 6, 1), torch.randn(1, 6, 1), torch.randn(1, 6, 2, 4)
    before = all_offsets(starts, ends, centres, (6,))
    centres[:, :, 1] += torch.arange(4)
    after = all_offsets(starts, ends + torch.arange(6)[:, None], centres, (6,))
    assert torch.equal(before[..., 0], after[..., 0])
    assert (before[..., 1] != after[..., 1]).all()


@pytest.mark.parametrize("shape", [(0,), (2, 0), (5,)])
def test_pairs_of_any_shape(shape: tuple[int, ...]) -> None:
    none = torch.zeros(shape, dtype=torch.long)
    found = trident_offsets(
        torch.randn(1, 4, 2), torch.randn(1, 4, 2), torch.randn(1, 4, 2, 3), (4,), video=none, point=none, label=none
    )
    assert found.shape == (*shape, 2)
