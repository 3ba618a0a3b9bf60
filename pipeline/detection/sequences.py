"""What a head that sees videos whole is trained on: stretches of them, cut anew in every epoch.

    video      |--------------------------------------|     all of its rows, or, where it is longer than `longest`,
    stretch          |--------------------|                 so many, from a place that is drawn; of shorter ones at
                                                            least nine tenths

Where videos are brought to a fixed number of rows (ActivityNet), stretches are cut from these rows. Stretches of one
batch are padded at their end, and a mask says so (ActionFormer, section 4; its public code draws up to 200 times for a
stretch that holds a segment). Everything random follows from (seed, epoch, index).

Shapes: B stretches, C channels, T rows, N segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import Video
from pipeline.data.features import FeatureStore, load_finite
from pipeline.detection.windows import (
    FeatureArray,
    FloatArray,
    Rescale,
    rescale_whole,
    segment_arrays,
    share_inside,
    whole_video,
)

SHORTEST_SHARE = 0.9
"""Of a video that is no longer than a stretch may be, in training."""
INSIDE_SHARE = 0.5
"""A segment of which less lies in a stretch is not learnt from there; one of which less lies in its video, nowhere."""
TRIES = 200


class SequenceBatch(NamedTuple):
    """Stretches and their segments, as arrays; a loader makes tensors of them."""

    features: FeatureArray  # (B, C, T), zeros where `valid` is false
    valid: NDArray[np.bool_]  # (B, T)
    segments: list[NDArray[np.float32]]  # (N, 2) rows, for each stretch
    labels: list[NDArray[np.int64]]  # (N,)


class Stretch(NamedTuple):
    """Rows `first` to `end` of a video, and the segments in them, in rows of the stretch."""

    first: int
    end: int
    segments: FloatArray  # (N, 2)
    kept: NDArray[np.bool_]  # which segments of the video these are


@dataclass(frozen=True)
class TrainingSequences:
    """Videos with segments; their features stay on disk.

    Attributes:
        store: where the features are.
        video_ids: the videos, as the store calls them.
        segments: of each video, (N, 2) rows.
        labels: of each video, (N,) class indices.
        left_out: the segments that lie mostly behind the end of their video, by video and start.
        longest: rows of a stretch at most.
        row_step: of the features, every `row_step`-th row is used.
        rescale_rows: rows that every video is then brought to; None: videos stay as long as they are.
        rescale: by which rule.
        seed: None: the same stretch in every epoch, to validate with.
    """

    store: FeatureStore
    video_ids: Sequence[str]
    segments: Sequence[FloatArray]
    labels: Sequence[NDArray[np.int64]]
    left_out: Sequence[str]
    longest: int
    row_step: int
    rescale_rows: int | None
    rescale: Rescale
    seed: int | None

    def __len__(self) -> int:
        return len(self.video_ids)

    def __getitem__(self, places: list[tuple[int, int]]) -> SequenceBatch:
        """The batch of these (epoch, index) pairs."""
        features, segments, labels = [], [], []
        for epoch, index in places:
            features_TC = self._rows_of(self.video_ids[index])
            origin = (0, 0, index) if self.seed is None else (self.seed, epoch, index)
            drawn = draw_stretch(
                len(features_TC), self.segments[index], longest=self.longest, rng=np.random.default_rng(origin)
            )
            features.append(features_TC[drawn.first : drawn.end])
            segments.append(drawn.segments.astype(np.float32))
            labels.append(self.labels[index][drawn.kept])
        return SequenceBatch(*pad(features), segments, labels)

    def _rows_of(self, video_id: str) -> FeatureArray:
        features_TC = self.store.load(video_id)[:: self.row_step]
        if self.rescale_rows is None:
            return features_TC
        timeline = self.store.videos[video_id].timeline.every(self.row_step)
        return rescale_whole(features_TC, timeline, self.rescale_rows, self.rescale)[0]


def pad(sequences: Sequence[FeatureArray]) -> tuple[FeatureArray, NDArray[np.bool_]]:
    """Sequences (T, C) of any lengths side by side, (B, C, T), and which rows are theirs, (B, T)."""
    lengths_B = np.array([len(sequence) for sequence in sequences])
    features_BCT = np.zeros((len(sequences), sequences[0].shape[1], lengths_B.max()), dtype=np.float32)
    for features_CT, sequence in zip(features_BCT, sequences, strict=True):
        features_CT[:, : len(sequence)] = sequence.T
    return features_BCT, np.arange(lengths_B.max()) < lengths_B[:, None]


def draw_stretch(num_rows: int, segments_N2: FloatArray, *, longest: int, rng: np.random.Generator) -> Stretch:
    """A stretch of at most `longest` rows that holds at least half of a segment; `segments_N2` in rows of the video."""
    least = min(int(np.ceil(SHORTEST_SHARE * num_rows)), longest)
    length = int(rng.integers(least, min(num_rows, longest) + 1)) if num_rows <= longest else longest
    for _ in range(TRIES):
        drawn = _cut(int(rng.integers(num_rows - length + 1)), length, segments_N2)
        if drawn.kept.any():
            return drawn
    middle = segments_N2[rng.integers(len(segments_N2))].mean()  # of one that is longer than any stretch, or rare
    first = int(np.clip(round(middle - length / 2), 0, num_rows - length))
    drawn = _cut(first, length, segments_N2)
    return drawn if drawn.kept.any() else _cut(first, length, segments_N2, least_share=0.0)


def _cut(first: int, length: int, segments_N2: FloatArray, least_share: float = INSIDE_SHARE) -> Stretch:
    share_N = share_inside(segments_N2, first, first + length)
    kept_N = (share_N >= least_share) & (share_N > 0)
    return Stretch(first, first + length, segments_N2[kept_N].clip(first, first + length) - first, kept_N)


def training_sequences(
    store: FeatureStore,
    videos: Mapping[str, Video],
    labels: Sequence[str],
    *,
    longest: int,
    row_step: int,
    rescale_rows: int | None = None,
    rescale: Rescale = "linear",
    seed: int | None,
) -> TrainingSequences:
    """The videos that have segments of which at least half lies in them; what reaches behind their end is cut off.

    Args:
        store: where the features are.
        videos: annotated videos by the id that the store has for them.
        labels: class names; segments of other classes are left out.
        longest, row_step, rescale_rows, rescale, seed: as in `TrainingSequences`.

    Raises:
        ValueError: features that are not finite.
    """
    chosen: dict[str, tuple[FloatArray, NDArray[np.int64]]] = {}
    left_out: list[str] = []
    for video_id, video in videos.items():
        seconds_N2, labels_N = segment_arrays(video, labels)
        num_features = len(load_finite(store, video_id)[::row_step])
        whole = whole_video(store.videos[video_id].timeline.every(row_step), num_features)
        there_N = share_inside(seconds_N2, *whole) >= INSIDE_SHARE
        num_rows = num_features if rescale_rows is None else rescale_rows
        rows_N2 = whole.to_rows(seconds_N2, num_rows).clip(0, num_rows)
        left_out += [f"{video_id} at {start:g} s" for start in seconds_N2[~there_N, 0]]
        if there_N.any():
            chosen[video_id] = rows_N2[there_N], labels_N[there_N]
    rows, indices = zip(*chosen.values(), strict=True) if chosen else ((), ())
    return TrainingSequences(
        store, list(chosen), rows, indices, left_out, longest, row_step, rescale_rows, rescale, seed
    )
