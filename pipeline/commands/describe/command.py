"""`pipeline describe`: what is in an annotation file, a clip list or a feature store, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.clips.reading import KINETICS_COLUMNS, ClipList, read_clips
from pipeline.commands.describe.options import DescribeConfig
from pipeline.data.annotations import Annotations, Video, holds_annotations, read_annotations
from pipeline.data.features import MANIFEST, FeatureStore
from pipeline.data.tables import table_columns
from pipeline.terminal.notes import say
from pipeline.terminal.outcome import Outcome

Line = tuple[str, str]  # what, how much


@dataclass(frozen=True, kw_only=True)
class Description(Outcome):
    """What is in a file or folder, and what is wrong with it.

    Attributes:
        lines: what and how much; a line without a name belongs to the one before.
    """

    lines: tuple[Line, ...]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.lines)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self.lines)


def run(config: DescribeConfig) -> Description:
    """Print the description; what kind of thing the path is, is seen from its contents."""
    description = Description(lines=tuple(_describe(config.path, config.annotation_format)))
    say(description)
    return description


def _describe(path: Path, form: str | None) -> Iterator[Line]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if form is not None:
        return describe_annotations(read_annotations(path, form=form))
    if (path / MANIFEST).is_file():
        return describe_store(FeatureStore.open(path))
    if path.is_dir() and holds_annotations(path):
        return describe_annotations(read_annotations(path))
    if path.is_dir() or (path.suffix.lower() == ".csv" and set(KINETICS_COLUMNS) <= set(table_columns(path))):
        return describe_clips(read_clips(path))
    return describe_annotations(read_annotations(path))


def describe_annotations(annotations: Annotations) -> Iterator[Line]:
    """Videos, segments, classes, lengths, coverage; the blemishes and what was done about them."""
    videos = list(annotations.videos.values())
    segments = [segment for video in videos for segment in video.segments]
    yield "videos", _count(len(videos), (video.subset for video in videos))
    yield "segments", _count(len(segments), (video.subset for video in videos for _ in video.segments))
    yield "segments a video", _spread([len(video.segments) for video in videos])
    yield from _classes([segment.label for segment in segments], "segments")
    if segments:
        yield "segment length", _spread([segment.end - segment.start for segment in segments], " s")
    timed = [video for video in videos if video.duration is not None]
    if timed:
        durations = [video.duration for video in timed if video.duration is not None]
        covered = sum(map(_covered, timed))
        yield "video duration", _spread(durations, " s")
        yield "covered by segments", f"{covered / sum(durations):.1%} of {sum(durations) / 3600:.2f} h"
    else:
        yield "video duration", "not in the file"
    yield from _blemishes(annotations.blemishes)


def describe_clips(clips: ClipList) -> Iterator[Line]:
    """Clips, classes; what was left out."""
    yield "clips", _count(len(clips.clips), (clip.subset for clip in clips.clips))
    yield from _classes([clip.label for clip in clips.clips], "clips")
    cut = [clip.end - clip.start for clip in clips.clips if clip.start is not None and clip.end is not None]
    yield "trimmed files", str(len(clips.clips) - len(cut))
    if cut:
        yield "length in longer files", _spread(cut, " s")
    yield from _blemishes(clips.blemishes)


def describe_store(store: FeatureStore) -> Iterator[Line]:
    """Videos, shapes, timelines, origin; features that cannot be used. Reads every file."""
    videos = list(store.videos.values())
    yield "videos", str(len(videos))
    if videos:
        yield "rows a video", _spread([video.rows for video in videos])
        yield "channels", ", ".join(map(str, sorted({video.channels for video in videos})))
        yield "seconds a row", _spread([video.timeline.stride for video in videos], " s")
        yield "video duration", _spread([video.duration for video in videos], " s")
    yield "stored as", store.header.dtype
    for part in store.header.parts:
        yield "encoder", "made elsewhere" if part.encoder is None else _settings(part.encoder)
        yield "weights", part.weights or "unknown"
        yield "sampling", "unknown" if part.sampling is None else _settings(part.sampling)
    if store.header.sola is not None:
        yield "refined by", f"SoLa, {_settings(store.header.sola['module'])}; from {store.header.sola['parent']}"
    yield from _blemishes(_feature_faults(store))


def _feature_faults(store: FeatureStore) -> Counter[str]:
    faults: Counter[str] = Counter()
    for video_id in store.videos:
        try:
            features_TC = store.load(video_id)
        except ValueError:
            faults["videos whose file is missing or damaged"] += 1
            continue
        faults["videos with NaN or infinite features"] += not np.isfinite(features_TC).all()
        faults["videos whose rows are all the same"] += len(features_TC) > 1 and not np.ptp(features_TC, axis=0).any()
    return faults


def _count(total: int, subsets: Iterable[str]) -> str:
    parts = ", ".join(f"{subset or 'no subset'} {count}" for subset, count in sorted(Counter(subsets).items()))
    return f"{total} ({parts})" if parts else str(total)


def _classes(labels: Sequence[str], what: str) -> Iterator[Line]:
    counts = Counter(labels)
    yield "classes", str(len(counts))
    if counts:
        (most, _), (least, _) = counts.most_common()[0], counts.most_common()[-1]
        yield f"{what} a class", f"{_spread(list(counts.values()))} (fewest {least!r}, most {most!r})"


def _spread(values: Sequence[float], unit: str = "") -> str:
    return f"{min(values):.4g} to {max(values):.4g}{unit}, median {median(values):.4g}{unit}"


def _settings(values: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _covered(video: Video) -> float:
    """Seconds of the video in which something happens."""
    total, until = 0.0, 0.0
    for segment in sorted(video.segments, key=lambda segment: segment.start):
        total += max(0.0, segment.end - max(segment.start, until))
        until = max(until, segment.end)
    return total


def _blemishes(blemishes: dict[str, int] | Counter[str]) -> Iterator[Line]:
    found = [f"{what}: {count}" for what, count in blemishes.items() if count]
    yield from zip(["blemishes"] + [""] * len(found), found or ["none"], strict=False)
