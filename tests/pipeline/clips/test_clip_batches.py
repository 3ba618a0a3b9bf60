"""Training batches of trimmed clips: which frames, which pixels, what becomes of clips that do not decode."""

import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from video_files import read_indices, write_video

import pipeline.clips.batches as module
from pipeline.clips.batches import (
    Augmentation,
    ClipBatches,
    ClipForm,
    centre_crop,
    decode_clips,
    fits_in_memory,
    frame_range,
    random_crop,
)
from pipeline.clips.reading import Clip
from pipeline.data.snippets import Sampling, sample_snippets
from pipeline.data.video import VideoError, probe_video
from pipeline.training.batches import load_batches

FORM = ClipForm(num_frames=4, frame_stride=3, resize=64, size=64)
NO_MIRROR = Augmentation(seed=0, mirror=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """A whole file of 40 frames, a second of another, and a file that is no video."""
    folder = tmp_path_factory.mktemp("clips")
    whole = write_video(folder / "whole.mp4", 40, fps=10)
    part = write_video(folder / "part.mp4", 50, fps=10, size=(96, 64))
    (folder / "broken.mp4").write_bytes(b"no video")
    return [
        Clip(whole, "a", None, None, "training"),
        Clip(part, "b", 2.0, 3.0, "training"),
        Clip(folder / "broken.mp4", "a", None, None, "training"),
    ]


def decoded(clips: list[Clip]) -> list[NDArray[np.uint8]]:
    frames = [result.frames for result in decode_clips(clips, 64, num_workers=2)]
    return [one for one in frames if one is not None]


def indices_of(snippet_3LHW: torch.Tensor) -> list[int]:
    return read_indices(snippet_3LHW.permute(1, 2, 3, 0).numpy())


# --- Position in time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_frames", "frame_stride"), [(4, 3), (8, 2), (8, 8), (1, 1)])
def test_snippets_stand_like_those_of_extraction(num_frames: int, frame_stride: int) -> None:
    form = replace(FORM, num_frames=num_frames, frame_stride=frame_stride)
    for length in (1, 5, 30):
        times = np.arange(length) / 10
        expected, _ = sample_snippets(times, length / 10, Sampling(num_frames, frame_stride, step=10**6))
        np.testing.assert_array_equal(form.frames_at(0, length), expected[0])


def test_every_start_keeps_the_snippet_in_the_clip() -> None:
    assert FORM.last_start(12) == 0
    assert FORM.last_start(14) == 2
    assert FORM.frames_at(2, 14).tolist() == [3, 6, 9, 12]
    assert FORM.last_start(5) == 0
    assert FORM.frames_at(0, 5).tolist() == [1, 4, 4, 4]


def test_a_clip_is_the_frames_from_its_start_to_before_its_end(clips: list[Clip]) -> None:
    assert frame_range(probe_video(clips[0].path), clips[0]) == (0, 40)
    assert frame_range(probe_video(clips[1].path), clips[1]) == (20, 30)
    with pytest.raises(VideoError, match=r"part.mp4: no frame from 7 to 8 s, the video has 5 s"):
        frame_range(probe_video(clips[1].path), replace(clips[1], start=7.0, end=8.0))


@pytest.mark.parametrize("in_memory", [False, True])
def test_evaluation_sees_the_middle(clips: list[Clip], in_memory: bool) -> None:
    good = clips[:2]
    batches = ClipBatches(good, [0, 1], FORM, frames=decoded(good) if in_memory else None)
    batch = batches[[(0, 0), (0, 1)]]
    assert batch.clips.shape == (2, 3, 4, 64, 64)
    assert batch.clips.dtype == torch.uint8
    assert batch.labels.tolist() == [0, 1]
    assert indices_of(batch.clips[0]) == [15, 18, 21, 24]  # of 40 frames, 14 to 25
    assert torch.equal(batch.clips, batches[[(5, 0), (6, 1)]].clips)


def test_training_sees_all_positions(clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CROP_SCALES", (1.0,))
    form = replace(FORM, frame_stride=9)  # spans 36 of the 40 frames
    batches = ClipBatches(clips[:1], [0], form, augmentation=NO_MIRROR, frames=decoded(clips[:1]))
    snippets = batches[[(epoch, 0) for epoch in range(40)]].clips
    assert {indices_of(snippet)[0] for snippet in snippets} == {4, 5, 6, 7, 8}


def test_a_place_decides_its_sample_decoded_before_or_on_the_way(clips: list[Clip]) -> None:
    good, places = clips[:2], [(epoch, index) for epoch in range(3) for index in range(2)]
    augmentation = Augmentation(seed=3, mirror=True)
    on_the_way = ClipBatches(good, [0, 1], FORM, augmentation=augmentation)[places].clips
    before = ClipBatches(good, [0, 1], FORM, augmentation=augmentation, frames=decoded(good))[places].clips
    assert torch.equal(on_the_way, before)
    assert not torch.equal(on_the_way[0], on_the_way[2])  # another epoch
    other_seed = replace(augmentation, seed=4)
    assert not torch.equal(on_the_way, ClipBatches(good, [0, 1], FORM, augmentation=other_seed)[places].clips)


# --- Pixels -----------------------------------------------------------------------------------------------------------


def ramp(height: int, width: int) -> NDArray[np.uint8]:
    """One frame whose red says the row, whose green says the column."""
    frame = np.zeros((1, height, width, 3), np.uint8)
    frame[..., 0], frame[..., 1] = np.arange(height)[:, None], np.arange(width)
    return frame


def test_centre_crop() -> None:
    crop = centre_crop(ramp(48, 80), 32)[0]
    assert crop.shape == (3, 32, 32)
    assert crop[0, [0, -1], 0].tolist() == [8, 39]
    assert crop[1, 0, [0, -1]].tolist() == [24, 55]


def test_random_crops_have_all_sizes_and_stay_in_the_frame() -> None:
    rng = np.random.default_rng(0)
    heights, widths, ratios = [], [], []
    for _ in range(300):
        crop = random_crop(ramp(100, 160), 64, rng, mirror=False)[0].float()
        height, width = (crop[0, -1, 0] - crop[0, 0, 0]).item(), (crop[1, 0, -1] - crop[1, 0, 0]).item()
        heights.append(height)
        widths.append(width)
        ratios.append(height / width)
    assert min(heights) == pytest.approx(66, abs=3)
    assert max(heights) == max(widths) == pytest.approx(100, abs=3)
    assert 0.8 < min(ratios) < 0.9 < 1.1 < max(ratios) < 1.25


def test_half_of_the_crops_are_mirrored_if_asked_for() -> None:
    rng = np.random.default_rng(0)
    crops = [random_crop(ramp(64, 64), 64, rng, mirror=True)[0].float() for _ in range(200)]
    mirrored = sum(bool(crop[1, 0, 0] > crop[1, 0, -1]) for crop in crops)
    assert 70 < mirrored < 130
    crops = [random_crop(ramp(64, 64), 64, rng, mirror=False)[0].float() for _ in range(50)]
    assert all(crop[1, 0, 0] < crop[1, 0, -1] for crop in crops)


# --- What does not decode ---------------------------------------------------------------------------------------------


def test_a_broken_clip_is_left_out_and_named(clips: list[Clip]) -> None:
    batch = ClipBatches(clips, [0, 1, 0], FORM)[[(0, 2), (0, 1)]]
    assert batch.labels.tolist() == [1]
    assert len(batch.clips) == 1
    [(path, reason)] = batch.failed
    assert path == str(clips[2].path)
    assert "broken.mp4" in reason


def test_a_batch_may_be_empty(clips: list[Clip]) -> None:
    batch = ClipBatches(clips, [0, 1, 0], FORM)[[(0, 2)]]
    assert batch.clips.shape == (0, 3, 4, 64, 64)
    assert len(batch.labels) == 0


def test_decoding_in_advance_tells_what_fails(clips: list[Clip]) -> None:
    whole, part, broken = decode_clips(clips, 32, num_workers=2)
    assert whole.frames is not None
    assert part.frames is not None
    assert whole.frames.shape == (40, 32, 32, 3)
    assert part.frames.shape == (10, 32, 48, 3)
    assert broken.frames is None
    assert "broken.mp4" in broken.reason


def test_what_fits_in_memory(clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 3 * 32 * (40 * 32 + 10 * 48)
    many = clips[:2] * 10
    monkeypatch.setattr(module, "CACHE_BYTES", 10 * needed)
    assert fits_in_memory(many, 32)
    monkeypatch.setattr(module, "CACHE_BYTES", 10 * needed - 1)
    assert not fits_in_memory(many, 32)
    assert fits_in_memory(clips[2:], 32)  # nothing decodes: to be told by decoding


class Hanging(ClipBatches):
    """Its first clip never comes."""

    def _read(self, index, *how):  # type: ignore[no-untyped-def]
        if index == 0:
            with module.time_limit(0.2, self.clips[0].path):
                time.sleep(60)
        return super()._read(index, *how)


@pytest.mark.slow
def test_workers_give_the_same_batches_and_nothing_hangs(clips: list[Clip]) -> None:
    batches = Hanging(clips, [0, 1, 0], FORM, augmentation=NO_MIRROR)
    here, there = (list(load_batches(batches, 2, num_workers=number)) for number in (0, 1))
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.clips, other.clips)
        assert one.failed == other.failed != []
    assert [batch.labels.tolist() for batch in there] == [[1], []]
    assert "whole.mp4: no snippet after 0.2 s of decoding" in there[0].failed[0][1]


def test_a_time_limit_leaves_other_alarms_and_threads_alone(tmp_path: Path) -> None:
    before = signal.getitimer(signal.ITIMER_REAL)
    try:
        signal.setitimer(signal.ITIMER_REAL, 500)
        handler = signal.getsignal(signal.SIGALRM)
        with module.time_limit(0.1, tmp_path):
            assert signal.getitimer(signal.ITIMER_REAL)[0] < 1
        assert signal.getsignal(signal.SIGALRM) is handler
        assert 400 < signal.getitimer(signal.ITIMER_REAL)[0] <= 500
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
    passed = []

    def in_a_thread() -> None:
        with module.time_limit(0.01, tmp_path):
            time.sleep(0.1)
        passed.append(True)

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert passed
