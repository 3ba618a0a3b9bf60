"""What `pipeline evaluate` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Ground truth and detections to metrics."""

    ground_truth: Path
    """Annotation file or folder with the true segments."""
    annotation_format: str | None = None
    """Reader for annotations in a form that none of ours knows: `package.module:read`, or the name that an installed
    package gives it. Left out: the form is told from the file."""
    predictions: Path
    """Detections JSON."""
    subset: str = "validation"
    """Subset of the ground truth."""
    task: Literal["detection", "proposal"] = "detection"
    """`detection`: mAP. `proposal`: AR@AN and AUC."""
    tiou: tuple[float, ...] | None = None
    """tIoU thresholds, with commas. Left out: 0.5:0.05:0.95."""
    json: Path | None = None
    """Write the metrics here."""
