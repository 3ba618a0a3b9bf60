"""Scenes to pictures, and pictures to H.264 files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from synth.looks import RGB, Look
from synth.motions import TAU, Action, Array, Pose, Wander

_FRAMES_AT_ONCE = 32
# x264's macroblock tree is off because with it the bytes differ from one run to the next, even with one thread.
_X264 = {"preset": "veryfast", "crf": "20", "threads": "1", "x264-params": "mbtree=0"}


@dataclass(frozen=True)
class Actor:
    """Someone in the scene: idle, but for its actions. One without actions is a distractor."""

    look: Look
    radius: float
    x: Wander
    y: Wander
    angle: Wander
    stretch: Wander
    actions: tuple[Action, ...] = ()

    def pose(self, time_F: Array) -> Pose:
        """The pose at each time: idle drifting, and the action where there is one."""
        stretch_F = self.stretch.at(time_F)
        pose = Pose(
            x=self.x.at(time_F),
            y=self.y.at(time_F),
            angle=self.angle.at(time_F),
            width=1 + stretch_F,
            height=1 - stretch_F,
            light=np.ones_like(stretch_F),
        )
        for action in self.actions:
            pose = pose.moved(action.change(time_F))
        return pose


@dataclass(frozen=True)
class Background:
    """A vertical gradient under a few soft waves that move."""

    top: RGB
    bottom: RGB
    waves: tuple[tuple[float, float, float, float, float], ...]
    """(contrast, x frequency, y frequency, cycles a second, phase) of each."""


@dataclass(frozen=True)
class Scene:
    """All that a video shows. The later an actor stands in `actors`, the nearer it is."""

    actors: tuple[Actor, ...]
    background: Background
    camera_x: Wander
    camera_y: Wander
    light: Wander
    """Brightness of the whole picture."""
    noise: float
    """Standard deviation of the sensor's noise; white is 1."""
    noise_seed: int


def draw_scene(scene: Scene, *, num_frames: int, fps: int, side: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The frames of `scene`, each (side, side, 3) uint8 RGB; frame i shows the time i / fps."""
    rng = np.random.default_rng(scene.noise_seed)
    for first in range(0, num_frames, _FRAMES_AT_ONCE):
        time_F = np.arange(first, min(first + _FRAMES_AT_ONCE, num_frames), dtype=np.float32) / np.float32(fps)
        yield from _draw_frames(scene, time_F, side, rng)


def _draw_frames(scene: Scene, time_F: Array, side: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """(F, side, side, 3) pictures at the times."""
    axis = (np.arange(side, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / side) - 1
    x_FHW = axis[None, None, :] + _per_frame(scene.camera_x.at(time_F))
    y_FHW = axis[None, :, None] + _per_frame(scene.camera_y.at(time_F))
    picture_FCHW = _paint_background(scene.background, x_FHW, y_FHW, time_F)
    for actor in scene.actors:
        _paint_actor(picture_FCHW, actor, x_FHW, y_FHW, time_F)
    picture_FCHW *= _per_frame(scene.light.at(time_F))[:, None]
    # One grey value a pixel: sensors' noise after H.264 has hardly any colour, and it costs a third.
    picture_FCHW += np.float32(scene.noise) * rng.standard_normal((len(time_F), 1, side, side), dtype=np.float32)
    np.clip(picture_FCHW, 0, 1, out=picture_FCHW)
    return np.ascontiguousarray((picture_FCHW * 255 + np.float32(0.5)).astype(np.uint8).transpose(0, 2, 3, 1))


def _per_frame(value_F: Array) -> Array:
    """(F,) to (F, 1, 1)."""
    return value_F.astype(np.float32)[:, None, None]


def _paint_background(background: Background, x_FHW: Array, y_FHW: Array, time_F: Array) -> Array:
    """(F, 3, H, W) background; the camera moves over it."""
    down_FH1 = np.clip((y_FHW + 1) / 2, 0, 1)
    glow_FHW: Array = np.zeros(np.broadcast_shapes(x_FHW.shape, y_FHW.shape), np.float32)
    for contrast, across, down, pace, phase in background.waves:
        turn_F = TAU * pace * time_F + phase
        glow_FHW += np.float32(contrast) * np.sin(
            np.float32(across) * x_FHW + (np.float32(down) * y_FHW + _per_frame(turn_F))
        )
    picture = [
        glow_FHW + (np.float32(top) + np.float32(bottom - top) * down_FH1)
        for top, bottom in zip(background.top, background.bottom, strict=True)
    ]
    return np.stack(picture, axis=1)


def _paint_actor(picture_FCHW: Array, actor: Actor, x_FHW: Array, y_FHW: Array, time_F: Array) -> None:
    """Paint one actor over the pictures, with its outline anti-aliased over one pixel."""
    pose = actor.pose(time_F)
    dx_FHW, dy_FHW = x_FHW - _per_frame(pose.x), y_FHW - _per_frame(pose.y)
    cos_F, sin_F = np.cos(pose.angle) / actor.radius, np.sin(pose.angle) / actor.radius
    u_FHW = dx_FHW * _per_frame(cos_F / pose.width) + dy_FHW * _per_frame(sin_F / pose.width)
    v_FHW = dy_FHW * _per_frame(cos_F / pose.height) - dx_FHW * _per_frame(sin_F / pose.height)

    pixels_F = actor.radius * np.minimum(np.abs(pose.width), pose.height) * picture_FCHW.shape[-1] / 2
    sharpness_F11 = _per_frame(pixels_F)
    cover_FHW = np.clip(0.5 - actor.look.distance(u_FHW, v_FHW) * sharpness_F11, 0, 1)
    accent_FHW = actor.look.accent_share(u_FHW, v_FHW)
    white_FHW, pupil_FHW = _eyes(u_FHW, v_FHW, sharpness_F11)
    light_F11 = _per_frame(pose.light)
    for channel in range(3):
        color, accent = np.float32(actor.look.color[channel]), np.float32(actor.look.accent[channel])
        paint_FHW = color + (accent - color) * accent_FHW
        paint_FHW += (1 - paint_FHW) * white_FHW
        paint_FHW *= (1 - pupil_FHW) * light_F11
        picture_FCHW[:, channel] += (paint_FHW - picture_FCHW[:, channel]) * cover_FHW


def _eyes(u_FHW: Array, v_FHW: Array, sharpness_F11: Array) -> tuple[Array, Array]:
    """Where the whites and the pupils of the eyes are: they make every turn visible, also of a disc."""
    eye_x, eye_y = 0.3, -0.2
    away_FHW = np.sqrt((np.abs(u_FHW) - np.float32(eye_x)) ** 2 + (v_FHW - np.float32(eye_y)) ** 2)
    return (
        np.clip(0.5 - (away_FHW - np.float32(0.24)) * sharpness_F11, 0, 1),
        np.clip(0.5 - (away_FHW - np.float32(0.11)) * sharpness_F11, 0, 1),
    )


def write_video(path: Path, frames: Iterable[npt.NDArray[np.uint8]], fps: int) -> None:
    """Encode (H, W, 3) uint8 frames as H.264 in MP4: the same frames give the same bytes."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=_X264)
        stream.pix_fmt = "yuv420p"
        for i, frame in enumerate(frames):
            if i == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
