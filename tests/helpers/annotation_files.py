"""Made-up annotations in the layouts of the public data sets, written independently of how they are read."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pipeline.data.annotations import Video


def write_hacs(folder: Path, videos: Sequence[Video]) -> Path:
    """HACS_segments_v1.1.1.json: ActivityNet's form, durations as strings."""
    database = {
        video.id: {
            "annotations": [{"label": s.label, "segment": [s.start, s.end]} for s in video.segments],
            "subset": video.subset,
            "duration": str(video.duration),
            "url": f"https://www.youtube.com/watch?v={video.id}",
        }
        for video in videos
    }
    return _write(folder / "HACS_segments_v1.1.1.json", json.dumps({"version": "1.1.1", "database": database}))


def write_bsn(folder: Path, videos: Sequence[Video], fps: float = 25.0) -> Path:
    """anet_anno_action.json and video_info_new.csv; features stand for whole blocks of 16 frames."""
    database, rows = {}, ["video,numFrame,seconds,fps,rfps,subset,featureFrame"]
    for video in videos:
        assert video.duration is not None
        frames = round(video.duration * fps)
        database[video.id] = {
            "duration_second": video.duration,
            "duration_frame": frames,
            "annotations": [{"segment": [s.start, s.end], "label": s.label} for s in video.segments],
            "feature_frame": frames // 16 * 16,
        }
        rows.append(f"{video.id},{frames},{video.duration},{fps},{fps},{video.subset},{frames // 16 * 16}")
    _write(folder / "video_info_new.csv", "\n".join(rows))
    return _write(folder / "anet_anno_action.json", json.dumps(database))


def write_gtad_thumos14(folder: Path, videos: Sequence[Video]) -> Path:
    """G-TAD's thumos_gt.json: no durations, subsets `train` and `test`."""
    database = {
        video.id: {
            "subset": "test" if video.subset == "test" else "train",
            "annotations": [{"segment": [s.start, s.end], "label": s.label, "label_id": 1} for s in video.segments],
        }
        for video in videos
    }
    return _write(folder / "thumos14_gt.json", json.dumps({"database": database}))


def write_actionformer_thumos14(folder: Path, videos: Sequence[Video]) -> Path:
    """ActionFormer's thumos14.json."""
    database = {
        video.id: {
            "subset": video.subset.capitalize(),
            "duration": video.duration,
            "fps": 30.0,
            "annotations": [
                {
                    "label": s.label,
                    "segment": [s.start, s.end],
                    "segment(frames)": [30 * s.start, 30 * s.end],
                    "label_id": 1,
                }
                for s in video.segments
            ],
        }
        for video in videos
    }
    return _write(folder / "thumos14.json", json.dumps({"version": "Thumos14-30fps", "database": database}))


def write_thumos14_texts(folder: Path, videos: Sequence[Video]) -> Path:
    """The challenge's text files, in folders as its zip files have them."""
    lines = defaultdict(list)
    for video in videos:
        subset, where = ("test", "TH14_Temporal_annotations_test") if video.subset == "test" else ("val", "TH14_val")
        for s in video.segments:
            lines[f"{where}/annotation/{s.label}_{subset}.txt"].append(f"{video.id}  {s.start} {s.end}")
    for name, rows in lines.items():
        _write(folder / name, "\n".join(rows) + "\n")
    _write(folder / "TH14_val" / "readme.txt", "THUMOS CHALLENGE 2014\n")
    return folder


def write_thumos14_tables(folder: Path, videos: Sequence[Video]) -> Path:
    """G-TAD's csv files, and AFSD's with the durations."""
    for subset, short in (("validation", "val"), ("test", "test")):
        chosen = [video for video in videos if video.subset == subset]
        rows = [
            f"{video.id},{s.label},12,{s.start},{s.end},{round(30 * s.start)},{round(30 * s.end)}"
            for video in chosen
            for s in video.segments
        ]
        header = "video,type,type_idx,start,end,startFrame,endFrame"
        _write(folder / f"{short}_Annotation.csv", "\n".join([header, *rows]))
        infos = [f"{video.id},30.0,10,{(video.duration or 0) * 30},{(video.duration or 0) * 10}" for video in chosen]
        _write(folder / f"{short}_video_info.csv", "\n".join(["video,fps,sample_fps,count,sample_count", *infos]))
    return folder


def write_charades_sta(folder: Path, videos: Sequence[Video]) -> Path:
    """charades_sta_train.txt and _test.txt, and Charades' own tables in a folder below."""
    for subset in ("train", "test"):
        chosen = [video for video in videos if video.subset == subset]
        lines = [f"{video.id} {s.start} {s.end}##{s.label}" for video in chosen for s in video.segments]
        _write(folder / f"charades_sta_{subset}.txt", "\n".join(lines) + "\n")
        rows = [f'{video.id},HR43,Kitchen,6,7,Yes,"A person, cooking.",{video.duration}' for video in chosen]
        header = "id,subject,scene,quality,relevance,verified,script,length"
        _write(folder / "Charades" / f"Charades_v1_{subset}.csv", "\n".join([header, *rows]))
    return folder


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
