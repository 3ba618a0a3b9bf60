"""What heads share that score every cell of a map: G-TAD and BMN.

Cell (s, d) is the segment [s, s+d+1] in rows. Those that end inside [0, T] are valid, and nothing is computed for the
others; networks hold the N valid cells in a row (`valid_cells` says in which order), outputs and targets have them at
their places in a map (D, T), durations first.

Shapes: B windows, T rows, D durations, N valid cells, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from heads.base import Proposals
from heads.labels import boundary_scores, cell_ious, clip_segments
from heads.losses import class_loss, iou_classification_loss, iou_regression_loss, node_loss

CLASS_IOU = 0.5


class MapOutput(NamedTuple):
    """Probabilities and, last, logits; maps are zero in the cells that would end after T."""

    start: Tensor  # (B, T)
    end: Tensor  # (B, T)
    iou_reg: Tensor  # (B, D, T), trained by regression
    iou_cls: Tensor  # (B, D, T), trained by classification
    class_logits: Tensor | None  # (B, K, D, T)


class MapTargets(NamedTuple):
    start: Tensor  # (B, T)
    end: Tensor  # (B, T)
    iou: Tensor  # (B, D, T)
    label: Tensor  # (B, D, T) long, -1: no class


def valid_cells(num_snippets: int, max_duration: int) -> tuple[Tensor, Tensor]:
    """Starts and durations (two (N,) long tensors) of the cells whose segment [s, s+d+1] ends inside [0, T].

    Durations vary slowest: cells that stand side by side read rows that stand side by side.
    """
    duration = torch.arange(max_duration)[:, None].expand(max_duration, num_snippets)
    start = torch.arange(num_snippets).expand(max_duration, num_snippets)
    valid = start + duration < num_snippets
    return start[valid], duration[valid]


class CellHead(nn.Module):
    """A head on all cells of windows of T rows, without its network: targets, losses and the form of its output.

    Beyond the originals, which propose segments without a class, there are K scores for each cell, so that one video
    can hold actions of several classes.

    Args:
        num_snippets: T, rows of a window.
        max_duration: D, length of the longest cell in rows; T when left out.
        num_classes: K, action classes; 0 gives class-agnostic proposals as in the papers.
        reg_weight: weight of the IoU regression loss.
        cls_weight: weight of the IoU classification loss.
        class_weight: weight of the loss on the action classes.
        cls_pseudocount: see `heads.losses.iou_classification_loss`.
    """

    ANCHOR: ClassVar[tuple[float, float]]
    """The anchor of row k, from k + ANCHOR[0] to k + ANCHOR[1]: see `heads.labels.boundary_scores`."""

    def __init__(
        self,
        *,
        num_snippets: int,
        max_duration: int | None,
        num_classes: int,
        reg_weight: float,
        cls_weight: float,
        class_weight: float,
        cls_pseudocount: int = 0,
    ) -> None:
        super().__init__()
        max_duration = num_snippets if max_duration is None else max_duration
        if not 1 <= max_duration <= num_snippets:
            raise ValueError(
                f"{type(self).__name__.lower()}: max_duration is {max_duration}; it must be between 1 and "
                f"num_snippets={num_snippets}"
            )
        self.num_snippets, self.max_duration, self.num_classes = num_snippets, max_duration, num_classes
        self.reg_weight, self.cls_weight, self.class_weight = reg_weight, cls_weight, class_weight
        self.cls_pseudocount = cls_pseudocount
        start_N, duration_N = valid_cells(num_snippets, max_duration)
        self.register_buffer("cell_start", start_N, persistent=False)
        self.register_buffer("cell_duration", duration_N, persistent=False)
        self.cell_start: Tensor
        self.cell_duration: Tensor

    @property
    def cell_end(self) -> Tensor:
        """Where each cell ends, (N,), T at most."""
        return self.cell_start + self.cell_duration + 1

    @property
    def cell_end_row(self) -> Tensor:
        """The row (N,) whose end probability is that of each cell's end; there is none at T, so T has the last row's.

        The originals ask for an end below T instead, so that no segment reaches the end of the video.
        """
        return self.cell_end.clamp(max=self.num_snippets - 1)

    def _output(self, start_BT: Tensor, end_BT: Tensor, cells_BNK: Tensor) -> MapOutput:
        """From probabilities of the rows and 2 + K logits of the valid cells."""
        iou_B2DT = self._to_map(cells_BNK[..., :2].sigmoid())
        logits_BKDT = self._to_map(cells_BNK[..., 2:]) if self.num_classes else None
        return MapOutput(start_BT, end_BT, iou_B2DT[:, 0], iou_B2DT[:, 1], logits_BKDT)

    def _to_map(self, cells_BNK: Tensor) -> Tensor:
        """Values of the valid cells (B, N, K) at their places in a map (B, K, D, T)."""
        batch, _, channels = cells_BNK.shape
        map_BDTK = cells_BNK.new_zeros(batch, self.max_duration, self.num_snippets, channels)
        map_BDTK[:, self.cell_duration, self.cell_start] = cells_BNK
        return map_BDTK.movedim(-1, 1)

    def _from_map(self, map_DT: Tensor) -> Tensor:
        """Values of the valid cells (..., N) of a map (..., D, T)."""
        return map_DT[..., self.cell_duration, self.cell_start]

    def targets(self, segments: Sequence[Tensor], labels: Sequence[Tensor]) -> MapTargets:
        """Targets of a batch of windows, each with segments (N, 2) in rows and class indices (N,).

        Segments are cut to the window. A cell has the label of the segment that it overlaps most, if its IoU with that
        one is above 0.5; so one window can hold several classes.
        """
        windows = [self._window_targets(*window) for window in zip(segments, labels, strict=True)]
        return MapTargets(*(torch.stack(parts) for parts in zip(*windows, strict=True)))

    def _window_targets(self, segments_N2: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        segments_N2, labels_N = segments_N2.to(self.cell_start.device), labels_N.to(self.cell_start.device)
        segments_N2, labels_N = clip_segments(segments_N2.float(), labels_N, self.num_snippets)
        start_T = boundary_scores(segments_N2[:, 0], self.num_snippets, anchor=self.ANCHOR)
        end_T = boundary_scores(segments_N2[:, 1], self.num_snippets, anchor=self.ANCHOR)
        iou_DT = start_T.new_zeros(self.max_duration, self.num_snippets)
        label_DT = torch.full_like(iou_DT, -1, dtype=torch.long)
        if len(segments_N2):
            iou_DT, best_DT = cell_ious(segments_N2, self.num_snippets, self.max_duration).max(dim=0)
            label_DT = labels_N[best_DT].where(iou_DT > CLASS_IOU, -1)
        return start_T, end_T, iou_DT, label_DT

    def loss(
        self, output: MapOutput, targets: MapTargets, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """`loss`, the weighted sum, and its parts unweighted; `generator` draws the cells of the regression loss."""
        iou_BN = self._from_map(targets.iou)
        node = node_loss(output.start, output.end, targets.start, targets.end)
        reg = iou_regression_loss(self._from_map(output.iou_reg), iou_BN, generator)
        cls = iou_classification_loss(self._from_map(output.iou_cls), iou_BN, pseudocount=self.cls_pseudocount)
        weighted = node + self.reg_weight * reg + self.cls_weight * cls
        parts = {"loss": weighted, "node": node, "reg": reg, "cls": cls}
        if output.class_logits is not None:
            logits_BNK = self._from_map(output.class_logits).mT
            parts["class"] = class_loss(logits_BNK, self._from_map(targets.label))
            parts["loss"] = parts["loss"] + self.class_weight * parts["class"]
        return parts

    def _proposals(self, scores_BN: Tensor, class_logits_BKDT: Tensor | None) -> Proposals:
        """Every valid cell as a segment in rows, its score times the probability of the class, if there are classes."""
        scores_BNK = scores_BN[..., None]
        if class_logits_BKDT is not None:
            scores_BNK = scores_BNK * self._from_map(class_logits_BKDT).mT.softmax(dim=2)
        segments_N2 = torch.stack([self.cell_start, self.cell_end], dim=1).to(scores_BNK.dtype)
        return Proposals(segments_N2.expand(len(scores_BNK), -1, -1), scores_BNK)


class MapConvolution(nn.Module):
    """A square convolution over a map of which only the valid cells are held: (B, N, C) -> (B, N, C).

    Places of the map that are no cell are zero, like what lies outside of it. (The originals of G-TAD and BMN have them
    filled with what their convolutions make of no segment, which leaks into the cells beside them.)

    Args:
        channels: of every cell, kept.
        size: of the convolution, odd.
        row_N: where on the first axis of the map each cell lies.
        column_N: where on the second.
    """

    def __init__(self, channels: int, size: int, row_N: Tensor, column_N: Tensor) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, size, padding=size // 2)
        self.shape = (int(row_N.max()) + 1, int(column_N.max()) + 1)
        self.register_buffer("place", row_N * self.shape[1] + column_N, persistent=False)
        self.place: Tensor

    def forward(self, cells_BNC: Tensor) -> Tensor:
        batch, _, channels = cells_BNC.shape
        # (B, N, C) -> (B, rows * columns, C) -> (B, C, rows, columns), channels last in memory
        map_BMC = cells_BNC.new_zeros(batch, math.prod(self.shape), channels).index_copy(1, self.place, cells_BNC)
        map_BCRS = self.convolution(map_BMC.view(batch, *self.shape, channels).movedim(-1, 1))
        convolved_BMC: Tensor = map_BCRS.movedim(1, -1).flatten(1, 2)
        return convolved_BMC.index_select(1, self.place)
