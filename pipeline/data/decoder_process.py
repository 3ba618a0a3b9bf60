"""Decoding where it can be killed (thin version: in this process)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.video import Decoder, VideoInfo, probe_video, read_frames


class DecoderProcess:
    """Decodes videos one after the other."""

    def __init__(self, *, time_limit: float = 60.0, decoder: Decoder = "auto") -> None:
        self.decoder = decoder

    def __enter__(self) -> DecoderProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""

    def probe(self, path: Path | str) -> VideoInfo:
        """`probe_video`."""
        return probe_video(path)

    def frames(
        self, path: Path | str, indices: npt.NDArray[np.integer[Any]], *, resize: int | None, crop: int | None
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Chunks (n, H, W, 3) of the frames of `read_frames`."""
        frames = read_frames(path, indices, resize=resize, crop=crop, decoder=self.decoder)
        while chunk := list(islice(frames, 16)):
            yield np.stack(chunk)
