"""G-TAD: sub-graph localization for temporal action detection (Xu et al., CVPR 2020), its ActivityNet variant.

Features (B, C, T) become a graph whose nodes are the T rows. GCNeXt blocks exchange what neighbours in time and
neighbours in meaning know; every cell (s, d) of a map, the segment [s, s+d+1] in rows, is then described by SGAlign and
scored. Beyond the original there are K scores for each cell, so that one video can hold actions of several classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.labels import boundary_scores, cell_ious, clip_segments
from heads.losses import class_loss, iou_classification_loss, iou_regression_loss, node_loss
from heads.sgalign import SGAlign, valid_cells

NUM_NEIGHBOURS = 3
GROUPS = 32
CLASS_IOU = 0.5


class GTADOutput(NamedTuple):
    """Probabilities and, last, logits; maps are zero in the cells that would end after T."""

    start: Tensor  # (B, T)
    end: Tensor  # (B, T)
    iou_reg: Tensor  # (B, D, T), trained by regression
    iou_cls: Tensor  # (B, D, T), trained by classification
    class_logits: Tensor | None  # (B, K, D, T)


class GTADTargets(NamedTuple):
    start: Tensor  # (B, T)
    end: Tensor  # (B, T)
    iou: Tensor  # (B, D, T)
    label: Tensor  # (B, D, T) long, -1: no class


class Proposals(NamedTuple):
    segments: Tensor  # (B, N, 2) rows
    scores: Tensor  # (B, N, K); K = 1 without classes


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


class GTAD(nn.Module):
    """G-TAD on windows of T rows.

    Args:
        in_channels: channels of the features; the first convolution has 4 groups if they can be divided by 4.
        num_snippets: T, rows of a window.
        max_duration: D, length of the longest cell in rows; T when left out.
        num_classes: K, action classes; 0 gives class-agnostic proposals as in the paper.
        hidden: channels of the backbone, a multiple of 64; all other widths follow from it (256 in the paper).
        dropout: dropout on the input features.
        reg_weight: weight of the IoU regression loss.
        class_weight: weight of the loss on the action classes.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_snippets: int = 100,
        max_duration: int | None = None,
        num_classes: int = 0,
        hidden: int = 256,
        dropout: float = 0.0,
        reg_weight: float = 10.0,
        class_weight: float = 1.0,
    ) -> None:
        super().__init__()
        max_duration = num_snippets if max_duration is None else max_duration
        _check_sizes(num_snippets, max_duration, hidden)
        self.num_snippets, self.max_duration, self.num_classes = num_snippets, max_duration, num_classes
        self.reg_weight, self.class_weight = reg_weight, class_weight

        self.dropout = nn.Dropout(dropout)
        self.backbone1 = nn.Sequential(
            nn.Conv1d(in_channels, hidden, 3, padding=1, groups=math.gcd(4, in_channels)), nn.ReLU(), GCNeXt(hidden)
        )
        self.backbone2 = GCNeXt(hidden)
        self.start = nn.Sequential(GCNeXt(hidden), nn.Conv1d(hidden, 1, 1))
        self.end = nn.Sequential(GCNeXt(hidden), nn.Conv1d(hidden, 1, 1))
        self.align = SGAlign(hidden, 2 * hidden, num_snippets=num_snippets, max_duration=max_duration)
        self.localize = nn.Sequential(
            nn.Linear(2 * hidden, hidden // 2),
            nn.ReLU(inplace=True),
            nn.Linear(hidden // 2, hidden // 2),
            nn.ReLU(inplace=True),
            nn.Linear(hidden // 2, hidden // 2),
            nn.ReLU(inplace=True),
            nn.Linear(hidden // 2, 2 + num_classes),
        )
        start_N, duration_N = valid_cells(num_snippets, max_duration)
        self.register_buffer("cell_start", start_N, persistent=False)
        self.register_buffer("cell_duration", duration_N, persistent=False)
        self.cell_start: Tensor
        self.cell_duration: Tensor

    def forward(self, feats_BCT: Tensor) -> GTADOutput:
        """Features (B, C, T) to boundary probabilities and maps."""
        # (B, C, T) -> (B, hidden, T)
        base_BCT = self.backbone1(self.dropout(feats_BCT))
        start_BT = self.start(base_BCT).squeeze(1).float().sigmoid()
        end_BT = self.end(base_BCT).squeeze(1).float().sigmoid()
        # (B, hidden, T) -> (B, N cells, 2 + K) -> (B, 2 + K, D, T)
        nodes_BCT = self.backbone2(base_BCT)
        context_BCT = gather_rows(nodes_BCT, nearest_rows(nodes_BCT)).mean(dim=3)
        cells_BNK = self.localize(self.align(nodes_BCT.mT, context_BCT.mT)).float()
        iou_B2DT = self._to_map(cells_BNK[..., :2].sigmoid())
        logits_BKDT = self._to_map(cells_BNK[..., 2:]) if self.num_classes else None
        return GTADOutput(start_BT, end_BT, iou_B2DT[:, 0], iou_B2DT[:, 1], logits_BKDT)

    def _to_map(self, cells_BNK: Tensor) -> Tensor:
        """Values of the valid cells (B, N, K) at their places in a map (B, K, D, T)."""
        batch, _, channels = cells_BNK.shape
        map_BDTK = cells_BNK.new_zeros(batch, self.max_duration, self.num_snippets, channels)
        map_BDTK[:, self.cell_duration, self.cell_start] = cells_BNK
        return map_BDTK.movedim(-1, 1)

    def _from_map(self, map_DT: Tensor) -> Tensor:
        """Values of the valid cells (..., N) of a map (..., D, T)."""
        return map_DT[..., self.cell_duration, self.cell_start]

    def targets(self, segments: Sequence[Tensor], labels: Sequence[Tensor]) -> GTADTargets:
        """Targets of a batch of windows, each with segments (N, 2) in rows and class indices (N,).

        Segments are cut to the window. A cell has the label of the segment that it overlaps most, if its IoU with that
        one is above 0.5; so one window can hold several classes.
        """
        windows = [self._window_targets(*window) for window in zip(segments, labels, strict=True)]
        return GTADTargets(*(torch.stack(parts) for parts in zip(*windows, strict=True)))

    def _window_targets(self, segments_N2: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        segments_N2, labels_N = segments_N2.to(self.cell_start.device), labels_N.to(self.cell_start.device)
        segments_N2, labels_N = clip_segments(segments_N2.float(), labels_N, self.num_snippets)
        start_T = boundary_scores(segments_N2[:, 0], self.num_snippets)
        end_T = boundary_scores(segments_N2[:, 1], self.num_snippets)
        iou_DT = start_T.new_zeros(self.max_duration, self.num_snippets)
        label_DT = torch.full_like(iou_DT, -1, dtype=torch.long)
        if len(segments_N2):
            iou_DT, best_DT = cell_ious(segments_N2, self.num_snippets, self.max_duration).max(dim=0)
            label_DT = labels_N[best_DT].where(iou_DT > CLASS_IOU, -1)
        return start_T, end_T, iou_DT, label_DT

    def loss(
        self, output: GTADOutput, targets: GTADTargets, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """`loss`, the weighted sum, and its parts unweighted; `generator` draws the cells of the regression loss."""
        iou_BN = self._from_map(targets.iou)
        node = node_loss(output.start, output.end, targets.start, targets.end)
        reg = iou_regression_loss(self._from_map(output.iou_reg), iou_BN, generator)
        cls = iou_classification_loss(self._from_map(output.iou_cls), iou_BN)
        parts = {"loss": node + self.reg_weight * reg + cls, "node": node, "reg": reg, "cls": cls}
        if output.class_logits is not None:
            logits_BNK = self._from_map(output.class_logits).mT
            parts["class"] = class_loss(logits_BNK, self._from_map(targets.label))
            parts["loss"] = parts["loss"] + self.class_weight * parts["class"]
        return parts

    def decode(self, output: GTADOutput) -> Proposals:
        """Every valid cell as a segment in rows; those whose ends are no candidate boundaries have score 0.

        The score is iou_cls * iou_reg, times the probability of the class. The original asks for an end below T, so
        that no segment reaches the end of the video; here row T counts as a candidate end like the last row itself.
        """
        candidate_start_BT = boundary_candidates(output.start, edge=0)
        candidate_end_BT = boundary_candidates(output.end, edge=-1)
        end_N = self.cell_start + self.cell_duration + 1
        admitted_BN = (
            candidate_start_BT[:, self.cell_start] & candidate_end_BT[:, end_N.clamp(max=self.num_snippets - 1)]
        )
        scores_BNK = (self._from_map(output.iou_cls * output.iou_reg) * admitted_BN)[..., None]
        if output.class_logits is not None:
            scores_BNK = scores_BNK * self._from_map(output.class_logits).mT.softmax(dim=2)
        segments_N2 = torch.stack([self.cell_start, end_N], dim=1).to(scores_BNK.dtype)
        return Proposals(segments_N2.expand(len(scores_BNK), -1, -1), scores_BNK)


def boundary_candidates(probability_BT: Tensor, *, edge: int) -> Tensor:
    """Rows (B, T) that may be a boundary: strict local peaks, those above half the maximum, and row `edge`."""
    candidate_BT = probability_BT > 0.5 * probability_BT.amax(dim=1, keepdim=True)
    before, here, after = probability_BT[:, :-2], probability_BT[:, 1:-1], probability_BT[:, 2:]
    candidate_BT[:, 1:-1] |= (here > before) & (here > after)
    candidate_BT[:, edge] = True
    return candidate_BT


def _check_sizes(num_snippets: int, max_duration: int, hidden: int) -> None:
    if not 1 <= max_duration <= num_snippets:
        raise ValueError(f"gtad: max_duration is {max_duration}; it must be between 1 and num_snippets={num_snippets}")
    if hidden < 2 * GROUPS or hidden % (2 * GROUPS):
        raise ValueError(f"gtad: hidden is {hidden}; it must be a multiple of {2 * GROUPS}, such as 128 or 256")
