"""Decoded frames on disk, for training that asks for the same frames of the same videos in every epoch.

A file holds some frames of one video, scaled: an uncompressed ``.npz``, so that reading it costs little more than
copying it. Its name says what it was made of: frames of a video that has changed since, or other frames, or other
sizes, have another name. Its checksum is looked at whenever it is read; a damaged file is deleted and made anew. It
appears once it is whole. The folder never grows above its limit: when it is full, the frames that are in it stay (every
epoch wants all of them once more), and the others are decoded every time. It may be deleted at any time.

Shapes: N frames, H W pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

FrameArray = NDArray[np.uint8]

_FORMAT = 1  # to be raised when frames are scaled otherwise
_PARTIAL = ".part"


@dataclass(frozen=True)
class FrameCache:
    """A folder of frames; used by several processes at a time.

    Attributes:
        folder: where they are.
        max_bytes: of all its files together.
    """

    folder: Path
    max_bytes: int

    def prepare(self) -> None:
        """Make the folder, and delete what killed processes were writing, before any process begins to write."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for partial in self.folder.glob(f"*{_PARTIAL}"):
            partial.unlink(missing_ok=True)

    def frames(
        self, video: Path, indices_N: NDArray[np.int64], resize: int, decode: Callable[[], FrameArray]
    ) -> FrameArray:
        """Frames (N, H, W, 3) of a video file as it is now, from the folder or else from `decode`.

        Args:
            video: the file.
            indices_N: which frames.
            resize: pixels of their short side.
            decode: makes them.

        Raises:
            OSError: there is no such video file; and what `decode` raises. What cannot be written is not.
        """
        file = self.folder / _name(video, indices_N, resize)
        frames_NHWC = _read(file)
        if frames_NHWC is None:
            frames_NHWC = decode()
            self._write(file, frames_NHWC)
        return frames_NHWC

    def _write(self, file: Path, frames_NHWC: FrameArray) -> None:
        partial = file.with_name(f"{file.name}.{os.getpid()}{_PARTIAL}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._num_bytes() + frames_NHWC.nbytes > self.max_bytes:
                return
            with partial.open("wb") as stream:
                np.savez(stream, frames=frames_NHWC)
            # Others have written meanwhile; their unfinished files count, so that two cannot take the same room.
            if self._num_bytes() <= self.max_bytes:
                os.replace(partial, file)
        except OSError:
            return
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _num_bytes(self) -> int:
        with os.scandir(self.folder) as entries:
            return sum(_size(entry) for entry in entries)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # another process has renamed or deleted it
        return 0


def _name(video: Path, indices_N: NDArray[np.int64], resize: int) -> str:
    status = video.stat()
    made_of = [_FORMAT, str(video.resolve()), status.st_size, status.st_mtime_ns, resize]
    digest = hashlib.sha256(json.dumps(made_of).encode())
    digest.update(np.ascontiguousarray(indices_N, "<i8").tobytes())
    return f"{video.stem}.{digest.hexdigest()[:16]}.npz"


def _read(file: Path) -> FrameArray | None:
    """The frames of a file; None if there is none, or none that is whole."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            frames_NHWC: FrameArray = archive["frames"]
            return frames_NHWC
    except FileNotFoundError:
        return None
    except (BadZipFile, zlib.error, EOFError, ValueError, KeyError, OSError):
        with suppress(OSError):
            file.unlink(missing_ok=True)
        return None
