"""Annotations that a person writes in a spreadsheet and saves as csv, tsv or xlsx.

    video,start,end,label,subset
    surf_01.mp4,0:12,0:31.5,Surfing,training

Times are in seconds or as m:ss or h:mm:ss. Without a subset column, `files.split_by_hash` gives the subsets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.data.annotations.entries import Entry, make_segment
from pipeline.data.files import check_video_id, plain_id
from pipeline.data.tables import read_table


def read_spreadsheet(path: Path) -> dict[str, Entry]:
    """The videos of the table. ValueError, naming the file and the line, if it is malformed."""
    entries: dict[str, Entry] = {}
    table = read_table(path, ("video", "start", "end", "label"))
    parse_time = table.clock("start", "end")
    for line, row in table:
        try:
            entry = entries.setdefault(check_video_id(plain_id(row["video"])), Entry())
            _add_row(entry, row, parse_time)
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
    return entries


def _add_row(entry: Entry, row: Mapping[str, str], parse_time: Callable[[str], float]) -> None:
    subset = row.get("subset") or entry.subset
    if entry.subset not in (None, subset):
        raise ValueError(f"the video is in the subset {subset!r} here and in {entry.subset!r} before")
    entry.subset = subset
    if not (row["start"] or row["end"] or row["label"]):
        return  # a video in which nothing happens
    if not row["label"]:
        raise ValueError("the label is empty")
    entry.segments.append(make_segment(parse_time(row["start"]), parse_time(row["end"]), row["label"]))
