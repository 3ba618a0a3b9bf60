"""What `pipeline pretrain` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.clips.options import ClipTrainingConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(ClipTrainingConfig):
    """Trimmed clips to encoder weights by action classification (the papers' ACP), or by a task without labels."""

    task: Literal["classification", "arrow-of-time", "playback-speed"] = "classification"
    """`classification`: which action. `arrow-of-time`: forward or backward. `playback-speed`: which of `speeds`. The
    last two need no labels (`pipeline.commands.pretrain.pretext`)."""
    speeds: tuple[int, ...] = (1, 2)
    """How many times as fast a clip is played in each class of `playback-speed`, with commas (SpeedNet: 1,2)."""

    def __post_init__(self) -> None:
        if len(set(self.speeds)) != len(self.speeds) or len(self.speeds) < 2 or min(self.speeds) < 1:
            raise ValueError(f"speeds are {self.speeds}; expected two or more, all different, none below 1")
