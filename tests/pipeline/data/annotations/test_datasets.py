"""The annotation files of the public data sets, each in its layout, and what is wrong with them."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import (
    write_actionformer_thumos14,
    write_bsn,
    write_charades_sta,
    write_gtad_thumos14,
    write_hacs,
    write_thumos14_tables,
    write_thumos14_texts,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from pipeline.commands.describe.command import run as describe
from pipeline.commands.describe.options import DescribeConfig
from pipeline.commands.evaluate.command import evaluate
from pipeline.commands.evaluate.options import EvaluateConfig
from pipeline.data.annotations import Segment, Video, holds_annotations, read_annotations, write_annotations
from pipeline.data.detections import Detection, Detections
from pipeline.data.files import plain_label

THUMOS14 = [
    Video("video_validation_0000051", 60.0, "validation", (Segment(1.5, 9.0, "Billiards"), Segment(20, 21, "Diving"))),
    Video("video_validation_0000052", 40.0, "validation", (Segment(2.0, 3.5, "Diving"),)),
    Video("video_test_0000004", 30.0, "test", (Segment(0.2, 1.1, "Billiards"),)),
]
AMBIGUOUS = Video("video_test_0001292", 50.0, "test", (Segment(3.0, 4.0, "Ambiguous"),))
ACTIVITYNET = [
    Video("v_a", 30.0, "training", (Segment(1.0, 9.0, "Surfing"),)),
    Video("v_b", 20.0, "validation", (Segment(2.5, 9.0, "Ballet"), Segment(11, 12, "Ballet"))),
    Video("v_c", 20.0, "testing", ()),
]
CHARADES = [
    Video("AO8RW", 33.7, "train", (Segment(0.0, 6.9, "a person is putting a book on a shelf."),)),
    Video("3MSZA", 30.1, "test", (Segment(24.3, 30.1, "person turn a light on."), Segment(24, 30, "they turn it off"))),
]


def without_durations(videos: Sequence[Video]) -> dict[str, Video]:
    return {video.id: Video(video.id, None, video.subset, video.segments) for video in videos}


# --- ActivityNet's form -----------------------------------------------------------------------------------------------


def test_hacs(tmp_path: Path) -> None:
    annotations = read_annotations(write_hacs(tmp_path, ACTIVITYNET))
    assert annotations.videos == {video.id: video for video in ACTIVITYNET}
    assert annotations.blemishes == {}


def test_the_json_of_gtad_for_thumos14(tmp_path: Path) -> None:
    annotations = read_annotations(write_gtad_thumos14(tmp_path, THUMOS14))
    assert [video.segments for video in annotations.videos.values()] == [video.segments for video in THUMOS14]
    assert annotations.blemishes == {}


def test_the_json_of_actionformer_for_thumos14(tmp_path: Path) -> None:
    annotations = read_annotations(write_actionformer_thumos14(tmp_path, THUMOS14))
    assert annotations.videos["video_test_0000004"] == Video("video_test_0000004", 30.0, "Test", THUMOS14[2].segments)
    assert annotations.blemishes == {}  # neither `Test` nor `Validation` is an unknown subset


@pytest.mark.parametrize(
    "write",
    [write_gtad_thumos14, write_actionformer_thumos14, write_thumos14_texts, write_thumos14_tables],
)
def test_one_name_finds_the_subset_of_every_thumos14_file(
    tmp_path: Path, write: Callable[[Path, Sequence[Video]], Path]
) -> None:
    annotations = read_annotations(write(tmp_path, THUMOS14))
    assert list(annotations.in_subset("validation|train")) == [THUMOS14[0].id, THUMOS14[1].id]
    assert list(annotations.in_subset("TEST")) == ["video_test_0000004"]


def test_alternative_subsets_are_not_joined(tmp_path: Path) -> None:
    write_annotations(tmp_path / "a.json", [Video("a", 1.0, "train", ()), Video("b", 1.0, "val", ())])
    annotations = read_annotations(tmp_path / "a.json")
    assert list(annotations.in_subset("val|train")) == ["b"]
    with pytest.raises(ValueError, match=r"subset 'x\|y'; the subsets of this file are 'train' \(1 videos\), 'val'"):
        annotations.in_subset("x|y")


# --- BSN's form of ActivityNet ----------------------------------------------------------------------------------------


def test_bsn(tmp_path: Path) -> None:
    annotations = read_annotations(write_bsn(tmp_path, ACTIVITYNET))
    # 30 s at 25 frames a second are 750 frames, of which 46 blocks of 16 are 736.
    assert annotations.videos["v_a"] == Video("v_a", 30.0, "training", ACTIVITYNET[0].segments, 736 / 750 * 30)
    assert annotations.videos["v_b"].feature_duration == pytest.approx(496 / 500 * 20)
    assert [video.subset for video in annotations.videos.values()] == ["training", "validation", "testing"]
    assert annotations.blemishes == {}


def test_bsn_survives_being_written(tmp_path: Path) -> None:
    videos = read_annotations(write_bsn(tmp_path, ACTIVITYNET)).videos
    write_annotations(tmp_path / "a.json", videos.values())
    assert read_annotations(tmp_path / "a.json").videos == videos


def test_bsn_with_a_csv_of_a_like_name_and_an_older_one(tmp_path: Path) -> None:
    path = write_bsn(tmp_path, ACTIVITYNET)
    (tmp_path / "video_info_new.csv").rename(tmp_path / "anet13_video_info_new.csv")
    (tmp_path / "a_video_info.csv").write_text("video,subset\nv_a,validation\n")
    (tmp_path / "a_video_info_new.csv").write_text("video,seconds\nv_a,3\n")
    assert read_annotations(path).videos["v_a"].subset == "training"


def test_bsn_with_holes(tmp_path: Path) -> None:
    path = write_bsn(tmp_path, ACTIVITYNET)
    data = json.loads(path.read_text())
    del data["v_a"]["feature_frame"]
    data["v_b"]["feature_frame"] = -1
    data["v_new"] = data["v_c"]
    path.write_text(json.dumps(data))
    annotations = read_annotations(path)
    assert annotations.videos["v_a"].feature_duration is annotations.videos["v_b"].feature_duration is None
    assert annotations.videos["v_new"].subset == ""
    assert annotations.blemishes["videos without a subset, which others have (used nowhere)"] == 1


def test_bsn_without_the_csv(tmp_path: Path) -> None:
    path = write_bsn(tmp_path, ACTIVITYNET)
    (tmp_path / "video_info_new.csv").unlink()
    with pytest.raises(ValueError, match=r"anet_anno_action\.json has no subsets.*video_info_new\.csv.*beside it"):
        read_annotations(path)


# --- THUMOS14's text files --------------------------------------------------------------------------------------------


def write_meta(folder: Path, videos: Sequence[Video]) -> None:
    """The challenge's two meta files, structs as MATLAB saves them."""
    names = {"validation": ("validation_set.mat", "validation_videos"), "test": ("test_set_meta.mat", "test_videos")}
    for subset, (file, key) in names.items():
        rows = [(v.id, float(v.duration or 0), 30.0) for v in videos if v.subset == subset]
        fields = [("video_name", object), ("video_duration_seconds", object), ("frame_rate_FPS", object)]
        savemat(folder / file, {key: np.array(rows, dtype=fields)})


def test_thumos14_texts(tmp_path: Path) -> None:
    annotations = read_annotations(write_thumos14_texts(tmp_path, THUMOS14))
    assert annotations.videos.keys() == {video.id for video in THUMOS14}
    for video in without_durations(THUMOS14).values():
        found = annotations.videos[video.id]
        assert (found.duration, found.subset, set(found.segments)) == (None, video.subset, set(video.segments))
    assert annotations.blemishes == {}


def test_thumos14_texts_with_their_meta_files(tmp_path: Path) -> None:
    write_meta(write_thumos14_texts(tmp_path, THUMOS14), [*THUMOS14, Video("background", 3.0, "validation", ())])
    videos = read_annotations(tmp_path).videos
    assert {video.id: video.duration for video in videos.values()} == {video.id: video.duration for video in THUMOS14}


def test_thumos14_tables(tmp_path: Path) -> None:
    assert read_annotations(write_thumos14_tables(tmp_path, THUMOS14)).videos == {video.id: video for video in THUMOS14}


def test_ambiguous_is_dropped_or_kept_and_never_a_class(tmp_path: Path) -> None:
    write_thumos14_texts(tmp_path, [*THUMOS14, AMBIGUOUS])
    dropped, kept = read_annotations(tmp_path), read_annotations(tmp_path, ambiguous="keep")
    assert dropped.videos[AMBIGUOUS.id].segments == ()
    assert dropped.blemishes == {"segments labelled Ambiguous (dropped)": 1}
    assert kept.videos[AMBIGUOUS.id].segments == AMBIGUOUS.segments
    assert kept.blemishes == {}
    assert kept.labels == dropped.labels == ("Billiards", "Diving")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_test_0000004 1.0\n", r"Diving_test\.txt, line 1: expected VIDEO START END with times"),
        ("\nvideo_test_0000004 1.0 x", r"Diving_test\.txt, line 2: expected VIDEO START END"),
        ("video_test_0000004 1 2 3", "expected VIDEO START END"),
        ("video_test_0000004 1 nan", r"line 1: segment \[1.0, nan\] is not finite"),
        ("../a 1 2", "line 1: .*cannot name a file"),
        (b"\xff\xfe", r"Diving_test\.txt is not UTF-8 text"),
    ],
)
def test_malformed_thumos14_lines(tmp_path: Path, text: str | bytes, message: str) -> None:
    (tmp_path / "Diving_test.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_annotations(tmp_path)


def test_malformed_thumos14_table(tmp_path: Path) -> None:
    (tmp_path / "val_Annotation.csv").write_text("video,type,start,end\na,Diving,1,2\nb,Diving,1,\n")
    with pytest.raises(ValueError, match=r"val_Annotation\.csv, line 3: '' is not a time"):
        read_annotations(tmp_path)


def test_the_same_annotations_twice(tmp_path: Path) -> None:
    write_thumos14_texts(tmp_path / "a", THUMOS14)
    write_thumos14_texts(tmp_path / "b", THUMOS14)
    with pytest.raises(ValueError, match=r"/a/.* and .*/b/.* annotate the same; give the folder of one"):
        read_annotations(tmp_path)


def test_a_video_in_both_subsets_of_thumos14(tmp_path: Path) -> None:
    """Else segments to train on would be scored as truth."""
    write_thumos14_texts(tmp_path, THUMOS14)
    with (tmp_path / "TH14_Temporal_annotations_test" / "annotation" / "Billiards_test.txt").open("a") as file:
        file.write("video_validation_0000051 1.0 2.0\n")
    with pytest.raises(ValueError, match=r"_val\.txt: .*_0000051' is in the subset 'validation' here and in 'test' in"):
        read_annotations(tmp_path)


def test_a_list_of_clips_is_no_text_of_thumos14(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    for name in ("a", "b"):
        (tmp_path / "run" / f"{name}.mp4").touch()
    (tmp_path / "list_val.txt").write_text("run/a.mp4 0\n")
    assert not holds_annotations(tmp_path)
    assert not describe(DescribeConfig(path=tmp_path)).failed
    assert "clips" in capsys.readouterr().out


def test_damaged_meta_files(tmp_path: Path) -> None:
    write_meta(write_thumos14_texts(tmp_path, THUMOS14), THUMOS14)
    meta = tmp_path / "test_set_meta.mat"
    meta.write_bytes(meta.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"test_set_meta\.mat: no durations can be read from it .*unpack it again"):
        read_annotations(tmp_path)


def test_meta_files_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return importing(name, *rest)

    importing = builtins.__import__
    write_meta(write_thumos14_texts(tmp_path, THUMOS14), THUMOS14)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match=r"pip install 'tal-pipeline\[thumos14\]'"):
        read_annotations(tmp_path)


# --- Charades-STA -----------------------------------------------------------------------------------------------------


def test_charades_sta(tmp_path: Path) -> None:
    annotations = read_annotations(write_charades_sta(tmp_path, CHARADES))
    assert sorted(annotations.videos.values(), key=str) == sorted(CHARADES, key=str)
    assert annotations.blemishes == {}


def test_one_file_of_charades_sta(tmp_path: Path) -> None:
    write_charades_sta(tmp_path, CHARADES)
    assert list(read_annotations(tmp_path / "charades_sta_train.txt").videos.values()) == [CHARADES[0]]
    for table in (tmp_path / "Charades").iterdir():
        table.unlink()
    assert read_annotations(tmp_path / "charades_sta_test.txt").videos == without_durations(CHARADES[1:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AO8RW 0.0 6.9 a person", r"a\.txt, line 1: expected VIDEO START END##SENTENCE with times in seconds, found"),
        ("AO8RW 0.0##a person", "line 1: expected VIDEO START END##SENTENCE"),
        ("AO8RW 0.0 1.0##  ", "line 1: segment .* has the label '': expected a name"),
    ],
)
def test_malformed_charades_lines(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_annotations(tmp_path / "a.txt")


def test_a_video_in_both_subsets_of_charades_sta(tmp_path: Path) -> None:
    write_charades_sta(tmp_path, CHARADES)
    with (tmp_path / "charades_sta_train.txt").open("a") as file:
        file.write("3MSZA 1.0 2.0##a person sits\n")
    with pytest.raises(
        ValueError, match=r"sta_train\.txt: the video '3MSZA' is in the subset 'train' here and in 'test'"
    ):
        read_annotations(tmp_path)


def test_malformed_charades_table(tmp_path: Path) -> None:
    write_charades_sta(tmp_path, CHARADES)
    (tmp_path / "Charades" / "Charades_v1_test.csv").write_text("id,length\n3MSZA,long\n")
    with pytest.raises(ValueError, match=r"Charades_v1_test\.csv, line 2: the length 'long' is no number of seconds"):
        read_annotations(tmp_path)


sentences = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1).filter(plain_label)


@given(st.lists(st.tuples(st.floats(0, 99), st.floats(0.01, 99), sentences), min_size=1))
def test_every_sentence_arrives(
    tmp_path_factory: pytest.TempPathFactory, moments: list[tuple[float, float, str]]
) -> None:
    file = tmp_path_factory.mktemp("sta") / "charades_sta_test.txt"
    lines = [f"AO8RW {start} {start + length}##{sentence}" for start, length, sentence in moments]
    file.write_bytes("\r\n".join(lines).encode())
    [video] = read_annotations(file, as_written=True).videos.values()
    assert video.segments == tuple(Segment(s, s + length, plain_label(sentence)) for s, length, sentence in moments)


# --- Folders, and the commands ----------------------------------------------------------------------------------------


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    assert not holds_annotations(tmp_path)
    with pytest.raises(ValueError, match=r"neither THUMOS14's .* nor those of Charades-STA"):
        read_annotations(tmp_path)


LAYOUTS: list[tuple[Callable[[Path, Sequence[Video]], Path], list[Video]]] = [
    (write_hacs, ACTIVITYNET),
    (write_bsn, ACTIVITYNET),
    (write_gtad_thumos14, THUMOS14),
    (write_actionformer_thumos14, THUMOS14),
    (write_thumos14_texts, THUMOS14),
    (write_thumos14_tables, THUMOS14),
    (write_charades_sta, CHARADES),
]


@pytest.mark.parametrize(("write", "videos"), LAYOUTS)
def test_describe_reports_on_every_layout(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    write: Callable[[Path, Sequence[Video]], Path],
    videos: list[Video],
) -> None:
    assert not describe(DescribeConfig(path=write(tmp_path, videos))).failed
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["videos"].split()[0] == str(len(videos))
    assert lines["segments"].split()[0] == str(sum(len(video.segments) for video in videos))
    assert lines["classes"].strip() == str(len({s.label for video in videos for s in video.segments}))
    assert lines["blemishes"].strip() == "none"


@pytest.mark.parametrize(("write", "videos"), LAYOUTS)
def test_evaluate_takes_every_layout_as_ground_truth(
    tmp_path: Path, write: Callable[[Path, Sequence[Video]], Path], videos: list[Video]
) -> None:
    chosen = [video for video in videos if video.subset in ("validation", "test")][-1]
    found = [Detection(segment.start, segment.end, segment.label, 0.9) for segment in chosen.segments]
    Detections.from_videos({chosen.id: found}).to_json(tmp_path / "found.json")
    metrics, notes = evaluate(
        EvaluateConfig(
            ground_truth=write(tmp_path, videos), predictions=tmp_path / "found.json", subset="test|validation"
        )
    )
    assert metrics["average_map"] == pytest.approx(100)
    assert not any(notes.values())
