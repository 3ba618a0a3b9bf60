"""What is annotated: actions in untrimmed videos, and the blemishes of the files that say so.

The files of all data sets become the same in memory. How each is laid out is told where it is read:

    GT.json, GT.json.gz      `activitynet` (ActivityNet, HACS Segments, THUMOS14), `bsn` (ActivityNet)
    GT.csv, .tsv, .xlsx      `spreadsheet`, one's own videos
    charades_sta_test.txt    `charades`
    a folder                 `thumos14`, or `charades` with both subsets
    anything else            a reader of others, by its name (`pipeline.options.plugins`)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.data.annotations.activitynet import read_activitynet
from pipeline.data.annotations.bsn import is_bsn, read_bsn
from pipeline.data.annotations.charades import find_charades_sta, read_charades_sta
from pipeline.data.annotations.entries import Entry, RawSegment, make_segment
from pipeline.data.annotations.spreadsheet import read_spreadsheet
from pipeline.data.annotations.thumos14 import has_thumos14, read_thumos14
from pipeline.data.files import NO_SUBSET, check_video_id, plain_id, plain_label, read_json, split_by_hash, write_json
from pipeline.data.tables import TABLE_SUFFIXES
from pipeline.options import plugins

# What files call the subsets, in small letters.
SUBSET_NAMES = {
    "train": "training",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "test": "testing",
}
KNOWN_SUBSETS = frozenset(SUBSET_NAMES) | frozenset(SUBSET_NAMES.values())
# THUMOS14's label of what its annotators could not call action or background. It is no class.
AMBIGUOUS = "Ambiguous"


# --- What is in memory ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Segment:
    """One action from `start` to `end` (seconds from the video's first frame). ValueError unless 0 ≤ start < end."""

    start: float
    end: float
    label: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.end) and 0 <= self.start < self.end):
            raise ValueError(f"segment [{self.start}, {self.end}] s: expected finite times with 0 ≤ start < end")
        if not self.label:
            raise ValueError(f"segment [{self.start}, {self.end}] s has an empty label")


@dataclass(frozen=True)
class Video:
    """An annotated video.

    Attributes:
        id: name of the video and of its feature file.
        duration: seconds, None where the file does not say it.
        subset: as the file calls it; empty where it does not say it.
        segments: the actions, in the order of the file.
        feature_duration: seconds from the video's start that published features stand for, where that is not the
            duration (`bsn`).
    """

    id: str
    duration: float | None
    subset: str
    segments: tuple[Segment, ...]
    feature_duration: float | None = None

    def __post_init__(self) -> None:
        check_video_id(self.id)
        for duration in (self.duration, self.feature_duration):
            if duration is not None and not _is_duration(duration):
                raise ValueError(f"video {self.id!r} has a duration of {duration} s: expected a positive number")


@dataclass(frozen=True)
class Annotations:
    """All videos of one file in its order, and how often each blemish of `read_annotations` was met."""

    videos: dict[str, Video]
    blemishes: dict[str, int]

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, sorted."""
        labels = {segment.label for video in self.videos.values() for segment in video.segments}
        return tuple(sorted(labels - {AMBIGUOUS}))

    def in_subset(self, name: str) -> dict[str, Video]:
        """The videos of one subset, in capitals or not, and by any of its usual names (`train` is `training`); of
        `a|b`, which is for files that differ in how they call the same subset, those of `b` only if there is no `a`.
        ValueError with the subsets that there are when it has none.
        """
        for spell in (str.casefold, _plain_subset):  # a file may well have both `test` and `testing`
            for part in name.split("|"):
                chosen = {video.id: video for video in self.videos.values() if spell(video.subset) == spell(part)}
                if chosen:
                    return chosen
        subsets = Counter(video.subset for video in self.videos.values())
        found = ", ".join(f"{subset!r} ({count} videos)" for subset, count in sorted(subsets.items()))
        raise ValueError(f"no video is in the subset {name!r}; the subsets of this file are {found or 'none'}")


def usual_subset(name: str) -> str:
    """What ActivityNet calls the subset: `training` for `train`, `Train` or `TRAINING`; other names stay."""
    plain = name.strip().casefold()
    return SUBSET_NAMES.get(plain, plain if plain in KNOWN_SUBSETS else name.strip())


def _plain_subset(name: str) -> str:
    return usual_subset(name).casefold()


# --- Reading and writing ----------------------------------------------------------------------------------------------


def read_annotations(
    path: Path,
    *,
    form: str | None = None,
    as_written: bool = False,
    ambiguous: Literal["drop", "keep"] = "drop",
) -> Annotations:
    """Read annotations of any of the forms above, and put right what real files have wrong.

    `form` names a reader of others, `read(path) -> dict[str, Entry]`, the videos by their ids as the file has them
    (`pipeline.data.annotations.Entry`); what it gives is put right in the same way.

    Ids lose the suffix of a video file. Ids and labels are spelt one way where they differ in how accents are composed
    or in spaces; labels that differ in capitals alone are told, and kept apart.

    Each repair is counted in `blemishes`: segments with end ≤ start are dropped, a start before the video becomes 0, an
    end after the video becomes its end (dropped if nothing is left), exact duplicates are kept once, a duration that is
    no positive number counts as unknown; videos without segments and subsets of an unknown name are kept.
    `as_written` leaves duplicates and late ends as they are, as the ActivityNet toolkit scores them. Segments that are
    labelled "Ambiguous" (THUMOS14) are dropped, also counted, unless `ambiguous` says to keep them.

    Raises:
        ValueError: The file is of none of the forms, or an id would leave its folder; names the file and the place. Or
            there is no such reader, or it gives something else.
    """
    entries = _read_entries(path) if form is None else _read_by(form, path)
    if not entries:
        raise ValueError(f"{path} names no video")
    blemishes: Counter[str] = Counter()
    entries = _spell_alike(path, entries, blemishes)
    subsets = _subsets(entries, blemishes)
    videos = {}
    for video_id, entry in entries.items():
        duration = _repair_duration(entry.duration, blemishes)
        chosen = entry.segments if ambiguous == "keep" else _drop_ambiguous(entry.segments, blemishes)
        segments = tuple(_repair(chosen, duration, blemishes, as_written))
        feature_duration = _repair_duration(entry.feature_duration, blemishes)
        videos[video_id] = Video(video_id, duration, subsets[video_id], segments, feature_duration)
        # Test sets are published without their segments: nothing to tell.
        is_test = subsets[video_id].casefold().startswith("test")
        blemishes["videos without segments (kept)"] += not segments and not is_test
    blemishes["videos listed with and without v_ (kept apart)"] = sum(f"v_{video_id}" in videos for video_id in videos)
    return Annotations(videos, {what: count for what, count in blemishes.items() if count})


def holds_annotations(folder: Path) -> bool:
    """Whether `read_annotations` can read this folder, rather than a file in it."""
    return bool(find_charades_sta(folder)) or has_thumos14(folder)


def write_annotations(path: Path, videos: Iterable[Video]) -> None:
    """Write ActivityNet JSON; `read_annotations` gives the same videos back. The file appears whole or not at all."""
    database = {}
    for video in videos:
        seconds = {"duration": video.duration, "corrected_second": video.feature_duration}
        known = {name: value for name, value in seconds.items() if value is not None}
        segments = [{"segment": [segment.start, segment.end], "label": segment.label} for segment in video.segments]
        database[video.id] = {**known, "subset": video.subset, "annotations": segments}
    write_json(path, {"version": "VERSION 1.3", "database": database})


def _read_entries(path: Path) -> dict[str, Entry]:
    """By the reader for what the path is."""
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return read_spreadsheet(path)
    if path.suffix.lower() == ".txt":
        return read_charades_sta([path])
    data = read_json(path, unique=True)
    return read_bsn(path, data) if is_bsn(data) else read_activitynet(path, data)


def _read_by(form: str, path: Path) -> dict[str, Entry]:
    """By a reader of others, which the user has named."""
    entries = plugins.find("annotations", form, ours=(), named=[form])(path)
    if not isinstance(entries, Mapping) or not all(isinstance(entry, Entry) for entry in entries.values()):
        raise ValueError(
            f"{form!r} gave {type(entries).__name__} for {path}; expected the videos by their ids, each an "
            "Entry of pipeline.data.annotations"
        )
    for video_id, entry in entries.items():
        check_video_id(video_id)
        entry.segments = [make_segment(*segment) for segment in entry.segments]
    return dict(entries)


def _read_folder(folder: Path) -> dict[str, Entry]:
    if files := find_charades_sta(folder):
        return read_charades_sta(files)
    if has_thumos14(folder):
        return read_thumos14(folder)
    raise ValueError(
        f"{folder} holds neither THUMOS14's annotations (BaseballPitch_val.txt, … or val_Annotation.csv) nor those of "
        "Charades-STA (charades_sta_train.txt); give the file of other data sets"
    )


def _spell_alike(path: Path, entries: Mapping[str, Entry], blemishes: Counter[str]) -> dict[str, Entry]:
    """The videos by their plain ids, with plain labels."""
    plain: dict[str, Entry] = {}
    for video_id, entry in entries.items():
        if plain.setdefault(plain_id(video_id), entry) is not entry:
            raise ValueError(
                f"{path}: the video {plain_id(video_id)!r} stands there twice, once as {video_id!r}; keep one"
            )
        respelt = [(start, end, plain_label(label)) for start, end, label in entry.segments]
        blemishes["segments whose label has other spaces or accents (respelt)"] += sum(
            new != old for new, old in zip(respelt, entry.segments, strict=True)
        )
        entry.segments = respelt
    labels = {label for entry in plain.values() for _, _, label in entry.segments}
    capitals = Counter(label.casefold() for label in labels)
    blemishes["labels that differ from others in capitals alone (kept apart)"] = sum(
        count - 1 for count in capitals.values()
    )
    return plain


def _repair_duration(duration: float | None, blemishes: Counter[str]) -> float | None:
    if duration is None or _is_duration(duration):
        return duration
    blemishes["durations that are no positive number (ignored)"] += 1
    return None


def _is_duration(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds > 0


def _drop_ambiguous(segments: Iterable[RawSegment], blemishes: Counter[str]) -> Iterator[RawSegment]:
    for segment in segments:
        if segment[2] == AMBIGUOUS:
            blemishes["segments labelled Ambiguous (dropped)"] += 1
        else:
            yield segment


def _repair(
    segments: Iterable[RawSegment], duration: float | None, blemishes: Counter[str], as_written: bool
) -> Iterator[Segment]:
    seen = set()
    for start, end, label in segments:
        if end <= start:
            blemishes["segments with end ≤ start (dropped)"] += 1
            continue
        if start < 0:
            blemishes["segments that start before the video (cut)"] += 1
            start = 0.0
        if duration is not None and end > duration:
            blemishes[f"segments past the end of the video ({'kept' if as_written else 'cut'})"] += 1
            end = end if as_written else duration
        if end <= start:
            blemishes["segments outside the video (dropped)"] += 1
            continue
        segment = Segment(start, end, label)
        if segment in seen:
            blemishes[f"exact duplicates ({'kept' if as_written else 'dropped'})"] += 1
        if as_written or segment not in seen:
            yield segment
        seen.add(segment)


def _subsets(entries: Mapping[str, Entry], blemishes: Counter[str]) -> dict[str, str]:
    """The subset of each video: as given, or by hash if the whole file gives none."""
    if all(entry.subset is None for entry in entries.values()):
        blemishes[NO_SUBSET.format("videos")] = len(entries)
        return split_by_hash(entries)
    subsets = {video_id: (entry.subset or "").strip() for video_id, entry in entries.items()}
    blemishes["videos without a subset, which others have (used nowhere)"] = sum(not name for name in subsets.values())
    blemishes["videos of unknown subset (kept)"] = sum(
        bool(subset) and subset.casefold() not in KNOWN_SUBSETS for subset in subsets.values()
    )
    return subsets
