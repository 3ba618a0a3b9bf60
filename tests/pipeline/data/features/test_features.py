"""A feature store on disk, however a run was cut short; and features brought to a fixed number of rows."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from foreign_files import damage_header
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.features import FeatureStore, StoreHeader, rescale_bins, rescale_linear
from pipeline.data.snippets import Timeline

Array = npt.NDArray[np.float32]
Rescale = Callable[[Array, Timeline, float, float, int], Array]

HEADER = StoreHeader(
    encoder={"name": "tsm_r18", "num_frames": 8},
    weights="0123456789abcdef",
    sampling={"num_frames": 8, "frame_stride": 1, "step": 4, "num_snippets": None, "fps": None},
)
TIMELINE = Timeline(offset=0.0, stride=0.5, length=1.0)


def random_features(rows: int, channels: int = 3, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, channels)).astype(np.float32)


def fill(path: Path, ids: list[str], header: StoreHeader = HEADER) -> None:
    with FeatureStore.create_or_resume(path, header) as store:
        for number, video_id in enumerate(ids):
            if video_id not in store.videos:
                store.add(video_id, random_features(4, seed=number), TIMELINE, 2.5)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


# --- A store ----------------------------------------------------------------------------------------------------------


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    features_TC = random_features(5)
    timeline = Timeline(offset=0.1, stride=1 / 3, length=2 / 3)
    with FeatureStore.create_or_resume(tmp_path / "store", HEADER) as store:
        store.add("v_ä b", features_TC, timeline, 12.345)
        np.testing.assert_array_equal(store.load("v_ä b"), features_TC)
    store = FeatureStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.load("v_ä b"), features_TC)
    video = store.videos["v_ä b"]
    assert (video.rows, video.channels, video.timeline, video.duration) == (5, 3, timeline, 12.345)
    assert store.header == HEADER


def test_float16_is_half_as_large_and_loads_as_float32(tmp_path: Path) -> None:
    header = StoreHeader(dtype="float16")
    features_TC = random_features(50)
    with FeatureStore.create_or_resume(tmp_path, header) as store:
        store.add("a", features_TC, TIMELINE, 2.5)
    assert np.load(tmp_path / "a.npy").dtype == np.float16
    loaded_TC = FeatureStore.open(tmp_path).load("a")
    assert loaded_TC.dtype == np.float32
    np.testing.assert_allclose(loaded_TC, features_TC, rtol=1e-3)


def test_a_video_of_one_row(tmp_path: Path) -> None:
    with FeatureStore.create_or_resume(tmp_path, HEADER) as store:
        store.add("a", random_features(1), TIMELINE, 0.04)
    assert FeatureStore.open(tmp_path).load("a").shape == (1, 3)


@pytest.mark.parametrize(
    ("features_TC", "message"),
    [
        (np.zeros(3), r"'bad': features of shape \(3,\)"),
        (np.zeros((0, 3)), r"'bad': features of shape \(0, 3\)"),
        (np.array([[1, np.nan, 1]]), "'bad': features hold NaN"),
        (np.array([[1, np.inf, 1]]), "'bad': features hold NaN or infinity"),
        (np.zeros((2, 4)), "'bad': 4 channels, but 3"),
    ],
)
def test_bad_features_are_refused_by_name_and_leave_nothing(tmp_path: Path, features_TC: Array, message: str) -> None:
    fill(tmp_path, ["a"])
    before = contents(tmp_path)
    with FeatureStore.create_or_resume(tmp_path, HEADER) as store, pytest.raises(ValueError, match=message):
        store.add("bad", features_TC, TIMELINE, 1.0)
    assert contents(tmp_path) == before


def test_numbers_too_large_for_float16_are_refused(tmp_path: Path) -> None:
    with (
        FeatureStore.create_or_resume(tmp_path, StoreHeader(dtype="float16")) as store,
        pytest.raises(ValueError, match="infinity as float16"),
    ):
        store.add("a", np.full((1, 2), 1e6), TIMELINE, 1.0)


def test_ids_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    with (
        FeatureStore.create_or_resume(tmp_path / "store", HEADER) as store,
        pytest.raises(ValueError, match="video id"),
    ):
        store.add("../a", random_features(1), TIMELINE, 1.0)
    assert not (tmp_path / "a.npy").exists()


def test_a_video_is_added_once(tmp_path: Path) -> None:
    with FeatureStore.create_or_resume(tmp_path, HEADER) as store:
        store.add("a", random_features(1), TIMELINE, 1.0)
        with pytest.raises(ValueError, match="'a' is in the store already"):
            store.add("a", random_features(1), TIMELINE, 1.0)


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="not int8"):
        StoreHeader(dtype="int8")


# --- Reading what is not whole ----------------------------------------------------------------------------------------


def test_no_folder_and_no_manifest_say_the_cure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such feature store"):
        FeatureStore.open(tmp_path / "none")
    np.save(tmp_path / "a.npy", random_features(2))
    with pytest.raises(ValueError, match="pipeline import-features"):
        FeatureStore.open(tmp_path)
    with pytest.raises(ValueError, match="not overwritten"):
        FeatureStore.create_or_resume(tmp_path, HEADER)


def test_loading_what_is_not_there_says_the_cure(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b", "c", "e"])
    store = FeatureStore.open(tmp_path)
    (tmp_path / "a.npy").unlink()
    (tmp_path / "b.npy").write_bytes(b"nothing")
    np.save(tmp_path / "c.npy", random_features(9))
    damage_header(tmp_path / "e.npy")
    unreadable = dict.fromkeys(["a", "b", "e"], "cannot be read")
    for video_id, message in (unreadable | {"c": r"shape \(9, 3\)", "d": "'d'"}).items():
        with pytest.raises(ValueError, match=f"{message}.*pipeline extract"):
            store.load(video_id)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line is no header"),
        ("[]\n", "first line is no header"),
        ('{"format": 2, "dtype": "float32"}\n', "reads format 1"),
        ('{"format": 1, "colour": "red"}\n', "first line is no header"),
        ('{"format": 1}\n{"video": "a"}\n', "line 2: damaged"),
        ('{"format": 1}\nnot json\n', "line 2: damaged"),
    ],
)
def test_damaged_manifests_are_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        FeatureStore.open(tmp_path)


def test_a_video_listed_twice_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(manifest.read_text() + manifest.read_text().splitlines()[1] + "\n")
    with pytest.raises(ValueError, match="line 3: video 'a' for the second time"):
        FeatureStore.open(tmp_path)


# --- Going on with a store --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": "fedcba9876543210"}, "weights: 0123456789abcdef, not fedcba9876543210"),
        ({"sampling": {**HEADER.sampling, "step": 8}}, "sampling.step: 4, not 8"),
        ({"encoder": {"name": "tsm_r50", "num_frames": 8}}, "encoder.name: tsm_r18, not tsm_r50"),
        ({"dtype": "float16"}, "dtype: float32, not float16"),
        ({"encoder": None}, "encoder"),
    ],
)
def test_another_header_is_refused_with_the_difference_and_the_cure(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    fill(tmp_path, ["a"])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"{message}.*--out"):
        FeatureStore.create_or_resume(tmp_path, StoreHeader(**{**vars(HEADER), **changed}))
    assert contents(tmp_path) == before


def test_every_way_to_be_cut_short_is_repaired(tmp_path: Path) -> None:
    """Cut the manifest at each byte behind the header, leave other debris, and go on: the same store comes out."""
    fill(tmp_path / "whole", ["a", "b"])
    expected = contents(tmp_path / "whole")
    manifest = expected["manifest.jsonl"]
    header_bytes = manifest.index(b"\n") + 1
    for cut in range(header_bytes, len(manifest)):
        path = tmp_path / f"cut{cut}"
        path.mkdir()
        for name, data in expected.items():
            (path / name).write_bytes(data[:cut] if name == "manifest.jsonl" else data)
        (path / "c.npy.part").write_bytes(b"half a file")
        (path / "manifest.jsonl.part").write_bytes(b"half a manifest")
        fill(path, ["a", "b"])
        assert contents(path) == expected


def test_killed_before_the_first_manifest_was_whole(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl.part").write_bytes(b'{"form')
    fill(tmp_path, ["a"])
    assert sorted(contents(tmp_path)) == [".lock", "a.npy", "manifest.jsonl"]


def test_a_file_that_went_missing_is_made_again(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"])
    expected = contents(tmp_path)
    (tmp_path / "a.npy").unlink()
    fill(tmp_path, ["a", "b"])
    assert contents(tmp_path) == expected


def test_the_order_of_adding_does_not_show(tmp_path: Path) -> None:
    for name, order in {"forth": [0, 1, 2], "back": [2, 0, 1]}.items():
        with FeatureStore.create_or_resume(tmp_path / name, HEADER) as store:
            for number in order:
                store.add(f"v{number}", random_features(2, seed=number), TIMELINE, 2.5)
    assert contents(tmp_path / "forth") == contents(tmp_path / "back")


def test_half_a_line_is_not_read_while_someone_writes(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    with (tmp_path / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"video": "b", "ro')
    assert list(FeatureStore.open(tmp_path).videos) == ["a"]


def _try_to_write(path: Path, result: Any) -> None:
    try:
        FeatureStore.create_or_resume(path, HEADER).close()
        result.put("written")
    except ValueError as error:
        result.put(str(error))


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    for expected, lock in {"another process is writing": True, "written": False}.items():
        store = FeatureStore.create_or_resume(tmp_path, HEADER)
        if not lock:
            store.close()
        other = context.Process(target=_try_to_write, args=(tmp_path, result))
        other.start()
        assert expected in result.get(timeout=60)
        other.join()
        store.close()


def test_manifest_is_one_json_object_a_line(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    header, line = map(json.loads, (tmp_path / "manifest.jsonl").read_text().splitlines())
    assert header["format"] == 1
    assert line == {
        "video": "a", "rows": 4, "channels": 3, "duration": 2.5, "offset": 0.0, "stride": 0.5, "length": 1.0
    }  # fmt: skip


# --- Rescaling --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 120), st.floats(0.1, 500))
def test_linear_equals_torch_on_a_uniform_timeline(rows: int, num_rows: int, duration: float) -> None:
    features_TC = random_features(rows)
    timeline = Timeline(offset=0.0, stride=duration / rows, length=duration / rows)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(features_TC.T[None]), size=num_rows, mode="linear", align_corners=False
    )[0].T
    rescaled = rescale_linear(features_TC, timeline, 0.0, duration, num_rows)
    assert rescaled.dtype == np.float32
    np.testing.assert_allclose(rescaled, expected, atol=1e-4)


def test_linear_is_linear_in_time_between_centres() -> None:
    """Rows whose value is their centre's second, overlapping and late: the values asked for are the seconds."""
    timeline = Timeline(offset=3.0, stride=2.0, length=5.0)
    features_TC = timeline.centers(10)[:, None]
    rescaled = rescale_linear(features_TC, timeline, 10.0, 14.0, 4)
    np.testing.assert_allclose(rescaled[:, 0], [10.5, 11.5, 12.5, 13.5])
    rescaled = rescale_linear(features_TC, timeline, 0.0, 40.0, 2)
    np.testing.assert_allclose(rescaled[:, 0], [10.0, 23.5], err_msg="30 s lies behind the last centre at 23.5 s")


def bsn_bins(features_TC: Array, timeline: Timeline, start_s: float, end_s: float, num_rows: int) -> Array:
    """The rule as the BSN and G-TAD data scripts apply it, one bin at a time."""
    if len(features_TC) == 1:
        return np.stack([features_TC[0]] * num_rows)
    x = [timeline.offset + timeline.length / 2 + i * timeline.stride for i in range(len(features_TC))]
    rows = []
    for i in range(num_rows):
        low = max(x[0] + 0.0001, start_s + (end_s - start_s) * i / num_rows)
        high = min(x[-1] - 0.0001, start_s + (end_s - start_s) * (i + 1) / num_rows)
        if high < x[0] or low > x[-1]:
            rows.append(np.zeros(features_TC.shape[1]))
            continue
        points = [low + (high - low) / 2 * j for j in range(3)]
        rows.append(np.mean([[np.interp(p, x, column) for column in features_TC.T] for p in points], axis=0))
    return np.stack(rows)


@given(st.integers(1, 30), st.integers(1, 120), st.floats(0.3, 10), st.floats(0.1, 4), st.floats(-5, 5))
def test_bins_equal_the_slow_rule(rows: int, num_rows: int, stride: float, ratio: float, start_s: float) -> None:
    features_TC = random_features(rows)
    timeline = Timeline(offset=0.2, stride=stride, length=stride * ratio)
    end_s = start_s + rows * stride
    rescaled = rescale_bins(features_TC, timeline, start_s, end_s, num_rows)
    assert rescaled.shape == (num_rows, 3)
    assert rescaled.dtype == np.float32
    np.testing.assert_allclose(rescaled, bsn_bins(features_TC, timeline, start_s, end_s, num_rows), atol=1e-4)


@pytest.mark.parametrize("rescale", [rescale_linear, rescale_bins])
def test_one_row_is_repeated(rescale: Rescale) -> None:
    features_TC = random_features(1)
    timeline = Timeline(offset=0.0, stride=1.0, length=1.0)
    np.testing.assert_array_equal(rescale(features_TC, timeline, 0.0, 0.5, 7), np.repeat(features_TC, 7, axis=0))


@pytest.mark.parametrize("rescale", [rescale_linear, rescale_bins])
def test_a_memory_mapped_float32_store_rescales(rescale: Rescale, tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    assert rescale(FeatureStore.open(tmp_path).load("a"), TIMELINE, 0.0, 2.5, 8).shape == (8, 3)
