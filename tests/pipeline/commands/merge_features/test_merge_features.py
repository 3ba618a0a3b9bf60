"""Features side by side: the same seconds in every stream, or an error that says which."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.commands.merge_features import command as merge_features
from pipeline.commands.merge_features.options import MergeFeaturesConfig
from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.features.streams import join_streams
from pipeline.data.snippets import Timeline

TIMELINE = Timeline(offset=0.0, stride=0.5, length=1.0)
RGB = StoreHeader({"name": "rgb"}, "0" * 16, {"step": 4}, "float32")
FLOW = StoreHeader({"name": "flow"}, "1" * 16, {"step": 4}, "float32", "float16")


def rows(count: int, channels: int, value: float) -> npt.NDArray[np.float32]:
    return np.full((count, channels), value, np.float32) + np.arange(count, dtype=np.float32)[:, None]


def write_store(path: Path, header: StoreHeader, lengths: dict[str, int], channels: int, **timeline: float) -> Path:
    with FeatureStore.create_or_resume(path, header) as store:
        for video_id, length in lengths.items():
            store.add(video_id, rows(length, channels, 10.0 * channels), replace(TIMELINE, **timeline), 9.0)
    if header.encoder is not None:
        (path / "encoder.safetensors").write_text(f"weights of {header.encoder['name']}")
    return path


def merge(out: Path, *stores: Path) -> int:
    return merge_features.run(MergeFeaturesConfig(stores=stores, out=out))


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_channels_stand_side_by_side_in_the_order_of_the_stores(tmp_path: Path) -> None:
    first = write_store(tmp_path / "1", RGB, {"a": 5, "b": 4}, channels=2)
    second = write_store(tmp_path / "2", FLOW, {"b": 4, "a": 5}, channels=3)
    assert not merge(tmp_path / "out", first, second).failed
    merged = FeatureStore.open(tmp_path / "out")
    assert merged.header == StoreHeader(streams=(RGB, FLOW))
    assert list(merged.videos) == ["a", "b"]
    np.testing.assert_array_equal(merged.load("a"), np.hstack([rows(5, 2, 20.0), rows(5, 3, 30.0)]))
    assert (merged.videos["a"].timeline, merged.videos["a"].duration) == (TIMELINE, 9.0)
    assert (tmp_path / "out" / "encoder_1.safetensors").read_text() == "weights of rgb"
    assert (tmp_path / "out" / "encoder_2.safetensors").read_text() == "weights of flow"


def test_a_merged_store_is_merged_again(tmp_path: Path) -> None:
    stores = [write_store(tmp_path / str(number), RGB, {"a": 4}, channels=number) for number in (1, 2, 3)]
    assert not merge(tmp_path / "two", *stores[:2]).failed
    assert not merge(tmp_path / "in steps", tmp_path / "two", stores[2]).failed
    assert not merge(tmp_path / "at once", *stores).failed
    assert contents(tmp_path / "in steps") == contents(tmp_path / "at once")


def test_ids_match_across_the_prefix_of_activitynet(tmp_path: Path) -> None:
    first = write_store(tmp_path / "1", RGB, {"v_a": 5}, channels=2)
    second = write_store(tmp_path / "2", RGB, {"a": 5}, channels=2)
    assert not merge(tmp_path / "out", first, second).failed
    assert list(FeatureStore.open(tmp_path / "out").videos) == ["v_a"]


@pytest.mark.parametrize("dtypes", [("float16", "float16"), ("float16", "float32")])
def test_what_was_stored_is_stored_again_without_loss(tmp_path: Path, dtypes: tuple[str, str]) -> None:
    stores = [
        write_store(tmp_path / str(number), replace(RGB, dtype=dtype), {"a": 5}, channels=number)
        for number, dtype in enumerate(dtypes, start=1)
    ]
    assert not merge(tmp_path / "out", *stores).failed
    merged = FeatureStore.open(tmp_path / "out")
    assert merged.header.dtype == max(dtypes, key=lambda dtype: int(dtype[5:]))
    np.testing.assert_array_equal(merged.load("a"), np.hstack([FeatureStore.open(store).load("a") for store in stores]))


def test_the_shorter_stream_counts_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_store(tmp_path / "1", RGB, {"a": 5, "b": 4}, channels=2)
    second = write_store(tmp_path / "2", RGB, {"a": 3, "b": 4}, channels=2)
    assert not merge(tmp_path / "out", first, second).failed
    assert len(FeatureStore.open(tmp_path / "out").load("a")) == 3
    assert "in one store than in another: 1, such as a: [5, 3]; the shorter one counts" in capsys.readouterr().err


def test_streams_of_other_lengths_are_refused_and_the_rest_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_store(tmp_path / "1", RGB, {"a": 7, "b": 4}, channels=2)
    second = write_store(tmp_path / "2", RGB, {"a": 4, "b": 4}, channels=2)
    assert merge(tmp_path / "out", first, second).failed
    assert list(FeatureStore.open(tmp_path / "out").videos) == ["b"]
    assert "a: the streams have 7, 4 rows, which differ by more than 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stride": 0.52}, "1 s every 0.5 s from 0 s on in the first stream, 1 s every 0.52 s from 0 s on in another"),
        ({"length": 0.5}, "0.5 s every 0.5 s from 0 s on in another"),
        ({"offset": 0.25}, "1 s every 0.5 s from 0.25 s on in another"),
    ],
)
def test_rows_of_other_seconds_are_refused_with_the_numbers(wrong: Any, said: str) -> None:
    streams = [rows(5, 2, 0.0), rows(5, 2, 0.0)]
    with pytest.raises(ValueError, match=said):
        join_streams(streams, [TIMELINE, replace(TIMELINE, **wrong)])
    rounded = Timeline(1e-9, 0.5 + 1e-9, 1.0 - 1e-9)
    assert join_streams(streams, [TIMELINE, rounded])[1] == TIMELINE


def test_videos_that_a_store_lacks_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_store(tmp_path / "1", RGB, {"a": 4, "only here": 4}, channels=2)
    second = write_store(tmp_path / "2", RGB, {"a": 4, "only there": 4}, channels=2)
    assert merge(tmp_path / "out", first, second).failed
    assert list(FeatureStore.open(tmp_path / "out").videos) == ["a"]
    told = capsys.readouterr().err
    assert f"only here: {second} has no features of it" in told
    assert f"only there: {first} has no features of it" in told


def test_a_rerun_does_what_is_missing_and_ends_with_the_same_store(tmp_path: Path) -> None:
    stores = [write_store(tmp_path / name, RGB, {"a": 4, "b": 4}, channels=2) for name in ("1", "2")]
    assert not merge(tmp_path / "out", *stores).failed
    whole = contents(tmp_path / "out")
    (tmp_path / "out" / "b.npy").unlink()
    (tmp_path / "out" / "encoder_2.safetensors").unlink()
    assert not merge(tmp_path / "out", *stores).failed
    assert contents(tmp_path / "out") == whole


def test_another_merge_is_refused_with_what_differs(tmp_path: Path) -> None:
    stores = [write_store(tmp_path / name, header, {"a": 4}, channels=2) for name, header in (("1", RGB), ("2", FLOW))]
    assert not merge(tmp_path / "out", *stores).failed
    with pytest.raises(ValueError, match=r"streams\.1\.encoder\.name: rgb, not flow"):
        merge(tmp_path / "out", *reversed(stores))


def test_what_cannot_be_merged_at_all_says_why(tmp_path: Path) -> None:
    first = write_store(tmp_path / "1", RGB, {"a": 4}, channels=2)
    second = write_store(tmp_path / "2", RGB, {"b": 4}, channels=2)
    with pytest.raises(ValueError, match="two stores or more"):
        merge(tmp_path / "out", first)
    with pytest.raises(ValueError, match="no video is in all of"):
        merge(tmp_path / "out", first, second)
    refined = replace(FLOW, sola={"module": {}, "weights": "2" * 16, "parent": "store"})
    third = write_store(tmp_path / "3", refined, {"a": 4}, channels=2)
    with pytest.raises(ValueError, match="merge the stores before, and run `pipeline sola` on the merged one"):
        merge(tmp_path / "out", first, third)
    assert not (tmp_path / "out").exists()


def test_features_made_elsewhere_have_no_encoder_to_copy(tmp_path: Path) -> None:
    first = write_store(tmp_path / "1", RGB, {"a": 4}, channels=2)
    second = write_store(tmp_path / "2", StoreHeader(), {"a": 4}, channels=2)
    assert not merge(tmp_path / "out", first, second).failed
    assert sorted(contents(tmp_path / "out")) == [".lock", "a.npy", "encoder_1.safetensors", "manifest.jsonl"]
