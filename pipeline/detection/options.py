"""How scored cells become detections."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class PostConfig:
    """From scored cells to detections."""

    nms: Literal["gaussian", "bmn", "none"] = "gaussian"
    """Soft-NMS, per class."""
    sigma: float = 0.8
    """Width of the Gaussian (G-TAD on ActivityNet: 0.8; LoFi: 0.84); alpha of the BMN variant (0.4)."""
    class_agnostic: bool | None = None
    """Soft-NMS and voting over all classes together (`multiclass: false` of ActionFormer, TriDet and OpenTAD). Left
    out: within each class. Without meaning for heads without classes."""
    voting: float | None = None
    """After soft-NMS, move each segment to the mean of all from before it whose IoU with it is at least this, weighted
    (ActionFormer on ActivityNet: 0.9; TriDet: 0.95). Left out: segments stay where they are."""
    voting_weight: Literal["score-iou", "score"] | None = None
    """What a segment weighs in this mean: its score times the IoU (ActionFormer), or its `score` alone (TriDet,
    OpenTAD). Left out: `score-iou`."""
    max_detections: int = 100
    """Detections kept for a video (THUMOS14: 200); times the classes that `fusion` gives each of them."""
    per_minute: float | None = None
    """Detections kept for each minute of a video, where that makes more than `max_detections`: a long recording keeps
    what its parts would. Left out: `max_detections`, however long the video is."""
    max_per_window: int | None = None
    """Soft-NMS also within each window, first, and this many go on (G-TAD on THUMOS14: 200). Left out: all."""
    min_score: float = 1e-4
    """Detections below are dropped."""
    window: float = 300.0
    """Seconds that one pass sees at most; longer videos are cut into windows that overlap by half. Without meaning for
    `rescale: none`, and for heads that see videos whole."""

    def __post_init__(self) -> None:
        if self.voting is not None and not 0 < self.voting <= 1:
            raise ValueError(
                f"post.voting is {self.voting}; as an IoU it must be above 0 and at most 1, such as 0.9; leave it out "
                "for no voting"
            )

    def most(self, duration: float) -> int:
        """How many detections a video of this many seconds keeps."""
        return max(self.max_detections, math.ceil((self.per_minute or 0.0) * duration / 60))
