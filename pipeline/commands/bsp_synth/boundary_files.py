"""Boundary clips on disk, for others to train with and for a person to look at.

    OUT/clips/diff-class/000000.mp4 ...   the clips, as training sees them: a tree that `--clips` of any command takes
    OUT/boundary_clips.csv                of each its kind, change point, rate and sources with their frames (counted
                                          from the clip's first frame); written last
    OUT/diff-class.png ...                a contact sheet of each kind: a row is a clip, a red line its change point

All files have the same frame rate, whatever their sources': it would otherwise tell the kinds apart.
"""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.clips.batches import FrameArray
from pipeline.commands.bsp_synth.boundary_clips import BoundaryBatches, BoundaryClip
from pipeline.show.contact_sheet import Row, write_contact_sheet
from pipeline.terminal.notes import progress, say
from pipeline.training.run_folder import write_text
from synth.render import write_video

TABLE = "boundary_clips.csv"
FPS = 4
"""Frames a second of the files: slow enough to see each."""
SHEET_ROWS = 8

COLUMNS = (
    *("file", "kind", "change_point_frames", "change_point_seconds", "rate"),
    *("label_1", "source_1", "frames_1", "label_2", "source_2", "frames_2"),
)


@dataclass(frozen=True, eq=False)
class _Written:
    """What is said of one file, in a class that no data loader takes for a batch."""

    row: tuple[str, ...]
    on_sheet: Row | None
    failed: list[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class _Files:
    """Boundary clips that are written where they are asked for, for `load_batches`."""

    out: Path
    batches: BoundaryBatches
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, places: list[tuple[int, int]]) -> _Written:
        """The file of one place."""
        [(_, index)] = places
        return _write_one(self.out, self.batches, index)


def write_boundary_clips(out: Path, batches: BoundaryBatches, count: int, *, num_workers: int = 0) -> dict[str, str]:
    """Write the first `count` boundary clips of epoch 0, their table and the contact sheets.

    Args:
        out: folder; what is there of an earlier call is written again.
        batches: what makes the clips; their kinds take turns.
        count: how many.
        num_workers: processes that make and encode clips; 0 does it here.

    Returns:
        Source files that could not be used, with the reason.

    Raises:
        ValueError: fewer than one clip is asked for, or not one can be made.
    """
    if count < 1:
        raise ValueError(f"{count} boundary clips are to be written; give 1 or more")
    batches.check()
    for kind in batches.kinds:
        (out / "clips" / kind).mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    rows: list[tuple[str, ...]] = []
    sheets: dict[str, list[Row]] = defaultdict(list)
    from pipeline.training.batches import load_batches

    written = load_batches(_Files(out, batches, count), 1, num_workers=num_workers)
    for one in progress(written, "writing boundary clips", total=count):
        failed.update(one.failed)
        if one.row:
            rows.append(one.row)
        if one.on_sheet is not None:
            sheets[one.row[1]].append(one.on_sheet)
    for name, shown in sheets.items():
        write_contact_sheet(out / f"{name}.png", shown)
    _write_table(out / TABLE, rows)
    say(f"{len(rows)} of {count} boundary clips are in {out}")
    return failed


def _write_one(out: Path, batches: BoundaryBatches, index: int) -> _Written:
    """The file of one place, if it gives a boundary clip."""
    failed: list[tuple[str, str]] = []
    clip = batches.make(0, index, failed)
    if clip is None:
        return _Written((), None, failed)
    frames_LHWC = clip.frames.permute(0, 2, 3, 1).numpy()
    file = f"clips/{clip.plan.kind}/{index:06d}.mp4"
    partial = out / f"{file}.partial"
    write_video(partial, _even(frames_LHWC), FPS)
    os.replace(partial, out / file)
    on_sheet = None
    if index < SHEET_ROWS * len(batches.kinds):
        on_sheet = Row(_caption(clip), frames_LHWC, clip.plan.change_point)
    return _Written(_table_row(file, clip), on_sheet, failed)


def _even(frames_LHWC: FrameArray) -> FrameArray:
    """Without the last row or column of an odd number: the files' colours come in blocks of two by two pixels."""
    height, width = frames_LHWC.shape[1:3]
    return np.ascontiguousarray(frames_LHWC[:, : height - height % 2, : width - width % 2])


def _caption(clip: BoundaryClip) -> str:
    labels = " | ".join(source.label for source in clip.sources)
    return f"{labels}, rate {clip.plan.rate:g}" if clip.plan.kind == "diff-speed" else labels


def _table_row(file: str, clip: BoundaryClip) -> tuple[str, ...]:
    plan = clip.plan
    point = plan.change_point
    change = ("", "") if point is None else (str(point), f"{point / FPS:g}")
    sources = [
        (source.label, str(source.path), " ".join(map(str, frames)))
        for source, frames in zip(clip.sources, plan.frames, strict=True)
    ]
    sources += [("", "", "")] * (2 - len(sources))
    return (file, plan.kind, *change, f"{plan.rate:g}", *sources[0], *sources[1])


def _write_table(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    write_text(path, text.getvalue())
