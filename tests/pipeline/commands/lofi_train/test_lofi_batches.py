"""Training batches of whole videos: which frames, which pixels, which rows, and what becomes of broken videos."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from video_files import read_indices, write_video

import pipeline.commands.lofi_train.video_batches as module
import pipeline.data.video
from pipeline.commands.lofi_train.fidelity import Fidelity, Schedule
from pipeline.commands.lofi_train.video_batches import AnnotatedFile, VideoBatch, VideoBatches, crop_alike
from pipeline.data.annotations import Segment, Video
from pipeline.data.snippets import Sampling, sample_snippets
from pipeline.data.video import probe_video
from pipeline.data.video.frame_cache import FrameCache
from pipeline.training.batches import load_batches
from pipeline.training.places import Places

SAMPLING = Sampling(num_frames=4, frame_stride=3, num_snippets=6)
FULL, LOW = Fidelity(6, 64, 64), Fidelity(3, 48, 48)
ALWAYS_FULL, BY_EPOCH = Schedule((FULL,)), Schedule((FULL, LOW), epochs=1)
LABELS = ("jump", "run")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[AnnotatedFile]:
    """4 s and 40 frames; a wide one; a file that is no video; half a snippet."""
    folder = tmp_path_factory.mktemp("videos")
    segments = (Segment(1.0, 2.0, "run"), Segment(2.5, 9.0, "jump"))
    whole = write_video(folder / "whole.mp4", 40, fps=10)
    wide = write_video(folder / "wide.mp4", 50, fps=10, size=(96, 64))
    (folder / "broken.mp4").write_bytes(b"no video")
    short = write_video(folder / "short.mp4", 6, fps=10)
    return [
        AnnotatedFile(path, Video(path.stem, None, "training", segments))
        for path in (whole, wide, folder / "broken.mp4", short)
    ]


def batches(
    files: list[AnnotatedFile], schedule: Schedule = ALWAYS_FULL, *, seed: int = 0, mirror: bool = False
) -> VideoBatches:
    return VideoBatches(files, LABELS, SAMPLING, schedule, seed=seed, mirror=mirror)


def places(*pairs: tuple[int, int], batch: int = 0) -> Places:
    return Places(pairs, batch=batch)


def indices_of(clips_T3LHW: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The frame that each frame of each snippet is, (T, L)."""
    frames_NHWC = clips_T3LHW.movedim(1, -1).flatten(0, 1).numpy()
    return np.array(read_indices(frames_NHWC)).reshape(len(clips_T3LHW), -1)


# --- What is seen -----------------------------------------------------------------------------------------------------


def test_snippets_are_those_of_extraction_at_every_fidelity(files: list[AnnotatedFile]) -> None:
    info = probe_video(files[0].path)
    for epoch, fidelity in ((0, FULL), (1, LOW), (2, FULL)):
        batch = batches(files, BY_EPOCH)[places((epoch, 0))]
        assert batch.clips.shape == (1, fidelity.num_snippets, 3, 4, fidelity.size, fidelity.size)
        assert batch.clips.dtype == torch.uint8
        sampling = replace(SAMPLING, num_snippets=fidelity.num_snippets)
        expected_TL, _ = sample_snippets(info.timestamps, info.duration, sampling)
        np.testing.assert_array_equal(indices_of(batch.clips[0]), expected_TL)


def test_the_batch_decides_on_the_fidelity_of_the_short_cycle(files: list[AnnotatedFile]) -> None:
    by_batch = batches(files, Schedule((FULL, LOW), batches=2, batches_per_epoch=3))
    lengths = [by_batch[places((epoch, 0), batch=batch)].clips.shape[1] for epoch in range(2) for batch in range(3)]
    assert lengths == [6, 6, 3, 3, 6, 6]


def test_segments_are_in_rows_of_the_current_length(files: list[AnnotatedFile]) -> None:
    full, low = (batches(files, BY_EPOCH)[places((epoch, 0))] for epoch in (0, 1))
    assert full.segments[0].tolist() == [[1.5, 3.0], [3.75, 13.5]]  # 4 s are 6 rows
    assert low.segments[0].tolist() == [[0.75, 1.5], [1.875, 6.75]]
    assert full.labels[0].tolist() == [1, 0]
    assert (full.segments[0].dtype, full.labels[0].dtype) == (torch.float32, torch.int64)


def test_a_video_shorter_than_a_snippet_is_seen_whole(files: list[AnnotatedFile]) -> None:
    batch = batches(files)[places((0, 3))]
    assert batch.failed == []
    found_TL = indices_of(batch.clips[0])
    assert found_TL.min() == 0
    assert found_TL.max() == 5


# --- Crops ------------------------------------------------------------------------------------------------------------


def ramp(num_frames: int, height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Frames whose red says the row, whose green says the column, whose blue says the frame."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[..., 0], frames[..., 1] = np.arange(height)[:, None], np.arange(width)
    frames[..., 2] = np.arange(num_frames)[:, None, None]
    return frames


def test_all_frames_are_cropped_alike() -> None:
    seen = set()
    for seed in range(200):
        cropped = crop_alike(ramp(3, 18, 19), 16, np.random.default_rng(seed), mirror=True)
        assert cropped.shape == (3, 16, 16, 3)
        np.testing.assert_array_equal(cropped[..., 2], np.broadcast_to(np.arange(3)[:, None, None], (3, 16, 16)))
        np.testing.assert_array_equal(cropped[1:, ..., :2], cropped[:-1, ..., :2])
        top, (left, right) = int(cropped[0, 0, 0, 0]), sorted(map(int, cropped[0, 0, [0, -1], 1]))
        assert right - left == 15
        seen.add((top, left, bool(cropped[0, 0, 0, 1] > left)))
    assert seen == {(top, left, mirrored) for top in range(3) for left in range(4) for mirrored in (False, True)}


def test_without_mirroring_none_is_mirrored() -> None:
    crops = [crop_alike(ramp(1, 16, 16), 16, np.random.default_rng(seed), mirror=False) for seed in range(20)]
    assert all((crop == ramp(1, 16, 16)).all() for crop in crops)


def test_a_place_decides_its_crop(files: list[AnnotatedFile]) -> None:
    wide = [files[1]] * 2

    def clip(epoch: int, index: int, seed: int = 0) -> Tensor:
        return batches(wide, seed=seed, mirror=True)[places((epoch, index))].clips

    crops = [clip(0, 0), clip(1, 0), clip(0, 1), clip(0, 0, seed=1)]
    assert torch.equal(crops[0], clip(0, 0))
    assert not any(torch.equal(crops[0], other) for other in crops[1:])


# --- Broken videos, data workers, the cache ---------------------------------------------------------------------------


def test_a_broken_video_is_left_out_and_named(files: list[AnnotatedFile]) -> None:
    batch = batches(files)[places((0, 0), (0, 2), (0, 3))]
    assert batch.names == ["whole", "short"]
    assert len(batch.clips) == len(batch.segments) == len(batch.labels) == 2
    [(file, reason)] = batch.failed
    assert file.endswith("broken.mp4")
    assert "broken.mp4" in reason
    only = batches(files)[places((0, 2))]
    assert (len(only.clips), len(only.failed)) == (0, 1)


def same(one: VideoBatch, other: VideoBatch) -> bool:
    tensors = zip([one.clips, *one.segments, *one.labels], [other.clips, *other.segments, *other.labels], strict=True)
    return all(torch.equal(a, b) for a, b in tensors) and (one.names, one.failed) == (other.names, other.failed)


def test_data_workers_make_the_same_batches(files: list[AnnotatedFile]) -> None:
    source = VideoBatches(
        files, LABELS, SAMPLING, Schedule((FULL, LOW), batches=1, batches_per_epoch=2), seed=0, mirror=True
    )
    here, there = (load_batches(source, 2, shuffle_seed=0, num_workers=number) for number in (0, 2))
    assert all(same(*pair) for pair in zip(here, there, strict=True))


def test_the_cache_changes_nothing_and_saves_decoding(
    files: list[AnnotatedFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = VideoBatches(
        files, LABELS, SAMPLING, BY_EPOCH, seed=0, mirror=True, cache=FrameCache(tmp_path / "cache", 10**8)
    )
    wanted = [places((epoch, 0), (epoch, 1), (epoch, 3)) for epoch in range(4)]
    plain = [batches(files, BY_EPOCH, mirror=True)[one] for one in wanted]
    assert all(same(cached[one], other) for one, other in zip(wanted[:2], plain, strict=False))

    def no_decoding(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(module, "read_clip", no_decoding)
    assert all(same(cached[one], other) for one, other in zip(wanted, plain, strict=True))


def test_only_the_frames_that_are_seen_are_decoded(files: list[AnnotatedFile], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read_clip = pipeline.data.video.read_clip

    def noted(path: Path, indices: list[int], **options: int) -> object:
        asked.extend(indices)
        assert options["resize"] == 48
        return read_clip(path, indices, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "read_clip", noted)
    clips = batches(files, Schedule((LOW,)))[places((0, 0))].clips
    assert sorted(asked) == sorted(set(indices_of(clips[0]).flatten().tolist()))
