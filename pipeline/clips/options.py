"""What the commands can be told that train an encoder on trimmed clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.training.options import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class ClipTrainingConfig:
    """What the stages share that train an encoder on trimmed clips (`pipeline.clips.training`)."""

    clips: Path
    """A csv in the Kinetics layout, a tree of class_name/clip.mp4, or an annotation JSON whose segments, cut out of the
    videos, are the clips (LoFi's ACP+)."""
    annotation_format: str | None = None
    """Reader for annotations in a form that none of ours knows: `package.module:read`, or the name that an installed
    package gives it. Left out: the form is told from the file."""
    out: Path
    """Run folder."""
    encoder: str
    """Name of the encoder."""
    weights: str | None = "random"
    """What the encoder starts from: `random`, a weight file, a run folder, a registered name."""
    videos: Path | None = None
    """Folder of what a csv or JSON names. Left out: that of the csv or JSON."""
    num_frames: int | None = None
    """Frames in a snippet. Left out: the encoder's own."""
    frame_stride: int | None = None
    """Frames from one frame of a snippet to the next. Left out: the encoder's own."""
    size: int | None = None
    """Side of the square crop. Left out: the encoder's own."""
    dropout: float = 0.5
    """Dropout before the classifier."""
    mirror: bool = True
    """Mirror half of the training clips; switch it off where classes differ by direction alone."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            optimizer="sgd", lr=0.02, epochs=50, batch_size=64, lr_steps=(20, 40), clip_grad_norm=20.0, num_workers=2
        )
    )
