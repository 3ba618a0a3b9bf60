"""Others' .npy files become a store, or are refused one by one with the reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import ImportFeaturesConfig
from pipeline.data.features import FeatureStore
from pipeline.data.snippets import Timeline
from pipeline.import_features import run


def write_annotations(path: Path, durations: dict[str, float | None]) -> Path:
    database = {
        video_id: {"subset": "training", "annotations": []} | ({} if duration is None else {"duration": duration})
        for video_id, duration in durations.items()
    }
    path.write_text(json.dumps({"database": database}))
    return path


def write_features(folder: Path, **arrays: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def config(tmp_path: Path, durations: dict[str, float | None], **options: Any) -> ImportFeaturesConfig:
    annotations = write_annotations(tmp_path / "gt.json", durations)
    return ImportFeaturesConfig(features=tmp_path / "npy", out=tmp_path / "store", annotations=annotations, **options)


def test_rows_share_the_duration_when_no_stride_is_given(tmp_path: Path) -> None:
    features_TC = np.random.default_rng(0).standard_normal((5, 3))
    write_features(tmp_path / "npy", a=features_TC)
    assert run(config(tmp_path, {"a": 10.0})) == 0
    store = FeatureStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.load("a"), features_TC.astype(np.float32))
    assert store.videos["a"].timeline == Timeline(offset=0.0, stride=2.0, length=2.0)
    assert store.videos["a"].duration == 10.0
    assert store.header.encoder is None


def test_stride_length_and_offset_are_as_told(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((5, 3)))
    assert run(config(tmp_path, {"a": 10.0}, stride=1.5, length=3.0, offset=0.5)) == 0
    store = FeatureStore.open(tmp_path / "store")
    assert store.videos["a"].timeline == Timeline(offset=0.5, stride=1.5, length=3.0)


def test_ids_match_with_and_without_their_prefix(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", v_a=np.zeros((2, 3)), b=np.ones((2, 3)))
    assert run(config(tmp_path, {"a": 4.0, "v_b": 6.0})) == 0
    videos = FeatureStore.open(tmp_path / "store").videos
    assert {video_id: video.duration for video_id, video in videos.items()} == {"v_a": 4.0, "b": 6.0}


def test_a_video_of_one_row(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((1, 3)))
    assert run(config(tmp_path, {"a": 4.0})) == 0
    assert FeatureStore.open(tmp_path / "store").videos["a"].timeline.stride == 4.0


def test_bad_files_are_listed_and_the_good_ones_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {
        "flat": np.zeros(6),
        "turned": np.zeros((3, 7)),
        "cube": np.zeros((1, 7, 3)),
        "empty": np.zeros((0, 3)),
        "nan": np.array([[0, np.nan, 0]]),
        "whole": np.zeros((7, 3), np.int64),
        "stranger": np.zeros((7, 3)),
        "timeless": np.zeros((7, 3)),
    }
    folder = write_features(tmp_path / "npy", a=np.zeros((7, 3)), z=np.zeros((8, 3)), **bad)
    (folder / "text.npy").write_text("no array")
    (folder / "void.npy").write_bytes(b"")
    np.save(folder / "object.npy", np.array([{}]), allow_pickle=True)
    known = [*bad, "a", "z", "text", "void", "object"]
    known.remove("stranger")
    durations: dict[str, float | None] = dict.fromkeys(known, 14.0)
    assert run(config(tmp_path, durations | {"timeless": None})) == 1
    assert list(FeatureStore.open(tmp_path / "store").videos) == ["a", "z"]
    told = capsys.readouterr().err
    assert "11 files were refused" in told
    for name in [*bad, "text", "void", "object"]:
        assert f"{name}.npy: " in told
    assert "(3, 7), expected (T, 3)" in told
    assert "names no video stranger" in told


def test_a_rerun_imports_what_was_missing(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((2, 3)), b=np.full((2, 3), np.nan))
    assert run(config(tmp_path, {"a": 4.0, "b": 4.0})) == 1
    write_features(tmp_path / "npy", b=np.ones((2, 3)))
    assert run(config(tmp_path, {"a": 4.0, "b": 4.0})) == 0
    assert list(FeatureStore.open(tmp_path / "store").videos) == ["a", "b"]


def test_another_stride_is_refused(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((2, 3)))
    run(config(tmp_path, {"a": 4.0}))
    with pytest.raises(ValueError, match=r"sampling.stride_s: None, not 2.0"):
        run(config(tmp_path, {"a": 4.0}, stride=2.0))


def test_a_stride_that_does_not_fit_and_absent_videos_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_features(tmp_path / "npy", a=np.zeros((5, 3)))
    assert run(config(tmp_path, {"a": 10.0, "b": 10.0, "c": 10.0}, stride=1.0)) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "annotated videos without features: 2" in told
    assert "away from their own end: 1, such as a" in told


def test_a_length_alone_is_refused(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((5, 3)))
    with pytest.raises(ValueError, match="--length without --stride"):
        run(config(tmp_path, {"a": 10.0}, length=2.0))


def test_no_features_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        run(config(tmp_path, {"a": 10.0}))
    (tmp_path / "npy").mkdir()
    with pytest.raises(ValueError, match=r"holds no \.npy file"):
        run(config(tmp_path, {"a": 10.0}))
    (tmp_path / "npy" / "manifest.jsonl").touch()
    with pytest.raises(ValueError, match="a feature store already"):
        run(config(tmp_path, {"a": 10.0}))
