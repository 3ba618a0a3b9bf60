"""What `pipeline bsp-synth` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.clips.options import ClipTrainingConfig
from pipeline.training.options import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """How BSP's boundary clips are made (`synth.boundaries`); the paper gives none of these numbers."""

    tau: int | None = None
    """Half of the frames of a boundary clip. Left out: half of what the encoder sees."""
    epsilon: int = 2
    """A blend of two clips takes 2 · epsilon frames; 0 is a hard cut."""
    blend: Literal["diff-class", "both", "none"] = "diff-class"
    """Which of diff-class and same-class are blended; the paper's blend diff-class alone."""
    rates: tuple[float, ...] = (0.5, 2.0)
    """Rates that the speed changes to, with commas; above 1 is faster. The slowest makes all clips take their frames at
    least 1/rate frames apart, so that none is repeated."""
    change_points: tuple[int, int] | None = None
    """The first and the last frame after which the speed may change. Left out: 2 (or epsilon) frames from the ends."""


BoundaryKind = Literal["diff-class", "same-class", "diff-speed", "same-speed"]


@dataclass(frozen=True, kw_only=True)
class BspConfig(ClipTrainingConfig):
    """Trimmed clips to boundary clips, and to the weights of an encoder that feels boundaries (BSP)."""

    task: Literal["classification", "regression", "none"] = "classification"
    """What is learnt of boundary clips: their kind, or, frame by frame, how near the change point is. `none`: nothing;
    the clips of `write` are all that is made."""
    kinds: tuple[BoundaryKind, ...] = ("diff-class", "same-class", "diff-speed", "same-speed")
    """Kinds that are made, with commas, equally many of each; same-speed is no boundary. The paper also tries
    each other one against same-speed, and regression on each one alone."""
    samples: int | None = None
    """Boundary clips in an epoch. Left out: as many as there are training clips."""
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    write: int | None = None
    """Also write this many boundary clips to RUN/boundary_clips, with a table and pictures to look at."""
    integration: Literal["none", "two-head", "distillation"] = "none"
    """Let the one encoder learn actions too: `two-head` classifies real clips by action beside boundary clips by kind;
    `distillation` classifies real clips while its features are to tell those of two trained encoders. A batch then has
    `batch_size` clips of either sort. (The paper's two-stream needs no training: `pipeline merge-features`.)"""
    action_teacher: Path | None = None
    """For distillation: run folder of an encoder that was trained to classify actions."""
    boundary_teacher: Path | None = None
    """For distillation: run folder of an encoder that was trained on boundaries."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            optimizer="sgd", lr=0.02, epochs=50, batch_size=128, lr_steps=(20, 40), clip_grad_norm=20.0, num_workers=2
        )
    )

    def __post_init__(self) -> None:
        kinds = ",".join(self.kinds)
        if self.task == "regression" and (not self.kinds or "same-speed" in self.kinds):
            raise ValueError(f"kinds are {kinds}; regression needs kinds with a change point, so not same-speed")
        if self.task == "classification" and len(set(self.kinds)) < 2:
            raise ValueError(f"kinds are {kinds}; to classify takes two different ones or more")
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds are {kinds}; expected each of them once")
        if self.task == "none" and self.write is None:
            raise ValueError("task none makes nothing but the clips of write: give --write N, or leave task out")
        if self.integration != "none" and self.task != "classification":
            raise ValueError(f"integration {self.integration} classifies kinds: leave task out")
        teachers = sum(teacher is not None for teacher in (self.action_teacher, self.boundary_teacher))
        if teachers != (2 if self.integration == "distillation" else 0):
            raise ValueError(
                "distillation takes both teachers, and nothing else takes any: give --integration distillation, "
                "--action-teacher RUN and --boundary-teacher RUN together"
            )
        if any(number is not None and number < 1 for number in (self.samples, self.write)):
            raise ValueError(f"samples is {self.samples}, write {self.write}; expected at least 1 where they are given")
