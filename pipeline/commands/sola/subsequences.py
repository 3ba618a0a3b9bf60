"""What SoLa is trained on: short subsequences of the training videos, drawn from one memory-mapped array.

Of a subsequence only S rows are gathered, s apart; a margin on both sides keeps its ends out of their convolutions:

    rows       . . . . x . . . . . . . x  ...  x . . . .        s = 8, S = 8: 4 + 7·8 + 1 + 4 = 65 rows
    gathered           0               1       7

Shapes: V videos, N rows of all of them, C channels, B batch, S gathered rows, k rows around each that SoLa looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.features import FeatureStore, load_finite

MARGIN = 4
"""As in the authors' code (23 rows for s = 2); more than any kernel reaches."""


@dataclass(frozen=True)
class Gathering:
    """Which rows of a subsequence are gathered: `size` (S) of them, at least 2, and `step` (s) rows apart."""

    size: int
    step: int

    def __post_init__(self) -> None:
        if self.size < 2 or self.step < 1:
            raise ValueError(f"tsm_size is {self.size} and step {self.step}; expected at least 2 and at least 1")

    @property
    def length(self) -> int:
        """Rows of a subsequence."""
        return MARGIN + (self.size - 1) * self.step + 1 + MARGIN

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Places of the gathered rows in a subsequence, (S,)."""
        return MARGIN + self.step * np.arange(self.size)


class NeighbourhoodBatch(NamedTuple):
    """The gathered rows of B subsequences, each amid the k rows around it; a loader makes a tensor of them."""

    features: NDArray[np.float32]  # (B, S, k, C)


@dataclass(frozen=True)
class Subsequences:
    """Random subsequences, a new draw every epoch; a batch is one indexing of the array on disk.

    Attributes:
        path: .npy file, (N, C) float32: the rows of the V videos, one video after the other.
        first: row at which each video begins, (V,).
        rows: rows of each video, (V,), each at least `gathering.length`.
        gathering: which rows of a subsequence are gathered.
        kernel_size: k.
        per_video: subsequences drawn from a video in an epoch.
        seed: of the draws.
    """

    path: Path
    first: NDArray[np.int64]
    rows: NDArray[np.int64]
    gathering: Gathering
    kernel_size: int
    per_video: int
    seed: int

    def __len__(self) -> int:
        return self.per_video * len(self.rows)

    def __getitem__(self, places: list[tuple[int, int]]) -> NeighbourhoodBatch:
        """The batch of these (epoch, index) pairs, all of one epoch."""
        epoch, index_B = places[0][0], np.array([index for _, index in places])
        start_B = self.starts(epoch)[index_B]
        around_k = np.arange(self.kernel_size) - self.kernel_size // 2
        rows_BSk = start_B[:, None, None] + self.gathering.offsets[:, None] + around_k
        features_NC = np.load(self.path, mmap_mode="r")
        return NeighbourhoodBatch(np.asarray(features_NC[rows_BSk]))

    def starts(self, epoch: int) -> NDArray[np.int64]:
        """Row of the array at which each subsequence of the epoch begins; uniform over those that fit in its video."""
        draws = np.random.default_rng((self.seed, epoch)).random(len(self))
        video = np.arange(len(self)) % len(self.rows)
        choices = self.rows[video] - self.gathering.length + 1
        starts: NDArray[np.int64] = self.first[video] + (draws * choices).astype(np.int64)
        return starts


def write_rows(path: Path, store: FeatureStore, video_ids: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Write the videos' rows to `path`, one video after the other.

    Returns:
        the row at which each begins, (V,), and the videos whose rows are all the same.

    Raises:
        ValueError: features that are not finite.
    """
    rows_V = [store.videos[video_id].rows for video_id in video_ids]
    shape = (sum(rows_V), store.videos[video_ids[0]].channels)
    features_NC = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    first_V = np.concatenate([[0], np.cumsum(rows_V)[:-1]])
    constant = []
    for video_id, first, rows in zip(video_ids, first_V, rows_V, strict=True):
        features_TC = load_finite(store, video_id)
        features_NC[first : first + rows] = features_TC
        if (features_TC == features_TC[0]).all():
            constant.append(video_id)
    features_NC.flush()
    return first_V, constant
