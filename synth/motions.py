"""What an actor can do: the action classes of the procedural videos.

A motion is a function of its cycles (one cycle is one turn, one hop, ...) that is zero at every whole cycle. An action
runs a whole number of cycles, so it starts and ends in the idle pose: no jump gives its boundary away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]

TAU = 2 * np.pi
_THINNEST = 0.08


@dataclass(frozen=True, eq=False)
class Pose:
    """Where an actor is and how it is drawn in each of F frames, all (F,); or a change of that, to be added.

    Lengths are in scene units: the picture spans [-1, 1] from left to right and from top to bottom.
    """

    x: Array
    y: Array
    angle: Array
    """Radians, clockwise."""
    width: Array
    """Factor on the actor's radius along its own x axis; a change adds to it."""
    height: Array
    light: Array
    """Factor on its colours."""

    def moved(self, change: Pose) -> Pose:
        """This pose with `change` added; widths keep away from zero, where an actor would have no inside."""
        width_F = self.width + change.width
        return Pose(
            x=self.x + change.x,
            y=self.y + change.y,
            angle=self.angle + change.angle,
            width=np.where(width_F < 0, -1, 1) * np.maximum(np.abs(width_F), np.float32(_THINNEST)),
            height=self.height + change.height,
            light=self.light + change.light,
        )


def _change(cycles_F: Array, **parts: Array) -> Pose:
    """A pose change that has `parts` and is zero elsewhere."""
    zero_F = np.zeros_like(cycles_F)
    names = ("x", "y", "angle", "width", "height", "light")
    return Pose(**{name: parts.get(name, zero_F).astype(np.float32) for name in names})


def _rise(cycles_F: Array) -> Array:
    """0 at whole cycles, 1 between them."""
    return np.asarray((1 - np.cos(TAU * cycles_F)) / 2)


def _spin(cycles_F: Array) -> Pose:
    return _change(cycles_F, angle=TAU * cycles_F)


def _bounce(cycles_F: Array) -> Pose:
    return _change(cycles_F, y=-0.55 * np.abs(np.sin(np.pi * cycles_F)))


def _grow(cycles_F: Array) -> Pose:
    return _change(cycles_F, width=0.8 * _rise(cycles_F), height=0.8 * _rise(cycles_F))


def _shake(cycles_F: Array) -> Pose:
    return _change(cycles_F, x=0.25 * np.sin(2 * TAU * cycles_F))


def _orbit(cycles_F: Array) -> Pose:
    return _change(cycles_F, x=0.35 * np.sin(TAU * cycles_F), y=-0.7 * _rise(cycles_F))


def _blink(cycles_F: Array) -> Pose:
    return _change(cycles_F, light=-0.75 * _rise(cycles_F))


def _stretch(cycles_F: Array) -> Pose:
    wave_F = 0.5 * np.sin(TAU * cycles_F)
    return _change(cycles_F, width=wave_F, height=-wave_F)


def _flip(cycles_F: Array) -> Pose:
    return _change(cycles_F, width=-2 * _rise(cycles_F))


MOTIONS: dict[str, Callable[[Array], Pose]] = {
    "spin": _spin,
    "bounce": _bounce,
    "blink": _blink,
    "grow": _grow,
    "shake": _shake,
    "orbit": _orbit,
    "stretch": _stretch,
    "flip": _flip,
}


@dataclass(frozen=True)
class Action:
    """One performance of a motion, from `start` to `end` seconds, at about `rate` cycles a second."""

    label: str
    start: float
    end: float
    rate: float

    def change(self, time_F: Array) -> Pose:
        """What the action adds to the idle pose at each time; nothing outside [start, end]."""
        cycles = max(1, round(self.rate * (self.end - self.start)))
        share_F = np.clip((time_F - self.start) / (self.end - self.start), 0, 1)
        inside_F = (share_F > 0) & (share_F < 1)
        return MOTIONS[self.label](np.where(inside_F, cycles * share_F, 0))


@dataclass(frozen=True)
class Wander:
    """A smooth, slow, aimless path in one coordinate: a sum of three sine waves around `center`."""

    center: float
    waves: tuple[tuple[float, float, float], ...]
    """(amplitude, cycles a second, phase) of each."""

    @classmethod
    def draw(cls, rng: np.random.Generator, center: float, amplitude: float, pace: float) -> Wander:
        """A random path that stays within `amplitude` of `center`, at about `pace` cycles a second."""
        shares = rng.dirichlet(np.ones(3))
        paces, phases = pace * rng.uniform(0.5, 1.5, 3), rng.uniform(0, TAU, 3)
        return cls(center, tuple((amplitude * a, p, f) for a, p, f in zip(shares, paces, phases, strict=True)))

    def at(self, time_F: Array) -> Array:
        """The coordinate at each time in seconds."""
        waves = [amplitude * np.sin(TAU * pace * time_F + phase) for amplitude, pace, phase in self.waves]
        return np.asarray(sum(waves, np.full_like(time_F, self.center)), np.float32)
