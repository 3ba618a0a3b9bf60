"""BMN: boundary-matching network for temporal action proposal generation (Lin et al., ICCV 2019).

Features (B, C, T) go through a base module. One branch scores every row as a start and as an end, the other one every
cell (s, d), the segment [s, s+d+1] in rows: the boundary-matching layer samples the features at N places of the segment
and its surroundings, a 3-D convolution reads the samples, and a 2-D network compares each segment with those whose
boundaries are a row away. Beyond the paper there are K scores for each cell, so that one video can hold actions of
several classes. The details are those of the public PyTorch code for ActivityNet.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from heads.base import Proposals
from heads.cells import CellHead, MapConvolution, MapOutput, valid_cells
from heads.folding import Entries, SparseMap, folded_relu, sum_entries
from heads.options import BMNOptions

GROUPS = 4
NUM_SAMPLES = 32
POINTS_PER_SAMPLE = 3


def sample_weights(start_N: Tensor, duration_N: Tensor, num_samples: int, num_snippets: int) -> Entries:
    """Boundary-matching sampling as a sparse matrix of cells by columns, where column = row * num_samples + sample.

    A cell is looked at from half of d+2 rows before s to half of d+2 rows after s+d+1. There lie 3N points at equal
    distances, one at each end, and a sample is the mean of three. Cell (2, 0) with two samples:

        row       0     1     2     3     4     5
        segment               [-----]
        points          |   .  .   .  .   |           from 1 to 4, at distance 3/5
        sample          0   0  0   1  1   1

    A point between two rows takes both, each by its nearness. Between -1 and row 0 it takes that row whole; after the
    last row it lacks what the next one would give; at -1 or earlier and at T or later it takes nothing.
    """
    num_points = num_samples * POINTS_PER_SAMPLE
    point_P = torch.arange(num_points)
    # Whole numbers over one denominator, so that no point at -1, 0 or T is moved across by rounding.
    parts = 2 * (num_points - 1)
    first_N1 = ((2 * start_N - duration_N - 2) * (num_points - 1))[:, None]
    time_NP = first_N1 + (2 * (2 * duration_N + 3))[:, None] * point_P
    below_NP = time_NP.div(parts, rounding_mode="floor")
    share_NP = (time_NP - below_NP * parts).double() / parts  # of the row above
    share_NP = share_NP.where(below_NP != -1, (time_NP > -parts).double())

    row_2NP = torch.stack([below_NP, below_NP + 1])
    share_2NP = torch.stack([1 - share_NP, share_NP]) / POINTS_PER_SAMPLE
    column_2NP = row_2NP * num_samples + point_P // POINTS_PER_SAMPLE
    cell_2NP = torch.arange(len(start_N))[:, None].expand_as(row_2NP)
    inside = (row_2NP >= 0) & (row_2NP < num_snippets)
    return sum_entries(cell_2NP[inside], column_2NP[inside], share_2NP[inside], num_snippets * num_samples)


class BoundaryMatching(nn.Module):
    """The boundary-matching layer, the 3-D convolution after it and its ReLU: (B, T, C) -> (B, cells, O).

    Built as in the paper, the layer is a product with T x (N*T*T) numbers, 32 million at T = 100, and the convolution
    reads C*N*T*T floats, 328 MB a window. Neither is built: see `heads.folding`. The cells are those of `valid_cells`,
    in that order.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_snippets: int,
        max_duration: int,
        num_samples: int = NUM_SAMPLES,
    ) -> None:
        super().__init__()
        start_N, duration_N = valid_cells(num_snippets, max_duration)
        self.out_channels, self.num_samples = out_channels, num_samples
        self.samples = nn.Linear(in_channels, num_samples * out_channels, bias=False)
        self.bias = nn.Parameter(torch.empty(out_channels))
        entries = sample_weights(start_N, duration_N, num_samples, num_snippets)
        self.sample_map = SparseMap(entries, (len(start_N), num_snippets * num_samples))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As PyTorch would the 3-D convolution."""
        bound = 1 / math.sqrt(self.samples.in_features * self.num_samples)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, feats_BTC: Tensor) -> Tensor:
        # (B, T, C) -> (B, T * N, O): each sample's weights on each row
        samples_BRO = self.samples(feats_BTC).view(len(feats_BTC), -1, self.out_channels)
        # (B, T * N, O) -> (B, cells, O)
        return folded_relu([samples_BRO], [self.sample_map], self.bias)


class BMN(CellHead):
    """BMN on windows of T rows.

    Args:
        in_channels: channels of the features; the first convolution has 4 groups if they can be divided by 4.
        num_snippets: T, rows of a window.
        max_duration: D, length of the longest cell in rows; T when left out.
        num_classes: K, action classes; 0 gives class-agnostic proposals as in the paper.
        hidden: channels of the base module, a multiple of 4; all other widths follow from it (256 in the original).
        num_samples: N, samples that describe a segment.
        reg_weight: weight of the IoU regression loss.
        cls_weight: weight of the IoU classification loss.
        class_weight: weight of the loss on the action classes.
    """

    Options = BMNOptions
    ANCHOR = (-0.5, 0.5)

    def __init__(
        self,
        in_channels: int,
        *,
        num_snippets: int = 100,
        max_duration: int | None = None,
        num_classes: int = 0,
        hidden: int = 256,
        num_samples: int = NUM_SAMPLES,
        reg_weight: float = 10.0,
        cls_weight: float = 1.0,
        class_weight: float = 1.0,
    ) -> None:
        super().__init__(
            num_snippets=num_snippets,
            max_duration=max_duration,
            num_classes=num_classes,
            reg_weight=reg_weight,
            cls_weight=cls_weight,
            class_weight=class_weight,
        )
        _check_sizes(hidden, num_samples)
        # Base module.
        self.base = nn.Sequential(
            nn.Conv1d(in_channels, hidden, 3, padding=1, groups=math.gcd(GROUPS, in_channels)),
            nn.ReLU(inplace=True),
            nn.Conv1d(hidden, hidden, 3, padding=1, groups=GROUPS),
            nn.ReLU(inplace=True),
        )
        # Temporal evaluation module.
        self.start = _boundary_network(hidden)
        self.end = _boundary_network(hidden)
        # Proposal evaluation module. Its map has the first row of segments on one axis, their last row on the other.
        self.proposal = nn.Sequential(nn.Conv1d(hidden, hidden, 3, padding=1), nn.ReLU(inplace=True))
        self.match = BoundaryMatching(
            hidden, 2 * hidden, num_snippets=num_snippets, max_duration=self.max_duration, num_samples=num_samples
        )
        first_N, last_N = self.cell_start, self.cell_end - 1
        self.localize = nn.Sequential(
            nn.Linear(2 * hidden, hidden // 2),
            nn.ReLU(inplace=True),
            MapConvolution(hidden // 2, 3, first_N, last_N),
            nn.ReLU(inplace=True),
            MapConvolution(hidden // 2, 3, first_N, last_N),
            nn.ReLU(inplace=True),
            nn.Linear(hidden // 2, 2 + num_classes),
        )

    def forward(self, feats_BCT: Tensor) -> MapOutput:
        """Features (B, C, T) to boundary probabilities and maps."""
        # (B, C, T) -> (B, hidden, T)
        base_BCT = self.base(feats_BCT)
        start_BT = self.start(base_BCT).squeeze(1).float().sigmoid()
        end_BT = self.end(base_BCT).squeeze(1).float().sigmoid()
        # (B, hidden, T) -> (B, N cells, 2 * hidden) -> (B, N cells, 2 + K)
        matched_BNC = self.match(self.proposal(base_BCT).mT)
        cells_BNK = self.localize(matched_BNC).float()
        return self._output(start_BT, end_BT, cells_BNK)

    def decode(self, output: MapOutput) -> Proposals:
        """Every valid cell as a segment in rows.

        The score is start * end * iou_cls * iou_reg, times the probability of the class; the start is read at row s,
        the end at row s+d+1.
        """
        boundaries_BN = output.start[:, self.cell_start] * output.end[:, self.cell_end_row]
        scores_BN = boundaries_BN * self._from_map(output.iou_cls * output.iou_reg)
        return self._proposals(scores_BN, output.class_logits)


def _boundary_network(hidden: int) -> nn.Sequential:
    """(B, hidden, T) -> (B, 1, T) logits."""
    return nn.Sequential(
        nn.Conv1d(hidden, hidden, 3, padding=1, groups=GROUPS), nn.ReLU(inplace=True), nn.Conv1d(hidden, 1, 1)
    )


def _check_sizes(hidden: int, num_samples: int) -> None:
    if hidden < GROUPS or hidden % GROUPS:
        raise ValueError(f"bmn: hidden is {hidden}; it must be a multiple of {GROUPS}, such as 128 or 256")
    if num_samples < 1:
        raise ValueError(f"bmn: num_samples is {num_samples}; it must be at least 1")
