"""Pretext tasks without labels: in which direction a clip is played, or how fast (LoFi, Table 7).

    arrow of time    forward, backward         Wei, Lim, Zisserman and Freeman, CVPR 2018
    playback speed   1x, 2x                    SpeedNet: Benaim et al., CVPR 2020; exact strides, without its jitter
                     1x, 2x, 4x, 8x, ...       Yao et al., CVPR 2020

A class is a way to take the L frames of a snippet. What else differs between the classes would be learnt instead of
what the task is about, so nothing does: the moment in the clip, the crop and the mirroring are drawn in the same way,
whatever the class. Snippets of all speeds have the same middle,

    clip  |------------------------------|
    2x            a   b   c   d                 L = 4 frames, in the middle of what each stands for
    1x              a b c d

and no frame is taken twice where a clip ends: in a clip that is too short for the fastest speed, the stride is smaller,
for all classes. A clip with fewer frames than that takes at a stride of 1 is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.clips.batches import Augmentation, ClipBatches, ClipForm, FrameArray
from pipeline.clips.reading import Clip
from pipeline.data.video import VideoError

Task = Literal["arrow-of-time", "playback-speed"]


@dataclass(frozen=True)
class Playback:
    """A class of a pretext task: how many times as fast a clip is played, and whether backward."""

    name: str
    speed: int = 1
    backward: bool = False


def playbacks_of(task: Task, speeds: Sequence[int]) -> tuple[Playback, ...]:
    """The classes of a task; `speeds` are those of `playback-speed`."""
    if task == "arrow-of-time":
        return Playback("forward"), Playback("backward", backward=True)
    return tuple(Playback(f"{speed}x", speed) for speed in speeds)


@dataclass(frozen=True)
class PlaybackForm(ClipForm):
    """How the snippet of one class is taken from a clip.

    Attributes:
        playback: the class.
        fastest: the highest speed among the classes, for which every clip is to have room.
    """

    playback: Playback
    fastest: int

    def last_start(self, num_frames: int) -> int:
        """The last frame at which a snippet of the fastest speed may start, the same for all classes."""
        return num_frames - self._span(num_frames)

    def frames_at(self, start: int, num_frames: int) -> NDArray[np.int64]:
        """The L frames whose middle is that of the fastest speed's snippet which starts at frame `start`."""
        step = self._stride(num_frames) * self.playback.speed
        first = start + (self._span(num_frames) - step * self.num_frames) // 2
        frames_L = first + np.arange(self.num_frames) * step + (step - 1) // 2
        return frames_L[::-1] if self.playback.backward else frames_L

    def _span(self, num_frames: int) -> int:
        return self._stride(num_frames) * self.num_frames * self.fastest

    def _stride(self, num_frames: int) -> int:
        """At the speed 1."""
        least = self.num_frames * self.fastest
        if num_frames < least:
            raise _TooShortError(f"{num_frames} frames are too few for this task, which takes at least {least}")
        return min(self.frame_stride, num_frames // least)


class _TooShortError(ValueError):
    """Of a clip that the form does not know the file of."""


class PretextBatches(ClipBatches):
    """Batches of clips in the classes of a pretext task, by place.

    With augmentation, (seed, epoch, index) draws the class of a clip; without, each clip comes once in every class.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        playbacks: Sequence[Playback],
        form: ClipForm,
        *,
        augmentation: Augmentation | None = None,
        frames: Sequence[FrameArray] | None = None,
    ) -> None:
        """
        Args:
            clips: what to read; what their own classes are does not matter.
            playbacks: the classes.
            form: how a snippet is taken from a clip that is played as it is.
            augmentation, frames: see `ClipBatches`.
        """
        copies = 1 if augmentation else len(playbacks)
        super().__init__(
            [clip for clip in clips for _ in range(copies)],
            [*range(copies)] * len(clips),
            form,
            augmentation=augmentation,
            frames=None if frames is None else [of_clip for of_clip in frames for _ in range(copies)],
        )
        fastest = max(playback.speed for playback in playbacks)
        self.forms = [PlaybackForm(**asdict(form), playback=playback, fastest=fastest) for playback in playbacks]

    def check(self, tries: int = 8) -> None:
        """ValueError with a reason if the first clips cannot be used, as when all are too short."""
        batch = self[[(0, index) for index in range(min(tries, len(self)))]]
        if not len(batch.clips):
            raise ValueError(f"the first {len(batch.failed)} clips cannot be used for this task: {batch.failed[0][1]}")

    def _sample(self, epoch: int, index: int) -> tuple[Tensor, int]:
        label = self.labels[index]
        if self.augmentation is not None:
            # A random state of its own: drawn from that of the crop, it would shift what the crop is drawn from.
            rng = np.random.default_rng((self.augmentation.seed, epoch, index, 1))
            label = int(rng.integers(len(self.forms)))
        try:
            return self._snippet(epoch, index, self.forms[label]), label
        except _TooShortError as error:
            raise VideoError(f"{self.clips[index].path}: {error}") from error
