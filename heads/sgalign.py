"""SGAlign: the features of every candidate segment, folded with the convolution that reads them (G-TAD, section 3.3).

G-TAD describes cell (s, d) of its map, the segment [s, s+d+1] in rows, by 32 bins of the backbone's features and 4 bins
of the features of their graph neighbours, all over the extended interval [s-(d+1)/2, s+d+(d+1)/2]. A 1x1 convolution
then reads the C*36 numbers of each cell. Built as written, the map takes C*36*D*T floats: 370 MB a video.

But aligning is linear in the features, and its weights A depend only on T and D. So the order can be turned around:

    conv(align(x))[cell] = sum_bin W_bin . (sum_t A[cell, bin, t] x_t) = sum_(t, bin) A[cell, bin, t] (W_bin . x_t)

Apply every bin's slice of the convolution to the T rows first, which is one matrix product, then add up, for each cell,
the some 150 of these T*36 vectors in which A is not zero. That sum is `SparseMap`; its backward is the transposed map.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

INNER_BINS = 32  # ActivityNet and HACS; THUMOS14: 16 and 16
CONTEXT_BINS = 4


def valid_cells(num_snippets: int, max_duration: int) -> tuple[Tensor, Tensor]:
    """Starts and durations (two (N,) long tensors) of the cells whose segment [s, s+d+1] ends inside [0, T].

    Durations vary slowest: cells that stand side by side read rows that stand side by side.
    """
    duration = torch.arange(max_duration)[:, None].expand(max_duration, num_snippets)
    start = torch.arange(num_snippets).expand(max_duration, num_snippets)
    valid = start + duration < num_snippets
    return start[valid], duration[valid]


def extended_intervals(start_N: Tensor, duration_N: Tensor) -> Tensor:
    """The interval (N, 2) that each cell is described by: half its length is added on both sides.

    The original calls s+d, not s+d+1, the end of the cell, so that the interval is 2d+1 rows long, not 2d+2.
    """
    margin = (duration_N + 1) / 2
    return torch.stack([start_N - margin, start_N + duration_N + margin], dim=1).double()


def align_weights(intervals_N2: Tensor, num_bins: int, num_snippets: int) -> tuple[Tensor, Tensor, Tensor]:
    """Aligning as a sparse matrix: `(cell, column, weight)`, sorted, where column = row of the features * bins + bin.

    Align1D cuts an interval of length l (at least 1) into K bins, and each bin's value is the mean of f at the centres
    of g = ceil(l/K) equal parts of it: f at time t is the linear interpolation between rows floor(t) and floor(t)+1; it
    holds the first row's value down to t = -1 and the last row's up to t = T, and is zero beyond.
    """
    lengths = (intervals_N2[:, 1] - intervals_N2[:, 0]).clamp(min=1)
    parts_N = torch.ceil(lengths / num_bins).long()
    cell, part = _ragged_arange(parts_N * num_bins)
    parts = parts_N[cell]
    # One division of whole numbers, so that a time that should be -1 or T exactly is not moved across by rounding.
    time = intervals_N2[cell, 0] + lengths[cell] * (2 * part + 1) / (2 * num_bins * parts)

    inside = (time >= -1) & (time <= num_snippets)
    cell, bin_, parts = cell[inside], (part // parts)[inside], parts[inside]
    time = time[inside].clamp(0, num_snippets - 1)
    below = time.floor().long()
    above = (below + 1).clamp(max=num_snippets - 1)
    fraction = time - below

    columns = num_snippets * num_bins
    keys = torch.cat([cell * columns + below * num_bins + bin_, cell * columns + above * num_bins + bin_])
    values = torch.cat([(1 - fraction) / parts, fraction / parts])
    keys, place = torch.unique(keys[values > 0], return_inverse=True)
    weights = torch.zeros(len(keys), dtype=torch.double).index_add_(0, place, values[values > 0])
    return keys // columns, keys % columns, weights


def _ragged_arange(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For counts (2, 3): owners (0, 0, 1, 1, 1) and positions (0, 1, 0, 1, 2)."""
    owner = torch.repeat_interleave(counts)
    return owner, torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]


class SparseMap(nn.Module):
    """A constant sparse matrix A, applied to dense ones; its values are not part of the state dict.

    `embedding_bag` is torch's fastest product of a sparse and a dense matrix on CPUs, ahead of sparse CSR tensors.
    """

    def __init__(self, row: Tensor, column: Tensor, weight: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
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


class _AlignedReLU(torch.autograd.Function):
    """ReLU(A_inner @ inner + A_context @ context + bias), sample by sample.

    The map is the largest thing in the network, so it is written once and saved once, for the ReLU's backward and for
    the next layer's; what is as large beside it exists for one sample at a time.
    """

    @staticmethod
    def forward(
        ctx: Any, inner_BRO: Tensor, context_BRO: Tensor, bias: Tensor, inner_map: SparseMap, context_map: SparseMap
    ) -> Tensor:
        out_BNO = inner_BRO.new_empty(len(inner_BRO), inner_map.num_rows, len(bias))
        for out_NO, inner_RO, context_RO in zip(out_BNO, inner_BRO, context_BRO, strict=True):
            aligned_NO = inner_map.multiply(inner_RO, "plain").add_(context_map.multiply(context_RO, "plain"))
            torch.clamp_min(aligned_NO.add_(bias), 0, out=out_NO)
        ctx.inner_map, ctx.context_map = inner_map, context_map
        ctx.save_for_backward(out_BNO)
        return out_BNO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BNO: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (out_BNO,) = ctx.saved_tensors
        samples = []
        for out_NO, grad_NO in zip(out_BNO, grad_BNO, strict=True):
            grad_NO = torch.ops.aten.threshold_backward(grad_NO, out_NO, 0)
            inner_RO = ctx.inner_map.multiply(grad_NO, "transposed")
            samples.append((inner_RO, ctx.context_map.multiply(grad_NO, "transposed"), grad_NO.sum(dim=0)))
        inner, context, bias = zip(*samples, strict=True)
        return torch.stack(inner), torch.stack(context), torch.stack(bias).sum(dim=0), None, None


class SGAlign(nn.Module):
    """Alignment, the 1x1 convolution on it and its ReLU, for the valid cells only: (B, T, C) twice -> (B, N, O).

    The N cells are those of `valid_cells(num_snippets, max_duration)`, in that order. The original also computes the
    others, from the interval [0, 0], and then masks them out of every loss and every result.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_snippets: int,
        max_duration: int,
        inner_bins: int = INNER_BINS,
        context_bins: int = CONTEXT_BINS,
    ) -> None:
        super().__init__()
        intervals = extended_intervals(*valid_cells(num_snippets, max_duration))
        self.out_channels = out_channels
        self.num_bins = inner_bins + context_bins
        self.inner = nn.Linear(in_channels, inner_bins * out_channels, bias=False)
        self.context = nn.Linear(in_channels, context_bins * out_channels, bias=False)
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.inner_map = _align_map(intervals, inner_bins, num_snippets)
        self.context_map = _align_map(intervals, context_bins, num_snippets)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As PyTorch would a convolution with all the bins' channels as its inputs."""
        bound = 1 / math.sqrt(self.inner.in_features * self.num_bins)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, feats_BTC: Tensor, context_BTC: Tensor) -> Tensor:
        batch = len(feats_BTC)
        # (B, T, C) -> (B, T * bins, O): each bin's weights on each row
        inner_BRO = self.inner(feats_BTC).view(batch, -1, self.out_channels)
        context_BRO = self.context(context_BTC).view(batch, -1, self.out_channels)
        # (B, T * bins, O) -> (B, N, O)
        bias = self.bias.to(inner_BRO.dtype)
        cells_BNO: Tensor = _AlignedReLU.apply(inner_BRO, context_BRO, bias, self.inner_map, self.context_map)
        return cells_BNO


def _align_map(intervals_N2: Tensor, num_bins: int, num_snippets: int) -> SparseMap:
    cell, column, weight = align_weights(intervals_N2, num_bins, num_snippets)
    return SparseMap(cell, column, weight, (len(intervals_N2), num_snippets * num_bins))
