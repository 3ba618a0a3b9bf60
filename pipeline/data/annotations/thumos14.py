"""THUMOS14's temporal annotations: the challenge's text files, one a class, or G-TAD's csv files, one a subset.

    BaseballPitch_val.txt      video_validation_0000266  72.8 76.4       times in seconds
    Ambiguous_test.txt         video_test_0000028  26.6 30.4             hard to tell whether it is an action
    validation_set.mat         `validation_videos`: video_name, video_duration_seconds, … ; test_set_meta.mat likewise

    val_Annotation.csv         video,type,type_idx,start,end,startFrame,endFrame
    val_video_info.csv         video,fps,sample_fps,count,sample_count   (count: frames)

The validation videos are the training set, since the challenge's own training set is of trimmed clips; 20 of its 101
classes are annotated. The files may lie in subfolders, as the challenge's zip files unpack. Durations come from
whichever of the two kinds of meta file is there; without one they are unknown.

Sources: the readme files of the challenge's annotations (crcv.ucf.edu/THUMOS14), the public loaders of R-C3D (mat) and
AFSD (csv), and G-TAD's `thumos_annotations`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.data.annotations.entries import Entry, Part, RawSegment, join_parts, make_segment, read_moments
from pipeline.data.annotations.video_info import read_video_info
from pipeline.data.files import check_video_id
from pipeline.data.tables import read_table

SUBSETS = {"val": "validation", "test": "test"}
META = {"validation_set.mat": "validation_videos", "test_set_meta.mat": "test_videos"}

_TEXT = re.compile(r"(?P<label>[A-Z][A-Za-z]*)_(?P<subset>val|test)\.txt")
_TABLE = re.compile(r"(?P<subset>val|test)_Annotation\.csv")
_INFO = re.compile(r"(?:val|test)_video_info\.csv")


def has_thumos14(folder: Path) -> bool:
    """Whether a folder or one below it holds files of these names."""
    return bool(_annotation_files(_named_files(folder)))


def read_thumos14(folder: Path) -> dict[str, Entry]:
    """The annotated videos of a folder; "Ambiguous" is a label like the others here.

    Raises:
        ValueError: Two files of one name, a video in both subsets, or a malformed line or meta file; names the file.
    """
    files = _named_files(folder)
    parts = [
        Part(file, SUBSETS[match["subset"]], _read_segments(file, match)) for match, file in _annotation_files(files)
    ]
    return join_parts(parts, _read_durations(files))


def _named_files(folder: Path) -> list[Path]:
    """The files in a folder and below it whose names are among the above, sorted."""
    return sorted(
        file
        for file in folder.rglob("*_*")
        if file.name in META or any(pattern.fullmatch(file.name) for pattern in (_TEXT, _TABLE, _INFO))
    )


def _annotation_files(files: Sequence[Path]) -> list[tuple[re.Match[str], Path]]:
    """The text files and what their names say, or where there are none the csv files."""
    found = [(match, file) for file in files if (match := _TEXT.fullmatch(file.name))]
    found = found or [(match, file) for file in files if (match := _TABLE.fullmatch(file.name))]
    for (_, file), (_, other) in pairwise(sorted(found, key=lambda pair: pair[1].name)):
        if file.name == other.name:
            raise ValueError(f"{file} and {other} annotate the same; give the folder of one of them")
    return found


def _read_segments(file: Path, match: re.Match[str]) -> Iterator[tuple[str, RawSegment]]:
    if match.re is _TEXT:
        yield from read_moments(file, match["label"])
        return
    table = read_table(file, ("video", "type", "start", "end"))
    parse_time = table.clock("start", "end")
    for line, row in table:
        try:
            start, end = parse_time(row["start"]), parse_time(row["end"])
            yield check_video_id(row["video"]), make_segment(start, end, row["type"])
        except ValueError as error:
            raise ValueError(f"{file}, line {line}: {error}") from error


def _read_durations(files: Iterable[Path]) -> dict[str, float | None]:
    """Seconds of each video that a meta file names."""
    durations: dict[str, float | None] = {}
    for file in files:
        if file.name in META:
            durations |= _durations_of_mat(file)
        elif _INFO.fullmatch(file.name):
            durations |= {video_id: info.duration for video_id, info in read_video_info(file).items()}
    return durations


def _durations_of_mat(file: Path) -> dict[str, float]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ValueError(
            f"{file} is read by scipy: pip install 'tal-pipeline[thumos14]', or remove the file to go without durations"
        ) from error
    try:
        videos = np.atleast_1d(loadmat(file, variable_names=META[file.name], squeeze_me=True)[META[file.name]])
        return {str(video["video_name"]): float(video["video_duration_seconds"]) for video in videos}
    except Exception as error:  # a damaged file makes scipy raise nearly anything
        raise ValueError(
            f"{file}: no durations can be read from it ({type(error).__name__}: {error}); unpack it again, or remove "
            "it to go without"
        ) from error
