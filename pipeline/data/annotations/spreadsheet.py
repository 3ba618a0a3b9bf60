"""Annotations that a person writes in a spreadsheet and saves as csv.

    video,start,end,label,subset
    surf_01.mp4,0:12,0:31.5,Surfing,training

Times are in seconds or as m:ss or h:mm:ss. Without a subset column, `files.split_by_hash` gives the subsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.data.annotations.entries import Entry, make_segment
from pipeline.data.files import check_video_id, parse_time, read_table, strip_video_suffix


def read_spreadsheet(path: Path) -> dict[str, Entry]:
    """The videos of the csv. ValueError, naming the file and the line, if it is malformed."""
    entries: dict[str, Entry] = {}
    for line, row in read_table(path, ("video", "start", "end", "label")):
        try:
            entry = entries.setdefault(check_video_id(strip_video_suffix(row["video"])), Entry())
            _add_row(entry, row)
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
    return entries


def _add_row(entry: Entry, row: Mapping[str, str]) -> None:
    subset = row.get("subset") or entry.subset
    if entry.subset not in (None, subset):
        raise ValueError(f"the video is in the subset {subset!r} here and in {entry.subset!r} before")
    entry.subset = subset
    if not (row["start"] or row["end"] or row["label"]):
        return  # a video in which nothing happens
    if not row["label"]:
        raise ValueError("the label is empty")
    entry.segments.append(make_segment(parse_time(row["start"]), parse_time(row["end"]), row["label"]))
