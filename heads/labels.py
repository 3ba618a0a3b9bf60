"""What the outputs of G-TAD and BMN should be for known segments (BMN, section 4.2; G-TAD, section 3.4).

Segments are in rows: a window of T rows spans [0, T], and cell (s, d) of the map is the segment [s, s+d+1].
"""

from __future__ import annotations

import torch
from torch import Tensor


def cell_ious(segments_N2: Tensor, num_snippets: int, max_duration: int) -> Tensor:
    """tIoU (N, D, T) of each segment with each cell; zero in the cells that would end after T."""
    start_T = torch.arange(num_snippets, device=segments_N2.device)
    end_DT = start_T + torch.arange(1, max_duration + 1, device=segments_N2.device)[:, None]
    start_N11, end_N11 = segments_N2[:, 0, None, None], segments_N2[:, 1, None, None]
    overlap = (torch.minimum(end_DT, end_N11) - torch.maximum(start_T, start_N11)).clamp(min=0)
    union = (end_DT - start_T) + (end_N11 - start_N11) - overlap
    return overlap / union * (end_DT <= num_snippets)


def boundary_scores(boundaries_N: Tensor, num_snippets: int, *, anchor: tuple[float, float] = (-0.5, 1.5)) -> Tensor:
    """How much of each row's anchor (T,) lies in the region of a boundary, at most over the boundaries.

    The anchor of row k is [k-0.5, k+1.5] (G-TAD), or [k, k] with `anchor` added (BMN: (-0.5, 0.5)); the region of a
    boundary is three rows around it.
    """
    if len(boundaries_N) == 0:
        return boundaries_N.new_zeros(num_snippets)
    before, after = anchor
    row_T = torch.arange(num_snippets, device=boundaries_N.device)
    region_start, region_end = boundaries_N[:, None] - 1.5, boundaries_N[:, None] + 1.5
    overlap_NT = torch.minimum(row_T + after, region_end) - torch.maximum(row_T + before, region_start)
    return (overlap_NT.clamp(min=0) / (after - before)).amax(dim=0)


def clip_segments(segments_N2: Tensor, labels_N: Tensor, num_snippets: int) -> tuple[Tensor, Tensor]:
    """Segments cut to the window [0, T]; those that lie outside of it are left out, with their labels."""
    clipped = segments_N2.clamp(0, num_snippets)
    inside = clipped[:, 1] > clipped[:, 0]
    return clipped[inside], labels_N[inside]
