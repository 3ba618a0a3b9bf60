"""BSP's boundary clips for training, made on the way out of trimmed clips (`synth.boundaries` says how).

Only the frames that a boundary clip shows are decoded. Both of its halves go the same way: decoded and resized alike,
cut to a common size, mixed, and then cropped and mirrored as one clip, by what does it to any training clip.

Which clips a boundary clip is made of follows the same rules for all kinds, so that it does not give the kind away: the
first one is any clip; diff-class takes a second one of any other class, same-class another one of its own class. So
where same-class is among the kinds, the clips of a class that has no other are used for no kind; and a clip too short
to serve for one kind serves for none. A file that is missing, damaged or too short is passed over: the place in the
epoch takes other clips, and the batch names the file.

Shapes: B clips, L frames of a boundary clip, N frames of a clip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.clips.batches import ClipForm, ClipFrames, FrameArray, centre_crop, random_crop
from pipeline.clips.reading import Clip
from pipeline.commands.bsp_synth.options import SynthesisConfig
from pipeline.data.video import VideoError
from synth.boundaries import KINDS, PAIRS, BoundaryPlan, Kind, Synthesis, compose, draw_plan

TRIES = 10
"""Clips, or pairs of them, that a place in the epoch tries before it is left out."""


class BoundaryBatch(NamedTuple):
    """Boundary clips with their kinds, and why source clips could not be used."""

    clips: Tensor  # (B, 3, L, H, W) uint8
    kinds: Tensor  # (B,) long: places in the `kinds` of BoundaryBatches
    change_points: Tensor  # (B,) float32: frames of the clip before the change; nan for same-speed
    failed: list[tuple[str, str]]  # clip, reason


class BoundaryClip(NamedTuple):
    """One boundary clip."""

    frames: Tensor  # (L, 3, H, W) uint8
    plan: BoundaryPlan
    sources: tuple[Clip, ...]


def make_synthesis(config: SynthesisConfig, num_frames: int) -> Synthesis:
    """The options for an encoder that sees `num_frames` frames. ValueError if they do not fit."""
    if num_frames < 2 or num_frames % 2:
        raise ValueError(
            f"boundary clips have an even number of frames, and the encoder sees {num_frames}: give num_frames, such "
            "as the paper's 8"
        )
    if config.tau is not None and 2 * config.tau != num_frames:
        raise ValueError(
            f"synthesis.tau {config.tau} makes boundary clips of {2 * config.tau} frames, and the encoder sees "
            f"{num_frames}: leave tau out, or give num_frames={2 * config.tau}"
        )
    blend: dict[str, tuple[Kind, ...]] = {"diff-class": ("diff-class",), "both": PAIRS, "none": ()}
    tau = num_frames // 2
    return Synthesis(tau, config.epsilon, blend[config.blend], config.rates, config.change_points)


class BoundaryBatches:
    """Batches of boundary clips by place, for `pipeline.training.batches.load_batches`."""

    def __init__(
        self,
        clips: Sequence[Clip],
        form: ClipForm,
        synthesis: Synthesis,
        *,
        kinds: Sequence[Kind] = KINDS,
        seed: int,
        size: int,
        mirror: bool = True,
        augment: bool = True,
        frames: Sequence[FrameArray] | None = None,
        shift: bool = False,
    ) -> None:
        """
        Args:
            clips: the trimmed clips to make them from.
            form: how the encoder wants its snippets.
            synthesis: how boundary clips are made.
            kinds: the kinds to make, in turns; a batch's `kinds` are places in this sequence.
            seed: with the epoch and the index, decides on everything.
            size: boundary clips in an epoch.
            mirror: mirror half of them.
            augment: crop and mirror at random, and other clips in each epoch. Without it, the crop from the middle of
                the frame, no mirroring, and each epoch the same clips: for validation.
            frames: all frames of each clip, (N, H, W, 3), resized, if they have been decoded already.
            shift: let the change between two sources come anywhere, not only after τ frames: for regression.

        Raises:
            ValueError: kinds that there are not or that these clips cannot give, or another number of frames.
        """
        self.clips, self.form, self.synthesis, self.kinds = clips, form, synthesis, tuple(kinds)
        self.seed, self.size, self.mirror, self.augment = seed, size, mirror, augment
        self.frames, self.shift = frames, shift
        self.stride = synthesis.stride_for(form.frame_stride)
        if form.num_frames != synthesis.num_frames:
            raise ValueError(
                f"boundary clips have 2·tau = {synthesis.num_frames} frames, the encoder sees {form.num_frames}"
            )
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ValueError(f"kinds are {self.kinds}; expected some of {', '.join(KINDS)}")
        self._sources = _Sources(clips, self.kinds)
        # So that a file that does not open costs its time once. Of one that is damaged in places only, those frames
        # that decode are used: whether it has been found out by then must not matter, or a resumed run would differ.
        self._unusable: dict[int, str] = {}

    @property
    def num_alone(self) -> int:
        """Clips that are not used because same-class is wanted and their class has no other clip."""
        return len(self.clips) - len(self._sources.usable)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, places: list[tuple[int, int]]) -> BoundaryBatch:
        """The batch of these (epoch, index) pairs."""
        made: list[BoundaryClip] = []
        failed: list[tuple[str, str]] = []
        for epoch, index in places:
            clip = self.make(epoch, index, failed)
            if clip is not None:
                made.append(clip)
        form = self.form
        blank = torch.empty(0, form.num_frames, 3, form.size, form.size, dtype=torch.uint8)
        frames_BL3HW = torch.stack([clip.frames for clip in made]) if made else blank
        kinds = [self.kinds.index(clip.plan.kind) for clip in made]
        points = [float("nan") if clip.plan.change_point is None else clip.plan.change_point for clip in made]
        return BoundaryBatch(
            frames_BL3HW.transpose(1, 2),
            torch.tensor(kinds, dtype=torch.long),
            torch.tensor(points, dtype=torch.float32),
            failed,
        )

    def check(self) -> None:
        """Try a few places. ValueError with a reason if none gives a boundary clip: if all clips are too short, say."""
        failed: list[tuple[str, str]] = []
        if all(self.make(0, index, failed) is None for index in range(min(self.size, 4 * len(self.kinds)))):
            raise ValueError(
                f"no boundary clip can be made of these {len(self.clips)} clips; the first that failed: {failed[0][1]}"
            )

    def make(self, epoch: int, index: int, failed: list[tuple[str, str]]) -> BoundaryClip | None:
        """One boundary clip; None if no source can be used. Files that cannot are added to `failed` with the reason."""
        for attempt in range(TRIES):
            # A state for each attempt: the draws then do not depend on how far an unusable file came.
            rng = np.random.default_rng((self.seed, epoch if self.augment else 0, index, attempt))
            kind = self.kinds[index % len(self.kinds)]
            chosen = self._sources.draw(kind, rng)
            try:
                return self._make_of(kind, chosen, rng)
            except _UnusableError as error:
                if error.lasting:
                    self._unusable[error.index] = error.reason
                failed.append((str(self.clips[error.index]), error.reason))
        return None

    def _make_of(self, kind: Kind, chosen: Sequence[int], rng: np.random.Generator) -> BoundaryClip:
        opened = [self._open(index) for index in chosen]
        lengths = [frames.num_frames for frames in opened]
        plan = draw_plan(kind, self.synthesis, lengths, rng, stride=self.stride, shift=self.shift)
        halves = []
        for index, frames, places_N in zip(chosen, opened, plan.frames, strict=True):
            with _blame(index, lasting=False):
                halves.append(frames.read(places_N))
        clip_LHWC = compose(plan, to_common_size(halves))
        return BoundaryClip(self._crop(clip_LHWC, rng), plan, tuple(self.clips[index] for index in chosen))

    def _open(self, index: int) -> ClipFrames:
        if index in self._unusable:
            raise _UnusableError(index, self._unusable[index], lasting=True)
        clip, needed = self.clips[index], self.synthesis.frames_needed(self.stride)
        with _blame(index, lasting=True):
            frames = ClipFrames(clip, self.form.resize, None if self.frames is None else self.frames[index])
        if frames.num_frames < needed:
            reason = f"{frames.num_frames} frames, and boundary clips with frames {self.stride} apart take {needed}"
            raise _UnusableError(index, f"{clip}: the clip has {reason}", lasting=True)
        return frames

    def _crop(self, clip_LHWC: FrameArray, rng: np.random.Generator) -> Tensor:
        if not self.augment:
            return centre_crop(clip_LHWC, self.form.size)
        return random_crop(clip_LHWC, self.form.size, rng, mirror=self.mirror)


class _UnusableError(Exception):
    """A source clip cannot be used: at all, if that is `lasting`, or with the frames that were to show."""

    def __init__(self, index: int, reason: str, *, lasting: bool) -> None:
        super().__init__(reason)
        self.index, self.reason, self.lasting = index, reason, lasting


@contextmanager
def _blame(index: int, *, lasting: bool) -> Iterator[None]:
    """Say which source clip could not be read. One at which time ran out is not waited for again."""
    try:
        yield
    except (VideoError, OSError) as error:
        raise _UnusableError(index, str(error), lasting=lasting or isinstance(error, TimeoutError)) from error


class _Sources:
    """Which clips make a boundary clip of each kind."""

    def __init__(self, clips: Sequence[Clip], kinds: Sequence[Kind]) -> None:
        counts = Counter(clip.label for clip in clips)
        least = 2 if "same-class" in kinds else 1
        self.usable = np.array([index for index, clip in enumerate(clips) if counts[clip.label] >= least], np.int64)
        labels, self._classes = np.unique([clips[index].label for index in self.usable], return_inverse=True)
        if not len(self.usable):
            raise ValueError(
                f"no class of the {len(clips)} clips has two, so there is no same-class boundary to make; "
                "leave same-class out, or give more clips"
            )
        if "diff-class" in kinds and len(labels) < 2:
            raise ValueError(
                f"all clips that can be used are of class {str(labels[0])!r}; a diff-class boundary takes two classes"
            )

    def draw(self, kind: Kind, rng: np.random.Generator) -> tuple[int, ...]:
        """Indices of the source clips: any first one, and for the kinds of two sources any fitting second one."""
        first = int(rng.integers(len(self.usable)))
        if kind not in PAIRS:
            return (int(self.usable[first]),)
        fits = (self._classes == self._classes[first]) == (kind == "same-class")
        fits[first] = False
        return int(self.usable[first]), int(self.usable[rng.choice(np.flatnonzero(fits))])


def to_common_size(halves: Sequence[FrameArray]) -> list[FrameArray]:
    """The middle of each source's frames (N, H, W, 3), at the smallest height and the smallest width of all."""
    height, width = (min(half.shape[axis] for half in halves) for axis in (1, 2))
    cut = []
    for half in halves:
        top, left = (half.shape[1] - height) // 2, (half.shape[2] - width) // 2
        cut.append(half[:, top : top + height, left : left + width])
    return cut
