"""G-TAD: sub-graph localization for temporal action detection (Xu et al., CVPR 2020).

Features (B, C, T) become a graph whose nodes are the T rows. GCNeXt blocks exchange what neighbours in time and
neighbours in meaning know; every cell (s, d) of a map, the segment [s, s+d+1] in rows, is then described by SGAlign and
scored. Beyond the original there are K scores for each cell, so that one video can hold actions of several classes.
The defaults are those of its ActivityNet variant; what its THUMOS14 code does otherwise are options.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from heads.base import Proposals
from heads.cells import CellHead, MapConvolution, MapOutput
from heads.options import GTADOptions
from heads.sgalign import CONTEXT_BINS, INNER_BINS, SGAlign

NUM_NEIGHBOURS = 3
GROUPS = 32


def nearest_rows(feats_BCT: Tensor) -> Tensor:
    """Places (B, T, k) of each row's k nearest rows by Euclidean distance, itself among them; k = 3, or T if less."""
    feats_BCT = feats_BCT.detach().float()
    square_BT = (feats_BCT**2).sum(dim=1)
    negative_BTT = 2 * feats_BCT.mT @ feats_BCT - square_BT[:, None, :] - square_BT[:, :, None]
    return negative_BTT.topk(min(NUM_NEIGHBOURS, feats_BCT.shape[2]), dim=2).indices


def gather_rows(feats_BCT: Tensor, index_BTk: Tensor) -> Tensor:
    """The rows at `index_BTk` as (B, C, T, k)."""
    batch, channels, _ = feats_BCT.shape
    flat = index_BTk.reshape(batch, 1, -1).expand(-1, channels, -1)
    return feats_BCT.gather(2, flat).view(batch, channels, *index_BTk.shape[1:])


class GCNeXt(nn.Module):
    """A graph convolution block: ReLU(x + temporal(x) + semantic(x)), shapes (B, C, T) kept (G-TAD, section 3.2).

    The temporal branch mixes rows that follow each other. The semantic branch has an edge from each row to its 3
    nearest ones in feature space, found anew in every block, transforms (neighbour, self) pairs, and keeps the
    greatest response over the edges. There is no normalisation layer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 2
        self.temporal = nn.Sequential(
            nn.Conv1d(channels, width, 1),
            nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1, groups=GROUPS),
            nn.ReLU(),
            nn.Conv1d(width, channels, 1),
        )
        self.edge = nn.Conv1d(2 * channels, width, 1)
        self.semantic = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 1, groups=GROUPS),
            nn.ReLU(),
            nn.Conv2d(width, channels, 1),
        )

    def forward(self, feats_BCT: Tensor) -> Tensor:
        edges_BCTk = self._edges(feats_BCT)
        semantic_BCT = self.semantic(edges_BCTk).amax(dim=3)
        return F.relu(feats_BCT + self.temporal(feats_BCT) + semantic_BCT)

    def _edges(self, feats_BCT: Tensor) -> Tensor:
        """`edge` on the concatenation of neighbour and self, computed once a row instead of once an edge."""
        neighbour_weight, self_weight = self.edge.weight.chunk(2, dim=1)
        neighbour_BWT = F.conv1d(feats_BCT, neighbour_weight)
        self_BWT = F.conv1d(feats_BCT, self_weight, self.edge.bias)
        return gather_rows(neighbour_BWT, nearest_rows(feats_BCT)) + self_BWT[..., None]


class GTAD(CellHead):
    """G-TAD on windows of T rows.

    Args:
        in_channels: channels of the features; the first convolution has 4 groups if they can be divided by 4.
        num_snippets: T, rows of a window.
        max_duration: D, length of the longest cell in rows; T when left out.
        num_classes: K, action classes; 0 gives class-agnostic proposals as in the paper.
        hidden: channels of the backbone, a multiple of 64; all other widths follow from it (256 in the paper).
        dropout: dropout on the input features.
        inner_bins: bins of a cell's own features in its description.
        context_bins: bins of its graph neighbours' features.
        map_kernel: size of the last two hidden convolutions over the map, odd.
        peaks: whether only cells between candidate boundaries are proposals.
        longest_proposal: length of the longest cell in rows that is a proposal; D when left out.
        reg_weight: weight of the IoU regression loss.
        cls_weight: weight of the IoU classification loss.
        cls_pseudocount: see `heads.losses.iou_classification_loss`.
        class_weight: weight of the loss on the action classes.
    """

    Options = GTADOptions
    ANCHOR = (-0.5, 1.5)

    def __init__(
        self,
        in_channels: int,
        *,
        num_snippets: int = 100,
        max_duration: int | None = None,
        num_classes: int = 0,
        hidden: int = 256,
        dropout: float = 0.0,
        inner_bins: int = INNER_BINS,
        context_bins: int = CONTEXT_BINS,
        map_kernel: int = 1,
        peaks: bool = True,
        longest_proposal: int | None = None,
        reg_weight: float = 10.0,
        cls_weight: float = 1.0,
        cls_pseudocount: int = 0,
        class_weight: float = 1.0,
    ) -> None:
        super().__init__(
            num_snippets=num_snippets,
            max_duration=max_duration,
            num_classes=num_classes,
            reg_weight=reg_weight,
            cls_weight=cls_weight,
            class_weight=class_weight,
            cls_pseudocount=cls_pseudocount,
        )
        _check_variant(hidden, inner_bins, context_bins, map_kernel, longest_proposal)
        self.peaks, self.longest_proposal = peaks, longest_proposal

        self.dropout = nn.Dropout(dropout)
        self.backbone1 = nn.Sequential(
            nn.Conv1d(in_channels, hidden, 3, padding=1, groups=math.gcd(4, in_channels)), nn.ReLU(), GCNeXt(hidden)
        )
        self.backbone2 = GCNeXt(hidden)
        self.start = nn.Sequential(GCNeXt(hidden), nn.Conv1d(hidden, 1, 1))
        self.end = nn.Sequential(GCNeXt(hidden), nn.Conv1d(hidden, 1, 1))
        self.align = SGAlign(
            hidden,
            2 * hidden,
            num_snippets=num_snippets,
            max_duration=self.max_duration,
            inner_bins=inner_bins,
            context_bins=context_bins,
        )
        duration_N, start_N = self.cell_duration, self.cell_start
        self.localize = nn.Sequential(
            nn.Linear(2 * hidden, hidden // 2),
            nn.ReLU(inplace=True),
            _over_map(hidden // 2, map_kernel, duration_N, start_N),
            nn.ReLU(inplace=True),
            _over_map(hidden // 2, map_kernel, duration_N, start_N),
            nn.ReLU(inplace=True),
            nn.Linear(hidden // 2, 2 + num_classes),
        )

    def forward(self, feats_BCT: Tensor) -> MapOutput:
        """Features (B, C, T) to boundary probabilities and maps."""
        # (B, C, T) -> (B, hidden, T)
        base_BCT = self.backbone1(self.dropout(feats_BCT))
        start_BT = self.start(base_BCT).squeeze(1).float().sigmoid()
        end_BT = self.end(base_BCT).squeeze(1).float().sigmoid()
        # (B, hidden, T) -> (B, N cells, 2 + K)
        nodes_BCT = self.backbone2(base_BCT)
        context_BCT = gather_rows(nodes_BCT, nearest_rows(nodes_BCT)).mean(dim=3)
        cells_BNK = self.localize(self.align(nodes_BCT.mT, context_BCT.mT)).float()
        return self._output(start_BT, end_BT, cells_BNK)

    def decode(self, output: MapOutput) -> Proposals:
        """Every valid cell as a segment in rows; those that are no proposals have score 0.

        The score is iou_cls * iou_reg, times the probability of the class.
        """
        scores_BN = self._from_map(output.iou_cls * output.iou_reg)
        if self.peaks:
            candidate_start_BT = boundary_candidates(output.start, edge=0)
            candidate_end_BT = boundary_candidates(output.end, edge=-1)
            candidate_BN = candidate_start_BT[:, self.cell_start] & candidate_end_BT[:, self.cell_end_row]
            scores_BN = scores_BN * candidate_BN
        if self.longest_proposal is not None:
            scores_BN = scores_BN * (self.cell_duration < self.longest_proposal)
        return self._proposals(scores_BN, output.class_logits)


def boundary_candidates(probability_BT: Tensor, *, edge: int) -> Tensor:
    """Rows (B, T) that may be a boundary: strict local peaks, those above half the maximum, and row `edge`."""
    candidate_BT = probability_BT > 0.5 * probability_BT.amax(dim=1, keepdim=True)
    before, here, after = probability_BT[:, :-2], probability_BT[:, 1:-1], probability_BT[:, 2:]
    candidate_BT[:, 1:-1] |= (here > before) & (here > after)
    candidate_BT[:, edge] = True
    return candidate_BT


def _over_map(channels: int, size: int, row_N: Tensor, column_N: Tensor) -> nn.Module:
    """A convolution over the map that keeps the channels; of size 1 it sees one cell at a time."""
    if size == 1:
        return nn.Linear(channels, channels)
    return MapConvolution(channels, size, row_N, column_N)


def _check_variant(
    hidden: int, inner_bins: int, context_bins: int, map_kernel: int, longest_proposal: int | None
) -> None:
    if hidden < 2 * GROUPS or hidden % (2 * GROUPS):
        raise ValueError(f"gtad: hidden is {hidden}; it must be a multiple of {2 * GROUPS}, such as 128 or 256")
    if inner_bins < 1 or context_bins < 1:
        raise ValueError(f"gtad: inner_bins is {inner_bins}, context_bins {context_bins}; both must be at least 1")
    if map_kernel < 1 or map_kernel % 2 == 0:
        raise ValueError(f"gtad: map_kernel is {map_kernel}; it must be odd, such as 1 or 3")
    if longest_proposal is not None and longest_proposal < 1:
        raise ValueError(f"gtad: longest_proposal is {longest_proposal}; it must be at least 1 row")
