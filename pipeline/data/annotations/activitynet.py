"""ActivityNet's JSON, which others use too: HACS Segments 1.1.1, and THUMOS14 as G-TAD and ActionFormer have it.

    {"version": "VERSION 1.3",
     "database": {"QOlSCBRmfWY": {"duration": 82.73, "subset": "training", "url": "…",
                                  "annotations": [{"segment": [6.2, 77.7], "label": "Ballet"}]}}}

ActivityNet 1.3 names its subsets training, validation and testing, and so does HACS, which writes some durations as
strings (readme of hangzhaomit/HACS-dataset). THUMOS14 has validation and test videos: G-TAD's file calls the former
`train` and gives no durations; ActionFormer's capitalises the names and adds `fps`, `label_id` and `segment(frames)`,
which are not needed. The outer level may be missing.

COIN calls the segments "annotation". The JSON of MultiTHUMOS and Charades that goes around with I3D features has
"actions", a list of [class number, start, end]; the numbers are the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.data.annotations.entries import Entry, RawSegment, make_segment
from pipeline.data.files import check_video_id

SEGMENT_KEYS = ("annotations", "annotation", "segments")


def read_activitynet(path: Path, data: Any) -> dict[str, Entry]:
    """The videos of the parsed file. ValueError, naming the file and the video, if it is of another form."""
    database = data.get("database", data) if isinstance(data, dict) else None
    if not isinstance(database, dict):
        raise ValueError(f'{path} is not in the ActivityNet form: expected {{"database": {{VIDEO_ID: ...}}}}')
    return parse_videos(path, database)


def parse_videos(path: Path, database: Mapping[str, Any]) -> dict[str, Entry]:
    """The videos of the level below `database`. ValueError naming the file and the video."""
    entries = {}
    for video_id, fields in database.items():
        try:
            entries[check_video_id(video_id)] = _parse_entry(fields)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{path}, video {video_id!r}: {error}") from error
    return entries


def _parse_entry(fields: Any) -> Entry:
    if not isinstance(fields, dict):
        raise ValueError(f'expected {{"duration", "subset", "annotations"}}, found {fields!r:.60}')
    duration, corrected = fields.get("duration", fields.get("duration_second")), fields.get("corrected_second")
    return Entry(
        duration=None if duration is None else float(duration),
        feature_duration=None if corrected is None else float(corrected),
        subset=str(fields.get("subset") or "") or None,
        segments=_parse_segments(fields),
    )


def _parse_segments(fields: Mapping[str, Any]) -> list[RawSegment]:
    """The segments under whichever key they stand; ValueError for lists under a key that is not known."""
    for key in SEGMENT_KEYS:
        if key in fields:
            return [_parse_segment(annotation) for annotation in fields[key] or []]
    if "actions" in fields:
        return [_parse_action(action) for action in fields["actions"] or []]
    others = [key for key, value in fields.items() if isinstance(value, list) and value and not _is_flat(value)]
    if others:
        raise ValueError(
            f'it has no "annotations", but {others[0]!r}, a list of {len(fields[others[0]])}; are these its segments? '
            'Call them "annotations", each {"segment": [start, end], "label"} in seconds'
        )
    return []


def _is_flat(value: list[Any]) -> bool:
    return not any(isinstance(item, (dict, list)) for item in value)


def _parse_segment(annotation: Any) -> RawSegment:
    try:
        start, end = map(float, annotation["segment"])
        label = annotation["label"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f'expected {{"segment": [start, end], "label"}} in seconds, found {annotation!r:.80}'
        ) from error
    return make_segment(start, end, label)


def _parse_action(action: Any) -> RawSegment:
    try:
        number, start, end = action
        return make_segment(float(start), float(end), str(int(number)))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"expected [class number, start, end] in seconds, found {action!r:.80}") from error
