"""How dense a head's rows are, and how far it reaches: both follow from the lengths of the segments it learns from.

Whoever brings videos of their own need not know how long a row lasts: in a store with 30 rows a second, actions of
10 s are 300 rows; with a row every half second, 20. What is decided here is decided once, by the training segments, and
holds for training and prediction alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import Video
from pipeline.data.features import FeatureStore
from pipeline.detection.windows import FloatArray, segment_arrays

ROWS_A_SEGMENT = 32
"""Of the median segment, for a head that sees videos whole: GTEA's features have 30, the densest that were tried."""
ROWS_A_SEGMENT_IN_WINDOWS = 8
"""The same for a head that sees windows of T rows, and whose cost grows with T²."""
FEWEST_ROWS = 4
"""Of the median segment; with fewer, a boundary that is off by a row is off by a quarter of it."""
LONG = 0.95
"""Share of the segments that must fit into half a window: where windows overlap by half, these lie whole in one."""


def rows_of_segments(
    store: FeatureStore, videos: Mapping[str, Video], labels: Sequence[str], *, rescale_rows: int | None = None
) -> FloatArray:
    """Lengths of all segments, (N,), in rows of the store, or in those that each video is brought to.

    `videos` by the id that the store has for them.
    """
    lengths = []
    for video_id, video in videos.items():
        seconds_N2, _ = segment_arrays(video, labels)
        stored = store.videos[video_id]
        denser = 1.0 if rescale_rows is None else rescale_rows / stored.rows
        lengths.append((seconds_N2[:, 1] - seconds_N2[:, 0]) * denser / stored.timeline.stride)
    return np.concatenate(lengths) if lengths else np.zeros(0)


def fitting_row_step(lengths_N: NDArray[np.floating], num_snippets: int | None) -> int:
    """Use every so many-th row, so that no more of them make a segment than a head can use.

    Args:
        lengths_N: of the training segments, in rows; at least one.
        num_snippets: rows of the head's windows; None: it sees videos whole.
    """
    median = float(np.median(lengths_N))
    if num_snippets is None:
        return max(1, int(median / ROWS_A_SEGMENT))
    long = float(np.quantile(lengths_N, LONG))
    return max(1, int(median / ROWS_A_SEGMENT_IN_WINDOWS), int(np.ceil(long / (num_snippets / 2))))
