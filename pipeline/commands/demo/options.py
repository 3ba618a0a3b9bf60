"""What `pipeline demo` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The method on procedural videos: no download, ends with a table and a page."""

    out: Path
    """Folder for everything that the demo makes."""
    seed: int = 0
    """Seed of the data and of the training."""
    all: bool = False
    """Every row of the table, also those that take longer."""
