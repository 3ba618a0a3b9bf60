"""Optical flow: of the right direction and size, coded as the field codes it, kept on disk only where it is right."""

import builtins
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from flow_encoder import quick_flow

import pipeline.data.video.flow
from pipeline.data.video import VideoError
from pipeline.data.video.flow import FlowReader, code_flow, flow_picture, import_opencv, tvl1_flow

Gray = npt.NDArray[np.uint8]
SIDE, CROP = 32, 16
MARGIN = (SIDE - CROP) // 2


def textured(shift_x: float = 0.0, shift_y: float = 0.0, side: int = SIDE) -> Gray:
    """A gray picture (side, side) of waves of 6 to 40 pixels in all directions, moved by exactly that many pixels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    waves = [
        np.sin(2 * np.pi / length * (np.cos(angle) * (x - shift_x) + np.sin(angle) * (y - shift_y)) + phase)
        for length, angle, phase in rng.uniform((6, 0, 0), (40, np.pi, 2 * np.pi), (30, 3))
    ]
    return np.rint(127.5 + 20 * np.mean(waves, axis=0) * len(waves) ** 0.5).clip(0, 255).astype(np.uint8)


def colour(gray: Gray) -> npt.NDArray[np.uint8]:
    return np.repeat(gray[..., None], 3, axis=2)


# --- A flow -----------------------------------------------------------------------------------------------------------

MOTIONS = [(1.5, 0.0), (0.0, -2.3), (-3.25, 1.75), (0.4, 0.6), (-0.7, -0.2), (5.0, 4.5)]


@pytest.mark.parametrize(("x", "y"), MOTIONS)
def test_flow_of_a_known_motion_is_right_to_a_fifth_of_a_pixel(x: float, y: float) -> None:
    flow_HW2 = tvl1_flow(textured(side=96), textured(x, y, side=96))
    inside = flow_HW2[16:-16, 16:-16].reshape(-1, 2)
    assert np.median(np.hypot(*(inside - (x, y)).T)) < 0.2


def test_the_code_is_that_of_the_field() -> None:
    pixels = np.array([-25.0, -20.0, -19.95, -1.0, 0.0, 0.05, 1.0, 19.9, 20.0, 1e6], np.float32)
    coded = code_flow(pixels)
    assert coded.dtype == np.uint8
    assert coded.tolist() == [0, 0, 0, 121, 128, 128, 134, 254, 255, 255]
    steps = code_flow(np.linspace(-20, 20, 9999)).astype(int)
    assert (np.diff(steps) >= 0).all()
    np.testing.assert_allclose(steps / 255 * 40 - 20, np.linspace(-20, 20, 9999), atol=40 / 255 / 2 + 1e-9)


def test_a_picture_is_cut_from_the_middle_after_the_flow() -> None:
    first, second = textured(), textured(2.0, 1.0)
    whole = code_flow(tvl1_flow(first, second))
    np.testing.assert_array_equal(flow_picture(first, second, CROP), whole[MARGIN:-MARGIN, MARGIN:-MARGIN])


# --- Flows of a video -------------------------------------------------------------------------------------------------

PAIRS = np.array([(0, 1), (1, 2), (2, 2), (2, 5), (7, 9)])
SHIFTS = {0: (0.0, 0.0), 1: (1.0, 0.0), 2: (1.0, 2.0), 5: (3.0, 2.0), 7: (0.0, 0.0), 9: (-1.0, -1.0)}
EXPECTED = [(1, 0), (0, 2), (0, 0), (2, 0), (-1, -1)]


def frames() -> Iterator[npt.NDArray[np.uint8]]:
    """The frames that occur in PAIRS."""
    yield from (colour(textured(*shift)) for shift in SHIFTS.values())


def no_frames() -> Iterator[npt.NDArray[np.uint8]]:
    raise AssertionError("the frames were touched")
    yield


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"stands for a video")
    return path


def read(
    video: Path, cache: Path | None, given: Iterator[npt.NDArray[np.uint8]], pairs: Any = PAIRS, crop: int = CROP
) -> list[npt.NDArray[np.uint8]]:
    with FlowReader(2, cache) as reader:
        return list(reader.pictures(video, pairs, given, resize=SIDE, crop=crop))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_each_pair_gets_its_flow_in_order(video: Path, num_workers: int) -> None:
    with FlowReader(num_workers) as reader:
        pictures = list(reader.pictures(video, PAIRS, frames(), resize=SIDE, crop=CROP))
    assert [picture.shape for picture in pictures] == [(CROP, CROP, 2)] * len(PAIRS)
    found = [np.median(picture.reshape(-1, 2) / 255.0 * 40 - 20, axis=0) for picture in pictures]
    np.testing.assert_allclose(found, EXPECTED, atol=0.2)
    assert (pictures[2] == 128).all(), "a picture that stands still has no noise"


def test_frames_are_taken_as_they_are_needed(video: Path) -> None:
    taken: list[int] = []

    def noted() -> Iterator[npt.NDArray[np.uint8]]:
        for number in range(100):
            taken.append(number)
            yield np.full((SIDE, SIDE, 3), number, np.uint8)

    still = np.repeat(np.arange(100)[:, None], 2, axis=1)
    with FlowReader(1) as reader:
        pictures = reader.pictures(video, still, noted(), resize=SIDE, crop=CROP)
        next(pictures)
        assert len(taken) <= 4
        assert len(list(pictures)) == 99


# --- The cache --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.data.video.flow, "tvl1_flow", quick_flow)


@pytest.mark.usefixtures("quick")
def test_the_cache_gives_what_was_computed(video: Path, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    computed = read(video, None, frames())
    np.testing.assert_array_equal(read(video, cache, frames()), computed)
    np.testing.assert_array_equal(read(video, cache, no_frames()), computed)
    [file] = cache.iterdir()
    assert file.name.startswith("a.")
    with np.load(file) as archive:
        np.testing.assert_array_equal(np.concatenate(list(archive.values())), computed)


@pytest.mark.usefixtures("quick")
def test_pictures_of_many_chunks_come_in_order(video: Path, tmp_path: Path) -> None:
    still = np.repeat(np.arange(40)[:, None], 2, axis=1)
    pairs = np.concatenate([still, [(40, 41)]])
    given = [*(colour(textured()) for _ in range(41)), colour(textured(3.0, 0.0))]
    computed = read(video, tmp_path / "cache", iter(given), pairs)
    np.testing.assert_array_equal(read(video, tmp_path / "cache", no_frames(), pairs), computed)
    assert [picture.std() > 0 for picture in computed] == [False] * 40 + [True]


@pytest.mark.parametrize("change", ["content", "time", "pairs", "crop"])
@pytest.mark.usefixtures("quick")
def test_what_was_made_otherwise_is_not_taken_from_the_cache(video: Path, tmp_path: Path, change: str) -> None:
    read(video, tmp_path / "cache", frames())
    if change == "content":
        status = video.stat()
        video.write_bytes(b"another video, of another length")
        os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    if change == "time":
        os.utime(video, ns=(0, 0))
    pairs = PAIRS[:4] if change == "pairs" else PAIRS
    crop = 32 if change == "crop" else CROP
    with pytest.raises(AssertionError, match="touched"):
        read(video, tmp_path / "cache", no_frames(), pairs, crop)


@pytest.mark.usefixtures("quick")
def test_a_reader_that_stops_early_leaves_nothing(video: Path, tmp_path: Path) -> None:
    with FlowReader(1, tmp_path / "cache") as reader:
        pictures = reader.pictures(video, PAIRS, frames(), resize=SIDE, crop=CROP)
        next(pictures)
        pictures.close()  # type: ignore[attr-defined]
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
@pytest.mark.usefixtures("quick")
def test_a_damaged_file_is_named_with_the_cure(video: Path, tmp_path: Path, damage: str) -> None:
    read(video, tmp_path / "cache", frames())
    [file] = (tmp_path / "cache").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 255
    file.write_bytes(content[: {"cut": len(content) // 2, "emptied": 0}.get(damage)])
    with pytest.raises(VideoError, match=r"a\.[0-9a-f]+\.npz: this file of the flow cache is damaged.*delete it"):
        read(video, tmp_path / "cache", no_frames())


# --- Without OpenCV ---------------------------------------------------------------------------------------------------


def test_without_opencv_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_cv2(name: str, *args: Any, **options: Any) -> Any:
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_cv2)
    with pytest.raises(ValueError, match=r'pip install "tal-pipeline\[flow\]"'):
        FlowReader(1)


def test_opencv_without_its_contributed_modules_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(__version__="4.0"))
    with pytest.raises(ValueError, match=r'OpenCV 4\.0 here has none.*pip install "tal-pipeline\[flow\]"'):
        import_opencv()
