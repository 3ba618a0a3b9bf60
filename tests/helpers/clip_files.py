"""Trimmed clips of two classes that differ by motion alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np


def write_motion(path: Path, *, upward: bool, seed: int) -> None:
    """A square that rises or falls over noise: 20 frames of 64×64 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    left = int(rng.integers(40))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10, options={"crf": "18", "preset": "ultrafast"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for index in range(20):
            picture = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            top = 2 * (19 - index if upward else index)
            picture[top : top + 20, left : left + 20] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_clips(folder: Path, num_train: int, num_val: int, labels: Sequence[str] = ("fall", "rise")) -> Path:
    """A tree of split/class/clip.mp4."""
    for split, number in (("train", num_train), ("val", num_val)):
        for index in range(number):
            for label in labels:
                path = folder / split / label / f"{split}_{label}_{index}.mp4"
                write_motion(path, upward=label == "rise", seed=index + 1000 * (split == "val"))
    return folder
