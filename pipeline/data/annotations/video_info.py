"""Side files about videos: their frame rates, durations and numbers of frames, as csv or JSON.

Column and key names differ from place to place; capitals, `_` and `-` do not count. Read are those of ActivityNet's
`video_info_new.csv` and `anet_anno_action.json` as BSN, BMN and G-TAD use them (`numFrame`, `seconds`, `rfps`,
`featureFrame`; `duration_second`, `duration_frame`, `feature_frame`), of TSP's csv (`filename`, `video-duration`,
`video-frames`), of AFSD's csv for THUMOS14 (`fps`, `count`), of the ActivityNet-style JSON with `fps` that ActionFormer
uses, and the plain ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.files import read_json, strip_video_suffix
from pipeline.data.tables import read_table

_VIDEO = ("video", "videoid", "videoname", "filename", "name", "id")
_FPS = ("rfps", "fps", "framerate")  # rfps: ActivityNet's frames / seconds, where its fps is rounded
_DURATION = ("duration", "durationsecond", "videoduration", "seconds")
_FRAMES = ("frames", "numframe", "numframes", "nframes", "durationframe", "videoframes", "count")
_FEATURE_FRAMES = ("featureframe", "featureframes")


@dataclass(frozen=True)
class SideInfo:
    """What a side file says of a video; None: nothing, or no number above zero.

    Attributes:
        fps: frames per second; where only frames and duration are given, their quotient.
        duration: seconds; where only frames and fps are given, their quotient.
        feature_duration: seconds from the video's start that its features stand for, where that is not the duration.
    """

    fps: float | None
    duration: float | None
    feature_duration: float | None


def read_video_info(path: Path) -> dict[str, SideInfo]:
    """Read a csv with a header, or JSON: an object by video, also inside of "database", or a list with their names.

    Raises:
        ValueError: no such form, no column of use, or two lines that differ on one video; names the file and the place.
    """
    infos: dict[str, SideInfo] = {}
    for place, video, fields in _entries(path):
        info = _parse(fields)
        if infos.setdefault(video, info) != info:
            raise ValueError(f"{path}, {place}: says otherwise of video {video!r} than a line before")
    if not any(info.fps or info.duration for info in infos.values()):
        raise ValueError(f"{path}: says neither frame rates nor durations; expected columns video,fps,duration,frames")
    return infos


def _entries(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Place in the file, video id and fields, names in the plain spelling."""
    if path.suffix.lower() == ".csv":
        for line, row in read_table(path, ()):
            fields = _plain(row)
            yield f"line {line}", _video_in(fields, path), fields
        return
    data = read_json(path)
    database = data.get("database", data) if isinstance(data, dict) else data
    if isinstance(database, list) and all(isinstance(entry, dict) for entry in database):
        for number, entry in enumerate(database):
            fields = _plain(entry)
            yield f"entry {number}", _video_in(fields, path), fields
    elif isinstance(database, dict) and all(isinstance(entry, dict) for entry in database.values()):
        for video, entry in database.items():
            yield f"video {video!r}", strip_video_suffix(video), _plain(entry)
    else:
        raise ValueError(f'{path}: expected {{ID: {{"fps": ..., "duration": ...}}}}, or a list with "video" in each')


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name.lower().replace("_", "").replace("-", ""): value for name, value in fields.items()}


def _video_in(fields: Mapping[str, Any], path: Path) -> str:
    name = _first(fields, _VIDEO)
    if name is None:
        raise ValueError(f"{path}: no column that names the video among {', '.join(fields)}; call it video")
    return strip_video_suffix(str(name))


def info_of(fields: Mapping[str, Any]) -> SideInfo:
    """What the fields of one video say."""
    return _parse(_plain(fields))


def _parse(fields: Mapping[str, Any]) -> SideInfo:
    fps, duration, frames, feature_frames = (
        _number(fields, names) for names in (_FPS, _DURATION, _FRAMES, _FEATURE_FRAMES)
    )
    if fps is None and frames is not None and duration is not None:
        fps = frames / duration
    if duration is None and frames is not None and fps is not None:
        duration = frames / fps
    feature_duration = None
    if feature_frames is not None and frames is not None and duration is not None:
        feature_duration = feature_frames / frames * duration
    return SideInfo(fps, duration, feature_duration)


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) not in (None, "")), None)


def _number(fields: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    try:
        number = float(_first(fields, names))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 < number < math.inf else None
