"""Frames of video files, as they are displayed, in one pass or at random.

`probe_video` says which frames there are (`pipeline.data.video.packets`), the readers give them by index:

    read_frames    one pass from the start, streaming: extraction, which wants a large part of the video
    read_clip      seeks: training, which wants a few close frames out of a long video

A decoded frame's index is found from its presentation time, never by counting, where the file has such times. Only the
frames that are asked for are scaled and converted to RGB (`pipeline.data.video.pictures`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, dropwhile
from pathlib import Path
from typing import Literal, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.data.video.decord_reader import decord_pictures, open_decord
from pipeline.data.video.packets import (
    OnProgress,
    VideoError,
    VideoInfo,
    VideoPacket,
    decode,
    from_first_keyframe,
    no_report,
    open_video,
    probe_video,
    read_packets,
    use_threads,
)
from pipeline.data.video.pictures import Picture, PictureMaker, PictureSize

__all__ = ["Decoder", "Picture", "VideoError", "VideoInfo", "probe_video", "read_clip", "read_frames"]

Decoder = Literal["auto", "decord", "pyav"]
Indices: TypeAlias = Sequence[int] | npt.NDArray[np.integer]
Numbered: TypeAlias = tuple[int, VideoFrame]

# A packet without a picture shows the one before it, but no longer than this: more is damage.
HOLD_SECONDS = 1.0
# `auto` gives decord the files of which it converts few frames in vain.
DECORD_SHARE = 0.5
# decord reads all packets ahead: measured, it holds 1.4 times the size of the file. `auto` gives it no larger ones.
DECORD_MAX_BYTES = 256 << 20
# Decoding this many frames more takes less time than another seek.
SEEK_COST_FRAMES = 16
# Keyframes, going backward, from which to try to reach a frame before decoding from the start of the file.
SEEK_TRIES = 3


def read_frames(
    path: Path | str,
    indices: Indices,
    *,
    resize: int | None = None,
    crop: int | None = None,
    decoder: Decoder = "auto",
    info: VideoInfo | None = None,
    on_progress: OnProgress = no_report,
) -> Iterator[Picture]:
    """Pictures (H, W, 3), uint8 RGB, one for each of `indices`, in one pass over the file and in bounded memory.

    Args:
        indices: frames of `probe_video(path)`, not falling; a repeated one gives the same array again.
        resize: length of the short side, in pixels (`PictureSize.of`). Left out: the video's own size.
        crop: side of the square to cut from the middle after that.
        decoder: `auto` takes decord where it is known to be right, at least half of the frames are wanted and the file
            is not large, and PyAV elsewhere. decord can hang on damaged files, which only `DecoderProcess` survives.
        info: what `probe_video(path)` returned, to save reading the packets again.
        on_progress: called for every packet, also where no frame is wanted for long.

    Raises:
        ValueError: indices that fall or that the video does not have; sizes that do not fit.
        VideoError: the file cannot be read, or has no picture for more than a second.
    """
    info = probe_video(path) if info is None else info
    size = PictureSize.of(info, resize=resize, crop=crop)
    checked = _checked(info, indices)
    if (np.diff(checked) < 0).any():
        raise ValueError("indices fall; sort them, or use read_clip")
    wanted, repeats = np.unique(checked, return_counts=True)
    pictures = _choose_reader(info, wanted, size, decoder, on_progress)
    return (picture for picture, times in zip(pictures, repeats, strict=True) for _ in range(times))


def _checked(info: VideoInfo, indices: Indices) -> npt.NDArray[np.int64]:
    checked = np.asarray(indices, np.int64)
    if len(checked) and not 0 <= checked.min() <= checked.max() < info.num_frames:
        raise ValueError(
            f"{info.path}: has frames 0 to {info.num_frames - 1}, asked for {checked.min()} to {checked.max()}"
        )
    return checked


def _choose_reader(
    info: VideoInfo, wanted: npt.NDArray[np.int64], size: PictureSize, decoder: Decoder, on_progress: OnProgress
) -> Iterator[Picture]:
    dense = len(wanted) > 0 and len(wanted) >= DECORD_SHARE * (wanted[-1] + 1)
    small = info.path.stat().st_size <= DECORD_MAX_BYTES
    if decoder == "pyav" or (decoder == "auto" and not (dense and small)):
        return _pyav_pictures(info, wanted, size, on_progress)
    reader = open_decord(info, size)
    if reader is None and decoder == "decord":
        raise VideoError(f"{info.path}: decord is not installed or not right about it; use decoder=auto or pyav")
    if reader is None:
        return _pyav_pictures(info, wanted, size, on_progress)
    pictures = decord_pictures(reader, info, wanted, size, on_progress)
    return pictures if decoder == "decord" else _or_else_pyav(pictures, info, wanted, size, on_progress)


def _or_else_pyav(
    pictures: Iterator[Picture],
    info: VideoInfo,
    wanted: npt.NDArray[np.int64],
    size: PictureSize,
    on_progress: OnProgress,
) -> Iterator[Picture]:
    """decord's pictures, and PyAV's from where decord gives up, as it does at a damaged packet."""
    num_done = 0
    try:
        for picture in pictures:
            yield picture
            num_done += 1
    except VideoError:
        yield from _pyav_pictures(info, wanted[num_done:], size, on_progress)


def _pyav_pictures(
    info: VideoInfo, wanted: npt.NDArray[np.int64], size: PictureSize, on_progress: OnProgress
) -> Iterator[Picture]:
    make_picture = PictureMaker(info, size)
    with open_video(info.path) as (container, stream):
        use_threads(stream)
        numbered = _number(decode(read_packets(container, stream, on_progress=on_progress)), info)
        yield from map(make_picture, _on_screen(numbered, wanted, info))


def _number(frames: Iterable[VideoFrame], info: VideoInfo) -> Iterator[Numbered]:
    """Each frame with its index, which rises; frames that are not the video's (leading, discarded) are left out."""
    if info.by_order:
        yield from enumerate(from_first_keyframe(frames))
        return
    last = -1
    for frame in frames:
        index = info.num_frames if frame.pts is None else int(np.searchsorted(info.ticks, frame.pts))
        if last < index < info.num_frames and info.ticks[index] == frame.pts:
            yield index, frame
            last = index


def _on_screen(numbered: Iterable[Numbered], wanted: npt.NDArray[np.int64], info: VideoInfo) -> Iterator[VideoFrame]:
    """For each index `wanted` (rising), the frame with that index, or else the one before it that is then still shown.

    Raises:
        VideoError: no frame before it, or one that is too old.
    """
    position, shown_index, shown = 0, -1, None
    after_the_last: list[tuple[int, VideoFrame | None]] = [(info.num_frames, None)]
    for index, frame in chain(numbered, after_the_last):
        while position < len(wanted) and wanted[position] < index:
            yield _still_shown(info, int(wanted[position]), shown_index, shown)
            position += 1
        if position == len(wanted):
            return
        shown_index, shown = index, frame


def _still_shown(info: VideoInfo, wanted: int, shown_index: int, shown: VideoFrame | None) -> VideoFrame:
    wanted_time = info.timestamps[wanted]
    if shown is None or (wanted - shown_index > 1 and wanted_time - info.timestamps[shown_index] > HOLD_SECONDS):
        raise VideoError(
            f"{info.path}: no picture decodes at {wanted_time:.2f} s (frame {wanted}); the file is damaged: copy or "
            f"download it again, or keep what can be saved: ffmpeg -i {info.path.name} -c:v libx264 clean.mp4"
        )
    return shown


def read_clip(
    path: Path | str,
    indices: Indices,
    *,
    resize: int | None = None,
    crop: int | None = None,
    info: VideoInfo | None = None,
) -> npt.NDArray[np.uint8]:
    """Pictures (L, H, W, 3), uint8 RGB, of any `indices` in any order, with one seek for those that are close.

    Arguments and errors are those of `read_frames`. Give `info`, or each call reads all packets of the file.
    """
    info = probe_video(path) if info is None else info
    size = PictureSize.of(info, resize=resize, crop=crop)
    wanted, places = np.unique(_checked(info, indices), return_inverse=True)
    make_picture = PictureMaker(info, size)
    pictures: list[Picture] = []
    with open_video(info.path) as (container, stream):
        for run in _runs(info, wanted):
            try:
                numbered = _number_from(container, stream, info, int(run[0]))
                pictures += map(make_picture, _on_screen(numbered, run, info))
            except (VideoError, av.FFmpegError):  # this run cannot be reached by seeking
                del pictures[int(np.searchsorted(wanted, run[0])) :]
                pictures += _pyav_pictures(info, run, size, no_report)
    side = (size.height, size.width) if crop is None else (crop, crop)
    return np.stack(pictures)[places] if pictures else np.empty((0, *side, 3), np.uint8)


def _runs(info: VideoInfo, wanted: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """`wanted` cut wherever a keyframe in between saves more decoding than a seek costs."""
    if not len(wanted):
        return []
    starts = np.concatenate([[0], info.keyframes])[np.searchsorted(info.keyframes, wanted, side="right")]
    return np.split(wanted, np.flatnonzero(starts[1:] > wanted[:-1] + SEEK_COST_FRAMES) + 1)


def _number_from(container: InputContainer, stream: VideoStream, info: VideoInfo, target: int) -> Iterator[Numbered]:
    """Numbered frames, from a keyframe at or before frame `target`.

    Frames shown before that keyframe are left out although some are decoded after it: they lack what they refer to.
    """
    packets = _packets_from(container, stream, info, target)
    start = next(packets)
    numbered = _number(decode(chain([start], packets)), info)
    return dropwhile(lambda item: info.ticks[item[0]] < start.pts, numbered)


def _packets_from(
    container: InputContainer, stream: VideoStream, info: VideoInfo, target: int
) -> Iterator[VideoPacket]:
    """Packets from a keyframe at or before frame `target`; a seek can land elsewhere, so that is checked."""
    reachable = info.keyframes[: np.searchsorted(info.keyframes, target, side="right")]
    for keyframe in reachable[::-1][:SEEK_TRIES]:
        container.seek(int(info.ticks[keyframe]), stream=stream)
        packets = dropwhile(lambda packet: not packet.is_keyframe, read_packets(container, stream))
        start = next(packets, None)
        if start is not None and start.pts is not None and start.pts <= info.ticks[target]:
            return chain([start], packets)
    raise VideoError(f"{info.path}: no seek reaches frame {target}")
