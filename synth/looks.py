"""What an actor looks like: shape, pattern and colours. Each action class usually comes with one look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synth.motions import Array

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """How an actor is drawn; colours are RGB in 0–1."""

    shape: str
    pattern: str
    color: RGB
    accent: RGB

    def distance(self, x: Array, y: Array) -> Array:
        """About the signed distance to the outline, in radii of the actor; negative inside."""
        return _SHAPES[self.shape](x, y)

    def accent_share(self, x: Array, y: Array) -> Array:
        """Where the accent colour is (1) and where it is not (0)."""
        return np.asarray(np.clip(0.5 + 3 * _PATTERNS[self.pattern](x, y), 0, 1))


def _disc(x: Array, y: Array) -> Array:
    return np.asarray(np.sqrt(x * x + y * y) - 0.95)


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.8


def _diamond(x: Array, y: Array) -> Array:
    return (np.abs(x) + np.abs(y)) * 0.71 - 0.75


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(y, 0.866 * np.abs(x) - 0.5 * y) - 0.55


def _hexagon(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(y), 0.866 * np.abs(x) + 0.5 * np.abs(y)) - 0.85


def _cross(x: Array, y: Array) -> Array:
    across, along = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
    return np.maximum(across - 0.4, along - 0.95)


def _petals(x: Array, y: Array, count: int, depth: float) -> Array:
    return np.asarray(np.sqrt(x * x + y * y) - 0.8 - depth * np.cos(count * np.arctan2(x, -y)))


def _star(x: Array, y: Array) -> Array:
    return _petals(x, y, 5, 0.24)


def _flower(x: Array, y: Array) -> Array:
    return _petals(x, y, 7, 0.12)


_SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": _disc,
    "square": _square,
    "diamond": _diamond,
    "triangle": _triangle,
    "hexagon": _hexagon,
    "cross": _cross,
    "star": _star,
    "flower": _flower,
}

# Each gives about the distance to the nearest edge of the pattern, positive where the accent is.
_PATTERNS: dict[str, Callable[[Array, Array], Array]] = {
    "belly": lambda x, y: 0.5 - np.sqrt(x * x + (y - 0.35) ** 2),
    "half": lambda x, y: y - 0.25,
    "stripes": lambda x, y: 0.4 * np.sin(7 * x),
    "checks": lambda x, y: 0.5 * np.sin(5 * x) * np.sin(5 * y),
    "frame": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.6,
}

USUAL_LOOKS: dict[str, Look] = {
    "spin": Look("star", "belly", (0.98, 0.78, 0.18), (1.00, 0.93, 0.62)),
    "bounce": Look("disc", "half", (0.93, 0.28, 0.26), (0.99, 0.66, 0.55)),
    "blink": Look("hexagon", "frame", (0.25, 0.72, 0.92), (0.10, 0.38, 0.70)),
    "grow": Look("flower", "belly", (0.95, 0.47, 0.72), (1.00, 0.85, 0.50)),
    "shake": Look("square", "checks", (0.36, 0.76, 0.36), (0.16, 0.49, 0.27)),
    "orbit": Look("triangle", "half", (0.98, 0.60, 0.20), (1.00, 0.90, 0.72)),
    "stretch": Look("cross", "half", (0.62, 0.44, 0.91), (0.84, 0.74, 0.99)),
    "flip": Look("diamond", "stripes", (0.90, 0.92, 0.96), (0.36, 0.42, 0.55)),
}
