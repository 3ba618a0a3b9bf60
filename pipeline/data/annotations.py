"""What is annotated: actions in untrimmed videos, their files, and the blemishes of such files.

Two file forms become one in memory: ActivityNet's JSON, and a csv that a person can write in a spreadsheet,

    video,start,end,label,subset
    surf_01.mp4,0:12,0:31.5,Surfing,training

with times in seconds or as m:ss or h:mm:ss. Without a subset column, `files.split_by_hash` gives the subsets.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data.files import (
    NO_SUBSET,
    check_video_id,
    parse_time,
    read_json,
    read_table,
    split_by_hash,
    strip_video_suffix,
    write_json,
)

KNOWN_SUBSETS = frozenset({"training", "validation", "testing", "train", "val", "test"})


# --- What is in memory ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Segment:
    """One action from `start` to `end` (seconds from the video's first frame). ValueError unless 0 ≤ start < end."""

    start: float
    end: float
    label: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.end) and 0 <= self.start < self.end):
            raise ValueError(f"segment [{self.start}, {self.end}] s: expected finite times with 0 ≤ start < end")
        if not self.label:
            raise ValueError(f"segment [{self.start}, {self.end}] s has an empty label")


@dataclass(frozen=True)
class Video:
    """An annotated video. `duration` in seconds, None where the file does not say it."""

    id: str
    duration: float | None
    subset: str
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        check_video_id(self.id)
        if self.duration is not None and not (math.isfinite(self.duration) and self.duration > 0):
            raise ValueError(f"video {self.id!r} has a duration of {self.duration} s: expected a positive number")


@dataclass(frozen=True)
class Annotations:
    """All videos of one file in its order, and how often each blemish of `read_annotations` was met."""

    videos: dict[str, Video]
    blemishes: dict[str, int]

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, sorted."""
        return tuple(sorted({segment.label for video in self.videos.values() for segment in video.segments}))

    def in_subset(self, name: str) -> dict[str, Video]:
        """The videos of one subset. ValueError with the subsets that there are when it has none."""
        chosen = {video.id: video for video in self.videos.values() if video.subset == name}
        if not chosen:
            subsets = Counter(video.subset for video in self.videos.values())
            found = ", ".join(f"{subset!r} ({count} videos)" for subset, count in sorted(subsets.items()))
            raise ValueError(f"no video is in the subset {name!r}; the subsets of this file are {found or 'none'}")
        return chosen


def format_blemishes(blemishes: Mapping[str, int]) -> str:
    """One line for the terminal; empty when there is nothing to tell."""
    return "; ".join(f"{what}: {count}" for what, count in blemishes.items() if count)


# --- Reading and writing ----------------------------------------------------------------------------------------------


def read_annotations(path: Path, *, as_written: bool = False) -> Annotations:
    """Read ActivityNet's JSON (.json, .json.gz) or our csv, and put right what real files have wrong.

    Each repair is counted in `blemishes`: segments with end ≤ start are dropped, a start before the video becomes 0,
    an end after the video becomes its end (dropped if nothing is left), exact duplicates are kept once, a duration that
    is no positive number counts as unknown; videos without segments and subsets of an unknown name are kept.
    `as_written` leaves duplicates and late ends as they are, as the ActivityNet toolkit scores them.

    Raises:
        ValueError: The file is not of either form, or an id would leave its folder; names the file and the place.
    """
    entries = _read_csv(path) if path.suffix.lower() == ".csv" else _read_activitynet(path)
    if not entries:
        raise ValueError(f"{path} names no video")
    blemishes: Counter[str] = Counter()
    subsets = _subsets(entries, blemishes)
    videos = {}
    for video_id, entry in entries.items():
        duration = _repair_duration(entry.duration, blemishes)
        segments = tuple(_repair(entry.segments, duration, blemishes, as_written))
        videos[video_id] = Video(video_id, duration, subsets[video_id], segments)
        # Test sets are published without their segments: nothing to tell.
        blemishes["videos without segments (kept)"] += not segments and not subsets[video_id].startswith("test")
    blemishes["videos listed with and without v_ (kept apart)"] = sum(f"v_{video_id}" in videos for video_id in videos)
    return Annotations(videos, {what: count for what, count in blemishes.items() if count})


def write_annotations(path: Path, videos: Iterable[Video]) -> None:
    """Write ActivityNet JSON; `read_annotations` gives the same videos back. The file appears whole or not at all."""
    database = {}
    for video in videos:
        duration = {} if video.duration is None else {"duration": video.duration}
        segments = [{"segment": [segment.start, segment.end], "label": segment.label} for segment in video.segments]
        database[video.id] = {**duration, "subset": video.subset, "annotations": segments}
    write_json(path, {"version": "VERSION 1.3", "database": database})


@dataclass
class _Entry:
    """A video as its file has it, before repairs."""

    duration: float | None = None
    subset: str | None = None
    segments: list[tuple[float, float, str]] = field(default_factory=list)


def _read_activitynet(path: Path) -> dict[str, _Entry]:
    data = read_json(path)
    # BSN, BMN and G-TAD use a form without the outer level, and with `duration_second`.
    database = data.get("database", data) if isinstance(data, dict) else None
    if not isinstance(database, dict):
        raise ValueError(f'{path} is not in the ActivityNet form: expected {{"database": {{VIDEO_ID: ...}}}}')
    entries = {}
    for video_id, fields in database.items():
        try:
            entries[check_video_id(video_id)] = _parse_entry(fields)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, video {video_id!r}: {error}") from error
    return entries


def _parse_entry(fields: Any) -> _Entry:
    if not isinstance(fields, dict):
        raise ValueError(f'expected {{"duration", "subset", "annotations"}}, found {fields!r:.60}')
    duration = fields.get("duration", fields.get("duration_second"))
    return _Entry(
        duration=None if duration is None else float(duration),
        subset=str(fields.get("subset") or "") or None,
        segments=[_parse_segment(annotation) for annotation in fields.get("annotations") or []],
    )


def _parse_segment(annotation: Any) -> tuple[float, float, str]:
    try:
        start, end = map(float, annotation["segment"])
        label = annotation["label"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'expected {{"segment": [start, end], "label"}} in seconds, found {annotation!r:.80}'
        ) from error
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"segment [{start}, {end}] is not finite")
    if not (isinstance(label, str) and label):
        raise ValueError(f"segment [{start}, {end}] has the label {label!r}: expected a name")
    return start, end, label


def _read_csv(path: Path) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    for line, row in read_table(path, ("video", "start", "end", "label")):
        try:
            entry = entries.setdefault(check_video_id(strip_video_suffix(row["video"])), _Entry())
            _add_row(entry, row)
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
    return entries


def _add_row(entry: _Entry, row: Mapping[str, str]) -> None:
    subset = row.get("subset") or entry.subset
    if entry.subset not in (None, subset):
        raise ValueError(f"the video is in the subset {subset!r} here and in {entry.subset!r} before")
    entry.subset = subset
    if not (row["start"] or row["end"] or row["label"]):
        return  # a video in which nothing happens
    if not row["label"]:
        raise ValueError("the label is empty")
    entry.segments.append((parse_time(row["start"]), parse_time(row["end"]), row["label"]))


def _repair_duration(duration: float | None, blemishes: Counter[str]) -> float | None:
    if duration is None or (math.isfinite(duration) and duration > 0):
        return duration
    blemishes["durations that are no positive number (ignored)"] += 1
    return None


def _repair(
    segments: Iterable[tuple[float, float, str]], duration: float | None, blemishes: Counter[str], as_written: bool
) -> Iterator[Segment]:
    seen = set()
    for start, end, label in segments:
        if end <= start:
            blemishes["segments with end ≤ start (dropped)"] += 1
            continue
        if start < 0:
            blemishes["segments that start before the video (cut)"] += 1
            start = 0.0
        if duration is not None and end > duration:
            blemishes[f"segments past the end of the video ({'kept' if as_written else 'cut'})"] += 1
            end = end if as_written else duration
        if end <= start:
            blemishes["segments outside the video (dropped)"] += 1
            continue
        segment = Segment(start, end, label)
        if segment in seen:
            blemishes[f"exact duplicates ({'kept' if as_written else 'dropped'})"] += 1
        if as_written or segment not in seen:
            yield segment
        seen.add(segment)


def _subsets(entries: Mapping[str, _Entry], blemishes: Counter[str]) -> dict[str, str]:
    """The subset of each video: as given, or by hash if the whole file gives none."""
    if all(entry.subset is None for entry in entries.values()):
        blemishes[NO_SUBSET.format("videos")] = len(entries)
        return split_by_hash(entries)
    subsets = {video_id: entry.subset or "" for video_id, entry in entries.items()}
    blemishes["videos of unknown subset (kept)"] = sum(subset not in KNOWN_SUBSETS for subset in subsets.values())
    return subsets
