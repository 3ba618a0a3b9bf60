"""Frames of video files, as they are displayed, with their real timestamps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt

Decoder = Literal["auto", "decord", "pyav"]
FrameArray = npt.NDArray[np.uint8]  # (H, W, 3)


class VideoError(ValueError):
    """A video that cannot be read; the message names the file and the cure."""


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What a video file holds."""

    path: Path
    width: int
    height: int
    timestamps: npt.NDArray[np.float64]
    duration: float

    @property
    def num_frames(self) -> int:
        return len(self.timestamps)

    @property
    def fps(self) -> float:
        return self.num_frames / self.duration


def probe_video(path: Path | str) -> VideoInfo:
    """Read the packet table of a video (thin version)."""
    path = Path(path)
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            packets = [p for p in container.demux(stream) if p.pts is not None and not p.is_discard]
            last = max(packets, key=lambda p: p.pts)
            times = np.sort([float(p.pts * p.time_base) for p in packets])
            times -= times[0]
            last_duration = float((last.duration or 0) * last.time_base) or float(np.median(np.diff(times)))
            return VideoInfo(path, stream.width, stream.height, times, float(times[-1]) + last_duration)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise VideoError(f"{path}: not a video that can be read ({error})") from error


def read_frames(
    path: Path | str,
    indices: Iterable[int] | npt.NDArray[np.integer[Any]],
    *,
    resize: int | None = None,
    crop: int | None = None,
    decoder: Decoder = "auto",
) -> Iterator[FrameArray]:
    """Frames of non-decreasing `indices` in one sequential pass (thin version)."""
    wanted = list(map(int, indices))
    position = 0
    with av.open(str(path), metadata_errors="replace") as container:
        container.streams.video[0].thread_type = "AUTO"
        for index, frame in enumerate(container.decode(video=0)):
            array: FrameArray | None = None
            while position < len(wanted) and wanted[position] == index:
                array = _convert(frame, resize, crop) if array is None else array
                yield array
                position += 1
            if position == len(wanted):
                return
    raise VideoError(f"{path}: has no frame {wanted[position]}")


def _convert(frame: av.VideoFrame, resize: int | None, crop: int | None) -> FrameArray:
    width, height = frame.width, frame.height
    if resize is not None:
        short = min(width, height)
        width, height = ((2 * side * resize + short) // (2 * short) for side in (width, height))
    array: FrameArray = frame.to_ndarray(format="rgb24", width=width, height=height)
    if crop is None:
        return array
    top, left = (height - crop) // 2, (width - crop) // 2
    return array[top : top + crop, left : left + crop]


def read_clip(
    path: Path | str,
    indices: npt.NDArray[np.integer[Any]],
    *,
    resize: int | None = None,
    crop: int | None = None,
    info: VideoInfo | None = None,
) -> npt.NDArray[np.uint8]:
    """Frames of any `indices`, (L, H, W, 3) (thin version)."""
    wanted, inverse = np.unique(np.asarray(indices), return_inverse=True)
    return np.stack(list(read_frames(path, wanted, resize=resize, crop=crop)))[inverse]
