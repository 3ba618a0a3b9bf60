"""What `pipeline extract` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Which frames make a snippet, and where the snippets of a video stand (`pipeline.data.snippets`)."""

    num_frames: int | None = None
    """Frames in a snippet (L). Left out: the encoder's own."""
    frame_stride: int | None = None
    """Frames from one frame of a snippet to the next. Left out: the encoder's own."""
    step: int | None = None
    """Frames from one snippet's first frame to the next one's. Left out: half of what a snippet spans."""
    num_snippets: int | None = None
    """Instead of `step`: this many snippets, uniform over the video (LoFi's setting: 100)."""
    fps: float | None = None
    """Sample on a clock of this rate. Left out: that of the encoder's weights; if it has none, the video's own."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Videos to a feature store: one vector a snippet."""

    videos: Path
    """Folder of videos, searched with its subfolders; the id of a video is its file name without the suffix."""
    out: Path
    """The feature store to write or to go on with."""
    encoder: str
    """Name of the encoder, such as tsm_r50."""
    weights: str | None = None
    """A weight file, a run folder, a registered name, or `random`. Left out: the encoder's registered weights."""
    allow_missing: bool = False
    """Load a weight file although keys are missing or unexpected."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    size: int | None = None
    """Side of the square crop in pixels. Left out: the encoder's own."""
    annotations: Path | None = None
    """Extract only the videos that this annotation file names."""
    annotation_format: str | None = None
    """Reader for annotations in a form that none of ours knows: `package.module:read`, or the name that an installed
    package gives it. Left out: the form is told from the file."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored features."""
    batch_size: int = 16
    """Snippets (or frames, for encoders that see one frame at a time) encoded at a time."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the encoder runs."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the hardware has it, float32 elsewhere."""
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """Which library decodes."""
    time_limit: float = 60.0
    """Seconds without a new frame after which a video counts as failed."""
    flow_cache: Path | None = None
    """Folder in which optical flow, which takes seconds a frame, is kept for the next time. It may be deleted."""
