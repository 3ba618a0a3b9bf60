"""BSP's boundary clips: which source frames make a clip of each of the four kinds, and how they are mixed.

    tick           1   2   3   4   5   6   7   8          2τ = 8, ε = 2
    source 1       A1  A2  A3  A4  A5
    source 2               B3  B4  B5  B6  B7  B8
    weight of B    0   0   ¼   ½   ¾   1   1   1          diff-class, blended (eq. 1)
                   0   0   0   0   1   1   1   1          same-class (eq. 2): from change point 4 the second source
    diff-speed     A1  A2  A3  A4  A6  A8  A10 A12        rate 2 from change point 4 (eq. 3)
                   A1  A2  A3  A4  A4½ A5  A5½ A6         rate ½ from there
    same-speed     A1  A2  A3  A4  A5  A6  A7  A8

A tick is `stride` frames of the source; a place between two frames takes the nearest one. A slow half needs frames
between the ticks: `Synthesis.stride_for` makes the stride at least 1/γ, so that no frame stands twice in a clip, and it
does so for all kinds alike. A repeated frame, or a longer step in one kind, would tell the kinds apart by itself.

Every source gives the frames that it would give to a same-speed clip at the same place (B3 to B8 above are the paper's
f₂,₁ to f₂,₆), out of a window of 2τ ticks that lies anywhere in it. So where frames come from says nothing of the kind.

What the paper (Xu et al., ICCV 2021, section 3.2) does not say: τ, ε, γ and the range of t, all of them options here.

Shapes: L = 2τ frames of a boundary clip, N frames of a source that are used, S sources (1 or 2), H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FrameArray = NDArray[np.uint8]

Kind = Literal["diff-class", "same-class", "diff-speed", "same-speed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Their order is that of the classes of the paper's four-way task."""
PAIRS: tuple[Kind, ...] = ("diff-class", "same-class")
"""The kinds that are made of two sources."""


@dataclass(frozen=True)
class Synthesis:
    """How boundary clips are made.

    Attributes:
        tau: half of the frames of a boundary clip (the paper's snippets have 8 frames).
        epsilon: the blend of two sources takes 2·epsilon frames, of which 2·epsilon - 1 show both; 0 is a hard cut.
        blend: the kinds that are blended; the paper's blend diff-class alone, which tells it from same-class.
        rates: γ, of which each diff-speed clip has one; above 1 is faster than the source, below 1 slower.
        change_points: the smallest and the largest t, in frames of the clip that stand before the change. Left out: 2
            (or epsilon, if that is more) frames from either end.

    Raises:
        ValueError: a number out of range.
    """

    tau: int = 4
    epsilon: int = 2
    blend: tuple[Kind, ...] = ("diff-class",)
    rates: tuple[float, ...] = (0.5, 2.0)
    change_points: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.tau < 1 or not 0 <= self.epsilon <= self.tau:
            raise ValueError(
                f"tau is {self.tau}, epsilon {self.epsilon}; expected tau of at least 1, epsilon from 0 to tau"
            )
        if not set(self.blend) <= set(PAIRS):
            raise ValueError(f"blend is {self.blend}; only {' and '.join(PAIRS)} have two sources to blend")
        if not self.rates or not all(0 < rate < math.inf and rate != 1 for rate in self.rates):
            raise ValueError(f"rates are {self.rates}; expected one or more above 0, none of them 1")
        low, high = self.change_range
        if not max(1, self.epsilon) <= low <= high <= self.num_frames - max(1, self.epsilon):
            raise ValueError(
                f"change points from {low} to {high}: expected {max(1, self.epsilon)} to "
                f"{self.num_frames - max(1, self.epsilon)}, so that clips of {self.num_frames} frames show a change, "
                f"and the whole of a blend with epsilon {self.epsilon}"
            )

    @property
    def num_frames(self) -> int:
        """L = 2τ."""
        return 2 * self.tau

    @property
    def change_range(self) -> tuple[int, int]:
        """The smallest and the largest change point."""
        if self.change_points is not None:
            return self.change_points
        margin = min(self.tau, max(2, self.epsilon))
        return margin, self.num_frames - margin

    def stride_for(self, frame_stride: int) -> int:
        """Source frames from tick to tick: those that are asked for, or as many as the slowest rate needs."""
        return max(frame_stride, math.ceil(1 / min(self.rates)))

    def frames_needed(self, stride: int) -> int:
        """The shortest source that serves for every kind: a same-speed clip, and one change of speed at least.

        Shorter ones are for no kind at all: else the sources themselves would tell what they cannot be.
        """
        low, high = self.change_range
        shortest = min(_speed_span(self.num_frames, t, rate, stride) for rate in self.rates for t in (low, high))
        return max(_span(self.num_frames, stride), shortest)


@dataclass(frozen=True, eq=False)
class BoundaryPlan:
    """What makes one boundary clip.

    Attributes:
        kind: which of `KINDS`.
        change_point: frames of the clip that stand before the change, the paper's t and τ; None for same-speed.
        rate: γ after the change point; 1 but for diff-speed.
        frames: of each source, the frames (N,) that are used, rising.
        weights_SL: share of each source in each frame of the clip; a source's used frames are, in order, those of the
            clip's frames where its weight is above 0.
    """

    kind: Kind
    change_point: int | None
    rate: float
    frames: tuple[IntArray, ...]
    weights_SL: FloatArray


def blend_weights(num_frames: int, change_point: int, epsilon: int) -> FloatArray:
    """Shares (2, L) of two sources in each frame: ω₁ and ω₂ of eq. 1, with `change_point` for its τ.

    They are exactly 1 and 0 up to frame change_point - epsilon, exactly 0 and 1 from change_point + epsilon on.
    """
    i_L = np.arange(1, num_frames + 1)
    if epsilon == 0:
        second_L = (i_L > change_point).astype(np.float64)
        return np.stack([1 - second_L, second_L])
    falling_L = (change_point + epsilon - i_L) / (2 * epsilon)
    rising_L = (i_L - change_point + epsilon) / (2 * epsilon)
    return np.clip(np.stack([falling_L, rising_L]), 0, 1)


def speed_ticks(num_frames: int, change_point: int, rate: float) -> FloatArray:
    """Places (L,) in the source of eq. 3, in ticks from 0 on: steps of 1, and after `change_point` frames of `rate`."""
    i_L = np.arange(1, num_frames + 1)
    return np.where(i_L <= change_point, i_L, change_point + rate * (i_L - change_point)) - 1.0


def nearest_frames(ticks: FloatArray, stride: int) -> IntArray:
    """Frame numbers nearest to these places; of two, the later one (rounding to even would repeat some)."""
    return np.floor(ticks * stride + 0.5).astype(np.int64)


def draw_plan(
    kind: Kind,
    synthesis: Synthesis,
    lengths: Sequence[int],
    rng: np.random.Generator,
    *,
    stride: int,
    shift: bool = False,
) -> BoundaryPlan:
    """A plan with its change point, its rate and its places in the sources drawn at random.

    Where a source is too short for some change points at a rate, those that fit are drawn from; a rate of which none
    fits is not drawn.

    Args:
        kind: which of `KINDS`.
        synthesis: the options.
        lengths: frames of each source, two for the kinds of `PAIRS`; at least `synthesis.frames_needed(stride)`.
        rng: what is drawn from.
        stride: source frames from tick to tick, `synthesis.stride_for` what is asked for.
        shift: a window of L frames, cut anywhere from a longer synthesis: the change from one source to the other comes
            at any of the change points, too, and not after τ frames.
    """
    assert len(lengths) == 1 + (kind in PAIRS)
    assert min(lengths) >= synthesis.frames_needed(stride)
    if kind == "diff-speed":
        plan = speed_plan(synthesis, *_draw_speed(synthesis, lengths[0], rng, stride), stride)
    elif kind == "same-speed":
        plan = same_speed_plan(synthesis, stride)
    else:
        low, high = synthesis.change_range
        change_point = int(rng.integers(low, high + 1)) if shift else synthesis.tau
        plan = pair_plan(kind, synthesis, change_point, stride)
    return _at_random_places(plan, lengths, rng, window=_span(synthesis.num_frames, stride))


def pair_plan(kind: Kind, synthesis: Synthesis, change_point: int, stride: int) -> BoundaryPlan:
    """Eq. 1 or 2 with windows at the beginning of both sources. Frames of no weight are not used."""
    num_frames = synthesis.num_frames
    epsilon = synthesis.epsilon if kind in synthesis.blend else 0
    weights_SL = blend_weights(num_frames, change_point, epsilon)
    frames_L = nearest_frames(np.arange(num_frames, dtype=np.float64), stride)
    return BoundaryPlan(kind, change_point, 1.0, tuple(frames_L[weights_L > 0] for weights_L in weights_SL), weights_SL)


def speed_plan(synthesis: Synthesis, change_point: int, rate: float, stride: int) -> BoundaryPlan:
    """Eq. 3 from the beginning of the source."""
    frames_L = nearest_frames(speed_ticks(synthesis.num_frames, change_point, rate), stride)
    return BoundaryPlan("diff-speed", change_point, rate, (frames_L,), np.ones((1, synthesis.num_frames)))


def same_speed_plan(synthesis: Synthesis, stride: int) -> BoundaryPlan:
    """L ticks from the beginning of the source."""
    frames_L = nearest_frames(np.arange(synthesis.num_frames, dtype=np.float64), stride)
    return BoundaryPlan("same-speed", None, 1.0, (frames_L,), np.ones((1, synthesis.num_frames)))


def compose(plan: BoundaryPlan, sources: Sequence[FrameArray]) -> FrameArray:
    """The boundary clip (L, H, W, 3) out of the used frames (N, H, W, 3) of each source, all of one size."""
    num_frames = plan.weights_SL.shape[1]
    clip_LHWC = np.empty((num_frames, *sources[0].shape[1:]), np.uint8)
    used_SL = plan.weights_SL > 0
    for used_L, frames_NHWC in zip(used_SL, sources, strict=True):
        clip_LHWC[used_L] = frames_NHWC
    blended = np.flatnonzero(used_SL.all(axis=0) & (len(sources) > 1))
    for place in blended:
        shares = [
            weights_L[place] * frames_NHWC[np.count_nonzero(weights_L[:place])]
            for weights_L, frames_NHWC in zip(plan.weights_SL, sources, strict=True)
        ]
        clip_LHWC[place] = np.rint(np.sum(shares, axis=0))
    return clip_LHWC


def _draw_speed(synthesis: Synthesis, length: int, rng: np.random.Generator, stride: int) -> tuple[int, float]:
    """A change point and a rate: first a rate of those that fit, then a change point of those that fit it."""
    low, high = synthesis.change_range
    fitting = {
        rate: [t for t in range(low, high + 1) if _speed_span(synthesis.num_frames, t, rate, stride) <= length]
        for rate in synthesis.rates
    }
    rates = [rate for rate, change_points in fitting.items() if change_points]
    rate = rates[rng.integers(len(rates))]
    return fitting[rate][rng.integers(len(fitting[rate]))], rate


def _at_random_places(
    plan: BoundaryPlan, lengths: Sequence[int], rng: np.random.Generator, *, window: int
) -> BoundaryPlan:
    """The plan with the window of each source, of so many frames or what the plan takes, moved to where it fits."""
    moved = []
    for frames_N, length in zip(plan.frames, lengths, strict=True):
        last_start = length - max(window, int(frames_N[-1]) + 1)
        moved.append(frames_N + rng.integers(last_start + 1))
    return replace(plan, frames=tuple(moved))


def _span(num_frames: int, stride: int) -> int:
    """Source frames from the first to the last of `num_frames` ticks."""
    return (num_frames - 1) * stride + 1


def _speed_span(num_frames: int, change_point: int, rate: float, stride: int) -> int:
    """Source frames from the first to the last of a diff-speed clip."""
    return int(nearest_frames(speed_ticks(num_frames, change_point, rate), stride)[-1]) + 1
