"""What could not be done, listed at the end of a command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """A video that gave no features, and why; `reason` names the file."""

    video_id: str
    reason: str
