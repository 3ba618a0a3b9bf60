"""SGAlign: the features of every candidate segment, folded with the convolution that reads them (G-TAD, section 3.3).

G-TAD describes cell (s, d) of its map, the segment [s, s+d+1] in rows, by 32 bins of the backbone's features and 4 bins
of the features of their graph neighbours, all over the extended interval [s-(d+1)/2, s+d+(d+1)/2]. A 1x1 convolution
then reads the C*36 numbers of each cell. Built as written, the map takes C*36*D*T floats: 370 MB a video. It is never
built (`heads.folding`); for each cell, some 150 of T*36 vectors are added up.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from heads.cells import valid_cells
from heads.folding import Entries, SparseMap, folded_relu, sum_entries

INNER_BINS = 32  # ActivityNet and HACS; THUMOS14: 16 and 16
CONTEXT_BINS = 4


def extended_intervals(start_N: Tensor, duration_N: Tensor) -> Tensor:
    """The interval (N, 2) that each cell is described by: half its length is added on both sides.

    The original calls s+d, not s+d+1, the end of the cell, so that the interval is 2d+1 rows long, not 2d+2.
    """
    margin = (duration_N + 1) / 2
    return torch.stack([start_N - margin, start_N + duration_N + margin], dim=1).double()


def align_weights(intervals_N2: Tensor, num_bins: int, num_snippets: int) -> Entries:
    """Aligning as a sparse matrix of cells by columns, where column = row of the features * bins + bin.

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

    columns = torch.cat([below * num_bins + bin_, above * num_bins + bin_])
    values = torch.cat([(1 - fraction) / parts, fraction / parts])
    return sum_entries(torch.cat([cell, cell]), columns, values, num_snippets * num_bins)


def _ragged_arange(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For counts (2, 3): owners (0, 0, 1, 1, 1) and positions (0, 1, 0, 1, 2)."""
    owner = torch.repeat_interleave(counts)
    return owner, torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]


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
        return folded_relu([inner_BRO, context_BRO], [self.inner_map, self.context_map], self.bias)


def _align_map(intervals_N2: Tensor, num_bins: int, num_snippets: int) -> SparseMap:
    entries = align_weights(intervals_N2, num_bins, num_snippets)
    return SparseMap(entries, (len(intervals_N2), num_snippets * num_bins))
