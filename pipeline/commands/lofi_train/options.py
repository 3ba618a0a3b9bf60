"""What `pipeline lofi-train` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from heads.options import GTADOptions
from pipeline.training.options import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class LofiTrainConfig:
    """Untrimmed videos and segments to encoder weights, trained end to end with a G-TAD head at low fidelity."""

    videos: Path
    """Folder of videos, searched with its subfolders."""
    annotations: Path
    """Annotation file, or folder of text files (`pipeline.data.annotations`)."""
    annotation_format: str | None = None
    """Reader for annotations in a form that none of ours knows: `package.module:read`, or the name that an installed
    package gives it. Left out: the form is told from the file."""
    out: Path
    """Run folder; other commands take it as `--weights`."""
    encoder: str
    """Name of the encoder."""
    weights: str | None = None
    """What it starts from: a run folder, a weight file, a registered name. Left out: its registered weights."""
    schedule: Literal["long", "short", "spatial", "temporal", "spatiotemporal", "full"] = "long"
    """`long`, `short`: spatial, temporal and spatiotemporal in turn, by epochs or by batches. `full`: no reduction."""
    reduction: float = 4.0
    """How many times fewer pixels of a video are seen: in space, in time, or half in each."""
    cycle_epochs: int = 1
    """Epochs that the long cycle stays at a fidelity (c_l)."""
    cycle_batches: int = 16
    """Batches, or steps of `training.accumulate` batches, that the short cycle stays at a fidelity (c_s)."""
    num_frames: int | None = None
    """Frames in a snippet. Left out: the encoder's own."""
    frame_stride: int | None = None
    """Frames from one frame of a snippet to the next. Left out: the encoder's own."""
    size: int | None = None
    """Side of the square crop at full fidelity. Left out: the encoder's own."""
    train_subset: str = "training"
    """Subset that trains; `a|b`: a, or in files without a, b."""
    classes: bool = True
    """The head scores each class in each segment. `--classes=false`: segments alone, as in the paper."""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """`frozen`: the encoder's batch normalisation keeps the statistics that it starts with. `train`: it uses those of
    each batch and goes on averaging them."""
    encoder_lr: float | None = None
    """The encoder's learning rate. Left out: `training.lr`, which then is that of encoder and head."""
    recompute: int | None = None
    """Keep the activations of this many snippets at a time, and compute them again for the backward pass: the same
    gradients in far less memory, for about a third more time. Left out: keep all."""
    memory: str | None = None
    """Such as 8GB: choose the highest fidelity that fits, how many videos go through together, and `recompute`, in
    place of `schedule`. `training.batch_size` stays the number of videos in a step."""
    mirror: bool = True
    """Mirror half of the videos; switch it off where classes differ by direction alone."""
    cache: Path | None = None
    """Folder in which decoded frames are kept from epoch to epoch. It may be deleted."""
    cache_gb: float = 100.0
    """Gigabytes that it may hold; videos that find no room are decoded every time."""
    gtad: GTADOptions = field(default_factory=GTADOptions)
    """The head; `num_snippets` is that of the full fidelity."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            optimizer="sgd", lr=0.1, momentum=0.0, epochs=15, lr_steps=(5, 10), lr_gamma=0.5, num_workers=4
        )
    )

    def __post_init__(self) -> None:
        if self.recompute is not None and (self.recompute < 1 or self.batch_norm != "frozen"):
            raise ValueError(
                f"recompute is {self.recompute} and batch_norm {self.batch_norm!r}: to compute activations again takes "
                "at least 1 snippet at a time, and batch normalisation that does not look at batches (frozen)"
            )
