"""Detections on disk: ActivityNet's JSON of scored segments, read as objects or, for the metrics, as columns."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.files import read_json, write_json

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Detection:
    """A predicted segment, in seconds. ValueError unless its numbers are finite."""

    start: float
    end: float
    label: str
    score: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end) and math.isfinite(self.score)):
            raise ValueError(f"detection [{self.start}, {self.end}] s with score {self.score}: expected finite numbers")


@dataclass(frozen=True, eq=False)
class DetectionTable:
    """Detections as columns in the file's order: row n is in `video_ids[video_N[n]]`, of class `labels[label_N[n]]`."""

    video_ids: tuple[str, ...]
    labels: tuple[str, ...]
    video_N: IntArray
    label_N: IntArray
    segments_N2: FloatArray  # seconds
    scores_N: FloatArray

    @classmethod
    def of(cls, results: Mapping[str, Sequence[Detection]]) -> DetectionTable:
        """The columns of detections in memory."""
        return _columns({video_id: [_row(d) for d in detections] for video_id, detections in results.items()})


def write_detections(path: Path, results: Mapping[str, Sequence[Detection]]) -> None:
    """Write ActivityNet's JSON. The file appears whole or not at all."""
    rows = {video_id: [_row(detection) for detection in detections] for video_id, detections in results.items()}
    write_json(path, {"version": "VERSION 1.3", "external_data": {}, "results": rows})


def read_detections(path: Path) -> dict[str, list[Detection]]:
    """Read ActivityNet's JSON. ValueError naming the file and the place if it is of another form, or not finite."""
    table = read_detection_table(path)
    results: dict[str, list[Detection]] = {video_id: [] for video_id in table.video_ids}
    columns = (table.video_N, table.label_N, table.segments_N2, table.scores_N)
    for video, label, (start, end), score in zip(*(column.tolist() for column in columns), strict=True):
        results[table.video_ids[video]].append(Detection(start, end, table.labels[label], score))
    return results


def read_detection_table(path: Path) -> DetectionTable:
    """Read ActivityNet's JSON as columns. Proposals may lack labels: their class is then the empty name.

    Raises:
        ValueError: The file is of another form, or a time or score is not a finite number; names video and place.
    """
    with _no_garbage_collection():
        data = read_json(path)
        results = data.get("results") if isinstance(data, dict) else None
        if not isinstance(results, dict):
            raise ValueError(f'{path} holds no detections: expected {{"results": {{VIDEO_ID: [...]}}}}')
        try:
            table = _columns(results)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            table = None
    if table is None or not (np.isfinite(table.segments_N2).all() and np.isfinite(table.scores_N).all()):
        raise ValueError(f"{path}, {_first_fault(results)}")
    return table


def _row(detection: Detection) -> dict[str, Any]:
    return {
        "segment": [detection.start, detection.end],
        "label": detection.label,
        "score": detection.score,
    }


def _columns(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> DetectionTable:
    rows = list(chain.from_iterable(results.values()))
    names = [row.get("label", "") for row in rows]
    labels = {name: index for index, name in enumerate(dict.fromkeys(names))}
    if not all(isinstance(name, str) for name in labels):
        raise TypeError("a label is no string")
    segments_N2 = np.array([row["segment"] for row in rows], dtype=np.float64).reshape(-1, 2)
    if len(segments_N2) != len(rows):
        raise ValueError("a segment does not have two times")
    return DetectionTable(
        video_ids=tuple(results),
        labels=tuple(labels),
        video_N=np.repeat(np.arange(len(results)), [len(detections) for detections in results.values()]),
        label_N=np.array([labels[name] for name in names], dtype=np.int64),
        segments_N2=segments_N2,
        scores_N=np.array([row["score"] for row in rows], dtype=np.float64),
    )


def _first_fault(results: Mapping[str, Any]) -> str:
    """Which detection cannot be read, and why; the slow way, for files that have one."""
    for video_id, detections in results.items():
        if not isinstance(detections, list):
            return f"video {video_id!r}: expected a list of detections, found {detections!r:.60}"
        for index, row in enumerate(detections):
            try:
                _check_row(row)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                reason = f"{error} is missing" if isinstance(error, KeyError) else error
                return f"video {video_id!r}, detection {index}: {reason}"
    raise AssertionError("every detection can be read")


def _check_row(row: Any) -> None:
    if not isinstance(row, dict):
        raise TypeError(f'expected {{"segment", "label", "score"}}, found {row!r:.60}')
    start, end = row["segment"]
    label = row.get("label", "")
    if not isinstance(label, str):
        raise TypeError(f"label {label!r}: expected a name")
    Detection(float(start), float(end), label, float(row["score"]))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause the cyclic collector, which walks the growing objects again and again: a quarter of the reading time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
