"""What the readers of annotation files give: videos as their file has them, before `annotations` puts them right."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline.data.files import check_video_id, read_lines

RawSegment = tuple[float, float, str]  # start and end in seconds, finite, in whatever order; label


@dataclass
class Entry:
    """A video as its file has it. None is what the file does not say."""

    duration: float | None = None  # seconds
    feature_duration: float | None = None  # seconds, see `annotations.Video`
    subset: str | None = None
    segments: list[RawSegment] = field(default_factory=list)


class Part(NamedTuple):
    """One of the files that a data set's annotations are spread over: segments of one subset, or of a class in it."""

    file: Path
    subset: str | None
    moments: Iterable[tuple[str, RawSegment]]  # video id and segment


def join_parts(parts: Iterable[Part], durations: Mapping[str, float | None]) -> dict[str, Entry]:
    """The videos of all parts, with the durations (seconds) of those that have one.

    Raises:
        ValueError: a video is in two subsets, so that some of its segments would train and others test; names the file.
    """
    entries: dict[str, Entry] = {}
    for file, subset, moments in parts:
        for video_id, segment in moments:
            entry = entries.setdefault(video_id, Entry(durations.get(video_id), subset=subset))
            if entry.subset != subset:
                raise ValueError(
                    f"{file}: the video {video_id!r} is in the subset {subset!r} here and in {entry.subset!r} in a "
                    "file before; keep it in one of them"
                )
            entry.segments.append(segment)
    return entries


def make_segment(start: float, end: float, label: object) -> RawSegment:
    """The three as a segment. ValueError unless the times are finite and the label is a name."""
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"segment [{start}, {end}] is not finite")
    if not (isinstance(label, str) and label.strip()):
        raise ValueError(f"segment [{start}, {end}] has the label {label!r}: expected a name")
    return start, end, label


def read_moments(path: Path, label: str | None = None) -> Iterator[tuple[str, RawSegment]]:
    """Video and segment of each line of a text file: `VIDEO START END`, or without `label` `VIDEO START END##LABEL`."""
    for line, text in read_lines(path):
        try:
            yield _parse_moment(text, label)
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error


def _parse_moment(text: str, label: str | None) -> tuple[str, RawSegment]:
    moment, separator, sentence = text.partition("##") if label is None else (text, "##", label)
    try:
        video_id, start, end = moment.split()
        times = float(start), float(end)
    except ValueError:
        separator = ""
    if not separator:
        form = "VIDEO START END" if label else "VIDEO START END##SENTENCE"
        raise ValueError(f"expected {form} with times in seconds, found {text!r:.80}")
    return check_video_id(video_id), make_segment(*times, sentence.strip())
