"""How much snippet features change where actions start or end, and how much elsewhere (BSP, section 4.3 and Fig. 4).

Compared are neighbouring snippets that share no frame, rows t and t + g with g = ⌈length / stride⌉::

    row t        [=========)
    row t + g                [=========)
                      ^           ^
                    start        end     of a true segment

A pair with a boundary in its first snippet, up to where its second begins, and none in the second is a `boundary`
pair; one with none at all is an `elsewhere` pair. Rows are scaled to a root mean square of 1, so that the number of
channels does not matter.

Shapes: T rows of a video, P pairs of rows, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import Segment
from pipeline.data.snippets import Timeline

FloatArray = NDArray[np.float64]

EDGES = np.linspace(0, 4, 81)
"""Of the histograms; what is larger counts in the last bin."""


class Pairs(NamedTuple):
    """First rows of a video's pairs, and the number of rows from a pair's first to its second."""

    boundary: NDArray[np.int64]
    elsewhere: NDArray[np.int64]
    gap: int


def find_pairs(segments: Iterable[Segment], timeline: Timeline, num_rows: int) -> Pairs:
    """The pairs of a video with these true segments."""
    rounding = 1e-6 * timeline.stride
    gap = max(1, math.ceil((timeline.length - rounding) / timeline.stride))
    boundaries = np.sort([second for segment in segments for second in (segment.start, segment.end)])
    start_T = timeline.centers(num_rows) - timeline.length / 2 + rounding
    # Boundaries up to the start of each row, and up to its end: one on the edge belongs to what stands before it.
    before_T = np.searchsorted(boundaries, start_T, "right")
    until_T = np.searchsorted(boundaries, start_T + timeline.length - 2 * rounding, "left")
    first_P, second_P = before_T[gap:] > before_T[:-gap], until_T[gap:] > before_T[gap:]
    return Pairs(np.flatnonzero(first_P & ~second_P), np.flatnonzero(~first_P & ~second_P), gap)


def absolute_differences(features_TC: NDArray[np.floating], first_P: NDArray[np.int64], gap: int) -> FloatArray:
    """Of each pair, channel by channel, between rows of a root mean square of 1 (rows of zeros stay): (P, C)."""
    rows_TC = np.asarray(features_TC, np.float64)
    scale_T1 = np.sqrt(np.square(rows_TC).mean(axis=1, keepdims=True))
    unit_TC = rows_TC / np.where(scale_T1 > 0, scale_T1, 1.0)
    return np.abs(unit_TC[first_P + gap] - unit_TC[first_P])


@dataclass(frozen=True, eq=False)
class Differences:
    """The pairs of one sort, over all videos of a store.

    Attributes:
        means_P: mean over the channels, of each pair.
        counts: numbers of single channels' differences, in each bin of `EDGES`.
    """

    means_P: FloatArray
    counts: NDArray[np.int64]

    @property
    def mean(self) -> float:
        return float(self.means_P.mean())

    @property
    def density(self) -> FloatArray:
        """The histogram, with an area of 1."""
        return np.asarray(self.counts / (self.counts.sum() * np.diff(EDGES)))


@dataclass(frozen=True)
class BoundaryDifferences:
    """What a store's features do at boundaries, and elsewhere."""

    boundary: Differences
    elsewhere: Differences

    @property
    def auc(self) -> float:
        """How often a boundary pair differs more than another pair: 0.5 by chance, 1 always."""
        others_P = np.sort(self.elsewhere.means_P)
        below_P, not_above_P = (np.searchsorted(others_P, self.boundary.means_P, side) for side in ("left", "right"))
        return float((below_P + not_above_P).mean() / (2 * len(others_P)))


LabelledFeatures = tuple[NDArray[np.floating], Timeline, Sequence[Segment]]


def boundary_differences(videos: Iterable[LabelledFeatures]) -> BoundaryDifferences | None:
    """Over all pairs of some videos, each given by its features (T, C), their timeline and the true segments.

    None if they have no pair at a boundary, or none elsewhere.
    """
    means: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    counts = np.zeros((2, len(EDGES) - 1), np.int64)
    for features_TC, timeline, segments in videos:
        boundary_P, elsewhere_P, gap = find_pairs(segments, timeline, len(features_TC))
        for sort, first_P in enumerate((boundary_P, elsewhere_P)):
            differences_PC = absolute_differences(features_TC, first_P, gap)
            means[sort].append(differences_PC.mean(axis=1))
            counts[sort] += np.histogram(np.minimum(differences_PC, EDGES[-1]), EDGES)[0]
    if not counts.any(axis=1).all():
        return None
    boundary, elsewhere = (Differences(np.concatenate(means[sort]), counts[sort]) for sort in (0, 1))
    return BoundaryDifferences(boundary, elsewhere)
