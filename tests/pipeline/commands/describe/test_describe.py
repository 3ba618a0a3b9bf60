import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.commands.describe.command import run
from pipeline.commands.describe.options import DescribeConfig
from pipeline.data.annotations import Segment, Video, write_annotations
from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline


def described(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The lines of the output; continued lines are joined."""
    assert not run(DescribeConfig(path=path)).failed
    lines: dict[str, str] = {}
    for line in capsys.readouterr().out.splitlines():
        name, _, value = line.partition("  ")
        key = name or list(lines)[-1]
        lines[key] = f"{lines[key]} | {value.strip()}" if key in lines else value.strip()
    return lines


def test_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_twice = (Segment(0, 20, "run"), Segment(10, 30, "run"))
    write_annotations(
        tmp_path / "a.json",
        [
            Video("a", 100.0, "training", run_twice),  # they overlap: 30 s are covered
            Video("b", 50.0, "training", ()),
            Video("c", 50.0, "validation", (Segment(0, 80, "jump"),)),
        ],
    )
    assert described(tmp_path / "a.json", capsys) == {
        "videos": "3 (training 2, validation 1)",
        "segments": "3 (training 2, validation 1)",
        "segments a video": "0 to 2, median 1",
        "classes": "2",
        "segments a class": "1 to 2, median 1.5 (fewest 'jump', most 'run')",
        "segment length": "20 to 50 s, median 20 s",
        "video duration": "50 to 100 s, median 50 s",
        "covered by segments": "40.0% of 0.06 h",
        "blemishes": "videos without segments (kept): 1 | segments past the end of the video (cut): 1",
    }


def test_csv_without_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("video,start,end,label,subset\na,,,,testing\n")
    lines = described(tmp_path / "a.csv", capsys)
    assert lines["segments"] == lines["classes"] == "0"
    assert lines["video duration"] == "not in the file"
    assert lines["blemishes"] == "none"


def test_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("run/a.mp4", "run/b_000000_000009.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = ["run,a,3,7.5,train", "run,b,0,9,val", "run,gone,0,9,val"]
    (tmp_path / "k.csv").write_text("label,youtube_id,time_start,time_end,split\n" + "\n".join(rows))
    lines = described(tmp_path / "k.csv", capsys)
    assert lines["clips"] == "2 (training 1, validation 1)"
    assert lines["trimmed files"] == "1"
    assert lines["length in longer files"] == "4.5 to 4.5 s, median 4.5 s"
    assert lines["blemishes"] == "clips without a file (skipped): 1"
    assert described(tmp_path, capsys)["trimmed files"] == "2"


def test_feature_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = StoreHeader(encoder={"name": "tsm_r18", "size": None}, weights="abc", sampling={"step": 8})
    timeline = Timeline(offset=0.0, stride=0.5, length=1.0)
    random = np.random.default_rng(0)
    with FeatureStore.create_or_resume(tmp_path / "store", header) as store:
        for video_id, rows in (("a", 4), ("b", 10), ("c", 6), ("d", 5)):
            store.add(video_id, random.normal(size=(rows, 3)).astype(np.float32), timeline, rows / 2)
    np.save(tmp_path / "store" / "b.npy", np.full((10, 3), np.nan, np.float32))
    np.save(tmp_path / "store" / "c.npy", np.ones((6, 3), np.float32))
    (tmp_path / "store" / "d.npy").unlink()
    assert described(tmp_path / "store", capsys) == {
        "videos": "4",
        "rows a video": "4 to 10, median 5.5",
        "channels": "3",
        "seconds a row": "0.5 to 0.5 s, median 0.5 s",
        "video duration": "2 to 5 s, median 2.75 s",
        "stored as": "float32",
        "encoder": "name tsm_r18",
        "weights": "abc",
        "sampling": "step 8",
        "blemishes": (
            "videos with NaN or infinite features: 1 | videos whose rows are all the same: 1"
            " | videos whose file is missing or damaged: 1"
        ),
    }


def test_a_store_of_two_streams_names_both_encoders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streams = StoreHeader(encoder={"name": "i3d"}, weights="abc"), StoreHeader(encoder={"name": "i3d_flow"})
    FeatureStore.create_or_resume(tmp_path / "store", StoreHeader(streams=streams)).close()
    lines = described(tmp_path / "store", capsys)
    assert lines["encoder"] == "name i3d | name i3d_flow"
    assert lines["weights"] == "abc | unknown"


def test_a_refined_store_names_its_module_and_parent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sola = {"module": {"channels": 3, "form": "adapter"}, "weights": "abc", "parent": "store"}
    FeatureStore.create_or_resume(tmp_path / "refined", StoreHeader(sola=sola)).close()
    assert described(tmp_path / "refined", capsys)["refined by"] == "SoLa, channels 3, form adapter; from store"


def test_empty_store_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FeatureStore.create_or_resume(tmp_path / "store", StoreHeader()).close()
    assert described(tmp_path / "store", capsys) == {
        "videos": "0",
        "stored as": "float32",
        "encoder": "made elsewhere",
        "weights": "unknown",
        "sampling": "unknown",
        "blemishes": "none",
    }


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone: no such file or folder"):
        run(DescribeConfig(path=tmp_path / "gone"))
    with pytest.raises(ValueError, match="no video file in"):
        run(DescribeConfig(path=tmp_path))
    (tmp_path / "a.json").write_text(json.dumps([]))
    with pytest.raises(ValueError, match="not in the ActivityNet form"):
        run(DescribeConfig(path=tmp_path / "a.json"))
