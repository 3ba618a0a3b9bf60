"""ActivityNet 1.3 as BSN, BMN and G-TAD have it: a JSON without subsets, and a csv beside it that gives them.

    anet_anno_action.json   {"v_QOlSCBRmfWY": {"duration_second": 82.73, "duration_frame": 2067, "feature_frame": 2064,
                                               "annotations": [{"segment": [6.2, 77.7], "label": "Ballet"}]}}
    video_info_new.csv      video,numFrame,seconds,fps,rfps,subset,featureFrame

The published features of a video stand for its first `feature_frame` frames (one feature for 16 frames, remainder left
out), so these projects place their rows on `corrected_second = feature_frame / duration_frame · duration_second`
seconds (G-TAD's and BMN's public code, `dataset.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.data.annotations.activitynet import parse_videos
from pipeline.data.annotations.entries import Entry
from pipeline.data.annotations.video_info import info_of
from pipeline.data.tables import read_table, table_columns


def is_bsn(data: Any) -> bool:
    """Whether a parsed JSON file is of this form."""
    return isinstance(data, dict) and any(
        isinstance(fields, dict) and "duration_frame" in fields for fields in data.values()
    )


def read_bsn(path: Path, data: Mapping[str, Any]) -> dict[str, Entry]:
    """The videos of the parsed JSON, with the subsets of the csv beside it.

    Raises:
        ValueError: There is no such csv, or the JSON is malformed; names the file and the video.
    """
    entries = parse_videos(path, data)
    subsets = _read_subsets(path)
    for video_id, entry in entries.items():
        entry.subset = subsets.get(video_id)
        entry.feature_duration = info_of(data[video_id]).feature_duration
    return entries


def _read_subsets(path: Path) -> dict[str, str]:
    """Subset of each video, from `video_info_new.csv` or a csv of a like name."""
    for table in sorted(path.parent.glob("*video_info*.csv"), key=lambda file: ("new" not in file.name, file.name)):
        if {"video", "subset"} <= set(table_columns(table)):
            return {row["video"]: row["subset"] for _, row in read_table(table, ("video", "subset"))}
    raise ValueError(
        f"{path} has no subsets: it is in the form of BSN and G-TAD, which keeps them in another file; put their "
        "video_info_new.csv, with the columns video and subset, beside it"
    )
