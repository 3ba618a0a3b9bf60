"""Sampling at fixed places folded with the convolution that reads the samples, so that the samples are never built.

Heads that score every segment of a window describe each one (cell) by samples of the features at fixed times, and a
convolution then reads all samples of a cell. Sampling is linear in the features, and its weights A depend on no
feature. So the order can be turned around:

    conv(sample(x))[cell] = sum_bin W_bin . (sum_t A[cell, bin, t] x_t) = sum_(t, bin) A[cell, bin, t] (W_bin . x_t)

Apply every bin's slice of the convolution to the T rows first, which is one matrix product, then add up, for each cell,
the few of these T * bins vectors in which A is not zero. That sum is `SparseMap`; its backward is the transposed map.

Shapes: B windows, N cells, R = T * bins columns of A (row of the features * bins + bin), O channels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Entries(NamedTuple):
    """The entries of a sparse matrix that are not zero, by row and then by column, each place once."""

    row: Tensor
    column: Tensor
    weight: Tensor  # float64


def sum_entries(row: Tensor, column: Tensor, weight: Tensor, num_columns: int) -> Entries:
    """Sorted entries; those at the same place are added up, those of weight 0 left out."""
    keys, place = torch.unique((row * num_columns + column)[weight > 0], return_inverse=True)
    total = torch.zeros(len(keys), dtype=torch.double).index_add_(0, place, weight[weight > 0])
    return Entries(keys // num_columns, keys % num_columns, total)


class SparseMap(nn.Module):
    """A constant sparse matrix A, applied to dense ones; its values are not part of the state dict.

    `embedding_bag` is torch's fastest product of a sparse and a dense matrix on CPUs, ahead of sparse CSR tensors.
    """

    def __init__(self, entries: Entries, shape: tuple[int, int]) -> None:
        super().__init__()
        row, column, weight = entries
        self.num_rows = shape[0]
        self._register("plain", row, column, weight, shape[0])
        self._register("transposed", column, row, weight, shape[1])

    def _register(self, form: str, row: Tensor, column: Tensor, weight: Tensor, num_rows: int) -> None:
        order = row.argsort(stable=True)
        offsets = F.pad(torch.bincount(row, minlength=num_rows).cumsum(0), (1, 0))
        self.register_buffer(f"{form}_index", column[order].int(), persistent=False)
        self.register_buffer(f"{form}_weight", weight[order].float(), persistent=False)
        self.register_buffer(f"{form}_offset", offsets.int(), persistent=False)

    def multiply(self, dense: Tensor, form: Literal["plain", "transposed"]) -> Tensor:
        """A @ dense, or A's transpose @ dense; autograd does not see it."""
        index, offset, weight = (getattr(self, f"{form}_{part}") for part in ("index", "offset", "weight"))
        weight = weight.to(dense.dtype)
        return F.embedding_bag(index, dense, offset, mode="sum", per_sample_weights=weight, include_last_offset=True)


def folded_relu(rows: Sequence[Tensor], maps: Sequence[SparseMap], bias_O: Tensor) -> Tensor:
    """ReLU of the sum of all A @ rows, (B, R, O) -> (B, N, O), and the bias."""
    folded_BNO: Tensor = _FoldedReLU.apply(bias_O.to(rows[0].dtype), tuple(maps), *rows)
    return folded_BNO


class _FoldedReLU(torch.autograd.Function):
    """`folded_relu`, sample by sample.

    The map is the largest thing in the network, so it is written once and saved once, for the ReLU's backward and for
    the next layer's; what is as large beside it exists for one sample at a time.
    """

    @staticmethod
    def forward(ctx: Any, bias_O: Tensor, maps: tuple[SparseMap, ...], *rows: Tensor) -> Tensor:
        out_BNO = rows[0].new_empty(len(rows[0]), maps[0].num_rows, len(bias_O))
        for out_NO, *sample in zip(out_BNO, *rows, strict=True):
            folded_NO = maps[0].multiply(sample[0], "plain")
            for map_, rows_RO in zip(maps[1:], sample[1:], strict=True):
                folded_NO.add_(map_.multiply(rows_RO, "plain"))
            torch.clamp_min(folded_NO.add_(bias_O), 0, out=out_NO)
        ctx.maps = maps
        ctx.save_for_backward(out_BNO)
        return out_BNO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BNO: Tensor) -> tuple[Tensor | None, ...]:
        (out_BNO,) = ctx.saved_tensors
        samples = []
        for out_NO, grad_NO in zip(out_BNO, grad_BNO, strict=True):
            grad_NO = torch.ops.aten.threshold_backward(grad_NO, out_NO, 0)
            rows = [map_.multiply(grad_NO, "transposed") for map_ in ctx.maps]
            samples.append((grad_NO.sum(dim=0), *rows))
        bias, *all_rows = (torch.stack(parts) for parts in zip(*samples, strict=True))
        return bias.sum(dim=0), None, *all_rows
