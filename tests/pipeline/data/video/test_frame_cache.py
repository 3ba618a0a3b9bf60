"""Decoded frames on disk: what is found again, what is made anew, and how large the folder becomes."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.data.video.frame_cache import FrameArray, FrameCache

INDICES = np.array([1, 4, 9], np.int64)
RESIZE = 32
FILE_BYTES = 3 * RESIZE * 40 * 3  # of the pictures alone


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """No video, but a file: the cache does not look inside."""
    path = tmp_path / "v_a.mp4"
    path.write_bytes(b"some bytes")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    return FrameCache(tmp_path / "cache", max_bytes=10 * FILE_BYTES)


def pictures(seed: int = 0) -> FrameArray:
    return np.random.default_rng(seed).integers(0, 256, (len(INDICES), RESIZE, 40, 3), dtype=np.uint8)


def untouched() -> FrameArray:
    raise AssertionError("decoded")


def fill(cache: FrameCache, video: Path, indices: npt.NDArray[np.int64] = INDICES, seed: int = 0) -> FrameArray:
    return cache.frames(video, indices, RESIZE, lambda: pictures(seed))


def test_frames_are_made_once(cache: FrameCache, video: Path) -> None:
    np.testing.assert_array_equal(fill(cache, video), pictures())
    np.testing.assert_array_equal(cache.frames(video, INDICES, RESIZE, untouched), pictures())
    [file] = cache.folder.iterdir()
    assert file.name.startswith("v_a.")


@pytest.mark.parametrize("change", ["content", "time", "place", "indices", "resize"])
def test_what_was_made_of_something_else_is_not_found(cache: FrameCache, video: Path, change: str) -> None:
    fill(cache, video)
    if change == "content":
        status = video.stat()
        video.write_bytes(b"other bytes, and more")
        os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    if change == "time":
        os.utime(video, ns=(0, 0))
    if change == "place":
        (video.parent / "other").mkdir()
        video = video.rename(video.parent / "other" / video.name)
    indices = INDICES + 1 if change == "indices" else INDICES
    with pytest.raises(AssertionError, match="decoded"):
        cache.frames(video, indices, RESIZE + (change == "resize"), untouched)


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_file_is_made_anew(cache: FrameCache, video: Path, damage: str) -> None:
    fill(cache, video)
    [file] = cache.folder.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    file.write_bytes(content[: {"cut": len(content) // 2, "emptied": 0}.get(damage)])
    np.testing.assert_array_equal(fill(cache, video, seed=1), pictures(1))
    np.testing.assert_array_equal(cache.frames(video, INDICES, RESIZE, untouched), pictures(1))


def test_the_folder_stays_below_its_limit_and_keeps_what_it_has(cache: FrameCache, video: Path) -> None:
    for step in range(20):
        fill(cache, video, INDICES + step)
    sizes = [file.stat().st_size for file in cache.folder.iterdir()]
    assert cache.max_bytes - max(sizes) < sum(sizes) <= cache.max_bytes
    cache.frames(video, INDICES, RESIZE, untouched)


def test_two_writers_do_not_take_the_same_room(cache: FrameCache, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one writes a file while the other is between its look at the folder and its own file's name."""
    small = FrameCache(cache.folder, max_bytes=int(1.5 * FILE_BYTES))
    savez = np.savez

    def disturbed(stream: object, **arrays: FrameArray) -> None:
        savez(stream, **arrays)  # type: ignore[arg-type]
        (cache.folder / "other.npz").write_bytes(bytes(FILE_BYTES))

    monkeypatch.setattr(np, "savez", disturbed)
    np.testing.assert_array_equal(fill(small, video), pictures())
    assert [file.name for file in cache.folder.iterdir()] == ["other.npz"]


def test_leftovers_of_killed_writers_are_removed(cache: FrameCache, video: Path) -> None:
    cache.folder.mkdir()
    (cache.folder / "v_b.0123.npz.77.part").write_bytes(b"half")
    fill(cache, video)
    cache.prepare()
    assert [file.suffix for file in cache.folder.iterdir()] == [".npz"]


def test_a_folder_that_cannot_be_written_to_costs_nothing_but_time(cache: FrameCache, video: Path) -> None:
    cache.folder.write_bytes(b"no folder")
    np.testing.assert_array_equal(fill(cache, video), pictures())
    with pytest.raises(OSError, match="cache"):
        cache.prepare()


def test_what_fails_to_decode_leaves_nothing(cache: FrameCache, video: Path) -> None:
    cache.prepare()
    with pytest.raises(AssertionError, match="decoded"):
        cache.frames(video, INDICES, RESIZE, untouched)
    assert list(cache.folder.iterdir()) == []
