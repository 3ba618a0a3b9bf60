"""Pretext tasks: which frames make a class, and that nothing but their order and distance tells it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_files import write_motion
from hypothesis import given
from hypothesis import strategies as st
from video_files import read_indices, write_video

from pipeline.clips.batches import Augmentation, ClipForm, decode_clips
from pipeline.clips.reading import Clip
from pipeline.commands.pretrain import command as pretrain
from pipeline.commands.pretrain.options import PretrainConfig
from pipeline.commands.pretrain.pretext import Playback, PlaybackForm, PretextBatches, playbacks_of
from pipeline.training.options import TrainingConfig

FORM = ClipForm(num_frames=4, frame_stride=3, resize=64, size=64)
ARROW = playbacks_of("arrow-of-time", ())
SPEEDS = playbacks_of("playback-speed", (1, 2))
AUGMENTATION = Augmentation(seed=0, mirror=True)


def form_of(playback: Playback, fastest: int = 1, **changed: int) -> PlaybackForm:
    base = replace(FORM, **changed)
    return PlaybackForm(base.num_frames, base.frame_stride, base.resize, base.size, playback, fastest)


# --- Which frames -----------------------------------------------------------------------------------------------------


def test_frames_of_each_class() -> None:
    forward, backward = (form_of(playback) for playback in ARROW)
    assert forward.frames_at(2, 20).tolist() == [3, 6, 9, 12]  # as `ClipForm` has them
    assert FORM.frames_at(2, 20).tolist() == [3, 6, 9, 12]
    assert backward.frames_at(2, 20).tolist() == [12, 9, 6, 3]
    normal, fast = (form_of(playback, fastest=2) for playback in SPEEDS)
    assert fast.frames_at(0, 24).tolist() == [2, 8, 14, 20]
    assert normal.frames_at(0, 24).tolist() == [7, 10, 13, 16]


def test_short_clips_are_taken_at_a_smaller_stride_in_all_classes() -> None:
    normal, fast = (form_of(playback, fastest=2) for playback in SPEEDS)
    assert fast.frames_at(0, 16).tolist() == [1, 5, 9, 13]
    assert normal.frames_at(0, 16).tolist() == [4, 6, 8, 10]


@given(st.data())
def test_no_frame_is_repeated_and_all_classes_have_one_middle(data: st.DataObject) -> None:
    """Repeated frames, as at the end of too short a clip, would tell the speed and the direction."""
    speeds = data.draw(st.lists(st.integers(1, 8), min_size=2, max_size=4, unique=True))
    num_frames, stride = data.draw(st.integers(1, 16)), data.draw(st.integers(1, 8))
    length = data.draw(st.integers(num_frames * max(speeds), 400))
    playbacks = [*playbacks_of("playback-speed", speeds), Playback("back", max(speeds), backward=True)]
    forms = [form_of(one, max(speeds), num_frames=num_frames, frame_stride=stride) for one in playbacks]
    [last] = {form.last_start(length) for form in forms}
    start = data.draw(st.integers(0, last))
    middles = []
    for form in forms:
        frames_L = form.frames_at(start, length)
        steps = np.diff(frames_L)
        assert frames_L.min() >= 0
        assert frames_L.max() < length
        step = form.playback.speed * min(stride, length // (num_frames * max(speeds)))
        assert (steps == (-step if form.playback.backward else step)).all()
        middles.append(frames_L.mean())
    assert max(middles) - min(middles) <= 1


# --- Batches ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("clips")
    paths = [write_video(folder / f"{number}.mp4", length) for number, length in enumerate((40, 30))]
    return [Clip(path, "any", None, None, "training") for path in paths]


def indices_of(snippet_3LHW: torch.Tensor) -> list[int]:
    return read_indices(snippet_3LHW.permute(1, 2, 3, 0).numpy())


def test_validation_sees_each_clip_once_in_every_class(clips: list[Clip]) -> None:
    batches = PretextBatches(clips, SPEEDS, FORM)
    batch = batches[[(0, index) for index in range(len(batches))]]
    assert batch.labels.tolist() == [0, 1, 0, 1]
    assert [indices_of(clip) for clip in batch.clips] == [
        [15, 18, 21, 24],
        [10, 16, 22, 28],
        [10, 13, 16, 19],
        [5, 11, 17, 23],
    ]


def test_training_draws_the_class_by_seed_epoch_and_index(clips: list[Clip]) -> None:
    places = [(epoch, index) for epoch in range(40) for index in range(2)]
    frames = [np.zeros((20, 64, 64, 3), np.uint8)] * 2

    def labels_of(augmentation: Augmentation) -> list[int]:
        drawn: list[int] = PretextBatches(clips, ARROW, FORM, augmentation=augmentation, frames=frames)[
            places
        ].labels.tolist()
        return drawn

    labels = labels_of(AUGMENTATION)
    assert 25 < sum(labels) < 55
    assert labels[:40] != labels[40:]
    assert labels[0::2] != labels[1::2]
    assert labels == labels_of(AUGMENTATION) != labels_of(replace(AUGMENTATION, seed=1))


def test_the_direction_shows_in_the_order_of_frames_alone(clips: list[Clip]) -> None:
    """With the classes exchanged, the same draws give the same pixels in the other order: no frame tells."""
    places = [(epoch, index) for epoch in range(8) for index in range(2)]
    one = PretextBatches(clips, ARROW, FORM, augmentation=AUGMENTATION)[places]
    other = PretextBatches(clips, ARROW[::-1], FORM, augmentation=AUGMENTATION)[places]
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.clips, other.clips.flip(2))
    assert not torch.equal(one.clips, other.clips)


def test_decoded_before_or_on_the_way(clips: list[Clip]) -> None:
    frames = [result.frames for result in decode_clips(clips, 64, num_workers=1) if result.frames is not None]
    for augmentation in (AUGMENTATION, None):
        batches = PretextBatches(clips, SPEEDS, FORM, augmentation=augmentation)
        places = [(epoch, index) for epoch in range(3) for index in range(len(batches))]
        before = PretextBatches(clips, SPEEDS, FORM, augmentation=augmentation, frames=frames)
        assert torch.equal(before[places].clips, batches[places].clips)


def test_too_short_clips_are_left_out_and_named(tmp_path: Path, clips: list[Clip]) -> None:
    short = replace(clips[0], path=write_video(tmp_path / "short.mp4", 7))
    batch = PretextBatches([short, clips[1]], SPEEDS, FORM, augmentation=AUGMENTATION)[[(0, 0), (0, 1)]]
    reason = f"{short.path}: 7 frames are too few for this task, which takes at least 8"
    assert (len(batch.clips), batch.failed) == (1, [(str(short.path), reason)])
    with pytest.raises(ValueError, match=r"the first 2 clips cannot be used for this task: .*short\.mp4: 7 frames"):
        PretextBatches([short], SPEEDS, FORM).check()
    PretextBatches([short, clips[1]], SPEEDS, FORM).check()


# --- The stage --------------------------------------------------------------------------------------------------------

TRAINING = TrainingConfig(
    epochs=1, batch_size=8, lr=3e-3, optimizer="adamw", lr_schedule="cosine", device="cpu", num_workers=1
)


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of one class, rising squares: 20 frames each."""
    folder = tmp_path_factory.mktemp("motions")
    for split, number in (("train", 12), ("val", 4)):
        for index in range(number):
            write_motion(folder / split / "rise" / f"{split}{index}.mp4", upward=True, seed=index)
    return folder


@pytest.fixture
def config(motions: Path, tmp_path: Path) -> PretrainConfig:
    return PretrainConfig(clips=motions, out=tmp_path / "run", encoder="tsm_tiny", training=TRAINING, dropout=0.1)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.slow
@pytest.mark.parametrize(("task", "epochs"), [("arrow-of-time", 12), ("playback-speed", 24)])
def test_the_tasks_are_learnt_without_labels(config: PretrainConfig, task: Any, epochs: int) -> None:
    training = replace(TRAINING, epochs=epochs)
    assert not pretrain.run(replace(config, task=task, training=training)).failed
    described = read(config.out / "encoder.json")
    assert described["labels"] == {"arrow-of-time": ["forward", "backward"], "playback-speed": ["1x", "2x"]}[task]
    assert read(config.out / "metrics.json")["top1"] > 80


def test_single_frames_tell_no_direction(config: PretrainConfig) -> None:
    with pytest.raises(ValueError, match="tsn_r18 looks at one frame at a time, which does not tell arrow-of-time"):
        pretrain.run(replace(config, task="arrow-of-time", encoder="tsn_r18"))


@pytest.mark.parametrize("speeds", [(1,), (1, 1), (0, 2)])
def test_speeds_that_are_no_classes(config: PretrainConfig, speeds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"speeds are \(.*expected two or more, all different, none below 1"):
        replace(config, speeds=speeds)


def test_segments_of_untrimmed_videos_are_clips(config: PretrainConfig, tmp_path: Path) -> None:
    """ACP+: an encoder is trained further on the segments of an annotation file."""
    database = {}
    for number in range(4):
        write_motion(tmp_path / "videos" / f"v_{number}.mp4", upward=True, seed=number)
        subset = "training" if number < 3 else "validation"
        segments = [{"segment": [0.0, 1.0], "label": "low"}, {"segment": [1.0, 2.0], "label": "high"}]
        database[str(number)] = {"duration": 2.0, "subset": subset, "annotations": segments}
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps({"database": database}))
    assert not pretrain.run(replace(config, clips=annotations, videos=tmp_path / "videos")).failed
    assert read(config.out / "encoder.json")["labels"] == ["high", "low"]
    assert read(config.out / "metrics.json")["skipped"] == {}
