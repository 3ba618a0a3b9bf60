"""A feature store as the commands return it that write one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.features.store import FeatureStore, StoredVideo
from pipeline.terminal.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Store(Outcome):
    """A feature store: one array (T, C) for each video. Give it wherever a store's path is asked for.

    Attributes:
        path: its folder.
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def videos(self) -> Mapping[str, StoredVideo]:
        """Shape, timeline and duration of each video's features, by its id."""
        return self._store.videos

    def load(self, video_id: str) -> NDArray[np.float32]:
        """Features of a video, (T, C). ValueError if the store lacks it."""
        return self._store.load(video_id)

    @cached_property
    def _store(self) -> FeatureStore:
        return FeatureStore.open(self.path)
