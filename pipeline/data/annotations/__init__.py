"""Annotation files in the forms in which they are published, to one type."""

from pipeline.data.annotations.entries import Entry
from pipeline.data.annotations.reading import (
    AMBIGUOUS,
    Annotations,
    Segment,
    Video,
    holds_annotations,
    read_annotations,
    usual_subset,
    write_annotations,
)

__all__ = [
    "AMBIGUOUS",
    "Annotations",
    "Entry",
    "Segment",
    "Video",
    "holds_annotations",
    "read_annotations",
    "usual_subset",
    "write_annotations",
]
