"""Side files in the spellings of several places give the same rates and durations."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.annotations.video_info import SideInfo, read_video_info


def info_of(tmp_path: Path, text: str, name: str = "info.csv") -> dict[str, SideInfo]:
    (tmp_path / name).write_text(text)
    return read_video_info(tmp_path / name)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("video,fps,duration,frames", "a,25,8,200"),
        ("video,fps,duration", "a.mp4,25.0,8"),
        ("video,fps,frames", "a,25,200"),
        ("video,duration,frames", "a,8,200"),
        ("Video-Name;Frame_Rate;n-frames", "a;25;200"),
        ("filename,fps,video-duration,video-frames", "a.avi,25,8,200"),
    ],
)
def test_the_same_in_many_spellings(tmp_path: Path, header: str, line: str) -> None:
    assert info_of(tmp_path, f"{header}\n{line}\n") == {"a": SideInfo(25.0, 8.0, None)}


def test_activitynets_columns(tmp_path: Path) -> None:
    """numFrame / seconds is rfps; fps is rounded; the features stand for the first 400 frames."""
    infos = info_of(
        tmp_path,
        "video,numFrame,seconds,fps,rfps,subset,featureFrame\nv_---9CpRcKoU,418,14.07,30.0,29.7085998579,training,400\n",
    )
    info = infos["v_---9CpRcKoU"]
    assert info.fps == pytest.approx(418 / 14.07)
    assert info.duration == 14.07
    assert info.feature_duration == pytest.approx(400 / 29.7085998579)


@pytest.mark.parametrize(
    "tree",
    [
        {"a": {"fps": 25.0, "duration": 8.0}},
        {"version": "1", "database": {"a": {"subset": "Test", "duration": 8, "fps": 25, "annotations": []}}},
        {"a.mp4": {"duration_second": 8.0, "duration_frame": 200}},
        [{"video": "a", "fps": 25, "frames": 200}],
    ],
)
def test_json(tmp_path: Path, tree: Any) -> None:
    assert info_of(tmp_path, json.dumps(tree), "info.json") == {"a": SideInfo(25.0, 8.0, None)}


def test_what_is_no_number_above_zero_is_unknown(tmp_path: Path) -> None:
    assert info_of(tmp_path, json.dumps({"a": {"fps": 10**400, "duration": 8}}), "info.json")["a"].fps is None
    infos = info_of(tmp_path, "video,fps,duration\na,0,8\nb,n/a,\nc,25,-1\nd,nan,inf\n")
    assert infos == {
        "a": SideInfo(None, 8.0, None),
        "b": SideInfo(None, None, None),
        "c": SideInfo(25.0, None, None),
        "d": SideInfo(None, None, None),
    }


def test_lines_that_repeat_a_video_must_agree(tmp_path: Path) -> None:
    assert list(info_of(tmp_path, "video,fps,start\na,25,0\na,25,3\n")) == ["a"]
    with pytest.raises(ValueError, match=r"info\.csv, line 3: says otherwise of video 'a'"):
        info_of(tmp_path, "video,fps\na,25\na,30\n")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("info.csv", "fps,duration\n25,8\n", "no column that names the video among fps, duration"),
        ("info.csv", "video,width\na,320\n", "neither frame rates nor durations"),
        ("info.csv", "", "neither frame rates nor durations"),
        ("info.json", "[1, 2]", "expected"),
        ("info.json", '{"a": 25}', "expected"),
        ("info.json", "{", "not JSON"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        info_of(tmp_path, text, name)
    assert name in str(error.value)
