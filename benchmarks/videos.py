"""Videos to measure with: H.264, with motion and noise enough that decoding them costs what real footage costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

FPS = 30


def write_video(path: Path, *, seconds: float, width: int = 640, height: int = 360, seed: int = 0) -> Path:
    """A noisy texture that pans, with noise of its own in each frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in _pan(round(seconds * FPS), width, height, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def _pan(num_frames: int, width: int, height: int, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 200, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    texture = np.tile(coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width], (1, 2, 1))
    noise = random.integers(0, 40, (height, 2 * width, 3), np.uint8)
    for index in range(num_frames):
        x, shake = 3 * index % width, int(random.integers(width))
        yield texture[:, x : x + width] + noise[:, shake : shake + width]


def loop_packets(source: Path, path: Path, *, seconds: float) -> Path:
    """A video of that length made of copies of `source`'s packets, in the time it takes to write them."""
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = container.streams.video[0]
        copied = output.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        length = round(len(packets) / FPS / stream.time_base)
        for loop in range(round(seconds * FPS / len(packets))):
            for original in packets:
                packet = av.Packet(bytes(original))
                packet.time_base, packet.is_keyframe = stream.time_base, original.is_keyframe
                packet.pts, packet.dts = original.pts + loop * length, original.dts + loop * length
                packet.duration, packet.stream = original.duration, copied
                output.mux(packet)
    return path
