"""How well a network tells kinds of boundaries apart, and how well it finds change points, beside the best constant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from encoders.boundary import heatmap, heatmap_loss
from pipeline.commands.bsp_synth.boundary_clips import BoundaryBatch


@torch.inference_mode()
def score_kinds(model: nn.Module, batches: Iterable[BoundaryBatch]) -> dict[str, Any]:
    """The confusion matrix: numbers of clips, a line for each true kind, a column for each predicted one."""
    device = next(model.parameters()).device
    pairs = [(batch.kinds, model(batch.clips.to(device)).cpu()) for batch in batches if len(batch.clips)]
    true_B, logits_BK = (torch.cat(part) for part in zip(*pairs, strict=True))
    num_kinds = logits_BK.shape[1]
    cells = torch.bincount(true_B * num_kinds + logits_BK.argmax(dim=1), minlength=num_kinds**2)
    return {"confusion": cells.view(num_kinds, num_kinds).tolist()}


@torch.inference_mode()
def score_change_points(model: nn.Module, batches: Iterable[BoundaryBatch], tau: int) -> dict[str, Any]:
    """Mean distance of the heatmap's peak from the change point, and what the best constant answers reach.

    Returns:
        `error`: in frames; `constant_error`: that of always answering with the median change point; `constant_loss`:
        the loss of the constant heatmap that has the smallest, to be held against `loss`. Both constants know the
        scored change points.
    """
    device = next(model.parameters()).device
    pairs = [(batch.change_points, model(batch.clips.to(device)).cpu()) for batch in batches if len(batch.clips)]
    points_B, predicted_BL = (torch.cat(part) for part in zip(*pairs, strict=True))
    found_B = 1 + predicted_BL.argmax(dim=1)
    return {
        "error": (found_B - points_B).abs().mean().item(),
        "constant_error": (points_B.median() - points_B).abs().mean().item(),
        "constant_loss": heatmap_loss(_best_constant(points_B, predicted_BL.shape[1], tau), points_B, tau).item(),
    }


def _best_constant(points_B: Tensor, num_frames: int, tau: int) -> Tensor:
    """The mean heatmap: errors below 1 are squared by the smooth L1 norm, and heatmaps lie within 0 and 1."""
    heatmaps_BL = heatmap(points_B, num_frames, tau)
    return heatmaps_BL.mean(dim=0).expand_as(heatmaps_BL)
