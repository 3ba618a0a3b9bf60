"""What `pipeline describe` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class DescribeConfig:
    """What is in an annotation file, clip list or feature store, and what is wrong with it."""

    path: Path
    """The file or folder."""
    annotation_format: str | None = None
    """For annotations in a form that none of our readers knows: `package.module:read`, or the name of a reader of an
    installed package (`pipeline.data.annotations.reading`). Left out: told from the file."""
