"""Detections as WebVTT subtitles, so that any player names the actions while a video plays.

The format: https://www.w3.org/TR/webvtt1/. Cues may overlap in time; players stack them.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which writes itself by this module
    from pipeline.data.detections import Detection


def write_subtitles(path: Path, detections: Sequence[Detection], *, least_share: float = 0.0) -> None:
    """Write those of one video's detections that score at least `least_share` of its best score, without repeats."""
    least = least_share * max((detection.score for detection in detections), default=0.0)
    text = format_subtitles(without_repeats(detection for detection in detections if detection.score >= least))
    path.write_text(text, encoding="utf-8", newline="\n")


def without_repeats(detections: Iterable[Detection]) -> list[Detection]:
    """For a reader: no detection that shares more than half of itself, or of a better one of its label, with that one.

    Soft-NMS lowers such scores and keeps them, which is good for mAP and tells a person the same thing twice.
    The best come first.
    """
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda detection: -detection.score):
        if not any(_repeats(detection, better) for better in kept):
            kept.append(detection)
    return kept


def _repeats(detection: Detection, better: Detection) -> bool:
    shared = min(detection.end, better.end) - max(detection.start, better.start)
    shorter = min(detection.end - detection.start, better.end - better.start)
    return detection.label == better.label and 2 * shared > shorter


def format_subtitles(detections: Iterable[Detection]) -> str:
    """A WebVTT file with a cue for each detection, in order of time, the better of two that start together first."""
    in_time = sorted(detections, key=lambda detection: (detection.start, -detection.score))
    return "\n\n".join(["WEBVTT", *map(_cue, in_time)]) + "\n"


def _cue(detection: Detection) -> str:
    start_ms = max(0, round(1000 * detection.start))
    end_ms = max(start_ms + 1, round(1000 * detection.end))  # a cue ends after it starts
    # An empty line would end the cue, and an unescaped > could make an arrow.
    label = html.escape(" ".join(detection.label.split()), quote=False)
    return f"{_clock(start_ms)} --> {_clock(end_ms)}\n{label} ({detection.score:.2f})"


def _clock(milliseconds: int) -> str:
    seconds, ms = divmod(milliseconds, 1000)
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    return f"{hours:02}:{m:02}:{s:02}.{ms:03}"
