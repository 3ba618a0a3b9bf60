"""The procedural data: exact times, one seed one data set, and the papers' problem in it."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clips.reading import read_clips
from pipeline.data.annotations import read_annotations
from synth.compose import SHARE_OF_VIDEO, compose_clip, compose_untrimmed, draw_spans
from synth.looks import USUAL_LOOKS
from synth.motions import MOTIONS, Action, Pose, Wander
from synth.render import Actor, Background, Scene, draw_scene, write_video
from synth.scenes import FRAME_RATES, SIZES, write_dataset

STILL = Wander(0.0, ())
FPS = 12


def draw(scene: Scene, num_frames: int) -> npt.NDArray[np.int16]:
    return np.stack(list(draw_scene(scene, num_frames=num_frames, fps=FPS, side=64))).astype(np.int16)


def still_scene(*actions: Action, label: str = "spin") -> Scene:
    """One actor in the middle that moves only when it acts."""
    actor = Actor(USUAL_LOOKS[label], 0.4, STILL, STILL, STILL, STILL, actions)
    background = Background((0.2, 0.2, 0.2), (0.4, 0.4, 0.4), ())
    return Scene((actor,), background, STILL, STILL, Wander(1.0, ()), noise=0.0, noise_seed=0)


# --- Motions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", MOTIONS)
def test_a_motion_shows_strictly_between_its_start_and_end(label: str) -> None:
    first, last = 7, 30
    frames_FHWC = draw(still_scene(Action(label, first / FPS, last / FPS, 0.9), label=label), 40)
    differs_F = np.abs(frames_FHWC - frames_FHWC[0]).max(axis=(1, 2, 3)) > 2
    assert not differs_F[: first + 1].any()
    assert not differs_F[last:].any()
    assert differs_F[first + 1]
    assert differs_F[first + 1 : last].mean() > 0.7  # all but the frames in between where a cycle is complete


@pytest.mark.parametrize("label", MOTIONS)
def test_a_motion_is_idle_at_whole_cycles_and_nowhere_else_for_long(label: str) -> None:
    change = MOTIONS[label](np.array([0.0, 1.0, 5.0]))
    for name, values in vars(change).items():
        whole_turns = values / (2 * math.pi) if name == "angle" else values
        np.testing.assert_allclose(whole_turns - np.round(whole_turns), 0, atol=1e-5)
    between = MOTIONS[label](np.linspace(0.1, 0.4, 4))
    assert max(np.abs(values).max() for values in vars(between).values()) > 0.1


def test_an_actor_never_gets_too_thin_to_be_drawn() -> None:
    one = np.ones(3)
    change = Pose(0 * one, 0 * one, 0 * one, np.array([-1.0, -0.99, -2.0]), 0 * one, 0 * one)
    width = Pose(one, one, one, one, one, one).moved(change).width
    assert np.abs(width).min() > 0.05
    assert width[2] == -1  # mirrored


@given(st.integers(0, 2**32 - 1))
def test_a_wandering_actor_stays_near_its_home(seed: int) -> None:
    path = Wander.draw(np.random.default_rng(seed), 0.3, 0.2, 0.5).at(np.linspace(0, 30, 200))
    assert np.abs(path - 0.3).max() <= 0.2 + 1e-6


# --- Pictures ---------------------------------------------------------------------------------------------------------


def test_outlines_are_anti_aliased_and_turn_with_the_actor() -> None:
    quarter = Wander(math.pi / 2, ())
    scene = still_scene()
    turned = Scene(
        (Actor(USUAL_LOOKS["spin"], 0.4, STILL, STILL, quarter, STILL),),
        Background((0.3,) * 3, (0.3,) * 3, ()),
        *(STILL, STILL),
        Wander(1.0, ()),
        *(0.0, 0),
    )
    upright = Scene(scene.actors, turned.background, STILL, STILL, turned.light, 0.0, 0)
    a, b = draw(upright, 1)[0], draw(turned, 1)[0]
    np.testing.assert_allclose(np.rot90(a, -1), b, atol=1)  # clockwise
    assert len(np.unique(a.reshape(-1, 3), axis=0)) > 50


def test_the_camera_moves_everything_alike() -> None:
    scene = still_scene()
    moved = Scene(scene.actors, scene.background, Wander(4 / 64, ()), STILL, scene.light, 0.0, 0)
    np.testing.assert_allclose(draw(moved, 1)[0, :, :-2], draw(scene, 1)[0, :, 2:], atol=1)


@pytest.mark.parametrize("fps", FRAME_RATES)
def test_frame_i_of_a_file_stands_at_i_over_fps_seconds(tmp_path: Path, fps: int) -> None:
    frames = [np.full((64, 64, 3), 10 * i, np.uint8) for i in range(20)]
    write_video(tmp_path / "a.mp4", frames, fps)
    with av.open(str(tmp_path / "a.mp4")) as container:
        decoded = list(container.decode(video=0))
        assert container.streams.video[0].codec_context.name == "h264"
    np.testing.assert_allclose([frame.time for frame in decoded], np.arange(20) / fps, atol=1e-9)
    levels = [frame.to_ndarray(format="rgb24").mean() for frame in decoded]
    np.testing.assert_allclose(levels, 10 * np.arange(20), atol=4)


def test_encoding_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    scene = compose_clip(np.random.default_rng(0), "spin", num_frames=30, fps=FPS)
    for i in range(6):
        write_video(tmp_path / f"{i}.mp4", draw_scene(scene, num_frames=30, fps=FPS, side=64), FPS)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


# --- Scenes -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(60, 450), st.sampled_from(FRAME_RATES))
def test_actions_are_apart_and_of_the_right_length(seed: int, num_frames: int, fps: int) -> None:
    spans = draw_spans(np.random.default_rng(seed), num_frames, fps)
    edges = [0, *(frame for span in spans for frame in span), num_frames]
    gaps, lengths = np.diff(edges)[::2], np.diff(edges)[1::2]
    assert gaps.min() >= 0.5 * fps
    assert lengths.min() >= SHARE_OF_VIDEO[0] * num_frames
    assert lengths.max() <= SHARE_OF_VIDEO[1] * num_frames


def test_an_actor_is_in_view_before_during_and_after_its_action() -> None:
    rng = np.random.default_rng(3)
    labels = list(MOTIONS)
    for _ in range(50):
        scene = compose_untrimmed(rng, labels, num_frames=240, fps=FPS)
        acting = [actor for actor in scene.actors if actor.actions]
        assert {action.label for actor in acting for action in actor.actions} >= {labels[0]}
        assert len(scene.actors) > len(acting), "a distractor"
        time = np.arange(240) / FPS
        for actor in acting:
            idle = np.all([(time <= a.start) | (time >= a.end) for a in actor.actions], axis=0)
            pose = actor.pose(time)
            assert np.abs(pose.x[idle]).max() < 1
            assert np.abs(pose.y[idle]).max() < 1


def test_a_clip_is_all_action() -> None:
    rng = np.random.default_rng(0)
    for label in MOTIONS:
        scene = compose_clip(rng, label, num_frames=30, fps=FPS)
        (action,) = [action for actor in scene.actors for action in actor.actions]
        assert (action.label, action.start < 0, action.end > 30 / FPS) == (label, True, True)


def test_looks_go_with_classes_usually_not_always() -> None:
    rng = np.random.default_rng(0)
    usual = [
        actor.look.shape == USUAL_LOOKS[actor.actions[0].label].shape
        for _ in range(60)
        for label in MOTIONS
        for actor in compose_clip(rng, label, num_frames=30, fps=FPS).actors
        if actor.actions
    ]
    assert 0.75 < np.mean(usual) < 0.97


# --- Data sets --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_dataset(folder, size="tiny", seed=5, workers=1)
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_seed_is_one_data_set_whatever_the_number_of_workers(tiny: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "same", size="tiny", seed=5, workers=2)
    write_dataset(tmp_path / "other", size="tiny", seed=6, workers=1)
    assert bytes_of(tmp_path / "same") == bytes_of(tiny)
    same_names = bytes_of(tmp_path / "other")
    assert same_names.keys() == bytes_of(tiny).keys()
    assert not set(same_names.values()) & set(bytes_of(tiny).values()) - {same_names["trimmed/clips.csv"]}


def test_our_readers_find_every_clip_and_every_video(tiny: Path) -> None:
    size = SIZES["tiny"]
    clips = read_clips(tiny / "trimmed" / "clips.csv")
    assert not clips.blemishes
    assert len(clips.in_subset("training")) == size.num_classes * size.train_clips
    assert len(clips.in_subset("validation")) == size.num_classes * size.val_clips
    annotations = read_annotations(tiny / "untrimmed" / "annotations.json")
    assert not annotations.blemishes
    assert len(annotations.in_subset("training")) == size.train_videos
    assert len(annotations.in_subset("validation")) == size.val_videos
    assert annotations.labels == clips.labels == tuple(sorted(list(MOTIONS)[: size.num_classes]))


def test_annotations_stand_on_the_frames_of_the_files(tiny: Path) -> None:
    database: dict[str, Any] = json.loads((tiny / "untrimmed" / "annotations.json").read_text())["database"]
    for video_id, video in database.items():
        with av.open(str(tiny / "untrimmed" / "videos" / f"{video_id}.mp4")) as container:
            times = [frame.time for frame in container.decode(video=0)]
        fps = round(1 / (times[1] - times[0]))
        assert fps in FRAME_RATES
        assert video["duration"] == pytest.approx(len(times) / fps)
        edges = np.array([second for a in video["annotations"] for second in a["segment"]])
        np.testing.assert_allclose(edges * fps, np.round(edges * fps), atol=1e-6)


def test_the_clip_list_is_in_the_layout_of_kinetics(tiny: Path) -> None:
    with (tiny / "trimmed" / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["label", "youtube_id", "time_start", "time_end", "split"]
    for row in rows:
        name = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4"
        with av.open(str(tiny / "trimmed" / "clips" / name)) as container:
            times = [frame.time for frame in container.decode(video=0)]
        assert len(times) * times[1] == pytest.approx(int(row["time_end"]) - int(row["time_start"]), abs=1e-6)


@pytest.mark.parametrize("name", ["demo", "ablation"])
def test_every_class_has_its_share_of_each_subset(name: str) -> None:
    size = SIZES[name]
    assert min(size.train_videos, size.val_videos) >= 3 * size.num_classes
    assert size.num_classes <= len(MOTIONS) == len(USUAL_LOOKS)


def test_an_unknown_size_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"huge.*tiny, demo, ablation"):
        write_dataset(tmp_path, size="huge", seed=0)
