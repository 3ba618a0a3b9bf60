"""Snippets: which frames make one, and which seconds of the video it stands for.

The one module that converts between seconds, frames and rows. Three units of time meet here:

- *frames*, as they decode, each shown from its own timestamp to the next one's (at a rate that may vary);
- *ticks* of a virtual clock of constant rate, on which snippets are laid out: tick k lasts from k/rate to (k+1)/rate
  seconds, and shows the frame that is on screen in its middle;
- *rows*, one a snippet, whose place in seconds is a `Timeline`. The clock is uniform, so the timeline is exact for
  variable frame rate too. At a constant rate, and with no other rate asked for, tick k is frame k.

Shapes: N frames of a video, T snippets, L frames of a snippet.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")


@dataclass(frozen=True)
class Timeline:
    """Row i of a feature sequence covers ``[offset + i·stride, offset + i·stride + length]`` seconds.

    Raises:
        ValueError: a number is not finite, or stride or length is not above zero.
    """

    offset: float
    stride: float
    length: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in asdict(self).values()):
            raise ValueError(f"a timeline needs finite seconds, got {self}")
        if self.stride <= 0 or self.length <= 0:
            raise ValueError(f"a timeline needs a stride and a length above zero seconds, got {self}")

    def centers(self, num_rows: int) -> NDArray[np.float64]:
        """Middle of each row in seconds, shape (num_rows,)."""
        return self.offset + self.length / 2 + self.stride * np.arange(num_rows, dtype=np.float64)

    def edge(self, row: int) -> float:
        """Second at which row `row` begins if neighbours meet half-way between their middles; any whole number."""
        return self.offset + self.length / 2 + self.stride * (row - 0.5)

    def row_from(self, second: float) -> int:
        """Inverse of `edge`: the row whose edge is nearest."""
        return round((second - self.edge(0)) / self.stride)

    def every(self, step: int) -> Timeline:
        """The timeline of every `step`-th row, from the first."""
        return replace(self, stride=self.stride * step)

    def end(self, num_rows: int) -> float:
        """Second at which the last row ends."""
        return self.offset + (num_rows - 1) * self.stride + self.length

    def rows_until(self, end_s: float) -> float:
        """How many rows it takes to end at `end_s`, as a real number: the inverse of `end`."""
        return (end_s - self.offset - self.length) / self.stride + 1

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Timeline:
        """Inverse of `as_dict`; other keys are ignored, a missing one is a `KeyError`."""
        return cls(**{field.name: float(values[field.name]) for field in fields(cls)})


def timeline_of_windows(stride_frames: float, window_frames: float, fps: float, offset: float = 0.0) -> Timeline:
    """Rows of sliding windows over frames of a constant rate: row i is centred at ``(i·stride + window/2) / fps``.

    Raises:
        ValueError: a number is not finite, or not above zero.
    """
    if not 0 < fps < math.inf:
        raise ValueError(f"the frame rate is {fps}; it must be above zero")
    return Timeline(offset, stride_frames / fps, window_frames / fps)


def timeline_of_shares(num_rows: int, end_s: float, offset: float = 0.0) -> Timeline:
    """Rows that share the seconds from `offset` to `end_s` equally, as features rescaled to a fixed number of rows do.

    Raises:
        ValueError: the end is not behind the offset.
    """
    stride = (end_s - offset) / max(1, num_rows)
    return Timeline(offset, stride, stride)


@dataclass(frozen=True)
class Sampling:
    """How snippets are taken from a video, nothing left open.

    Attributes:
        num_frames: frames in a snippet (L).
        frame_stride: ticks that each of them stands for; a snippet spans ``num_frames · frame_stride`` ticks.
        step: ticks from one snippet's start to the next one's; or
        num_snippets: this many snippets, uniform over the video. Exactly one of the two is given.
        fps: rate of the clock in ticks per second; None: the video's own average rate.

    Raises:
        ValueError: a number is not positive, or both or neither of `step` and `num_snippets` are given.
    """

    num_frames: int
    frame_stride: int
    step: int | None = None
    num_snippets: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"sampling.{name} is {value}; it must be above zero")
        if (self.step is None) == (self.num_snippets is None):
            raise ValueError(
                f"sampling needs either step or num_snippets, got {self.step = } and {self.num_snippets = }; "
                "leave one of them out"
            )

    @property
    def span(self) -> int:
        """Ticks from the start of a snippet to its end."""
        return self.num_frames * self.frame_stride


def sample_snippets(
    timestamps: NDArray[np.float64], duration: float, sampling: Sampling
) -> tuple[NDArray[np.int64], Timeline]:
    """Lay snippets over a video.

    Args:
        timestamps: seconds at which each of the N frames appears, ascending, the first 0.
        duration: seconds at which the last frame disappears.
        sampling: what a snippet is.

    Returns:
        Indices of frames, shape (T, L), non-decreasing along both axes; and the rows' timeline.

    Raises:
        ValueError: there is no frame, or the last frame does not end after it began.

    The clock has as many ticks as fit in the video, rounded; without `fps`, as many as the video has frames. Each frame
    of a snippet is the middle one (the earlier of two) of the `frame_stride` ticks that it stands for: ``f`` below.

    With `step`, snippet i starts at tick i·step. There are as many as it takes to cover the last tick, and none that
    starts behind it. Where the last snippet reaches past the end of the video, the last frame is repeated; its row
    still stands for the whole span. For L = 3, frame_stride = 2, step = 4 and a video of 8 ticks::

        tick        0 1 2 3 4 5 6 7 | 8 9
        snippet 0   f x f x f x     |
        snippet 1           f x f x | f x     frames 4, 6 and, for tick 8, the last frame 7

    With `num_snippets`, snippet i is centred at (i + ½)/T of the video, rounded to whole ticks, and what reaches past
    either end of the video repeats the first or the last frame. For T = 2, L = 3, frame_stride = 2 and 8 ticks::

        tick        -1 | 0 1 2 3 4 5 6 7 | 8
        snippet 0    f | x f x f x       |        centre 2: frames 0 (for tick -1), 1, 3
        snippet 1      |       f x f x f | x      centre 6: frames 3, 5, 7
    """
    clock = _clock(timestamps, duration, sampling)
    ticks_TL, timeline = _lay_out(clock, duration, sampling)
    return clock.frames_on_screen(ticks_TL), timeline


def sample_flow(
    timestamps: NDArray[np.float64], duration: float, sampling: Sampling
) -> tuple[NDArray[np.int64], NDArray[np.int64], Timeline]:
    """Lay snippets of L optical flows over a video: where `sample_snippets` takes a frame, the flow from it.

    A flow is a pair of frames: the one that is on screen at a tick, and the one at the next tick. Before and behind the
    video the picture stands still: there the pair is one frame twice. For L = 3, frame_stride = 1, step = 2 and a video
    of 4 ticks::

        tick        0    1    2    3  | 4
        snippet 0   0→1  1→2  2→3     |
        snippet 1             2→3  3→3| 3→3

    Returns:
        The P pairs that occur, each once, in order, shape (P, 2); indices of pairs, shape (T, L), non-decreasing along
        both axes; and the rows' timeline.

    Raises:
        ValueError: as in `sample_snippets`.
    """
    clock = _clock(timestamps, duration, sampling)
    ticks_TL, timeline = _lay_out(clock, duration, sampling)
    pairs_N2 = clock.frames_on_screen(ticks_TL.reshape(-1, 1) + np.arange(2))
    pairs_P2, indices_N = np.unique(pairs_N2, axis=0, return_inverse=True)
    return pairs_P2, indices_N.reshape(ticks_TL.shape).astype(np.int64), timeline


class _Clock(NamedTuple):
    """The virtual clock of a video: how many ticks it has, and how many pass in a second."""

    timestamps: NDArray[np.float64]
    num_ticks: int
    rate: float

    def frames_on_screen(self, ticks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index of the frame shown in the middle of each tick, any shape; outside the video its first or last one."""
        seconds = (np.clip(ticks, 0, self.num_ticks - 1) + 0.5) / self.rate
        return np.maximum(np.searchsorted(self.timestamps, seconds, side="right") - 1, 0).astype(np.int64)


def _clock(timestamps: NDArray[np.float64], duration: float, sampling: Sampling) -> _Clock:
    if len(timestamps) == 0 or not duration > timestamps[-1]:
        raise ValueError(f"a video needs frames and a duration behind them, got {len(timestamps)} and {duration} s")
    if sampling.fps is None:
        return _Clock(timestamps, len(timestamps), len(timestamps) / duration)
    return _Clock(timestamps, max(1, round(duration * sampling.fps)), sampling.fps)


def _lay_out(clock: _Clock, duration: float, sampling: Sampling) -> tuple[NDArray[np.int64], Timeline]:
    """The tick of each frame of each snippet, (T, L), some of them outside the video; and the rows' timeline."""
    if sampling.num_snippets is None:
        starts_T, timeline = _starts_by_step(clock.num_ticks, clock.rate, sampling)
    else:
        starts_T, timeline = _starts_by_number(clock.num_ticks, clock.rate, duration, sampling)
    offsets_L = np.arange(sampling.num_frames) * sampling.frame_stride + (sampling.frame_stride - 1) // 2
    return starts_T[:, None] + offsets_L, timeline


def _starts_by_step(num_ticks: int, rate: float, sampling: Sampling) -> tuple[NDArray[np.int64], Timeline]:
    assert sampling.step is not None
    to_cover_the_end = 1 + -(-max(0, num_ticks - sampling.span) // sampling.step)
    to_start_inside = -(-num_ticks // sampling.step)
    starts_T = np.arange(min(to_cover_the_end, to_start_inside), dtype=np.int64) * sampling.step
    return starts_T, Timeline(offset=0.0, stride=sampling.step / rate, length=sampling.span / rate)


def _starts_by_number(
    num_ticks: int, rate: float, duration: float, sampling: Sampling
) -> tuple[NDArray[np.int64], Timeline]:
    assert sampling.num_snippets is not None
    T = sampling.num_snippets
    # (i + ½)/T·num_ticks − span/2, rounded half up, in whole numbers.
    starts_T = ((2 * np.arange(T, dtype=np.int64) + 1) * num_ticks - T * sampling.span + T) // (2 * T)
    stride, length = duration / T, sampling.span / rate
    return starts_T, Timeline(offset=(stride - length) / 2, stride=stride, length=length)


class SnippetAssembler(Generic[Item]):
    """Puts a stream of frames, or of what was made of each, together to snippets, in the memory of one snippet's span.

    Args:
        indices_TL: frame indices as `sample_snippets` gives them.
    """

    def __init__(self, indices_TL: NDArray[np.int64]) -> None:
        self._rows = deque(indices_TL.tolist())
        self.frames: NDArray[np.int64] = np.unique(indices_TL)
        """The frames that occur, each once, ascending: the order in which `push` expects them."""
        self._arriving = iter(self.frames.tolist())
        self._window: deque[tuple[int, Item]] = deque()

    def push(self, item: Item) -> Iterator[list[Item]]:
        """Take the next of `frames`; yields the L items of each snippet that it completes."""
        index = next(self._arriving)
        self._window.append((index, item))
        while self._rows and self._rows[0][-1] == index:
            row = self._rows.popleft()
            items = dict(self._window)
            yield [items[i] for i in row]
            self._forget_before(self._rows[0][0] if self._rows else index + 1)

    def _forget_before(self, first: int) -> None:
        while self._window and self._window[0][0] < first:
            self._window.popleft()
