"""What `pipeline sola` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.encoding.options import SolaModuleConfig
from pipeline.training.options import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class SolaConfig:
    """A feature store to a SoLa module, trained on it without labels, and the refined store RUN/features."""

    features: Path
    """Feature store, with rows a few frames apart: not one of a fixed number of rows a video."""
    out: Path
    """Run folder."""
    weights: Path | None = None
    """Run folder of an earlier `pipeline sola`: refine with its module, without training."""
    annotations: Path | None = None
    """Train on the videos of `train_subset` of this file alone; its segments are not looked at. Left out: on all."""
    annotation_format: str | None = None
    """Reader for annotations in a form that none of ours knows: `package.module:read`, or the name that an installed
    package gives it. Left out: the form is told from the file."""
    train_subset: str = "training"
    """The subset of `annotations` to train on."""
    module: SolaModuleConfig = field(default_factory=SolaModuleConfig)
    loss: Literal["similarity", "nt-xent-in", "nt-xent-out"] = "similarity"
    """Similarity matching, or one of the softened NT-Xent losses of the paper's supplement."""
    projector: Literal["asymmetric", "symmetric"] = "asymmetric"
    """`asymmetric`: two layers on one side of each pair, no gradient through the other. `symmetric`: no projector."""
    projector_hidden: int = 512
    """Channels between the projector's layers."""
    k: float = 16.0
    """K of the target similarity sigmoid(K / d²); a larger one makes more neighbours alike."""
    step: int = 8
    """s: rows from one gathered row of a subsequence to the next."""
    tsm_size: int = 8
    """S: gathered rows. A subsequence has (S - 1) · s + 9 rows; shorter videos are not trained on."""
    per_video: int = 1
    """Subsequences drawn from each video in an epoch."""
    choose: Literal["last", "linear-evaluation"] = "last"
    """Which epoch's module is kept: the last, or the one on whose features a linear classifier best tells foreground
    from background in `val_subset`. This uses the labels of both subsets of `annotations`."""
    val_subset: str = "validation"
    """The subset that chooses the epoch, with `choose: linear-evaluation`."""
    steps: int | None = None
    """Train for this many optimiser steps, rounded up to whole epochs, instead of `training.epochs`."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            optimizer="adamw",
            lr=1e-4,
            weight_decay=0.01,
            epochs=500,
            batch_size=256,
            lr_schedule="constant",
            num_workers=2,
        )
    )

    def __post_init__(self) -> None:
        if self.k <= 0:
            raise ValueError(f"k is {self.k:g}; expected more than 0")
        if self.per_video < 1 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"per_video is {self.per_video} and steps {self.steps}; expected at least 1")
        if self.tsm_size < 2 or self.step < 1:
            raise ValueError(f"tsm_size is {self.tsm_size} and step {self.step}; expected at least 2 and at least 1")
        if self.training.ema_decay is not None:
            raise ValueError("training.ema_decay would also average the similarities kept for figures; leave it out")
