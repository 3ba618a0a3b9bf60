"""What every training command can be told about its training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training stage shares (`pipeline.training.loop`)."""

    epochs: int = 10
    """Passes over the training data."""
    batch_size: int = 16
    """Samples in a batch; an optimiser step sees `accumulate` · `devices` batches."""
    accumulate: int = 1
    """Batches whose gradients are added up for an optimiser step."""
    devices: int = 1
    """GPUs, each with batches of its own (DDP); where training runs on the CPU, processes."""
    lr: float = 1e-3
    """Learning rate."""
    weight_decay: float = 1e-4
    """Weight decay."""
    decay_only: Literal["matrices"] | None = None
    """`matrices`: weights of linear layers and convolutions alone decay, not biases, normalisation and scales (as in
    ActionFormer). Left out: all do."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimiser."""
    momentum: float = 0.9
    """Momentum of SGD."""
    lr_schedule: Literal["constant", "step", "cosine"] = "step"
    """`step`: times `lr_gamma` after each epoch of `lr_steps`."""
    lr_min: float = 0.0
    """Where `lr_schedule: cosine` ends."""
    lr_steps: tuple[int, ...] = (5,)
    """Epochs after which the learning rate is multiplied, for `lr_schedule: step`."""
    lr_gamma: float = 0.1
    """What it is multiplied with."""
    warmup_epochs: float = 0.0
    """Linear warm-up."""
    clip_grad_norm: float | None = None
    """Largest gradient norm. Left out: gradients are not clipped."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, which is then what is evaluated and saved. Left out:
    none."""
    seed: int = 0
    """Fixes initial weights, data order and augmentation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where training runs."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Lightning's precision."""
    num_workers: int = 1
    """Processes that prepare data; 0 prepares it in the training process."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights are kept: the best on the validation data, or the last (G-TAD on THUMOS14, whose
    validation videos are the test set)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} is {getattr(self, name)}; it must be at least 1")

    def of_at_least(self, min_steps: int, num_samples: int) -> TrainingConfig:
        """The same with as many epochs of `num_samples` samples as make so many optimiser steps, if these are more.

        What is told in epochs, `lr_steps` and `warmup_epochs`, is stretched alike.
        """
        steps_per_epoch = math.ceil(num_samples / self.step_size)
        epochs = math.ceil(min_steps / steps_per_epoch)
        if epochs <= self.epochs:
            return self
        stretch = epochs / self.epochs
        lr_steps = tuple(round(step * stretch) for step in self.lr_steps)
        return replace(self, epochs=epochs, lr_steps=lr_steps, warmup_epochs=self.warmup_epochs * stretch)

    @property
    def step_size(self) -> int:
        """Samples in an optimiser step."""
        return self.batch_size * self.accumulate * self.devices
