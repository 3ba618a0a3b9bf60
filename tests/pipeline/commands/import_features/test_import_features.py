"""Others' features become a store with the right timelines, or are refused one by one with the reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import write_bsn
from foreign_files import MANY_ARRAYS, ONE_ARRAY, WITH_CODE, Code, cut_short, damage_header

from pipeline import cli
from pipeline.commands.import_features.command import run
from pipeline.commands.import_features.options import ImportFeaturesConfig
from pipeline.data.annotations import Video
from pipeline.data.features import FeatureStore
from pipeline.data.snippets import Timeline
from pipeline.options.flags import parse


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
    paths: dict[str, Any] = {"features": tmp_path / "npy", "out": tmp_path / "store", "annotations": annotations}
    return ImportFeaturesConfig(**(paths | options))


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


# --- Timelines --------------------------------------------------------------------------------------------------------


def test_rows_share_the_duration_when_no_stride_is_given(tmp_path: Path) -> None:
    features_TC = np.random.default_rng(0).standard_normal((5, 3))
    write_features(tmp_path / "npy", a=features_TC)
    assert not run(config(tmp_path, {"a": 10.0}, axes="tc")).failed
    store = FeatureStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.load("a"), features_TC.astype(np.float32))
    assert store.videos["a"].timeline == Timeline(offset=0.0, stride=2.0, length=2.0)
    assert store.videos["a"].duration == 10.0
    assert store.header.encoder is None


def test_stride_length_and_offset_in_seconds(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((5, 3)))
    assert not run(config(tmp_path, {"a": 10.0}, stride=1.5, length=3.0, offset=0.5)).failed
    store = FeatureStore.open(tmp_path / "store")
    assert store.videos["a"].timeline == Timeline(offset=0.5, stride=1.5, length=3.0)
    assert store.header.sampling == {"stride_s": 1.5, "length_s": 3.0, "offset_s": 0.5}


def test_stride_and_window_in_frames_of_one_rate(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((47, 3)))
    assert not run(config(tmp_path, {"a": 8.0}, fps=25.0, stride_frames=4, window_frames=16)).failed
    assert FeatureStore.open(tmp_path / "store").videos["a"].timeline == Timeline(0.0, 0.16, 0.64)


def test_rates_and_durations_from_a_side_file(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", v_a=np.zeros((12, 3)), b=np.zeros((15, 3)), c=np.zeros((9, 3)))
    info = tmp_path / "info.csv"
    info.write_text("video,fps,duration\na,25,8\nb,30,8\nc,,5\n")
    assert run(config(tmp_path, {"a": None, "b": 8.1, "c": 5.0}, stride_frames=16, video_info=info)).failed
    videos = FeatureStore.open(tmp_path / "store").videos
    assert {video.id: (video.timeline, video.duration) for video in videos.values()} == {
        "b": (Timeline(0.0, 16 / 30, 16 / 30), 8.1),  # the annotated duration counts
        "v_a": (Timeline(0.0, 0.64, 0.64), 8.0),
    }


def test_a_given_rate_overrides_the_side_file(tmp_path: Path) -> None:
    """Features of frames that were sampled at a rate of their own."""
    write_features(tmp_path / "npy", a=np.zeros((7, 3)))
    info = tmp_path / "info.csv"
    info.write_text("video,fps,duration\na,25,8\n")
    assert not run(config(tmp_path, {"a": None}, stride_frames=16, fps=15.0, video_info=info)).failed
    assert FeatureStore.open(tmp_path / "store").videos["a"].timeline.stride == 16 / 15


def test_rescaled_activitynet_features_share_the_seconds_they_were_made_from(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", v_a=np.zeros((100, 4)))
    info = tmp_path / "info.csv"
    info.write_text("video,numFrame,seconds,fps,rfps,subset,featureFrame\nv_a,418,14.0,30.0,29.857,training,400\n")
    assert not run(config(tmp_path, {"a": 14.0}, axes="tc", video_info=info)).failed
    assert FeatureStore.open(tmp_path / "store").videos["v_a"].timeline.end(100) == pytest.approx(400 / 418 * 14)


def test_activitynets_annotations_of_bsn_say_those_seconds_themselves(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", v_a=np.zeros((100, 4)))
    annotations = write_bsn(tmp_path, [Video("v_a", 30.0, "training", ())])
    assert not run(config(tmp_path, {}, axes="tc", annotations=annotations)).failed
    stored = FeatureStore.open(tmp_path / "store").videos["v_a"]
    assert stored.timeline.end(100) == pytest.approx(736 / 750 * 30)
    assert stored.duration == 30.0


# The middle of the second row of a video of 20 s at 30 frames a second; systems differ in rates and strides.
SECOND_ROWS = {
    "activitynet/import-features_tsn": 1.5 * 16 / 30,
    "activitynet/import-features_tsn_100": 1.5 * 20 / 40,
    "activitynet/import-features_i3d": (16 + 8) / 25,
    "activitynet/import-features_tsp": (16 + 8) / 15,
    "charades/import-features_i3d": 1.5 * 8 / 24,
    "hacs/import-features_i3d": 1.5 * 20 / 40,
    "hacs/import-features_slowfast": (8 + 16) / 15,
    "thumos14/import-features_i3d": (4 + 8) / 30,
    "thumos14/import-features_tsn": 1.5 / 30,
    "thumos14/import-features_tsp": (1 + 8) / 15,
    "gtea/import-features": 1.5 / 15,
}


def test_every_packaged_config_is_tried() -> None:
    folder = Path(cli.__file__).parents[1] / "configs"
    found = {f"{file.parent.name}/{file.stem}" for file in folder.rglob("import-features*.yaml")}
    assert found == SECOND_ROWS.keys()


@pytest.mark.parametrize(("name", "second_row"), SECOND_ROWS.items())
def test_the_packaged_configs_place_rows_as_published(tmp_path: Path, name: str, second_row: float) -> None:
    info = tmp_path / "info.csv"
    info.write_text("video,fps,duration\na,30,20\n")
    annotations = write_annotations(tmp_path / "gt.json", {"a": 20.0})
    features, out = tmp_path / "all.npz", tmp_path / "store"
    paths = [f"--features={features}", f"--annotations={annotations}", f"--out={out}", f"--video-info={info}"]
    options = parse("import-features", ImportFeaturesConfig, [*paths, "--config", name, "--axes", "tc"])
    num_rows = 40 if options.stride_frames is None else round(20 * (options.fps or 30) / options.stride_frames)
    array_name = (options.pattern or "{video}").replace("{video}", "a")
    MANY_ARRAYS[".npz"](features, {array_name: np.zeros((num_rows, 3), np.float32)})
    assert not run(options).failed
    assert FeatureStore.open(out).videos["a"].timeline.centers(2)[1] == pytest.approx(second_row)


def test_rows_that_end_far_from_the_video_are_refused_with_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The video takes 40 rows; 4 and 1 more or less may be missing."""
    arrays = {f"t{T}": np.zeros((T, 3)) for T in (34, 35, 40, 45, 46)}
    write_features(tmp_path / "npy", **arrays)
    durations: dict[str, float | None] = dict.fromkeys(arrays, 20.0)
    assert run(config(tmp_path, durations, stride=0.5)).failed
    assert list(FeatureStore.open(tmp_path / "store").videos) == ["t35", "t40", "t45"]
    said = told(capsys)
    assert "t34.npy: 34 rows, one every 0.5 s, end at 17.0 s, the video at 20.0 s: 15% off, 40 rows would fit" in said
    assert "t46.npy: 46 rows" in said
    assert not run(config(tmp_path, durations, stride=0.5, max_mismatch=0.2)).failed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stride": 1.0, "stride_frames": 4.0, "fps": 4.0}, "--stride and --stride-frames"),
        ({"length": 2.0}, "--length without --stride"),
        ({"fps": 25.0}, "--fps without --stride-frames"),
        ({"window_frames": 16.0}, "--window-frames or --fps without"),
        ({"stride_frames": 16.0}, "frames of which rate"),
        ({"stride": 0.0}, "--stride is 0.0; it must be above zero"),
        ({"stride_frames": 16.0, "fps": -1.0}, "--fps is -1.0"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: Any, said: str) -> None:
    write_features(tmp_path / "npy", a=np.zeros((5, 3)))
    with pytest.raises(ValueError, match=said):
        run(config(tmp_path, {"a": 10.0}, **options))
    assert not (tmp_path / "store").exists()


# --- Which videos -----------------------------------------------------------------------------------------------------


def test_ids_match_with_and_without_their_prefix(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", v_a=np.zeros((2, 3)), b=np.ones((5, 3)))
    assert not run(config(tmp_path, {"a": 4.0, "v_b": 6.0})).failed
    videos = FeatureStore.open(tmp_path / "store").videos
    assert {video_id: video.duration for video_id, video in videos.items()} == {"v_a": 4.0, "b": 6.0}


def test_a_video_of_one_row(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((1, 3)))
    assert not run(config(tmp_path, {"a": 4.0}, axes="tc")).failed
    assert FeatureStore.open(tmp_path / "store").videos["a"].timeline.stride == 4.0


def test_videos_on_one_side_alone_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Archives of features hold more than what is annotated, and less."""
    write_features(tmp_path / "npy", a=np.zeros((5, 3)), stranger=np.zeros((7, 3)))
    assert not run(config(tmp_path, {"a": 10.0, "b": 10.0, "c": 10.0}, axes="tc")).failed
    assert list(FeatureStore.open(tmp_path / "store").videos) == ["a"]
    said = told(capsys)
    assert "annotated videos without features: 2, such as b" in said
    assert "gt.json does not name, left out: 1, such as stranger" in said
    assert "1 of 1 videos are in" in said


def test_no_video_in_common(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a_rgb=np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"it has 'a', there is 'a_rgb'\. If .* --pattern"):
        run(config(tmp_path, {"a": 10.0}))
    (tmp_path / "npy" / "a_rgb.npy").unlink()
    MANY_ARRAYS[".npz"](tmp_path / "npy" / "all.npz", {"a": np.zeros((5, 3))})
    with pytest.raises(ValueError, match=r"there is 'all'\. .* --features .*all\.npz"):
        run(config(tmp_path, {"a": 10.0}))


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ONE_ARRAY)
def test_of_any_format_the_good_files_stay(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "npy"
    folder.mkdir()
    arrays = {name: np.full((T, 3), T / 8, np.float32) for name, T in (("a", 4), ("b", 5), ("cut", 60), ("d", 8))}
    for name, array in (arrays | {"wrong": np.zeros((7, 2), np.float32), "nan": np.full((9, 3), np.nan)}).items():
        ONE_ARRAY[suffix](folder / f"{name}{suffix}", array)
    cut_short(folder / f"cut{suffix}")
    bad = ["cut", "nan", "wrong"]
    if suffix in WITH_CODE:
        bad = ["code", *bad]
        WITH_CODE[suffix](folder / f"code{suffix}", Code(tmp_path / "made"))
    assert run(config(tmp_path, dict.fromkeys([*arrays, *bad], 10.0), axes="tc")).failed
    store = FeatureStore.open(tmp_path / "store")
    assert list(store.videos) == ["a", "b", "d"]
    np.testing.assert_array_equal(store.load("b"), arrays["b"])
    said = told(capsys)
    assert f"{len(bad)} were refused" in said
    assert all(f"{name}{suffix}: " in said for name in bad)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("suffix", MANY_ARRAYS)
def test_of_one_file_the_good_videos_stay(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = {f"{name}/A": np.full((T, 3), 0.5, np.float32) for name, T in (("a", 4), ("b", 5), ("c", 6), ("d", 7))}
    file = tmp_path / f"all{suffix}"
    MANY_ARRAYS[suffix](file, arrays | {"a/X": np.zeros((4, 1)), "wrong/A": np.zeros((7, 2), np.float32)})
    options = {"features": file, "pattern": "{video}/A"}
    assert run(config(tmp_path, dict.fromkeys("abcd", 10.0) | {"wrong": 10.0}, **options)).failed
    assert list(FeatureStore.open(tmp_path / "store").videos) == ["a", "b", "c", "d"]
    assert f"all{suffix}, wrong/A: shape (7, 2), expected (T, 3)" in told(capsys)


@pytest.mark.parametrize("suffix", [".npz", ".pkl", ".pt"])
def test_a_file_of_many_videos_that_holds_code(tmp_path: Path, suffix: str) -> None:
    """Of an archive the rest can be read; a pickle is refused whole."""
    WITH_CODE[suffix](tmp_path / f"all{suffix}", Code(tmp_path / "made"))
    options = {"features": tmp_path / f"all{suffix}"}
    if suffix == ".npz":
        assert run(config(tmp_path, {"features": 10.0}, **options)).failed
    else:
        with pytest.raises(ValueError, match="could run code"):
            run(config(tmp_path, {"features": 10.0}, **options))
    assert not (tmp_path / "made").exists()


def test_bad_files_are_listed_and_the_good_ones_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad: dict[str, Any] = {
        "flat": np.zeros(6),
        "turned": np.zeros((3, 7)),
        "cube": np.zeros((2, 7, 3)),
        "empty": np.zeros((0, 3)),
        "nan": np.array([[0, np.nan, 0]]),
        "whole": np.zeros((7, 3), np.int64),
        "timeless": np.zeros((7, 3)),
    }
    good = {f"good{T}": np.zeros((T, 3)) for T in range(10, 16)}
    folder = write_features(tmp_path / "npy", **good, **bad)
    (folder / "text.npy").write_text("no array")
    (folder / "void.npy").write_bytes(b"")
    np.save(folder / "object.npy", np.array([{}]), allow_pickle=True)
    broken = ["text", "void", "object"]
    durations: dict[str, float | None] = dict.fromkeys([*good, *bad, *broken], 14.0)
    assert run(config(tmp_path, durations | {"timeless": None})).failed
    assert list(FeatureStore.open(tmp_path / "store").videos) == list(good)
    said = told(capsys)
    assert "10 were refused" in said
    assert all(f"{name}.npy: " in said for name in [*bad, *broken])
    assert "(3, 7), expected (T, 3) as most have; it seems to lie the other way" in said
    assert "gt.json does not say how long the video is" in said


def test_beside_a_header_that_no_one_can_parse_the_good_ones_stay(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "npy", a=np.ones((4, 3)), b=np.ones((5, 3)), c=np.ones((6, 3)))
    damage_header(folder / "a.npy")
    assert run(config(tmp_path, dict.fromkeys("abc", 10.0))).failed
    assert list(FeatureStore.open(tmp_path / "store").videos) == ["b", "c"]


def test_a_side_file_without_a_rate_for_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_features(tmp_path / "npy", a=np.zeros((12, 3)), b=np.zeros((13, 3)))
    info = tmp_path / "info.json"
    info.write_text(json.dumps({"a": {"fps": 25}}))
    assert run(config(tmp_path, {"a": 8.0, "b": 8.0}, stride_frames=16, video_info=info, axes="tc")).failed
    assert "b.npy: " + str(info) + " does not say the video's frame rate" in told(capsys)


# --- Axes -------------------------------------------------------------------------------------------------------------


def test_transposed_arrays_are_turned_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_CT, b_CT = np.arange(15.0).reshape(3, 5), np.arange(21.0).reshape(3, 7)
    write_features(tmp_path / "npy", a=a_CT, b=b_CT)
    assert not run(config(tmp_path, {"a": 10.0, "b": 14.0})).failed
    store = FeatureStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.load("a"), a_CT.T)
    np.testing.assert_array_equal(store.load("b"), b_CT.T)
    assert "arrays are (C, T), and are turned: the other axis has one size" in told(capsys)


def test_the_stride_tells_the_axes_of_a_single_file(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((3, 20)))
    assert not run(config(tmp_path, {"a": 10.0}, stride=0.5)).failed
    assert FeatureStore.open(tmp_path / "store").videos["a"].rows == 20


def test_axes_that_cannot_be_told_are_asked_for(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((100, 400)), b=np.zeros((100, 400)))
    with pytest.raises(ValueError, match=r"\(100, 400\) do not tell .* --axes tc"):
        run(config(tmp_path, {"a": 10.0, "b": 14.0}))
    assert not run(config(tmp_path, {"a": 10.0, "b": 14.0}, axes="ct")).failed
    assert FeatureStore.open(tmp_path / "store").videos["a"].rows == 400


def test_axes_of_size_1_are_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_features(tmp_path / "npy", a=np.zeros((5, 3, 1, 1)), b=np.zeros((7, 3, 1, 1)))
    assert not run(config(tmp_path, {"a": 10.0, "b": 14.0})).failed
    assert "axes of size 1 are left out: shapes such as (5, 3, 1, 1)" in told(capsys)


# --- Again ------------------------------------------------------------------------------------------------------------


def test_a_rerun_imports_what_was_missing(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((2, 3)), b=np.full((2, 3), np.nan))
    assert run(config(tmp_path, {"a": 4.0, "b": 4.0}, axes="tc")).failed
    write_features(tmp_path / "npy", b=np.ones((2, 3)))
    assert not run(config(tmp_path, {"a": 4.0, "b": 4.0})).failed  # the store has 3 channels
    assert list(FeatureStore.open(tmp_path / "store").videos) == ["a", "b"]


def test_a_second_file_goes_into_the_same_store_and_what_is_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_features(tmp_path / "val", a=np.zeros((2, 3)), b=np.zeros((4, 3)))
    write_features(tmp_path / "test", b=np.ones((4, 3)), c=np.zeros((6, 3)))
    durations: dict[str, float | None] = {"a": 4.0, "b": 8.0, "c": 12.0}
    assert not run(config(tmp_path, durations, axes="tc", features=tmp_path / "val")).failed
    assert "2 videos, 0 of them in" in told(capsys)
    assert not run(config(tmp_path, durations, axes="tc", features=tmp_path / "test")).failed
    assert f"2 videos, 1 of them in {tmp_path / 'store'} already" in told(capsys)
    store = FeatureStore.open(tmp_path / "store")
    assert list(store.videos) == ["a", "b", "c"]
    assert not store.load("b").any()


@pytest.mark.parametrize(("name", "other"), [("pattern", "{video}_flow"), ("key", "flow")])
def test_other_arrays_of_the_same_videos_are_refused(tmp_path: Path, name: str, other: str) -> None:
    (tmp_path / "npy").mkdir()
    np.savez(tmp_path / "npy" / "a_rgb.npz", rgb=np.zeros((2, 3)))
    np.savez(tmp_path / "npy" / "a_flow.npz", flow=np.zeros((2, 3)))
    options = {"axes": "tc", "pattern": "{video}_rgb", "key": "rgb"}
    assert not run(config(tmp_path, {"a": 4.0}, **options)).failed
    with pytest.raises(ValueError, match=rf"sampling.{name}: .*rgb.*, not .*flow.*another --out"):
        run(config(tmp_path, {"a": 4.0}, **(options | {name: other})))


def test_corrected_rates_and_durations_are_refused(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((12, 3)), b=np.zeros((13, 3)))
    info = tmp_path / "info.csv"
    info.write_text("video,fps\na,25\n")
    options = {"stride_frames": 16, "video_info": info, "max_mismatch": 0.5}
    assert run(config(tmp_path, {"a": 8.0, "b": 8.0}, **options)).failed
    info.write_text("video,fps\na,25\nb,25\n")
    assert not run(config(tmp_path, {"a": 8.0, "b": 8.0}, **options)).failed
    with pytest.raises(ValueError, match=r"row of video 'a' every 0.64 s of 8 s, and now .* every 0.64 s of 9 s is"):
        run(config(tmp_path, {"a": 9.0, "b": 8.0}, **options))
    info.write_text("video,fps\na,30\nb,25\n")
    with pytest.raises(ValueError, match=r"row of video 'a' every 0.64 s of 8 s, and now .* every 0.533333 s of 8 s"):
        run(config(tmp_path, {"a": 8.0, "b": 8.0}, **options))


def test_another_stride_is_refused(tmp_path: Path) -> None:
    write_features(tmp_path / "npy", a=np.zeros((2, 3)))
    run(config(tmp_path, {"a": 4.0}, axes="tc"))
    with pytest.raises(ValueError, match=r"sampling.stride_s: None, not 2.0"):
        run(config(tmp_path, {"a": 4.0}, stride=2.0))
