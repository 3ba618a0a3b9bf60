"""SGAlign: golden values of Align1D, the folded form against the direct one, what it keeps in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_gtad import DirectSGAlign, align1d, cell_interval, convolution_weight
from torch import Tensor

from heads.cells import valid_cells
from heads.sgalign import SGAlign, align_weights, extended_intervals

GOLDEN = [
    ((-0.5, 9.5), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ((0.1, 0.9), [1.15, 1.25, 1.35, 1.45, 1.55, 1.65, 1.75, 1.85, 1.95, 2.05]),
    ((5, 5), [6.05, 6.15, 6.25, 6.35, 6.45, 6.55, 6.65, 6.75, 6.85, 6.95]),
    ((-3, 13), [0, 1, 2, 3.6, 5.2, 6.8, 8.4, 9.8, 0, 0]),
]


def dense_weights(intervals: list[tuple[float, float]], num_bins: int, num_snippets: int) -> np.ndarray:
    """`align_weights` as (cells, bins, T)."""
    cell, column, weight = align_weights(torch.tensor(intervals, dtype=torch.double), num_bins, num_snippets)
    matrix = torch.zeros(len(intervals), num_snippets * num_bins, dtype=torch.double)
    matrix[cell, column] = weight
    return matrix.view(-1, num_snippets, num_bins).transpose(1, 2).numpy()


@pytest.mark.parametrize(("interval", "expected"), GOLDEN)
def test_align_golden(interval: tuple[float, float], expected: list[float]) -> None:
    rows_T = np.arange(1.0, 11.0)
    np.testing.assert_allclose(align1d(rows_T[:, None], *interval, 10)[:, 0], expected, atol=1e-9)
    np.testing.assert_allclose(dense_weights([interval], 10, 10)[0] @ rows_T, expected, atol=1e-9)


@given(
    starts=st.lists(st.integers(-30, 30), min_size=1, max_size=4),
    length=st.integers(0, 80),
    num_bins=st.integers(1, 12),
    num_snippets=st.integers(1, 20),
)
def test_align_weights_are_what_align1d_makes_of_the_identity(
    starts: list[int], length: int, num_bins: int, num_snippets: int
) -> None:
    intervals = [(start / 2, (start + length) / 2) for start in starts]
    expected = [align1d(np.eye(num_snippets), *interval, num_bins) for interval in intervals]
    np.testing.assert_allclose(dense_weights(intervals, num_bins, num_snippets), expected, atol=1e-12)


def test_align_weights_are_sorted_and_unique() -> None:
    cell, column, weight = align_weights(extended_intervals(*valid_cells(12, 12)), 4, 12)
    keys = cell * 12 * 4 + column
    assert (keys.diff() > 0).all()
    assert (weight > 0).all()


def test_valid_cells_end_inside_the_window() -> None:
    start_N, duration_N = valid_cells(4, 2)
    assert list(zip(start_N.tolist(), duration_N.tolist(), strict=True)) == [
        *((0, 0), (1, 0), (2, 0), (3, 0)),
        *((0, 1), (1, 1), (2, 1)),
    ]


def test_extended_intervals() -> None:
    start_N, duration_N = valid_cells(9, 9)
    expected = [cell_interval(*cell, 9) for cell in zip(start_N.tolist(), duration_N.tolist(), strict=True)]
    np.testing.assert_array_equal(extended_intervals(start_N, duration_N), expected)


def loss_and_gradients(module: SGAlign, folded: bool, feats: Tensor, context: Tensor) -> list[Tensor]:
    """Valid cells (B, N, O), then the gradients of both inputs and of the convolution's weight and bias."""
    start_N, duration_N = valid_cells(NUM_SNIPPETS, MAX_DURATION)
    feats, context = feats.clone().requires_grad_(), context.clone().requires_grad_()
    weight = convolution_weight(module.inner.weight, module.context.weight).detach().requires_grad_()
    bias = module.bias.detach().clone().requires_grad_()
    if folded:
        cells = module(feats.mT, context.mT)
    else:
        cells = DirectSGAlign(NUM_SNIPPETS, MAX_DURATION)(feats, context, weight, bias)[:, :, duration_N, start_N].mT
    module.zero_grad()
    (cells * torch.linspace(-1, 2, cells.numel()).view(cells.shape)).sum().backward()
    if folded:
        weight.grad = convolution_weight(module.inner.weight.grad, module.context.weight.grad)
        bias.grad = module.bias.grad
    return [cells.detach(), feats.grad, context.grad, weight.grad, bias.grad]


NUM_SNIPPETS, MAX_DURATION = 40, 37


def test_folded_equals_direct_forward_and_backward() -> None:
    torch.manual_seed(0)
    module = SGAlign(6, 5, num_snippets=NUM_SNIPPETS, max_duration=MAX_DURATION)
    feats, context = torch.randn(2, 2, 6, NUM_SNIPPETS)
    folded = loss_and_gradients(module, True, feats, context)
    direct = loss_and_gradients(module, False, feats, context)
    for ours, reference in zip(folded, direct, strict=True):
        assert (ours - reference).norm() <= 1e-5 * reference.norm()


def test_other_numbers_of_bins() -> None:
    torch.manual_seed(0)
    module = SGAlign(6, 5, num_snippets=20, max_duration=7, inner_bins=3, context_bins=5)
    feats, context = torch.randn(2, 2, 6, 20)
    weight = convolution_weight(module.inner.weight, module.context.weight, 3, 5)
    start_N, duration_N = valid_cells(20, 7)
    direct = DirectSGAlign(20, 7, 3, 5)(feats, context, weight, module.bias)[:, :, duration_N, start_N].mT
    torch.testing.assert_close(module(feats.mT, context.mT), direct, rtol=1e-4, atol=1e-5)


def test_a_single_row() -> None:
    module = SGAlign(3, 2, num_snippets=1, max_duration=1)
    feats = torch.ones(1, 1, 3)
    total = convolution_weight(module.inner.weight, module.context.weight).sum(dim=1)
    torch.testing.assert_close(module(feats, feats)[0, 0], (total + module.bias).relu())


def test_only_weights_in_the_state_dict() -> None:
    module = SGAlign(4, 3, num_snippets=8, max_duration=8)
    assert set(module.state_dict()) == {"inner.weight", "context.weight", "bias"}


def test_the_bins_of_a_cell_are_never_kept() -> None:
    num_snippets, channels, outputs, kept = 32, 16, 8, []
    module = SGAlign(channels, outputs, num_snippets=num_snippets, max_duration=num_snippets)
    feats = torch.randn(1, num_snippets, channels, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        cells = module(feats, feats)
    weights = sum(p.numel() for p in module.parameters())
    assert sum(kept) <= cells.numel() + weights + 4 * feats.numel()


def test_a_neighbour_in_the_batch_changes_nothing() -> None:
    module = SGAlign(4, 3, num_snippets=16, max_duration=16)
    feats = torch.randn(3, 16, 4)
    alone = module(feats[:1], feats[:1])
    torch.testing.assert_close(module(feats, feats)[:1], alone)
