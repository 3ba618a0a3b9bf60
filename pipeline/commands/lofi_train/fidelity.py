"""How much of a video an encoder sees while it is trained end to end: LoFi's configurations and cycles (section 3.2).

          snippets   pixels
    full       100   224×224
    I    S     100   112×112   r_s = 2          space
    II   T      25   224×224   r_t = 4          time
    III  ST     50   158×158   r_s = √2, r_t = 2

Each of I to III has a quarter of the full fidelity's pixels, so that they take the same memory with the same batch
size. The long cycle goes through them by epochs, the short one by batches; the full fidelity is in neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["long", "short", "spatial", "temporal", "spatiotemporal", "full"]


@dataclass(frozen=True)
class Fidelity:
    """What is read of a video.

    Attributes:
        num_snippets: snippets (T), uniform over the video.
        size: side of the square crop in pixels.
        resize: short side in pixels that a frame is brought to before it is cropped.

    Raises:
        ValueError: a number is below 1, or the crop is larger than the frame.
    """

    num_snippets: int
    size: int
    resize: int

    def __post_init__(self) -> None:
        if self.num_snippets < 1 or not 1 <= self.size <= self.resize:
            raise ValueError(
                f"a fidelity of {self.num_snippets} snippets, frames of {self.resize} and crops of {self.size} pixels: "
                "expected at least 1 of each, and crops no larger than frames"
            )

    def __str__(self) -> str:
        return f"{self.num_snippets} snippets at {self.size}×{self.size}"

    @property
    def pixels(self) -> int:
        """Pixels of a video, counting one frame a snippet."""
        return self.num_snippets * self.size**2

    def lowered(self, *, space: float = 1.0, time: float = 1.0) -> Fidelity:
        """With sides of 1/`space` (r_s) and 1/`time` (r_t) of the snippets, both to the nearest whole number.

        Frames shrink as crops do, so that a crop shows what it showed: "resize, then crop".
        """
        return Fidelity(_nearest(self.num_snippets / time), _nearest(self.size / space), _nearest(self.resize / space))


@dataclass(frozen=True)
class Schedule:
    """Which fidelity each batch has: the `fidelities` in turn, each for so many epochs, or for so many batches.

    Attributes:
        fidelities: in the order of the cycle; one of them: always that one.
        epochs: epochs before the next one (c_l); or
        batches: batches before the next one (c_s), counted on from epoch to epoch. Neither is given for one fidelity.
        batches_per_epoch: needed for that count.
    """

    fidelities: tuple[Fidelity, ...]
    epochs: int | None = None
    batches: int | None = None
    batches_per_epoch: int = 0

    def at(self, epoch: int, batch: int) -> Fidelity:
        """The fidelity of one batch of an epoch, both counted from 0."""
        turn = 0
        if self.epochs is not None:
            turn = epoch // self.epochs
        if self.batches is not None:
            turn = (epoch * self.batches_per_epoch + batch) // self.batches
        return self.fidelities[turn % len(self.fidelities)]


def low_fidelities(full: Fidelity, reduction: float = 4.0) -> Mapping[ScheduleName, Fidelity]:
    """S-, T- and ST-LoFi in the order of the cycles, each with 1/`reduction` of the pixels of `full`, up to rounding.

    S-LoFi takes all of it from space, T-LoFi from time, ST-LoFi half from each, in the sense of factors.

    Raises:
        ValueError: a reduction below 1, or one that leaves less than a snippet or a pixel.
    """
    if not 1 <= reduction < math.inf:
        raise ValueError(f"reduction is {reduction}; it must be at least 1 (the paper: 4)")
    root = math.sqrt(reduction)
    return {
        "spatial": full.lowered(space=root),
        "temporal": full.lowered(time=reduction),
        "spatiotemporal": full.lowered(space=math.sqrt(root), time=root),
    }


def make_schedule(
    name: ScheduleName,
    full: Fidelity,
    *,
    batches_per_epoch: int,
    reduction: float = 4.0,
    cycle_epochs: int = 1,
    cycle_batches: int = 16,
) -> Schedule:
    """A schedule by its name; the defaults are the paper's (section 4.3).

    Args:
        name: `long` and `short` are the cycles of C-LoFi, the others keep to one fidelity.
        full: the full fidelity.
        batches_per_epoch: batches in an epoch.
        reduction: how many times fewer pixels the low fidelities have.
        cycle_epochs: epochs that the long cycle stays at a fidelity (c_l).
        cycle_batches: batches that the short cycle stays at a fidelity (c_s).

    Raises:
        ValueError: a number that is too small.
    """
    if cycle_epochs < 1 or cycle_batches < 1:
        raise ValueError(f"cycle_epochs is {cycle_epochs}, cycle_batches {cycle_batches}; both must be at least 1")
    if name == "full":
        return Schedule((full,))
    low = low_fidelities(full, reduction)
    if name == "long":
        return Schedule(tuple(low.values()), epochs=cycle_epochs)
    if name == "short":
        return Schedule(tuple(low.values()), batches=cycle_batches, batches_per_epoch=batches_per_epoch)
    return Schedule((low[name],))


def _nearest(value: float) -> int:
    return math.floor(value + 0.5)
