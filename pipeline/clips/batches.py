"""Trimmed clips to training batches: decoding, position in time, crop, mirroring.

A small data set is decoded once and its frames are kept in memory, resized, as long as they stay below 1 GiB; a larger
one is decoded anew in every epoch, by worker processes and only the frames that are needed. Either way the same place
(epoch, index) gives the same batch. A clip that cannot be decoded is left out of its batch and named in it.

No data worker imports Lightning, so this module does not. Shapes: B clips, L frames of a snippet, N frames of a clip.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.clips.reading import Clip
from pipeline.data.video import VideoError, VideoInfo, probe_video, read_clip
from pipeline.data.video.decoder_process import DecoderProcess

FrameArray = NDArray[np.uint8]

CACHE_BYTES = 2**30
TIME_LIMIT_S = 60.0
CROP_SCALES = (1.0, 0.875, 0.75, 0.66)  # of TSN and TSM
_CLIPS_PROBED = 16


class ClipBatch(NamedTuple):
    """Clips with their classes, and why others are missing."""

    clips: Tensor  # (B, 3, L, H, W) uint8
    labels: Tensor  # (B,) long
    failed: list[tuple[str, str]]  # clip, reason


@dataclass(frozen=True)
class ClipForm:
    """How a snippet is taken from a clip.

    Attributes:
        num_frames: frames in a snippet (L).
        frame_stride: frames of the clip that each of them stands for.
        resize: short side in pixels that a frame is brought to.
        size: side of the square crop.
    """

    num_frames: int
    frame_stride: int
    resize: int
    size: int

    def frames_at(self, start: int, num_frames: int) -> NDArray[np.int64]:
        """The L frames of the snippet that starts at frame `start`: the middle of each stride, as in `snippets.py`.

        What reaches past the end of the clip repeats the last frame.
        """
        ticks = start + np.arange(self.num_frames) * self.frame_stride + (self.frame_stride - 1) // 2
        return np.minimum(ticks, num_frames - 1)

    def last_start(self, num_frames: int) -> int:
        """The last frame that a snippet may start at; 0 in clips that are shorter than a snippet."""
        return max(0, num_frames - self.num_frames * self.frame_stride)


@dataclass(frozen=True)
class Augmentation:
    """Training clips start anywhere, are cropped at several scales, and are mirrored at random.

    Attributes:
        seed: with the epoch and the index, decides on all of it.
        mirror: mirror half of the clips; wrong where classes differ by direction alone.
    """

    seed: int
    mirror: bool


class ClipBatches:
    """Batches of clips by place, for `pipeline.training.batches.load_batches`."""

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: Sequence[int],
        form: ClipForm,
        *,
        augmentation: Augmentation | None = None,
        frames: Sequence[FrameArray] | None = None,
    ) -> None:
        """
        Args:
            clips: what to read.
            labels: class index of each.
            form: how a snippet is taken from a clip.
            augmentation: None: the snippet from the middle of the clip, and the crop from the middle of the frame.
            frames: all frames of each clip, (N, H, W, 3), resized, if they have been decoded already.
        """
        self.clips, self.labels, self.form = clips, labels, form
        self.augmentation = augmentation
        self.frames = frames

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, places: list[tuple[int, int]]) -> ClipBatch:
        """The batch of these (epoch, index) pairs."""
        snippets, labels, failed = [], [], []
        for epoch, index in places:
            try:
                snippet, label = self._sample(epoch, index)
            except (VideoError, OSError) as error:
                failed.append((str(self.clips[index]), str(error)))
            else:
                snippets.append(snippet)
                labels.append(label)
        form = self.form
        snippets_BL3HW = torch.stack(snippets) if snippets else torch.empty(0, form.num_frames, 3, form.size, form.size)
        return ClipBatch(snippets_BL3HW.transpose(1, 2), torch.tensor(labels, dtype=torch.long), failed)

    def _sample(self, epoch: int, index: int) -> tuple[Tensor, int]:
        """One snippet, (L, 3, size, size), and its class."""
        return self._snippet(epoch, index, self.form), self.labels[index]

    def _snippet(self, epoch: int, index: int, form: ClipForm) -> Tensor:
        if self.augmentation is None:
            return centre_crop(self._read(index, form, lambda last: last // 2), form.size)
        rng = np.random.default_rng((self.augmentation.seed, epoch, index))
        frames_LHWC = self._read(index, form, lambda last: int(rng.integers(last + 1)))
        return random_crop(frames_LHWC, form.size, rng, mirror=self.augmentation.mirror)

    def _read(self, index: int, form: ClipForm, choose_start: Callable[[int], int]) -> FrameArray:
        """The L frames of a snippet, resized; `choose_start` is given the last frame that it may start at."""
        frames = ClipFrames(self.clips[index], form.resize, None if self.frames is None else self.frames[index])
        start = choose_start(form.last_start(frames.num_frames))
        return frames.read(form.frames_at(start, frames.num_frames))


class ClipFrames:
    """The frames of one clip, resized: out of those that have been decoded already, or out of its file."""

    def __init__(self, clip: Clip, resize: int, decoded: FrameArray | None = None) -> None:
        """
        Args:
            clip: which clip.
            resize: short side in pixels.
            decoded: all its frames, (N, H, W, 3), resized, if they are at hand.

        Raises:
            VideoError, OSError: the file cannot be read, or has no frame in the clip's seconds.
        """
        self._clip, self._resize, self._decoded = clip, resize, decoded
        if decoded is not None:
            self.num_frames = len(decoded)
            return
        with time_limit(TIME_LIMIT_S, clip.path):
            self._info = _packet_table(clip.path)
            self._first, behind = frame_range(self._info, clip)
        self.num_frames = behind - self._first

    def read(self, places: NDArray[np.int64]) -> FrameArray:
        """The frames (L, H, W, 3) at these places of the clip; no others are converted. Errors as above."""
        if self._decoded is not None:
            return self._decoded[places]
        with time_limit(TIME_LIMIT_S, self._clip.path):
            return read_clip(self._clip.path, self._first + places, resize=self._resize, info=self._info)


@lru_cache(maxsize=10_000)
def _packet_table(path: Path) -> VideoInfo:
    """What `probe_video` says, kept: for 10 s it takes a quarter of the time of decoding a snippet, and then 5 KB."""
    return probe_video(path)


def frame_range(info: VideoInfo, clip: Clip) -> tuple[int, int]:
    """First frame of a clip and the one behind its last: those that appear from its start to before its end."""
    start = 0.0 if clip.start is None else clip.start
    end = info.duration if clip.end is None else clip.end
    first, behind = np.searchsorted(info.timestamps, [start, end]).tolist()
    if first >= behind:
        raise VideoError(f"{clip.path}: no frame from {start:g} to {end:g} s, the video has {info.duration:g} s")
    return first, behind


# --- Crops ------------------------------------------------------------------------------------------------------------


def centre_crop(frames_LHWC: FrameArray, size: int) -> Tensor:
    """The central size × size pixels, (L, 3, size, size)."""
    height, width = frames_LHWC.shape[1:3]
    top, left = (height - size) // 2, (width - size) // 2
    return _to_tensor(frames_LHWC[:, top : top + size, left : left + size])


def random_crop(frames_LHWC: FrameArray, size: int, rng: np.random.Generator, *, mirror: bool) -> Tensor:
    """A crop of random size, shape and place, one for all frames, brought to (L, 3, size, size).

    Width and height are the frame's short side times one of `CROP_SCALES` each, which are neighbours in that list or
    the same (TSN's multi-scale cropping); the place is any.
    """
    short = min(frames_LHWC.shape[1:3])
    scales = [int(short * scale) for scale in CROP_SCALES]
    pairs = [(h, w) for i, h in enumerate(scales) for j, w in enumerate(scales) if abs(i - j) <= 1]
    height, width = pairs[rng.integers(len(pairs))]
    top = int(rng.integers(frames_LHWC.shape[1] - height + 1))
    left = int(rng.integers(frames_LHWC.shape[2] - width + 1))
    crop_L3HW = _to_tensor(frames_LHWC[:, top : top + height, left : left + width])
    resized = F.interpolate(crop_L3HW, (size, size), mode="bilinear", align_corners=False)
    return resized.flip(-1) if mirror and rng.random() < 0.5 else resized


def _to_tensor(frames_LHWC: FrameArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames_LHWC)).permute(0, 3, 1, 2)


# --- Whole clips in memory --------------------------------------------------------------------------------------------


class DecodedClip(NamedTuple):
    """A clip's frames, or why there are none."""

    frames: FrameArray | None  # (N, H, W, 3)
    reason: str


def fits_in_memory(clips: Sequence[Clip], resize: int) -> bool:
    """Whether all frames of all clips, resized, stay below `CACHE_BYTES`, to judge by a few of them."""
    chosen = np.unique(np.linspace(0, len(clips) - 1, _CLIPS_PROBED).round().astype(int))
    sizes = []
    with DecoderProcess(time_limit=TIME_LIMIT_S) as decoder:
        for index in chosen:
            try:
                sizes.append(_num_bytes(decoder.probe(clips[index].path), clips[index], resize))
            except (VideoError, OSError):
                continue
    return not sizes or float(np.mean(sizes)) * len(clips) <= CACHE_BYTES


def decode_clips(clips: Sequence[Clip], resize: int, *, num_workers: int) -> Iterator[DecodedClip]:
    """All frames of each clip, in order, decoded in `num_workers` processes that are killed when they hang."""
    own = threading.local()
    decoders: list[DecoderProcess] = []

    def decode(clip: Clip) -> DecodedClip:
        if not hasattr(own, "decoder"):
            own.decoder = DecoderProcess(time_limit=TIME_LIMIT_S).__enter__()
            decoders.append(own.decoder)
        try:
            first, end = frame_range(own.decoder.probe(clip.path), clip)
            chunks = own.decoder.frames(clip.path, np.arange(first, end), resize=resize, crop=None)
            return DecodedClip(np.concatenate(list(chunks)), "")
        except (VideoError, OSError) as error:
            return DecodedClip(None, str(error))

    try:
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            yield from pool.map(decode, clips)
    finally:
        for decoder in decoders:
            decoder.__exit__(None, None, None)


def _num_bytes(info: VideoInfo, clip: Clip, resize: int) -> float:
    first, end = frame_range(info, clip)
    long_side = resize * max(info.height, info.width) / min(info.height, info.width)
    return 3 * resize * long_side * (end - first)


@contextmanager
def time_limit(seconds: float, path: Path) -> Iterator[None]:
    """End the decoding of one file after so long; in other threads than a process's first, or on Windows, never."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: Any) -> None:
        # No VideoError, after which `read_clip` would try the file in another way.
        raise TimeoutError(f"{path}: no snippet after {seconds:g} s of decoding; look whether the file plays")

    previous = signal.signal(signal.SIGALRM, stop)
    others = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *others)
