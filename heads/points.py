"""Points at which a pyramid of features looks for segments."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from heads.options import FIRST_RANGE


class Points(NamedTuple):
    """The P points of all levels, from the finest level to the coarsest, each in order of time."""

    time: Tensor  # (P,) rows
    stride: Tensor  # (P,) rows between the points of the level
    low: Tensor  # (P,) rows; a point is for segments whose further end is this far from it at least,
    high: Tensor  # (P,) rows; and this far at most
    sizes: tuple[int, ...]  # points of each level


def pyramid_points(
    num_rows: int, num_levels: int, *, range_ratio: float = 2.0, device: torch.device | None = None
) -> Points:
    """The points of a sequence of T rows: level l has one at the middle of row 0, 2ˡ, 2·2ˡ, …, ceil(T/2ˡ) in all.

    Row i spans [i, i+1], so that row i's middle is i + ½. With 3 levels and T = 5::

        rows      |   0   |   1   |   2   |   3   |   4   |
        level 0       .       .       .       .       .
        level 1       .               .               .
        level 2       .                               .

    Level 0 is for segments whose further end is up to 4 rows away, level l for 4·2ˡ/range_ratio up to 4·2ˡ, and the
    last level for all that are longer.
    """
    sizes = tuple(-(-num_rows // 2**level) for level in range(num_levels))
    level_P = torch.repeat_interleave(torch.tensor(sizes, device=device))
    stride_P = 2.0**level_P
    column_P = torch.cat([torch.arange(size, device=device) for size in sizes])
    high_P = FIRST_RANGE * stride_P
    low_P = (high_P / range_ratio).masked_fill(level_P == 0, 0)
    return Points(
        column_P * stride_P + 0.5, stride_P, low_P, high_P.masked_fill(level_P == num_levels - 1, torch.inf), sizes
    )
