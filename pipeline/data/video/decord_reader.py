"""Reading through decord, where it is known to be right: in one pass, every frame.

Its seeks, and its skips, which seek, give wrong frames on ordinary files (open-GOP H.264, MPEG-4 with B-frames), so
`next()` is all that is used of it. It converts every frame to RGB, wanted or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.video.packets import OnProgress, VideoError, VideoInfo
from pipeline.data.video.pictures import Picture, PictureSize

# Containers in which decord's one pass was found right. In MPEG transport streams it loses frames without an error; in
# AVI it counts past frames that the encoder skipped.
TRUSTED_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
TIMESTAMP_TOLERANCE_SECONDS = 2e-3


def open_decord(info: VideoInfo, size: PictureSize) -> Any | None:
    """A decord reader, or None where decord is not installed, cannot open the file, or is not to be trusted with it.

    It is trusted with a file whose number of frames and timestamps it gives as the packets do, in a container and
    without a rotation (where its rows come out skewed) as above.
    """
    try:
        import decord
    except ImportError:
        return None
    if info.by_order or info.quarter_turns or info.container not in TRUSTED_CONTAINERS:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(info.path), width=size.width, height=size.height)
        starts_N = np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0]
    except (decord.DECORDError, RuntimeError, IndexError):
        return None
    agrees = len(starts_N) == info.num_frames and np.allclose(
        starts_N - starts_N[0], info.timestamps, rtol=1e-6, atol=TIMESTAMP_TOLERANCE_SECONDS
    )
    return reader if agrees else None


def decord_pictures(
    reader: Any, info: VideoInfo, wanted: npt.NDArray[np.int64], size: PictureSize, on_progress: OnProgress
) -> Iterator[Picture]:
    """The frames `wanted` (rising, each once) of a reader from `open_decord`.

    Raises:
        VideoError: decord gave up on the way.
    """
    import decord

    position = 0
    for index in range(int(wanted[-1]) + 1 if len(wanted) else 0):
        try:
            frame = reader.next()
        except (decord.DECORDError, StopIteration) as error:
            raise VideoError(f"{info.path}: decord gives no frame {index}; read it with decoder=pyav") from error
        on_progress()
        if index == wanted[position]:
            picture_HWC = frame.asnumpy()
            if picture_HWC.shape != (size.height, size.width, 3):
                raise VideoError(f"{info.path}: decord gives shape {picture_HWC.shape}; read it with decoder=pyav")
            yield size.cut(picture_HWC)
            position += 1
