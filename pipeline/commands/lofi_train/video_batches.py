"""Untrimmed videos to training batches for an encoder and a head together: whole videos, as snippets of raw frames.

    places (epoch, index)   the schedule says at which fidelity
        │
    video file              only the frames that the T snippets show, resized; from the cache, if there is one
        │
    one crop                the same for all frames of the video, mirrored or not
        │
    clips (T,3,L,H,W)       and the video's segments in rows, 0 to T

Everything random follows from (seed, epoch, index). A video that cannot be decoded is left out of its batch and named
in it. No data worker imports Lightning, so this module does not.

Shapes: B videos, T snippets of a video, L frames of a snippet, F frames of a video that occur in them, N segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.clips.batches import FrameArray, time_limit
from pipeline.commands.lofi_train.fidelity import Fidelity, Schedule
from pipeline.data.annotations import Video
from pipeline.data.snippets import Sampling, sample_snippets
from pipeline.data.video import VideoError, VideoInfo, probe_video, read_clip
from pipeline.data.video.frame_cache import FrameCache
from pipeline.detection.windows import Window, segment_arrays
from pipeline.training.places import Places

TIME_LIMIT_S = 600.0
"""For one video: all of it may have to be decoded."""


class AnnotatedFile(NamedTuple):
    """A video file and what happens in it."""

    path: Path
    video: Video


class VideoBatch(NamedTuple):
    """Videos as snippets, with their segments, and why others are missing."""

    clips: Tensor  # (B, T, 3, L, H, W) uint8
    segments: list[Tensor]  # (N, 2) rows, for each video
    labels: list[Tensor]  # (N,) long
    names: list[str]  # the videos' ids
    failed: list[tuple[str, str]]  # file, reason


class _Sample(NamedTuple):
    """A video of a batch."""

    clips: Tensor  # (T, 3, L, H, W) uint8
    segments: Tensor  # (N, 2) rows
    labels: Tensor  # (N,) long
    name: str


class VideoBatches:
    """Batches of videos by place, for `pipeline.training.batches.load_batches`."""

    def __init__(
        self,
        files: Sequence[AnnotatedFile],
        labels: Sequence[str],
        sampling: Sampling,
        schedule: Schedule,
        *,
        seed: int,
        mirror: bool,
        cache: FrameCache | None = None,
    ) -> None:
        """
        Args:
            files: what to read.
            labels: the K classes.
            sampling: what a snippet is; how many there are, the schedule says.
            schedule: the fidelity of each batch.
            seed: with the epoch and the index, decides on crops.
            mirror: mirror half of the videos; wrong where classes differ by direction alone.
            cache: where decoded frames are kept.
        """
        self.files, self.labels = files, labels
        self.sampling, self.schedule = sampling, schedule
        self.seed, self.mirror, self.cache = seed, mirror, cache

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, places: Places) -> VideoBatch:
        """The batch of these (epoch, index) pairs."""
        fidelity = self.schedule.at(places[0][0], places.batch)
        samples, failed = [], []
        for epoch, index in places:
            try:
                samples.append(self._sample(epoch, index, fidelity))
            except (VideoError, OSError) as error:
                failed.append((str(self.files[index].path), str(error)))
        if not samples:
            return VideoBatch(torch.empty(0), [], [], [], failed)
        clips, segments, labels, names = map(list, zip(*samples, strict=True))
        return VideoBatch(torch.stack(clips), segments, labels, names, failed)

    def _sample(self, epoch: int, index: int, fidelity: Fidelity) -> _Sample:
        path, video = self.files[index]
        with time_limit(TIME_LIMIT_S, path):
            info = probe_video(path)
            sampling = replace(self.sampling, num_snippets=fidelity.num_snippets)
            indices_TL, _ = sample_snippets(info.timestamps, info.duration, sampling)
            wanted_F, place_TL = np.unique(indices_TL, return_inverse=True)
            frames_FHWC = self._read(info, wanted_F, fidelity.resize)
        rng = np.random.default_rng((self.seed, epoch, index))
        cropped_FHWC = crop_alike(frames_FHWC, fidelity.size, rng, mirror=self.mirror)
        # (F, H, W, 3) -> (T, L, H, W, 3) -> (T, 3, L, H, W)
        clips_TLHWC = torch.from_numpy(cropped_FHWC)[place_TL.reshape(indices_TL.shape)]
        seconds_N2, labels_N = segment_arrays(video, self.labels)
        segments_N2 = Window(0.0, info.duration).to_rows(seconds_N2, fidelity.num_snippets)
        return _Sample(
            clips_TLHWC.movedim(-1, 1), torch.from_numpy(segments_N2).float(), torch.from_numpy(labels_N), video.id
        )

    def _read(self, info: VideoInfo, wanted_F: NDArray[np.int64], resize: int) -> FrameArray:
        def decode() -> FrameArray:
            return read_clip(info.path, wanted_F, resize=resize, info=info)

        return decode() if self.cache is None else self.cache.frames(info.path, wanted_F, resize, decode)


def crop_alike(frames_FHWC: FrameArray, size: int, rng: np.random.Generator, *, mirror: bool) -> FrameArray:
    """The same size × size pixels of every frame, from a place that `rng` draws, mirrored in half of the cases."""
    height, width = frames_FHWC.shape[1:3]
    top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    cropped_FHWC = frames_FHWC[:, top : top + size, left : left + size]
    return np.ascontiguousarray(cropped_FHWC[:, :, ::-1] if mirror and rng.random() < 0.5 else cropped_FHWC)
