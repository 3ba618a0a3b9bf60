"""Batches of boundary clips: which clips they are made of, which pixels, what becomes of sources that are no good."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from video_files import overwrite_packets, read_indices, write_video

from pipeline.clips import batches as clip_batches
from pipeline.clips.batches import ClipForm, decode_clips
from pipeline.clips.reading import Clip
from pipeline.commands.bsp_synth.boundary_clips import BoundaryBatches, make_synthesis, to_common_size
from pipeline.commands.bsp_synth.options import SynthesisConfig
from synth.boundaries import KINDS, PAIRS, Kind, Synthesis

FORM = ClipForm(num_frames=8, frame_stride=2, resize=64, size=64)
CUTS = Synthesis(blend=())
FrameArray = NDArray[np.uint8]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Two clips of class a, one of them 3 of 5 seconds of its file; two of b, one with uneven frames; one alone."""
    folder = tmp_path_factory.mktemp("clips")
    files = [write_video(folder / f"{name}.mp4", 50, fps=10) for name in ("a1", "a2", "b1", "b2", "c1")]
    write_video(files[3], 50, timestamps=[place / 10 + (0.04 if place % 3 else 0) for place in range(50)])
    spans = [(None, None), (1.0, 4.0), (None, None), (None, None), (None, None)]
    return [Clip(file, file.stem[0], *span, "training") for file, span in zip(files, spans, strict=True)]


def batches_of(clips: Sequence[Clip], synthesis: Synthesis = CUTS, **options: Any) -> BoundaryBatches:
    return BoundaryBatches(clips, FORM, synthesis, **{"seed": 0, "size": 40, "mirror": False, **options})


def places(count: int, epoch: int = 0) -> list[tuple[int, int]]:
    return [(epoch, index) for index in range(count)]


def decoded(clips: Sequence[Clip]) -> list[FrameArray]:
    frames = [result.frames for result in decode_clips(clips, 64, num_workers=1)]
    return [one for one in frames if one is not None]


def flat(value: int, num_frames: int = 40, size: tuple[int, int] = (64, 64)) -> FrameArray:
    """Frames of one grey, as if decoded."""
    return np.full((num_frames, *size, 3), value, np.uint8)


def clip_of(label: str, name: str = "") -> Clip:
    return Clip(Path(f"{label}{name}.mp4"), label, None, None, "training")


# --- What is in a batch -----------------------------------------------------------------------------------------------


def test_a_batch(clips: list[Clip]) -> None:
    batch = batches_of(clips)[places(8)]
    assert batch.clips.shape == (8, 3, 8, 64, 64)
    assert batch.clips.dtype == torch.uint8
    assert batch.kinds.tolist() == [0, 1, 2, 3] * 2
    assert batch.change_points.dtype == torch.float32
    assert batch.change_points[:2].tolist() == [4, 4]
    assert 2 <= batch.change_points[2] <= 6
    assert math.isnan(batch.change_points[3])
    assert batch.failed == []
    assert len(batches_of(clips)) == 40


def test_kinds_are_numbered_as_they_are_asked_for(clips: list[Clip]) -> None:
    batches = batches_of(clips, kinds=("same-speed", "diff-class"))
    assert batches[places(4)].kinds.tolist() == [0, 1, 0, 1]
    made = [batches.make(0, index, []) for index in range(4)]
    assert [one.plan.kind for one in made if one] == ["same-speed", "diff-class"] * 2


@pytest.mark.parametrize("in_memory", [False, True])
def test_clips_show_the_frames_of_their_plans(
    clips: list[Clip], in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_batches, "CROP_SCALES", (1.0,))
    batches = batches_of(clips, frames=decoded(clips) if in_memory else None)
    sources_seen = set()
    for index in range(24):
        made = batches.make(0, index, [])
        assert made is not None
        first_frames = [10 if source.start else 0 for source in made.sources]
        expected = [
            first + frame
            for first, frames in zip(first_frames, made.plan.frames, strict=True)
            for frame in frames.tolist()
        ]
        assert read_indices(made.frames.permute(0, 2, 3, 1).numpy()) == expected
        sources_seen |= {source.path.stem for source in made.sources}
    assert sources_seen == {"a1", "a2", "b1", "b2"}


def test_only_the_frames_that_show_are_decoded(clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = clip_batches.read_clip

    def counting(path: Path, indices: NDArray[np.int64], **options: Any) -> FrameArray:
        asked.append(len(indices))
        return read(path, indices, **options)

    monkeypatch.setattr(clip_batches, "read_clip", counting)
    batches_of(clips, Synthesis())[places(4)]
    assert asked == [5, 6, 4, 4, 8, 8]


def test_the_blend_mixes_the_two_sources() -> None:
    frames = [flat(0), flat(200), flat(0), flat(200)]
    clips = [clip_of("a"), clip_of("b"), clip_of("a", "2"), clip_of("b", "2")]
    kinds: tuple[Kind, ...] = ("diff-class",)
    batch = batches_of(clips, Synthesis(), kinds=kinds, frames=frames)[places(8)]
    for clip_3LHW in batch.clips:
        values = clip_3LHW.float().mean(dim=(0, 2, 3)).tolist()
        assert values in ([0, 0, 50, 100, 150, 200, 200, 200], [200, 200, 150, 100, 50, 0, 0, 0])


# --- Nothing but the boundary -----------------------------------------------------------------------------------------


def test_both_halves_are_cropped_and_mirrored_alike() -> None:
    """Sources of one picture, whose red says the row and whose green the column: no frame differs from another."""
    ramp = flat(0)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None], np.arange(64)
    clips = [clip_of(label, str(number)) for label in "ab" for number in range(2)]
    batches = BoundaryBatches(clips, FORM, CUTS, seed=0, size=40, mirror=True, frames=[ramp] * 4)
    clips_B3LHW = batches[places(40)].clips
    assert (clips_B3LHW == clips_B3LHW[:, :, :1]).all()
    assert len({clip[:2, 0].numpy().tobytes() for clip in clips_B3LHW}) > 20  # crops differ from clip to clip
    mirrored = [bool(clip[1, 0, 0, 0] > clip[1, 0, 0, -1]) for clip in clips_B3LHW]
    assert 8 < sum(mirrored) < 32


def test_sources_of_other_shapes_are_brought_to_a_common_one() -> None:
    wide, high = flat(1, 3, (64, 90)), flat(2, 5, (80, 64))
    wide[:, :, :13], wide[:, :, 77:] = 9, 9
    high[:, :8], high[:, 72:] = 9, 9
    cut = to_common_size([wide, high])
    assert [half.shape for half in cut] == [(3, 64, 64, 3), (5, 64, 64, 3)]
    assert [set(half.ravel().tolist()) for half in cut] == [{1}, {2}]
    clips = [clip_of("a"), clip_of("b")]
    frames = [flat(1, 40, (64, 90)), flat(2, 40, (80, 64))]
    batch = batches_of(clips, kinds=("diff-class",), frames=frames)[places(4)]
    assert {tuple(clip[0, :, 5, 5].tolist()) for clip in batch.clips} == {(1,) * 4 + (2,) * 4, (2,) * 4 + (1,) * 4}


def test_pairs_are_drawn_alike_in_both_kinds() -> None:
    """Ten clips, six of class a and four of b, in memory: any first one; any other one of the right class."""
    clips = [clip_of("a" if number < 6 else "b", str(number)) for number in range(10)]
    for kind in PAIRS:
        batches = batches_of(clips, kinds=(kind,), frames=[flat(0, 40, (8, 8))] * 10, size=2000)
        batches.form = replace(FORM, resize=8, size=8)
        pairs = []
        for index in range(600):
            made = batches.make(0, index, [])
            assert made is not None
            pairs.append(made.sources)
        assert all((first.label == second.label) == (kind == "same-class") for first, second in pairs)
        assert all(first is not second for first, second in pairs)
        for side in (0, 1):
            counts = Counter(pair[side].path.name for pair in pairs)
            assert len(counts) == 10
            assert min(counts.values()) > 15
        assert 0.5 < sum(first.label == "a" for first, _ in pairs) / 600 < 0.7


def test_a_clip_alone_in_its_class_is_used_where_no_class_needs_two(clips: list[Clip]) -> None:
    assert batches_of(clips).num_alone == 1
    batches = batches_of(clips, kinds=("diff-class", "same-speed"))
    assert batches.num_alone == 0
    made = [batches.make(0, index, []) for index in range(30)]
    assert "c1" in {source.path.stem for one in made if one for source in one.sources}


# --- Places decide ----------------------------------------------------------------------------------------------------


def test_a_place_decides_its_clip_decoded_before_or_on_the_way_here_or_in_a_worker(clips: list[Clip]) -> None:
    where = [*places(4, 0), *places(4, 1)]
    batches = batches_of(clips, Synthesis(), mirror=True)
    batch = batches[where]
    in_memory = batches_of(clips, Synthesis(), mirror=True, frames=decoded(clips))[where]
    pickled = pickle.loads(pickle.dumps(batches))[where]
    for other in (in_memory, pickled, batches[where]):
        assert torch.equal(batch.clips, other.clips)
        assert torch.equal(batch.change_points.nan_to_num(-1), other.change_points.nan_to_num(-1))
    assert torch.equal(batches[[(1, 3)]].clips[0], batch.clips[7])
    assert not torch.equal(batch.clips[:4], batch.clips[4:])  # another epoch
    assert not torch.equal(batch.clips, batches_of(clips, Synthesis(), mirror=True, seed=1)[where].clips)


def test_validation_sees_the_same_clips_from_the_middle_in_each_epoch(clips: list[Clip]) -> None:
    wide = [flat(10 * place, 40, (64, 100)) for place, _ in enumerate(clips)]
    for frames in wide:
        frames[..., 0] = np.arange(100)
        frames[..., 1] = np.arange(40)[:, None, None]
    batches = batches_of(clips, mirror=True, augment=False, frames=wide)
    batch = batches[places(12)]
    assert (batch.clips[:, 0, :, :, 0] == 18).all()  # half of what 100 columns have more than 64
    assert torch.equal(batch.clips, batches[places(12, epoch=5)].clips)


# --- Change points for regression -------------------------------------------------------------------------------------


def heatmaps(change_points_B: Tensor, tau: int = 4) -> Tensor:
    """y_t = exp(-(t - μ)² / 2τ) for t = 1 to L (section 3.3), (B, L)."""
    t_L = torch.arange(1, 2 * tau + 1)
    return torch.exp(-((t_L - change_points_B[:, None]) ** 2) / (2 * tau))


def best_constant_loss(target_BL: Tensor) -> float:
    """Smooth L1 of the constant that is best: the mean, because no difference exceeds 1."""
    return F.smooth_l1_loss(target_BL.mean(dim=0).expand_as(target_BL), target_BL).item()


def guess_from_differences(clips_B3LHW: Tensor) -> Tensor:
    """Frames before the largest difference between neighbours, (B,)."""
    differences_BL = clips_B3LHW.float().diff(dim=2).abs().mean(dim=(1, 3, 4))
    return differences_BL.argmax(dim=1) + 1.0


@pytest.mark.parametrize("kind", PAIRS)
def test_with_shift_the_best_constant_answer_loses_clearly(clips: list[Clip], kind: Kind) -> None:
    """To a look at the clip, and where nothing is shifted it would be right always."""
    frames = [flat(value) for value in (10, 60, 110, 160, 210)]
    still = batches_of(clips, kinds=(kind,), frames=frames)[places(60)]
    assert best_constant_loss(heatmaps(still.change_points)) < 1e-12
    shifted = batches_of(clips, kinds=(kind,), frames=frames, shift=True)[places(60)]
    assert Counter(shifted.change_points.tolist()).keys() == {2, 3, 4, 5, 6}
    target_BL = heatmaps(shifted.change_points)
    constant = best_constant_loss(target_BL)
    guessed = F.smooth_l1_loss(heatmaps(guess_from_differences(shifted.clips)), target_BL).item()
    assert constant > 0.02
    assert guessed < constant / 10


# --- Sources that are no good -----------------------------------------------------------------------------------------


@pytest.fixture
def bad_clips(clips: list[Clip], tmp_path: Path) -> list[Clip]:
    """One damaged, one missing, one too short, one of which only the beginning is there, beside the good ones."""
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    short = write_video(tmp_path / "short.mp4", 14, fps=10)
    torn = overwrite_packets(write_video(tmp_path / "torn.mp4", 50, fps=10, options={"g": "50"}), range(1, 50))
    names = {"damaged": tmp_path / "damaged.mp4", "missing": tmp_path / "missing.mp4", "short": short, "torn": torn}
    bad = [Clip(path, "ab"[place % 2], None, None, "training") for place, path in enumerate(names.values())]
    return [*clips[:4], *bad]


def test_other_clips_take_the_place_of_those_that_are_no_good(bad_clips: list[Clip]) -> None:
    batches = batches_of(bad_clips)
    batch = batches[places(40)]
    assert len(batch.clips) == 40
    assert batch.kinds.tolist() == [0, 1, 2, 3] * 10
    reasons = dict(batch.failed)
    assert {Path(path).stem for path in reasons} == {"damaged", "missing", "short", "torn"}
    [short] = [reason for path, reason in reasons.items() if "short" in path]
    assert short.endswith("short.mp4: the clip has 14 frames, and boundary clips with frames 2 apart take 15")
    again = batches[places(40)]
    assert torch.equal(batch.clips, again.clips)  # what is known by now changes nothing
    assert dict(again.failed) == reasons


def test_short_parts_of_one_file_are_each_named(clips: list[Clip]) -> None:
    parts = [replace(clips[0], start=second, end=second + 1) for second in (0.0, 1.0)]
    failed = dict(batches_of([*clips[:4], *parts])[places(40)].failed)
    assert sorted(failed) == [f"{clips[0].path}, {second} to {second + 1} s" for second in (0, 1)]
    assert all(reason.startswith(f"{name}: the clip has 10 frames") for name, reason in failed.items())


def test_an_unusable_file_is_looked_at_once(bad_clips: list[Clip], monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[str] = []
    probe = clip_batches.probe_video
    monkeypatch.setattr(clip_batches, "probe_video", lambda path: (probed.append(path.stem), probe(path))[1])
    batches_of(bad_clips)[places(40)]
    assert Counter(probed)["damaged"] == Counter(probed)["missing"] == Counter(probed)["short"] == 1


def test_what_was_found_out_before_changes_nothing(clips: list[Clip], tmp_path: Path) -> None:
    """Of a file with a damaged end the beginning is used, whether or not the end has been met, as after resuming."""
    torn = overwrite_packets(write_video(tmp_path / "torn.mp4", 60, fps=10, options={"g": "10"}), range(30, 60))
    half_good = [*clips[:4], Clip(torn, "a", None, None, "training")]
    batches = batches_of(half_good)
    assert [Path(path).stem for path, _ in batches[places(40)].failed]
    failed: list[tuple[str, str]] = []
    made = [batches_of(half_good).make(1, index, failed) for index in range(40)]
    assert torn in {source.path for one in made if one for source in one.sources}
    assert str(torn) in dict(failed)
    later, resumed = batches[places(40, epoch=1)], batches_of(half_good)[places(40, epoch=1)]
    assert torch.equal(later.clips, resumed.clips)
    assert later.failed == resumed.failed


def test_a_batch_may_be_empty(bad_clips: list[Clip]) -> None:
    batches = batches_of(bad_clips[4:])
    batch = batches[places(3)]
    assert batch.clips.shape == (0, 3, 8, 64, 64)
    assert batch.clips.dtype == torch.uint8
    assert len(batch.kinds) == len(batch.change_points) == 0
    assert batch.failed
    with pytest.raises(ValueError, match=r"no boundary clip can be made of these 4 clips; the first.*mp4"):
        batches.check()
    batches_of(bad_clips).check()


# --- What cannot be asked for -----------------------------------------------------------------------------------------


def test_same_class_takes_two_clips_of_a_class(clips: list[Clip]) -> None:
    lonely = [clips[0], clips[2], clips[4]]
    with pytest.raises(ValueError, match="no class of the 3 clips has two"):
        batches_of(lonely)
    assert len(batches_of(lonely, kinds=("diff-class", "same-speed"))[places(2)].clips) == 2


def test_diff_class_takes_two_classes(clips: list[Clip]) -> None:
    with pytest.raises(ValueError, match="are of class 'a'; a diff-class boundary takes two classes"):
        batches_of([clips[0], clips[1], clips[4]])


@pytest.mark.parametrize("kinds", [(), ("diff-scene",)])
def test_unknown_kinds(clips: list[Clip], kinds: Any) -> None:
    with pytest.raises(ValueError, match="expected some of diff-class, same-class, diff-speed, same-speed"):
        batches_of(clips, kinds=kinds)


def test_another_number_of_frames(clips: list[Clip]) -> None:
    with pytest.raises(ValueError, match=r"boundary clips have 2·tau = 16 frames, the encoder sees 8"):
        batches_of(clips, Synthesis(tau=8))


def test_options_become_a_synthesis() -> None:
    assert make_synthesis(SynthesisConfig(), 8) == Synthesis()
    assert make_synthesis(SynthesisConfig(tau=8, epsilon=3, blend="both", rates=(0.25,)), 16) == Synthesis(
        8, 3, PAIRS, (0.25,)
    )
    assert make_synthesis(SynthesisConfig(blend="none", change_points=(3, 5)), 8) == Synthesis(
        blend=(), change_points=(3, 5)
    )
    assert set(KINDS) > set(PAIRS)


@pytest.mark.parametrize(
    ("options", "num_frames", "message"),
    [
        ({}, 7, "even number of frames, and the encoder sees 7: give num_frames"),
        ({}, 1, "the encoder sees 1"),
        ({"tau": 4}, 16, "synthesis.tau 4 makes boundary clips of 8 frames, and the encoder sees 16"),
        ({"epsilon": 5}, 8, "epsilon 5"),
        ({"epsilon": 2}, 2, "tau is 1, epsilon 2"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], num_frames: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_synthesis(SynthesisConfig(**options), num_frames)
