"""What a video file holds, read from its packets: which frames there are, and when each is shown.

A file is a list of packets, each with a presentation time, and reading these costs a hundredth of decoding them. Not
every packet becomes a frame on screen, though. A clip cut out of a longer one without decoding starts like this::

    decode order       b  P  b  I  b  b  P  b  b  P         I: keyframe, which needs no other frame
    shown as           -  -  -  I  -  -  b  b  P  ...
                       │        │  └──┴── shown before I, and need frames from before the cut: never decode
                       │        └── the first frame, time zero
                       └── no keyframe before them: never decode

The frames of a video are therefore, by rule: the packets that are not marked as discarded (an MP4 edit list does that)
and are shown no earlier than the first keyframe and the first frame that in fact decodes. A packet later on that has no
picture (an encoder's skipped frame, a little damage) is a frame too: it shows the picture before it, as in a player.

AVI stores no presentation times. Where they cannot be told from the packets (H.264 or packed MPEG-4 with reordered
frames), and where a file lacks them, the video is decoded once to count its frames; this is rare.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import dropwhile
from pathlib import Path
from typing import Any, TypeAlias, cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

VideoPacket: TypeAlias = "av.Packet[VideoStream]"
AnyStream: TypeAlias = VideoStream | AudioStream
OnProgress: TypeAlias = Callable[[], None]

NO_TIME = np.iinfo(np.int64).min
PACKET = np.dtype([("pts", "i8"), ("dts", "i8"), ("duration", "i8"), ("is_keyframe", "?"), ("is_discard", "?")])

# Containers' durations are rounded, and a last frame's own duration is often not known: less than this is not missing.
MISSING_SECONDS = 1.0

# More threads bring little more speed, and each holds frames.
MAX_DECODER_THREADS = 8


def no_report() -> None:
    """The `on_progress` of those who do not ask."""


class VideoError(ValueError):
    """A video that cannot be read. The message names the file, what is wrong with it and the cure."""


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What a video file holds. N frames, in the order in which they are shown."""

    path: Path
    width: int
    """Pixels, as displayed: after the rotation that the file asks for. Pixels count as square."""
    height: int
    timestamps: npt.NDArray[np.float64]
    """(N,) seconds at which each frame appears; the first is 0."""
    duration: float
    """Seconds from the first frame's appearance to the end of the last one."""
    ticks: npt.NDArray[np.int64]
    """(N,) the same times as the file writes them, which is how a decoded frame is recognised."""
    keyframes: npt.NDArray[np.int64]
    """(M,) indices of the frames at which decoding can start, rising; empty: at the beginning of the file alone."""
    by_order: bool
    """The file does not say when frames are shown: frame i is the i-th that decodes after the first keyframe."""
    quarter_turns: int
    """Counter-clockwise quarter turns that take a decoded frame to its display."""
    container: str
    """FFmpeg's name of the file format, such as `mov,mp4,m4a,3gp,3g2,mj2`."""

    @property
    def num_frames(self) -> int:
        """N."""
        return len(self.timestamps)

    @property
    def fps(self) -> float:
        """Frames a second, on average."""
        return self.num_frames / self.duration


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its main video stream. FFmpeg's errors, here and in the block, become VideoErrors."""
    if not path.is_file():
        raise VideoError(f"{path}: {'a folder, not a video file' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes); copy or download it again")
    try:
        # `file:` keeps a colon in the name from being read as a protocol, the whitelist a playlist from being followed.
        with av.open(
            f"file:{path}", container_options={"protocol_whitelist": "file"}, metadata_errors="replace"
        ) as container:
            yield container, _video_stream(path, container)
    except av.FFmpegError as error:
        raise VideoError(
            f"{path}: cannot be read as a video ({error.strerror}); if a player shows it, make a clean copy: "
            f"ffmpeg -i {path.name} -c:v libx264 clean.mp4"
        ) from error


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise VideoError(f"{path}: has no video stream (streams: {kinds}); remove it from the videos")
    if streams[0].codec_context is None:
        raise VideoError(f"{path}: this FFmpeg has no decoder for the video stream; convert it to H.264")
    return streams[0]


def read_packets(
    container: InputContainer, stream: VideoStream, *others: AudioStream, on_progress: OnProgress = no_report
) -> Iterator[VideoPacket]:
    """Packets of the streams until the file ends or breaks off; at the end, an empty one that flushes the decoder."""
    packets = cast(Iterator[VideoPacket], container.demux(stream, *others))
    try:
        for packet in packets:
            on_progress()
            yield packet
    except av.FFmpegError:
        flush = cast(VideoPacket, av.Packet())
        flush.stream = stream
        yield flush


def decode(packets: Iterable[VideoPacket]) -> Iterator[VideoFrame]:
    """Frames in the order in which they are shown; a packet that does not decode gives none."""
    for packet in packets:
        try:
            yield from packet.decode()
        except av.FFmpegError:
            continue


def use_threads(stream: VideoStream) -> None:
    """Decode several frames at a time: faster in one long pass, slower for a few frames after a seek."""
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(os.cpu_count() or 1, MAX_DECODER_THREADS)


def from_first_keyframe(frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """The frames of a video that is read by order."""
    return dropwhile(lambda frame: not frame.key_frame, frames)


def probe_video(path: Path | str, *, on_progress: OnProgress = no_report) -> VideoInfo:
    """Say what a video holds, from its packets and its first frame; `on_progress` is called for every packet.

    Raises:
        VideoError: not a file, not a video, no video stream, nothing that decodes, or a file that breaks off: more than
            a second less than its header promises.
    """
    path = Path(path)
    with open_video(path) as (container, stream):
        packets, end = _read_table(container, stream, on_progress)
        _check_complete(path, container, stream, packets, end)
        by_order = _lacks_times(container, stream, packets)
    with open_video(path) as (container, stream):
        use_threads(stream)
        frames = decode(read_packets(container, stream, on_progress=on_progress))
        first, ticks = (_count_by_decoding if by_order else _first_and_after)(path, frames, packets)
        width, height, quarter_turns = _display(first)
        tick = _tick_seconds(stream)
        return VideoInfo(
            path=path,
            width=width,
            height=height,
            timestamps=(ticks - ticks[0]) * tick.numerator / tick.denominator,
            duration=float((ticks[-1] - ticks[0] + _last_duration(stream, packets, ticks)) * tick),
            ticks=ticks,
            keyframes=_starting_points(packets, ticks, by_order),
            by_order=by_order,
            quarter_turns=quarter_turns,
            container=container.format.name,
        )


def _read_table(
    container: InputContainer, stream: VideoStream, on_progress: OnProgress
) -> tuple[npt.NDArray[Any], float]:
    """The packets of `stream` (dtype PACKET), and the end in seconds of the last packet of any sound or picture."""
    ends: dict[AnyStream, int] = {}

    def rows() -> Iterator[tuple[int, int, int, bool, bool]]:
        for packet in read_packets(container, stream, *container.streams.audio, on_progress=on_progress):
            time = packet.dts if packet.pts is None else packet.pts
            if time is None:
                continue
            ends[packet.stream] = max(ends.get(packet.stream, NO_TIME), time + (packet.duration or 0))
            if packet.stream is stream:
                pts, dts = (NO_TIME if tick is None else tick for tick in (packet.pts, packet.dts))
                yield pts, dts, packet.duration or 0, packet.is_keyframe, packet.is_discard

    packets = np.fromiter(rows(), PACKET)
    return packets, max((float(tick * _tick_seconds(stream)) for stream, tick in ends.items()), default=0.0)


def _check_complete(
    path: Path, container: InputContainer, stream: VideoStream, packets: npt.NDArray[Any], end: float
) -> None:
    """Compare with the duration in the header: a truncated file often decodes up to its end without any error.

    MPEG transport and program streams have no such header: theirs is not noticed.
    """
    if not len(packets):
        raise VideoError(f"{path}: holds no video packets; the file is cut off or empty: copy or download it again")
    promised, found = _promised_and_found(container, stream, packets, end)
    if promised - found > max(MISSING_SECONDS, 2 * found / len(packets)):
        raise VideoError(
            f"{path}: breaks off after {found:.2f} s of {promised:.2f} s, {promised - found:.2f} s are missing; copy "
            "or download it again; if that is all there is, give it a new header: "
            f"ffmpeg -i {path.name} -c copy clean.mkv"
        )


def _promised_and_found(
    container: InputContainer, stream: VideoStream, packets: npt.NDArray[Any], end: float
) -> tuple[float, float]:
    """Seconds of the stream by its header, and by its packets; of the whole container where only that has a header."""
    if stream.duration:
        times = np.where(packets["pts"] == NO_TIME, packets["dts"], packets["pts"])
        begin = times.min() if stream.start_time is None else min(times.min(), stream.start_time)
        # For a truncated AVI, FFmpeg takes the duration from the file's size, but not the number of frames.
        ticks = max(stream.duration, stream.frames) if container.format.name == "avi" else stream.duration
        found = int((times + packets["duration"]).max() - begin)
        return float(ticks * _tick_seconds(stream)), float(found * _tick_seconds(stream))
    if container.duration:
        return container.duration / av.time_base, end - min(0, container.start_time or 0) / av.time_base
    return 0.0, 0.0


def _lacks_times(container: InputContainer, stream: VideoStream, packets: npt.NDArray[Any]) -> bool:
    """Whether the packets' times do not say in which order frames are shown."""
    if (packets["pts"] == NO_TIME).any():
        return True
    made_up = container.format.name == "avi" and bool((np.diff(packets["pts"]) > 0).all())
    return made_up and bool(stream.codec_context.has_b_frames)


def _first_and_after(
    path: Path, frames: Iterable[VideoFrame], packets: npt.NDArray[Any]
) -> tuple[VideoFrame, npt.NDArray[np.int64]]:
    """The first frame that decodes and is not shown before the first keyframe; the ticks of it and all after it."""
    keyframes = packets["pts"][packets["is_keyframe"]]
    earliest = keyframes[0] if len(keyframes) else NO_TIME
    for frame in frames:
        if frame.pts is not None and frame.pts >= earliest:
            shown = ~packets["is_discard"] & (packets["pts"] >= frame.pts)
            return frame, np.unique(np.append(packets["pts"][shown], frame.pts))
    raise _nothing_decodes(path)


def _count_by_decoding(
    path: Path, frames: Iterable[VideoFrame], packets: npt.NDArray[Any]
) -> tuple[VideoFrame, npt.NDArray[np.int64]]:
    """The first frame, and the ticks at which the decoder gave out each one: even, with a gap at a skipped frame."""
    frames = from_first_keyframe(frames)
    first = next(iter(frames), None)
    if first is None:
        raise _nothing_decodes(path)
    step = max(1, int(np.median(packets["duration"])))
    ticks = [0 if first.dts is None else first.dts]
    for frame in frames:  # at the end the decoder gives out the frames it held back, without a time
        ticks.append(ticks[-1] + step if frame.dts is None else max(frame.dts, ticks[-1] + 1))
    return first, np.array(ticks, np.int64)


def _tick_seconds(stream: AnyStream) -> Fraction:
    """Seconds of one of the stream's ticks."""
    assert stream.time_base is not None, "every demuxer sets it"
    return stream.time_base


def _nothing_decodes(path: Path) -> VideoError:
    return VideoError(f"{path}: not one frame decodes; copy or download the file again, or remove it from the videos")


def _display(frame: VideoFrame) -> tuple[int, int, int]:
    """Width and height as displayed, and the quarter turns that `frame` needs for it."""
    quarter_turns = round(frame.rotation / 90) % 4
    width, height = (frame.height, frame.width) if quarter_turns % 2 else (frame.width, frame.height)
    return width, height, quarter_turns


def _last_duration(stream: VideoStream, packets: npt.NDArray[Any], ticks: npt.NDArray[np.int64]) -> int:
    """Ticks for which the last frame is shown: its packet's own duration, else that of a usual frame; at least one."""
    own = packets["duration"][packets["pts"] == ticks[-1]].max(initial=0)
    usual = np.median(np.diff(ticks)) if len(ticks) > 1 else 1 / ((stream.average_rate or 25) * _tick_seconds(stream))
    return int(own) or max(1, round(usual))


def _starting_points(packets: npt.NDArray[Any], ticks: npt.NDArray[np.int64], by_order: bool) -> npt.NDArray[np.int64]:
    """Frames whose packets are keyframes; none where frames are only known by counting them from the start."""
    if by_order:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.isin(ticks, packets["pts"][packets["is_keyframe"]])).astype(np.int64)
