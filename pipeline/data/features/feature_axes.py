"""Which axis of others' features is time: arrays of (T, C), of (C, T), or of either among axes of size 1.

Files do not say it. What tells: the axis along which all videos are of one size holds the channels; the size that fits
a video's duration and the seconds from row to row is time. All arrays of an import are taken to lie the same way.

Shapes: T rows of a video, C channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST, FEW = 0.8, 0.5
"""An axis is told by what at least `MOST` of the arrays show for it, and at most `FEW` for the other axis."""

Axes = Literal["tc", "ct"]


class Sample(NamedTuple):
    """An array's shape after `squeeze`, and the rows that its video's duration lets expect, None if unknown."""

    shape: tuple[int, int]
    expected_rows: float | None


class Layout(NamedTuple):
    """How arrays lie: the order of their axes, why it is taken to be so, and how many channels most of them have."""

    axes: Axes
    reason: str
    channels: int


def squeeze(array: NDArray[np.floating]) -> NDArray[np.floating]:
    """(1, T, C), (T, C, 1, 1), (T, 1, 1, C) and the like without their axes of size 1; two axes stay as they are.

    Of one size above 1 it becomes one row. With more than two such sizes the array is returned as it is.
    """
    sizes = [size for size in array.shape if size != 1]
    if array.ndim <= 2 or len(sizes) > 2:
        return array
    return array.reshape([1] * (2 - len(sizes)) + sizes)


def decide_layout(
    samples: Sequence[Sample], *, axes: Axes | None, channels: int | None, lines_are_rows: bool, near: float
) -> Layout:
    """How the arrays of an import lie, from some of them.

    Args:
        samples: at least one.
        axes: their order, if the user says it.
        channels: of the features that are imported already, if any.
        lines_are_rows: the files are text, where a line is a row unless the shapes say otherwise.
        near: largest share of the expected rows by which an array may have more or fewer.

    Raises:
        ValueError: nothing tells the axes apart.
    """
    axes, reason = (axes, "as told") if axes else _tell_axes(samples, channels, lines_are_rows, near)
    return Layout(axes, reason, channels or _most_common([sample.shape[axes.index("c")] for sample in samples]))


def _tell_axes(samples: Sequence[Sample], channels: int | None, lines_are_rows: bool, near: float) -> tuple[Axes, str]:
    first, second = ([sample.shape[axis] for sample in samples] for axis in (0, 1))
    evidence = {
        f"{channels} channels as in the store": (_share_of(channels, second), _share_of(channels, first)),
        "the other axis has one size in most": (_commonness(second), _commonness(first)),
        "the duration fits": (_share_near(first, samples, near), _share_near(second, samples, near)),
        "a line is a row": (float(lines_are_rows), 0.0),
    }
    for reason, (for_tc, for_ct) in evidence.items():
        if for_tc >= MOST and for_ct <= FEW:
            return "tc", reason
        if for_ct >= MOST and for_tc <= FEW:
            return "ct", reason
    raise ValueError(
        f"shapes such as {samples[0].shape} do not tell which axis is time; give --axes tc for (T, C), rows first, or "
        "--axes ct for (C, T), or say the seconds or frames from row to row"
    )


def to_rows(array: NDArray[np.floating], layout: Layout | None) -> NDArray[np.floating]:
    """An array as (T, C).

    Raises:
        ValueError: it does not have two axes besides those of size 1 (as all, if the layout is None), or other channels
            than most.
    """
    if array.ndim == 1:
        raise ValueError(
            f"shape {array.shape}: one vector, in which nothing can be localized; expected a row a snippet"
        )
    if layout is None:
        raise ValueError(f"shape {array.shape}, expected (T, C) or (C, T)")
    squeezed = squeeze(array)
    expected = f"(T, {layout.channels})" if layout.axes == "tc" else f"({layout.channels}, T)"
    if squeezed.ndim != 2 or squeezed.shape[layout.axes.index("c")] != layout.channels:
        turned = squeezed.ndim == 2 and squeezed.shape[layout.axes.index("t")] == layout.channels
        hint = "; it seems to lie the other way: import such files by themselves" if turned else ""
        raise ValueError(f"shape {array.shape}, expected {expected} as most have{hint}")
    return squeezed if layout.axes == "tc" else squeezed.T


def _most_common(sizes: Sequence[int]) -> int:
    return Counter(sizes).most_common(1)[0][0]


def _commonness(sizes: Sequence[int]) -> float:
    return _share_of(_most_common(sizes), sizes)


def _share_of(size: int | None, sizes: Sequence[int]) -> float:
    return sizes.count(size) / len(sizes) if size is not None else 0.0


def _share_near(sizes: Sequence[int], samples: Sequence[Sample], near: float) -> float:
    """Of the arrays whose number of rows is foreseen, the share whose size is that, give or take one row."""
    pairs = [(size, sample.expected_rows) for size, sample in zip(sizes, samples, strict=True)]
    fits = [abs(size - rows) <= near * rows + 1 for size, rows in pairs if rows is not None]
    return sum(fits) / len(fits) if fits else 0.0
