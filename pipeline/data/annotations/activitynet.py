"""ActivityNet's JSON, which others use too: HACS Segments 1.1.1, and THUMOS14 as G-TAD and ActionFormer have it.

    {"version": "VERSION 1.3",
     "database": {"QOlSCBRmfWY": {"duration": 82.73, "subset": "training", "url": "…",
                                  "annotations": [{"segment": [6.2, 77.7], "label": "Ballet"}]}}}

ActivityNet 1.3 names its subsets training, validation and testing, and so does HACS, which writes some durations as
strings (readme of hangzhaomit/HACS-dataset). THUMOS14 has validation and test videos: G-TAD's file calls the former
`train` and gives no durations; ActionFormer's capitalises the names and adds `fps`, `label_id` and `segment(frames)`,
which are not needed. The outer level may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.data.annotations.entries import Entry, RawSegment, make_segment
from pipeline.data.files import check_video_id


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
        segments=[_parse_segment(annotation) for annotation in fields.get("annotations") or []],
    )


def _parse_segment(annotation: Any) -> RawSegment:
    try:
        start, end = map(float, annotation["segment"])
        label = annotation["label"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f'expected {{"segment": [start, end], "label"}} in seconds, found {annotation!r:.80}'
        ) from error
    return make_segment(start, end, label)
