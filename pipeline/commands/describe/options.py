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
    """Reader for annotations in a form that none of ours knows: `package.module:read`, or the name that an installed
    package gives it. Left out: the form is told from the file."""
