"""Boundary clips on disk, for others to train with and for a person to look at.

OUT/clips/diff-class/000000.mp4 ...   the clips, as training sees them: a tree that `--clips` of any command takes
OUT/boundary_clips.csv                of each its kind, change point, rate and sources; written last
OUT/diff-class.png ...                a contact sheet of each kind: a row is a clip, a red line its change point
"""

from __future__ import annotations

from pathlib import Path

from pipeline.boundary_clips import BoundaryBatches


def write_boundary_clips(out: Path, batches: BoundaryBatches, count: int, *, num_workers: int = 1) -> dict[str, str]:
    """Write the first `count` boundary clips of epoch 0, their table and the contact sheets.

    Args:
        out: folder; what is there of an earlier call is written again.
        batches: what makes the clips; their kinds take turns.
        count: how many.
        num_workers: threads that make and encode clips.

    Returns:
        Source files that could not be used, with the reason.

    Raises:
        ValueError: fewer than one clip is asked for, or not one can be made.
    """
    raise NotImplementedError
