"""What the readers of annotation files give: videos as their file has them, before `annotations` puts them right."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.files import check_video_id, read_lines

RawSegment = tuple[float, float, str]  # start and end in seconds, finite, in whatever order; label


@dataclass
class Entry:
    """A video as its file has it. None is what the file does not say."""

    duration: float | None = None  # seconds
    feature_duration: float | None = None  # seconds, see `annotations.Video`
    subset: str | None = None
    segments: list[RawSegment] = field(default_factory=list)


def make_segment(start: float, end: float, label: object) -> RawSegment:
    """The three as a segment. ValueError unless the times are finite and the label is a name."""
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"segment [{start}, {end}] is not finite")
    if not (isinstance(label, str) and label):
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
