"""What `pipeline merge-features` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class MergeFeaturesConfig:
    """Feature stores of the same videos to one with the channels of all, such as RGB and flow."""

    stores: tuple[Path, ...]
    """The feature stores, in the order of their channels."""
    out: Path
    """Feature store to write."""
