"""Choosing SoLa's epoch by linear evaluation, as its authors' code does; this uses labels, the last epoch does not.

After each epoch the module refines some annotated videos, and a linear classifier learns foreground and background from
the training videos' rows (`pipeline.measures.linear_evaluation`); its accuracy on the validation videos chooses.

Shapes: T rows of a video, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.sola import SoLa, refine_video
from pipeline.data.annotations import Video
from pipeline.data.features import FeatureStore, load_finite
from pipeline.measures.linear_evaluation import foreground, linear_evaluation

MOST_VIDEOS = 400
"""Of each subset, evenly taken; the authors use a tenth of HACS's, 3,770 and 594."""
EPOCHS, LAST_EPOCHS = 16, 10
"""Of the linear classifier, and those of them whose accuracy counts; as in the authors' code."""


class LabelledVideos(NamedTuple):
    """All the videos as one batch: those that teach the classifier first, then those that test it."""

    features: list[Tensor]  # (T, C) each
    labels: list[Tensor]  # (T,) each: whether a row is foreground
    num_train: int


@dataclass(frozen=True)
class LabelledRows:
    """Annotated videos as a source of one batch.

    Attributes:
        store: features before SoLa.
        train: videos that teach the linear classifier, by their id in the store.
        val: videos that test it.
    """

    store: FeatureStore
    train: Mapping[str, Video]
    val: Mapping[str, Video]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, places: list[tuple[int, int]]) -> LabelledVideos:
        """The batch, whatever the place."""
        train, val = _some(self.train), _some(self.val)
        videos = [*train.items(), *val.items()]
        features = [torch.from_numpy(np.array(load_finite(self.store, video_id))) for video_id, _ in videos]
        labels = [torch.from_numpy(self._foreground(video_id, video)) for video_id, video in videos]
        return LabelledVideos(features, labels, len(train))

    def _foreground(self, video_id: str, video: Video) -> NDArray[np.bool_]:
        stored = self.store.videos[video_id]
        return foreground(video.segments, stored.timeline, stored.rows)


def _some(videos: Mapping[str, Video]) -> dict[str, Video]:
    step = -(-len(videos) // MOST_VIDEOS)
    return dict(list(videos.items())[::step])


def linear_accuracy(sola: SoLa, videos: LabelledVideos) -> float:
    """Accuracy of the linear classifier on refined rows, in percent: the mean of its last epochs."""
    refined = [refine_video(sola, features_TC) for features_TC in videos.features]
    train, test = slice(videos.num_train), slice(videos.num_train, None)
    # Lightning validates in inference mode, in which nothing can learn.
    with torch.inference_mode(False), torch.enable_grad():
        accuracies = linear_evaluation(
            torch.cat(refined[train]).clone(),
            torch.cat(videos.labels[train]).clone(),
            torch.cat(refined[test]).clone(),
            torch.cat(videos.labels[test]).clone(),
            epochs=EPOCHS,
        )
    return float(np.mean(accuracies[-LAST_EPOCHS:]))
