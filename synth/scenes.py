"""The procedural data sets on disk: trimmed clips with a Kinetics csv, untrimmed videos with an ActivityNet JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np

from synth.compose import compose_clip, compose_untrimmed
from synth.motions import MOTIONS
from synth.render import draw_scene, write_video

FRAME_RATES = (12, 15)
CLIP_SECONDS = (2, 3)


@dataclass(frozen=True)
class DatasetSize:
    """How much is drawn: clips of each class, untrimmed videos of all classes together."""

    num_classes: int
    train_clips: int
    val_clips: int
    train_videos: int
    val_videos: int
    video_seconds: tuple[int, int]
    """Shortest and longest untrimmed video."""
    side: int = 64
    """Width and height in pixels."""


SIZES: dict[str, DatasetSize] = {
    "tiny": DatasetSize(4, 2, 1, 6, 4, (5, 7)),
    "demo": DatasetSize(6, 80, 12, 160, 50, (9, 15)),
    "ablation": DatasetSize(8, 80, 12, 200, 100, (9, 15)),
}


@dataclass(frozen=True)
class _Job:
    """One file to draw. Its own seed makes it the same whichever process draws it, and when."""

    path: Path
    subset: str
    trimmed: bool
    labels: tuple[str, ...]
    """The class of a clip; for an untrimmed video all classes, first the one that it shows in any case."""
    side: int
    shortest_s: int
    longest_s: int
    seed: tuple[int, ...]


@dataclass(frozen=True)
class _Drawn:
    """What was drawn for a job."""

    job: _Job
    duration: float
    segments: tuple[tuple[float, float, str], ...]
    """(start, end, label) in seconds, in order; none for a clip."""


def write_dataset(folder: Path, *, size: str, seed: int, workers: int = 2, context: BaseContext | None = None) -> None:
    """Draw `folder/trimmed/clips.csv` with its clips and `folder/untrimmed/annotations.json` with its videos.

    One size and seed give the same bytes on one machine, whatever `workers` (processes) is; `context` is how they are
    started, if not as Python's spawn does, which needs a guard in the main module. Raises ValueError when there is no
    such size.
    """
    if size not in SIZES:
        raise ValueError(f"no data set size is called {size!r}; there are {', '.join(SIZES)}")
    jobs = [*_clip_jobs(folder / "trimmed" / "clips", SIZES[size], seed)]
    jobs += _video_jobs(folder / "untrimmed" / "videos", SIZES[size], seed)
    for parent in {job.path.parent for job in jobs}:
        parent.mkdir(parents=True, exist_ok=True)
    if workers > 1:
        # spawn: a fork of a process that has started threads (torch, PyAV) may hang.
        with ProcessPoolExecutor(workers, mp_context=context or get_context("spawn")) as pool:
            drawn = list(pool.map(_draw_file, jobs, chunksize=2))
    else:
        drawn = [_draw_file(job) for job in jobs]
    _write_clip_list(folder / "trimmed" / "clips.csv", (d for d in drawn if d.job.trimmed))
    _write_annotations(folder / "untrimmed" / "annotations.json", (d for d in drawn if not d.job.trimmed))


def _clip_jobs(folder: Path, size: DatasetSize, seed: int) -> Iterable[_Job]:
    """The trimmed clips, named as Kinetics files: ID_START_END.mp4 in whole seconds."""
    for class_index, label in enumerate(list(MOTIONS)[: size.num_classes]):
        for i in range(size.train_clips + size.val_clips):
            # The length is in the name, so it cannot be drawn with the rest.
            seconds = CLIP_SECONDS[i % len(CLIP_SECONDS)]
            yield _Job(
                path=folder / f"{label}-{i:03d}_{0:06d}_{seconds:06d}.mp4",
                subset="train" if i < size.train_clips else "val",
                trimmed=True,
                labels=(label,),
                side=size.side,
                shortest_s=seconds,
                longest_s=seconds,
                seed=(seed, 0, class_index, i),
            )


def _video_jobs(folder: Path, size: DatasetSize, seed: int) -> Iterable[_Job]:
    """The untrimmed videos; every class leads in equally many."""
    labels = tuple(MOTIONS)[: size.num_classes]
    for subset_index, (subset, count) in enumerate((("training", size.train_videos), ("validation", size.val_videos))):
        for i in range(count):
            turn = i % len(labels)
            yield _Job(
                path=folder / f"{subset}-{i:03d}.mp4",
                subset=subset,
                trimmed=False,
                labels=labels[turn:] + labels[:turn],
                side=size.side,
                shortest_s=size.video_seconds[0],
                longest_s=size.video_seconds[1],
                seed=(seed, 1, subset_index, i),
            )


def _draw_file(job: _Job) -> _Drawn:
    """Compose, draw and encode one file."""
    rng = np.random.default_rng(job.seed)
    fps = int(rng.choice(FRAME_RATES))
    num_frames = int(rng.integers(job.shortest_s * fps, job.longest_s * fps + 1))
    if job.trimmed:
        scene, segments = compose_clip(rng, job.labels[0], num_frames=num_frames, fps=fps), []
    else:
        scene = compose_untrimmed(rng, job.labels, num_frames=num_frames, fps=fps)
        segments = [(action.start, action.end, action.label) for actor in scene.actors for action in actor.actions]
    write_video(job.path, draw_scene(scene, num_frames=num_frames, fps=fps, side=job.side), fps)
    return _Drawn(job, num_frames / fps, tuple(sorted(segments)))


def _write_clip_list(path: Path, clips: Iterable[_Drawn]) -> None:
    """A csv in the layout of Kinetics."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
        for clip in clips:
            clip_id, start, end = clip.job.path.stem.rsplit("_", 2)
            writer.writerow([clip.job.labels[0], clip_id, int(start), int(end), clip.job.subset])


def _write_annotations(path: Path, videos: Iterable[_Drawn]) -> None:
    """A JSON in the layout of ActivityNet 1.3."""
    database = {
        video.job.path.stem: {
            "subset": video.job.subset,
            "duration": video.duration,
            "resolution": f"{video.job.side}x{video.job.side}",
            "annotations": [{"segment": [start, end], "label": label} for start, end, label in video.segments],
        }
        for video in videos
    }
    content = {"version": "procedural", "taxonomy": [], "database": database}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
