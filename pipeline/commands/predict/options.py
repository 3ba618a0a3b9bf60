"""What `pipeline predict` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Raw videos and a localize run to detections, a csv and subtitles."""

    video: tuple[Path, ...]
    """Video files, or folders of them."""
    run: Path
    """Run folder of `pipeline localize`."""
    encoder: tuple[str, ...] = ()
    """Names, with commas, of encoders that the run was made with, if they are others' own (`package.module:build`): it
    says so, and nothing is imported that is not named here or installed."""
    head: str | None = None
    """Likewise the run's head, `package.module:MyHead`."""
    out: Path
    """Detections JSON; DETECTIONS.csv and one VIDEO.vtt for each video are written beside it."""
    report: bool = False
    """Also write a page with the videos and their segments."""
    min_score: float = 0.0
    """Leave detections below out of all outputs."""
    subtitle_score: float = 0.3
    """Leave detections below this share of a video's best score out of the subtitles."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run."""
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """Which library decodes."""
    batch_size: int = 16
    """Snippets encoded at a time."""
    time_limit: float = 60.0
    """Seconds without a new frame after which a video counts as failed."""

    @property
    def named(self) -> tuple[str, ...]:
        """Names of others' code that may be imported."""
        return self.encoder if self.head is None else (*self.encoder, self.head)
