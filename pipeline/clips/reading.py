"""Trimmed clips with a class each: listed by a csv in the Kinetics layout, by the folders that they lie in, or cut out
of untrimmed videos by their annotations."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.data.annotations import read_annotations, usual_subset
from pipeline.data.files import NO_SUBSET, check_video_id, find_videos, match_ids, split_by_hash, walk_videos
from pipeline.data.tables import TABLE_SUFFIXES, read_table, table_columns

KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")

_TRIMMED = re.compile(r"_[0-9]{6}_[0-9]{6}$")


@dataclass(frozen=True)
class Clip:
    """One trimmed clip: seconds `start` to `end` of a file, or the whole file where they are None."""

    path: Path
    label: str
    start: float | None
    end: float | None
    subset: str

    def __str__(self) -> str:
        """The file, and which part of it."""
        return str(self.path) if self.start is None else f"{self.path}, {self.start:g} to {self.end:g} s"


@dataclass(frozen=True)
class ClipList:
    """The clips whose files are there, and counts of those that were left out or put right."""

    clips: tuple[Clip, ...]
    blemishes: dict[str, int]

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, sorted."""
        return tuple(sorted({clip.label for clip in self.clips}))

    def in_subset(self, name: str) -> tuple[Clip, ...]:
        """The clips of one subset. ValueError with the subsets that there are when it has none."""
        chosen = tuple(clip for clip in self.clips if clip.subset == usual_subset(name))
        if not chosen:
            found = sorted({clip.subset for clip in self.clips})
            raise ValueError(f"no clip is in the subset {name!r}; the subsets of this list are {found}")
        return chosen


def read_clips(path: Path, videos: Path | None = None, *, form: str | None = None) -> ClipList:
    """Read a Kinetics csv, a folder of `class_name/clip.mp4` (or `split/class_name/clip.mp4`), or annotations.

    The csv has the columns `label,youtube_id,time_start,time_end[,split]`. Its files are looked for in `videos` (left
    out: beside the csv) and its subfolders, as `ID_000010_000020.mp4` (already cut to the clip) or `ID.mp4` (whole, so
    that the clip gets a start and an end). Rows without a file are skipped and counted. Splits are named as in
    ActivityNet: training, validation, testing; a list without splits is divided by `split_by_hash` on the source video.

    Of annotations (`read_annotations`; a JSON file, or a table without the column youtube_id), each segment is a clip.
    The videos are looked for in the same way, by their id with or without ActivityNet's `v_`. With a `form`, `path`
    holds annotations in it, whatever it looks like.

    A clip that is listed twice is one clip.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: Nothing is found, a row is malformed, or two files fit a row.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such csv, annotation JSON, or folder of class_name/clip.mp4")
    blemishes: Counter[str] = Counter()
    folder = videos or path.parent
    if form is not None or _holds_annotations(path):
        listed, wanted = (
            _clips_of_annotations(path, folder, form, blemishes),
            f"ID.mp4 in {folder}; give --videos FOLDER",
        )
    elif path.is_dir():
        listed, wanted = _clips_of_tree(path, blemishes), "class_name/clip.mp4 in it"
    else:
        listed = _clips_of_table(path, folder, blemishes)
        wanted = f"ID_000010_000020.mp4 or ID.mp4 in {folder}; give --videos FOLDER"
    every = list(listed)
    found = list(dict.fromkeys(every))
    if not found:
        counts = "; ".join(f"{what}: {count}" for what, count in blemishes.items()) or "it is empty"
        raise ValueError(f"{path} gives no clip ({counts}); expected files such as {wanted}")
    if len(found) < len(every):
        blemishes["clips listed twice (taken once)"] = len(every) - len(found)
    if all(not clip.subset for _, clip in found):
        subsets = split_by_hash(source for source, _ in found)
        found = [(source, replace(clip, subset=subsets[source])) for source, clip in found]
        blemishes[NO_SUBSET.format("clips")] = len(found)
    return ClipList(tuple(clip for _, clip in found), dict(blemishes))


def _holds_annotations(path: Path) -> bool:
    """Whether it is an annotation file rather than a list in the Kinetics layout, or a folder."""
    if path.suffix.lower() in TABLE_SUFFIXES:
        return "youtube_id" not in table_columns(path)
    return path.name.endswith((".json", ".json.gz"))


def _clips_of_tree(folder: Path, blemishes: Counter[str]) -> Iterator[tuple[str, Clip]]:
    """Pairs of a clip's source video and the clip."""
    for file in walk_videos(folder):
        *folders, _ = file.relative_to(folder).parts
        if not folders:
            blemishes["files outside of a class folder (skipped)"] += 1
            continue
        subset = usual_subset(folders[0]) if len(folders) > 1 else ""
        yield _TRIMMED.sub("", file.stem), Clip(file, folders[-1], None, None, subset)


def _clips_of_annotations(
    path: Path, folder: Path, form: str | None, blemishes: Counter[str]
) -> Iterator[tuple[str, Clip]]:
    annotations = read_annotations(path, form=form)
    blemishes.update(annotations.blemishes)
    files = find_videos(folder)
    matches = match_ids(annotations.videos, files)
    for video in annotations.videos.values():
        if video.id not in matches:
            blemishes["videos without a file (skipped)"] += 1
            continue
        subset = usual_subset(video.subset)
        for segment in video.segments:
            yield video.id, Clip(files[matches[video.id]], segment.label, segment.start, segment.end, subset)


def _clips_of_table(path: Path, folder: Path, blemishes: Counter[str]) -> Iterator[tuple[str, Clip]]:
    files: Mapping[str, list[Path]] = defaultdict(list)
    for file in walk_videos(folder):
        files[file.stem].append(file)
    table = read_table(path, KINETICS_COLUMNS)
    parse_time = table.clock("time_start", "time_end")
    for line, row in table:
        try:
            clip = _clip_of_row(row, parse_time, files, blemishes)
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
        if clip is not None:
            yield row["youtube_id"], clip


def _clip_of_row(
    row: Mapping[str, str],
    parse_time: Callable[[str], float],
    files: Mapping[str, Sequence[Path]],
    blemishes: Counter[str],
) -> Clip | None:
    """The clip of one row; None, counted, if it has no file or no length."""
    source, label = check_video_id(row["youtube_id"]), row["label"]
    start, end = parse_time(row["time_start"]), parse_time(row["time_end"])
    subset = usual_subset(row.get("split", ""))
    if not label:
        raise ValueError("the label is empty")
    if end <= start:
        blemishes["clips with end ≤ start (skipped)"] += 1
        return None
    if trimmed := files.get(f"{source}_{int(start):06d}_{int(end):06d}"):
        return Clip(_only(trimmed, label), label, None, None, subset)
    if whole := files.get(source):
        return Clip(_only(whole, label), label, start, end, subset)
    blemishes["clips without a file (skipped)"] += 1
    return None


def _only(files: Sequence[Path], label: str) -> Path:
    """The one file; of several, the one in the folder of its class."""
    fitting = files if len(files) == 1 else [file for file in files if file.parent.name == label]
    if len(fitting) != 1:
        raise ValueError(f"{len(files)} files fit: {', '.join(map(str, files))}; keep one")
    return fitting[0]
