"""Test videos whose every frame says which frame it is.

`write_video` draws a frame's index as a 4×4 grid of black and white cells, `read_index` reads it back from the pixels:
twelve bits of the index (so it counts to 4095 and starts again) and four check bits, so that a wrongly decoded frame
is read as UNREADABLE and not as some other frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt

UNREADABLE = -1
INDEX_BITS = 12
GRID = 4
TICKS_PER_SECOND = 90_000


def check_bits(index: int) -> int:
    """Four bits that depend on all twelve of `index`."""
    return ((index * 2654435761) >> 7) & 0xF


def draw_index(index: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """An RGB frame (H, W, 3) that shows `index` modulo 4096; `size` is (width, height)."""
    width, height = size
    index %= 1 << INDEX_BITS
    word = index << 4 | check_bits(index)
    bits = np.array([word >> bit & 1 for bit in range(GRID * GRID)], np.uint8).reshape(GRID, GRID)
    rows, columns = (np.arange(side) * GRID // side for side in (height, width))
    gray = bits[rows][:, columns] * 219 + 16  # not quite black and white: what a limited-range video can hold
    return np.repeat(gray[:, :, None], 3, axis=2).astype(np.uint8)


def read_index(frame: npt.NDArray[np.uint8]) -> int:
    """The index that `draw_index` drew into `frame` (H, W, 3), or UNREADABLE."""
    height, width = frame.shape[:2]
    reach = max(1, min(height, width) // (4 * GRID))
    rows, columns = ([(2 * cell + 1) * side // (2 * GRID) for cell in range(GRID)] for side in (height, width))
    values = np.array([frame[y - reach : y + reach, x - reach : x + reach].mean() for y in rows for x in columns])
    if np.abs(values - 127.5).min() < 50:
        return UNREADABLE
    word = sum(1 << bit for bit, value in enumerate(values) if value > 127.5)
    index = word >> 4
    return index if check_bits(index) == word & 0xF else UNREADABLE


def read_indices(frames: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]) -> list[int]:
    """`read_index` of each frame."""
    return [read_index(frame) for frame in frames]


def write_video(
    path: Path,
    num_frames: int,
    *,
    fps: Fraction | int = 25,
    size: tuple[int, int] = (64, 64),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    timestamps: Sequence[float] | None = None,
    audio_seconds: float = 0.0,
    title: str | None = None,
    format_options: Mapping[str, str] | None = None,
) -> Path:
    """Write a video of `num_frames` frames that show their index; the suffix of `path` chooses the container.

    `size` is (width, height); `options` go to the encoder, such as {"g": "12", "bf": "2"}; `timestamps` are the frames'
    presentation times in seconds where these are not i/fps; `audio_seconds` adds a silent sound track of that length;
    `format_options` go to the muxer.
    """
    with av.open(str(path), "w", options=dict(format_options or {})) as container:
        if title is not None:
            container.metadata["title"] = title
        stream = cast(av.VideoStream, container.add_stream(codec, rate=Fraction(fps), options=dict(options or {})))
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = 1 / Fraction(fps) if timestamps is None else Fraction(1, TICKS_PER_SECOND)
        audio = container.add_stream("aac", rate=8000, layout="mono") if audio_seconds else None
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(draw_index(index, size), format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = index if timestamps is None else round(timestamps[index] * TICKS_PER_SECOND)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            _write_silence(container, audio, audio_seconds)
    return path


def copy_packets(source: Path, path: Path, *, first: int = 0, last: int | None = None, zero: int | None = None) -> Path:
    """Copy the video packets `first` to `last` (in decode order) without decoding, as `ffmpeg -c copy` cuts a clip.

    The time of frame `zero` (in display order), if given, becomes 0: a player then hides what comes before it.
    """
    with av.open(str(source)) as reader, av.open(str(path), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        packets = [packet for packet in reader.demux(stream) if packet.size]
        start = 0 if zero is None else sorted(packet.pts or 0 for packet in packets)[zero]
        for packet in packets[first:last]:
            packet.stream = copy
            packet.pts = None if packet.pts is None else packet.pts - start
            packet.dts = None if packet.dts is None else packet.dts - start
            writer.mux(packet)
    return path


def overwrite_packets(path: Path, numbers: range) -> Path:
    """Write zeros over some packets' bytes: a file that opens and then does not decode there."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for number in numbers:
        start, size = packets[number].pos, packets[number].size
        assert start is not None
        content[start : start + size] = bytes(size)
    path.write_bytes(content)
    return path


def write_sound(path: Path, seconds: float) -> Path:
    """Write a silent sound track, without video."""
    with av.open(str(path), "w") as container:
        _write_silence(container, container.add_stream("aac", rate=8000, layout="mono"), seconds)
    return path


def _write_silence(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 8000
    for start in range(0, int(seconds * 8000), 1024):
        frame.pts = start
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
