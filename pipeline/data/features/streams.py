"""Features of several encoders side by side: rows of one time, the channels of one stream after those of another.

Shapes: T rows of a video, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from pipeline.data.features import StoreHeader
from pipeline.data.snippets import Timeline

# Encoders that look at other spans, or features made elsewhere, may see the end of a video so much earlier.
SPARE_ROWS = 2


def join_headers(headers: Sequence[StoreHeader]) -> StoreHeader:
    """The header of a store that holds the streams of these, in this order; float16 only where all of them are.

    Raises:
        ValueError: one of them was refined by SoLa.
    """
    if refined := [header.sola for header in headers if header.sola is not None]:
        raise ValueError(
            f"the features of {refined[0]['parent']} are to be merged as SoLa refined them; merge the stores before, "
            "and run `pipeline sola` on the merged one"
        )
    streams = tuple(stream for header in headers for stream in header.parts)
    return StoreHeader(streams=streams, dtype="float16" if all(s.dtype == "float16" for s in streams) else "float32")


def join_streams(
    features: Sequence[NDArray[np.floating]], timelines: Sequence[Timeline]
) -> tuple[NDArray[np.float32], Timeline]:
    """Streams of one video as one: (T, C1 + C2 + …), and their common timeline. The shortest one's rows count.

    Raises:
        ValueError: their rows stand for other seconds, or one has more than two rows more than another.
    """
    for timeline in timelines[1:]:
        if not _same(timelines[0], timeline):
            raise ValueError(
                f"the rows stand for other seconds: {_seconds(timelines[0])} in the first stream, {_seconds(timeline)} "
                "in another; extract all streams with the same --sampling.step, span (num_frames × frame_stride) and "
                "fps, or with the same sampling.num_snippets"
            )
    lengths = [len(features_TC) for features_TC in features]
    if max(lengths) - min(lengths) > SPARE_ROWS:
        raise ValueError(
            f"the streams have {', '.join(map(str, lengths))} rows, which differ by more than {SPARE_ROWS}; are they "
            "of the same video file?"
        )
    joined_TC = np.concatenate([features_TC[: min(lengths)] for features_TC in features], axis=1, dtype=np.float32)
    return joined_TC, timelines[0]


def _same(one: Timeline, other: Timeline) -> bool:
    """Equal but for rounding: a hundredth of a row over a hundred thousand rows."""
    pairs = zip(asdict(one).values(), asdict(other).values(), strict=True)
    return all(math.isclose(a, b, rel_tol=1e-7, abs_tol=1e-7) for a, b in pairs)


def _seconds(timeline: Timeline) -> str:
    return f"{timeline.length:.6g} s every {timeline.stride:.6g} s from {timeline.offset:.6g} s on"
