"""What a head sees of a video: windows of a bounded length in seconds, each brought to T rows.

    video      |--------------------------------------|      one window, if it is short enough; else
    windows    |---------------|                             windows of the longest length, evenly spaced,
                       |---------------|                     each overlapping the next by at least half
                               |--------------|

Time maps plainly: a window from `start` to `end` seconds is rows 0 to T. Instead of rescaling, rows may stay as they
are: the windows are then T rows each, as in G-TAD on THUMOS14.

Shapes: W windows, T rows of a window, C channels, N segments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import AMBIGUOUS, Video
from pipeline.data.features import FeatureStore, StoredVideo, load_finite, rescale_bins, rescale_linear, take_rows
from pipeline.data.snippets import Timeline, timeline_of_shares

FloatArray = NDArray[np.float64]
FeatureArray = NDArray[np.float32]
Rescale = Literal["linear", "bins", "none"]

RESCALE: Mapping[str, Callable[[FeatureArray, Timeline, float, float, int], FeatureArray]] = {
    "linear": rescale_linear,
    "bins": rescale_bins,
    "none": take_rows,
}

INSIDE_SHARE = 0.9


class Window(NamedTuple):
    """A stretch of a video, in seconds."""

    start: float
    end: float

    def to_rows(self, seconds: FloatArray, num_rows: int) -> FloatArray:
        """Seconds of the video to rows of the window, any shape."""
        return (seconds - self.start) * (num_rows / (self.end - self.start))

    def to_seconds(self, rows: FloatArray, num_rows: int) -> FloatArray:
        """Inverse of `to_rows`."""
        return self.start + rows * ((self.end - self.start) / num_rows)


def cut_windows(duration: float, longest: float) -> list[Window]:
    """The windows of a video; `duration` and `longest` in seconds, both above zero."""
    if not longest > 0:
        raise ValueError(f"post.window is {longest} s; it must be above zero")
    if duration <= longest:
        return [Window(0.0, duration)]
    slack = duration - longest
    starts = np.linspace(0.0, slack, math.ceil(2 * slack / longest) + 1)
    return [Window(start, start + longest) for start in starts.tolist()]


def cut_row_windows(timeline: Timeline, num_features: int, num_rows: int) -> list[Window]:
    """The windows of a video whose rows stay as they are: `num_rows` rows each, from every half of a window on.

        rows       0 1 2 3 4 5 6 7 8 9            num_rows = 4
        windows    |-----| |-----|
                       |-----| |-----|            the last one ends with the video; a video of fewer rows is one
                                                  window, which reaches behind its end

    G-TAD's code for THUMOS14 does three things that are not done here: it leaves up to a fifth of a window, 51 of 256
    rows, at the end of a video unseen (and so 42 of the 3,358 test segments); its labels lie half a row, 2.5 frames,
    beside its detections; and it rounds these to 0.1 s.
    """
    last = max(0, num_features - num_rows)
    starts = [*range(0, last, max(1, num_rows // 2)), last]
    return [Window(timeline.edge(start), timeline.edge(start + num_rows)) for start in starts]


def whole_video(timeline: Timeline, num_features: int) -> Window:
    """The one window of a head that sees videos whole: from the first row's edge to the last one's."""
    return Window(timeline.edge(0), timeline.edge(num_features))


def rescale_whole(
    features_TC: FeatureArray, timeline: Timeline, num_rows: int, rescale: Rescale
) -> tuple[FeatureArray, Timeline]:
    """The features of a whole video brought to `num_rows` rows, (num_rows, C), and which seconds these stand for.

    They share the seconds of the rows that were there: by ActionFormer's public code for ActivityNet, which counts
    frames, (T-1)·stride + window of them for T rows. Where windows neither overlap nor leave gaps, that is the same.
    """
    whole = whole_video(timeline, len(features_TC))
    rescaled_TC = RESCALE[rescale](features_TC, timeline, *whole, num_rows)
    return rescaled_TC, timeline_of_shares(num_rows, whole.end, whole.start)


def windows_of(
    timeline: Timeline, num_features: int, duration: float, *, num_rows: int | None, longest: float, rescale: Rescale
) -> list[Window]:
    """The windows of a video that are brought to `num_rows` rows by `rescale`; `duration` and `longest` in seconds.

    Without `num_rows` there is one, with all rows as they are.
    """
    if num_rows is None:
        return [whole_video(timeline, num_features)]
    if rescale == "none":
        return cut_row_windows(timeline, num_features, num_rows)
    return cut_windows(duration, longest)


def share_inside(segments_N2: FloatArray, start: float, end: float) -> FloatArray:
    """How much of each segment lies between `start` and `end`, (N,), from 0 to 1."""
    cut_N2 = segments_N2.clip(start, end)
    share_N: FloatArray = (cut_N2[:, 1] - cut_N2[:, 0]) / (segments_N2[:, 1] - segments_N2[:, 0])
    return share_N


def segments_inside(segments_N2: FloatArray, window: Window) -> NDArray[np.bool_]:
    """Which segments (seconds) a window has as targets: those of which more than 90 % lie in it.

    One that is cut deeper would teach that actions end where windows do. As windows overlap by half, every segment of
    up to half a window lies wholly in one of them.
    """
    inside_N: NDArray[np.bool_] = share_inside(segments_N2, *window) > INSIDE_SHARE
    return inside_N


def segments_to_learn(segments_N2: FloatArray, window: Window, rescale: Rescale) -> NDArray[np.bool_]:
    """Which segments (seconds) a window has as targets.

    Windows of rows as they are have, as in G-TAD on THUMOS14, every segment that they touch, provided that one of them
    is inside; where actions are short and dense, a piece of one that counted as background would be the greater wrong.
    The window's edge is taught as the boundary of a piece, where the original teaches none.
    """
    inside_N = segments_inside(segments_N2, window)
    if rescale != "none" or not inside_N.any():
        return inside_N
    touched_N: NDArray[np.bool_] = (segments_N2[:, 0] < window.end) & (segments_N2[:, 1] > window.start)
    return touched_N


def window_features(
    features_TC: FeatureArray, timeline: Timeline, window: Window, *, num_rows: int, rescale: Rescale
) -> FeatureArray:
    """A window's features, channels first: (C, num_rows)."""
    return RESCALE[rescale](features_TC, timeline, window.start, window.end, num_rows).T


class WindowBatch(NamedTuple):
    """Windows and their segments, as arrays; a loader makes tensors of them."""

    features: FeatureArray  # (B, C, T)
    segments: list[NDArray[np.float32]]  # (N, 2) rows, for each window
    labels: list[NDArray[np.int64]]  # (N,)


@dataclass(frozen=True)
class TrainingWindows:
    """Windows with segments; the features stay on disk, memory-mapped, so that their number is no matter of memory.

    Attributes:
        path: .npy file, (W, C, T) float32; without windows there is none.
        segments: of each window, (N, 2) rows.
        labels: of each window, (N,) class indices.
        left_out: the segments that are in no window, by video and start.
    """

    path: Path
    segments: Sequence[NDArray[np.float32]]
    labels: Sequence[NDArray[np.int64]]
    left_out: Sequence[str]

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, places: list[tuple[int, int]]) -> WindowBatch:
        """The batch of these (epoch, index) pairs; an epoch is like the other."""
        index = [index for _, index in places]
        features_WCT = np.asarray(np.load(self.path, mmap_mode="r"))
        return WindowBatch(features_WCT[index], [self.segments[i] for i in index], [self.labels[i] for i in index])


def cut_training_windows(
    path: Path,
    store: FeatureStore,
    videos: Mapping[str, Video],
    labels: Sequence[str],
    *,
    num_rows: int,
    longest: float,
    rescale: Rescale,
    row_step: int = 1,
) -> TrainingWindows:
    """The windows of some videos that have segments, their features written to `path`.

    Args:
        path: .npy file to write.
        store: where the features are.
        videos: annotated videos by the id that the store has for them.
        labels: class names; segments of other classes are left out.
        num_rows: T.
        longest: longest window in seconds, if rows are rescaled.
        rescale: how features are brought to T rows.
        row_step: of the features, every `row_step`-th row is used.

    Raises:
        ValueError: features that are not finite.
    """
    windows: list[_Targets] = []
    left_out: list[str] = []
    for video_id, video in videos.items():
        seconds_N2, labels_N = segment_arrays(video, labels)
        used_N = np.zeros(len(labels_N), dtype=bool)
        stored = store.videos[video_id]
        for window in _stored_windows(stored, num_rows, longest, rescale, row_step):
            seen = window._replace(end=min(window.end, stored.duration))
            learnt_N = segments_to_learn(seconds_N2, seen, rescale)
            if learnt_N.any():
                rows_N2 = window.to_rows(seconds_N2[learnt_N], num_rows).clip(0, num_rows)
                windows.append(_Targets(video_id, window, rows_N2.astype(np.float32), labels_N[learnt_N]))
                used_N |= learnt_N
        left_out += [f"{video_id} at {start:g} s" for start in seconds_N2[~used_N, 0]]
    _write_features(path, store, windows, num_rows, rescale, row_step)
    return TrainingWindows(path, [w.segments for w in windows], [w.labels for w in windows], left_out)


class _Targets(NamedTuple):
    """A window of a video and its segments."""

    video_id: str
    window: Window
    segments: NDArray[np.float32]  # (N, 2) rows
    labels: NDArray[np.int64]  # (N,)


def _stored_windows(video: StoredVideo, num_rows: int, longest: float, rescale: Rescale, row_step: int) -> list[Window]:
    timeline, num_features = video.timeline.every(row_step), math.ceil(video.rows / row_step)
    return windows_of(timeline, num_features, video.duration, num_rows=num_rows, longest=longest, rescale=rescale)


def segment_arrays(video: Video, labels: Sequence[str]) -> tuple[FloatArray, NDArray[np.int64]]:
    """Segments (N, 2) in seconds and class indices (N,); segments of other classes are left out.

    Those that are labelled "Ambiguous" are there with the index -1: for the heads something happens, of no class.
    """
    index_of = {AMBIGUOUS: -1, **{label: index for index, label in enumerate(labels)}}
    known = [segment for segment in video.segments if segment.label in index_of]
    seconds_N2 = np.array([(segment.start, segment.end) for segment in known], dtype=np.float64).reshape(-1, 2)
    return seconds_N2, np.array([index_of[segment.label] for segment in known], dtype=np.int64)


def _write_features(
    path: Path, store: FeatureStore, windows: Sequence[_Targets], num_rows: int, rescale: Rescale, row_step: int
) -> None:
    if not windows:
        return
    shape = (len(windows), store.videos[windows[0].video_id].channels, num_rows)
    features_WCT = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    slots_CT = iter(features_WCT)
    for video_id, of_video in groupby(windows, key=lambda targets: targets.video_id):
        features_TC = load_finite(store, video_id)[::row_step]
        timeline = store.videos[video_id].timeline.every(row_step)
        for _, window, *_ in of_video:
            next(slots_CT)[:] = window_features(features_TC, timeline, window, num_rows=num_rows, rescale=rescale)
    features_WCT.flush()
