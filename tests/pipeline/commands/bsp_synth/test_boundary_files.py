"""Boundary clips on disk: the files, their table and the contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from video_files import write_video

from pipeline.clips.batches import ClipForm
from pipeline.clips.reading import Clip, read_clips
from pipeline.commands.bsp_synth.boundary_clips import BoundaryBatches
from pipeline.commands.bsp_synth.boundary_files import write_boundary_clips
from pipeline.data.video import probe_video, read_frames
from pipeline.show.contact_sheet import Row, write_contact_sheet
from synth.boundaries import Synthesis

FORM = ClipForm(num_frames=8, frame_stride=2, resize=65, size=65)
RED = (220, 30, 30)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("clips")
    files = [write_video(folder / f"{name}.mp4", 40, fps=10) for name in ("a1", "a2", "b1", "b2")]
    return [Clip(file, file.stem[0], None, None, "training") for file in files]


def batches_of(clips: list[Clip]) -> BoundaryBatches:
    return BoundaryBatches(clips, FORM, Synthesis(), seed=0, size=100, mirror=False)


def test_clips_table_and_sheets(clips: list[Clip], tmp_path: Path) -> None:
    batches = batches_of(clips)
    assert write_boundary_clips(tmp_path, batches, 10) == {}
    table = pd.read_csv(tmp_path / "boundary_clips.csv")
    assert table["kind"].tolist()[:5] == ["diff-class", "same-class", "diff-speed", "same-speed", "diff-class"]
    assert len(table) == len(list(tmp_path.rglob("*.mp4"))) == 10
    assert {path.name for path in tmp_path.iterdir()} == {
        "clips", "boundary_clips.csv", "diff-class.png", "same-class.png", "diff-speed.png", "same-speed.png",
    }  # fmt: skip
    for index, row in table.iterrows():
        made = batches.make(0, int(str(index)), [])
        assert made is not None
        info = probe_video(tmp_path / row["file"])
        assert (info.num_frames, info.width, info.height) == (8, 64, 64)
        shown = np.stack(list(read_frames(info.path, range(8)))).astype(int)
        expected = made.frames.permute(0, 2, 3, 1).numpy()[:, :64, :64].astype(int)
        assert np.abs(shown - expected).mean() < 12
        assert row["rate"] == made.plan.rate
        assert row["source_1"] == str(made.sources[0].path)
        assert [int(frame) for frame in row["frames_1"].split()] == made.plan.frames[0].tolist()
        if made.plan.change_point is None:
            assert np.isnan(row["change_point_frames"])
            assert np.isnan(row["change_point_seconds"])
        else:
            assert row["change_point_frames"] == made.plan.change_point
            # The first frame after the change appears then.
            assert row["change_point_seconds"] == pytest.approx(info.timestamps[made.plan.change_point])


def test_the_clips_are_a_tree_of_classes(clips: list[Clip], tmp_path: Path) -> None:
    write_boundary_clips(tmp_path, batches_of(clips), 8)
    found = read_clips(tmp_path / "clips")
    assert found.labels == ("diff-class", "diff-speed", "same-class", "same-speed")
    assert len(found.clips) == 8


def test_writing_again_gives_the_same_bytes(clips: list[Clip], tmp_path: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}

    write_boundary_clips(tmp_path, batches_of(clips), 5)
    first = contents()
    write_boundary_clips(tmp_path, batches_of(clips), 5, num_workers=1)
    assert contents() == first


def test_sources_that_are_no_good_are_named(clips: list[Clip], tmp_path: Path) -> None:
    missing = Clip(tmp_path / "missing.mp4", "a", None, None, "training")
    failed = write_boundary_clips(tmp_path / "out", batches_of([*clips, missing]), 12)
    assert list(failed) == [str(missing.path)]
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 12


def test_what_cannot_be_written(clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 boundary clips are to be written; give 1 or more"):
        write_boundary_clips(tmp_path / "out", batches_of(clips), 0)
    missing = [Clip(tmp_path / f"{label}{i}.mp4", label, None, None, "training") for label in "ab" for i in range(2)]
    with pytest.raises(ValueError, match="no boundary clip can be made"):
        write_boundary_clips(tmp_path / "out", batches_of(missing), 4)
    assert not (tmp_path / "out").exists()


# --- Contact sheets ---------------------------------------------------------------------------------------------------


def greys(*values: int) -> NDArray[np.uint8]:
    return np.stack([np.full((32, 48, 3), value, np.uint8) for value in values])


def red_columns(sheet: NDArray[np.uint8], rows: slice) -> list[int]:
    return np.flatnonzero((sheet[rows] == RED).all(axis=-1).any(axis=0)).tolist()


def test_a_red_line_stands_at_the_change_point(tmp_path: Path) -> None:
    """Frames of 32×48 are shown 3 times as large, 6 pixels apart."""
    write_contact_sheet(tmp_path / "s.png", [Row("a", greys(10, 20, 30), 2), Row("b", greys(40, 50, 60), None)])
    sheet = np.asarray(Image.open(tmp_path / "s.png"))
    assert sheet.shape == (2 * (16 + 96 + 6), 6 + 3 * 150, 3)
    assert red_columns(sheet, slice(0, 118)) == [301, 302, 303, 304]  # between the second frame's end and the third
    assert red_columns(sheet, slice(118, None)) == []
    assert [int(sheet[60, 6 + 150 * place + 70, 0]) for place in range(3)] == [10, 20, 30]
    assert [int(sheet[178, 6 + 150 * place + 70, 0]) for place in range(3)] == [40, 50, 60]
    assert (sheet[2:14, 6:20] < 100).any()  # the caption
    assert [path.name for path in tmp_path.iterdir()] == ["s.png"]
