"""Flow pictures on disk, because computing them takes far longer than anything that is then done with them.

A file holds the pictures of one video as one sampling takes them: a zip archive of compressed ``.npy`` chunks, which
``numpy.load`` opens as an ``.npz``. Its name says what it was made of (`cache_name`): pictures of a video that has
changed since, or that are taken otherwise, have another name, so that a file is either right or not looked at. It
appears once it is whole. Files, and the folder, may be deleted at any time.

Shapes: P pairs of frames, n pictures of a chunk, H W pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.data.video.packets import VideoError

CHUNK_PICTURES = 16
_FORMAT = 1  # to be raised when flow is computed or coded otherwise


def cache_name(video: Path, pairs_P2: NDArray[np.int64], *, resize: int, crop: int) -> str:
    """The name of the file with the flow of these pairs of frames of a video file as it is now."""
    status = video.stat()
    made_of = [_FORMAT, status.st_size, status.st_mtime_ns, resize, crop]
    digest = hashlib.sha256(json.dumps(made_of).encode())
    digest.update(np.ascontiguousarray(pairs_P2, "<i8").tobytes())
    return f"{video.stem}.{digest.hexdigest()[:16]}.npz"


def read_pictures(file: Path) -> Iterator[NDArray[np.uint8]] | None:
    """The pictures of a file, one chunk in memory at a time; None if there is no such file.

    Raises:
        VideoError: the file is damaged; on the way, if that shows on the way.
    """
    return _pictures_in(file) if file.is_file() else None


def _pictures_in(file: Path) -> Iterator[NDArray[np.uint8]]:
    try:
        with ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as chunk:
                    yield from np.lib.format.read_array(chunk, allow_pickle=False)
    except (BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise VideoError(f"{file}: this file of the flow cache is damaged ({error}); delete it") from error


def write_through(file: Path, pictures: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Hand the pictures on, and write them besides. The file appears after the last one was taken, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with ZipFile(partial, "w", ZIP_DEFLATED, compresslevel=1) as archive:
            for number, chunk in enumerate(iter(lambda: list(islice(pictures, CHUNK_PICTURES)), [])):
                with archive.open(f"{number:06}.npy", "w") as member:
                    np.lib.format.write_array(member, np.stack(chunk), allow_pickle=False)
                yield from chunk
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
