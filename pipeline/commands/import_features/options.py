"""What `pipeline import-features` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ImportFeaturesConfig:
    """Others' features to a feature store: .npy, .npz, .csv, HDF5, .pkl, .pt."""

    features: Path
    """Folder of files that hold one video each, searched with its subfolders; or one file that holds many videos."""
    out: Path
    """Feature store to write or to add to."""
    annotations: Path
    """Annotation file: which videos, and how long they are."""
    annotation_format: str | None = None
    """Reader for annotations in a form that none of ours knows: `package.module:read`, or the name that an installed
    package gives it. Left out: the form is told from the file."""

    # Which array is whose, and how it lies.
    pattern: str | None = None
    """How files, or the arrays in one file, are named, {video} standing for the id: {video}_rgb, v_{video}/features.
    Left out: by the id."""
    key: str | None = None
    """The array to take from each file, where files of one video hold several."""
    axes: Literal["tc", "ct"] | None = None
    """`tc`: arrays are (T, C), rows first; `ct`: (C, T). Left out: told from shapes and durations, or asked for."""

    # Which seconds its rows stand for. Without a stride they share the video's duration equally.
    stride_frames: float | None = None
    """Frames from row to row, at `fps`."""
    window_frames: float | None = None
    """Frames that a row covers. Left out: `stride_frames`."""
    fps: float | None = None
    """Rate of the frames that features were made from. Left out: each video's, from `video_info`."""
    video_info: Path | None = None
    """csv or JSON with video,fps,duration,frames, or some of these; ActivityNet's video_info_new.csv is one."""
    stride: float | None = None
    """Instead of frames: seconds from row to row. With neither, rows share the video's duration equally."""
    length: float | None = None
    """Seconds that a row covers. Left out: the stride."""
    offset: float = 0.0
    """Second at which row 0 starts."""
    max_mismatch: float = 0.1
    """Refuse a video whose rows end further from its own end than this share of its duration and one row. ActivityNet's
    own features stay below but for 2 of 19,228 videos; 25 taken for 30 frames a second makes 0.17."""
