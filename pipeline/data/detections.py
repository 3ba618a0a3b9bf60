"""What was found in videos: the one type that predict, evaluate, the page and the exporters share.

On disk it is ActivityNet's JSON of scored segments. In memory it is columns, since half a million objects would cost
evaluation its speed; one by one they are `Detection`s.
"""

from __future__ import annotations

import csv
import gc
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from pipeline.data.files import plain_label, read_json, write_json
from pipeline.data.subtitles import write_subtitles

if TYPE_CHECKING:
    import pandas

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Detection:
    """A predicted segment, in seconds. ValueError unless its numbers are finite.

    Attributes:
        start: seconds from the video's start.
        end: likewise.
        label: the action; `action` or nothing for a segment without a class.
        score: how sure of it the head is; comparable within a run.
        video: id of the video that it is in; empty where that goes without saying.
    """

    start: float
    end: float
    label: str
    score: float
    video: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end) and math.isfinite(self.score)):
            raise ValueError(f"detection [{self.start}, {self.end}] s with score {self.score}: expected finite numbers")


@dataclass(frozen=True, eq=False)
class Detections(Sequence[Detection]):
    """Detections in one video or many, in a fixed order: an immutable sequence of `Detection`, held as columns.

    Detection n is in `video_ids[video_N[n]]`, of class `labels[label_N[n]]`. A video in which nothing was found is in
    `video_ids` all the same, and stays there whatever is filtered.
    """

    video_ids: tuple[str, ...]
    labels: tuple[str, ...]
    video_N: IntArray
    label_N: IntArray
    segments_N2: FloatArray  # seconds
    scores_N: FloatArray

    def __post_init__(self) -> None:
        for column in (self.video_N, self.label_N, self.segments_N2, self.scores_N):
            column.flags.writeable = False

    # --- Where they come from -----------------------------------------------------------------------------------------

    @classmethod
    def from_videos(cls, found: Mapping[str, Iterable[Detection]]) -> Detections:
        """Those of each video, by its id, one video after the other."""
        return _columns({video_id: [_row(detection) for detection in some] for video_id, some in found.items()})

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Detections:
        """Read ActivityNet's JSON. Proposals may lack labels: their class is then the empty name.

        Raises:
            ValueError: the file is of another form, or a time or score is not a finite number; names video and place.
        """
        return _read(Path(path))

    # --- As a sequence ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.scores_N)

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: slice) -> Detections: ...

    def __getitem__(self, index: int | slice) -> Detection | Detections:
        if isinstance(index, slice):
            return self._take(np.arange(len(self))[index])
        [detection] = self._objects([range(len(self))[index]])
        return detection

    def __iter__(self) -> Iterator[Detection]:
        return self._objects(slice(None))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        return self.video_ids == other.video_ids and len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash((self.video_ids, tuple(self)))

    def __repr__(self) -> str:
        videos = f"{len(self.video_ids)} videos" if len(self.video_ids) != 1 else repr(self.video_ids[0])
        return f"<Detections: {len(self)} in {videos}>"

    # --- Some of them -------------------------------------------------------------------------------------------------

    def at_least(self, score: float) -> Detections:
        """Those with this score or a better one."""
        return self._take(np.flatnonzero(self.scores_N >= score))

    def of(self, *labels: str) -> Detections:
        """Those of these classes."""
        wanted = [index for index, label in enumerate(self.labels) if label in labels]
        return self._take(np.flatnonzero(np.isin(self.label_N, wanted)))

    def between(self, start: float, end: float) -> Detections:
        """Those that lie between two times, in seconds."""
        return self._take(np.flatnonzero((self.segments_N2[:, 0] >= start) & (self.segments_N2[:, 1] <= end)))

    def by_video(self) -> dict[str, Detections]:
        """Those of each video, by its id."""
        order = np.argsort(self.video_N, kind="stable")
        bounds = np.searchsorted(self.video_N[order], np.arange(len(self.video_ids) + 1))
        return {
            video_id: replace(self._take(order[first:last]), video_ids=(video_id,), video_N=np.zeros(last - first, int))
            for video_id, first, last in zip(self.video_ids, bounds[:-1], bounds[1:], strict=True)
        }

    # --- Where they go ------------------------------------------------------------------------------------------------

    def to_frame(self) -> pandas.DataFrame:
        """A table with the columns video, start, end (seconds), label and score."""
        import pandas

        columns = {
            "video": [self.video_ids[index] for index in self.video_N.tolist()],
            "start": self.segments_N2[:, 0],
            "end": self.segments_N2[:, 1],
            "label": [self.labels[index] for index in self.label_N.tolist()],
            "score": self.scores_N,
        }
        return pandas.DataFrame(columns)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write ActivityNet's JSON. The file appears whole or not at all."""
        rows: dict[str, list[dict[str, Any]]] = {video_id: [] for video_id in self.video_ids}
        for detection in self:
            rows[detection.video].append(_row(detection))
        write_json(Path(path), {"version": "VERSION 1.3", "external_data": {}, "results": rows})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a row for each detection, and one of the id alone for a video without any, as annotations are read.

        Times are in seconds, to the millisecond.
        """
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("video", "start", "end", "label", "score"))
            for video_id, found in self.by_video().items():
                for d in found:
                    writer.writerow((video_id, f"{d.start:.3f}", f"{d.end:.3f}", d.label, f"{d.score:.6g}"))
                if not found:
                    writer.writerow((video_id, "", "", "", ""))

    def to_vtt(self, path: str | os.PathLike[str], *, least_share: float = 0.0) -> None:
        """Write subtitles that any player shows over the video (`pipeline.data.subtitles`).

        Args:
            path: the .vtt file.
            least_share: leave out what scores below this share of the best score.

        Raises:
            ValueError: there is more than one video; `by_video` takes them apart.
        """
        if len(self.video_ids) > 1:
            raise ValueError(f"these are detections in {len(self.video_ids)} videos: write each of .by_video() alone")
        write_subtitles(Path(path), self, least_share=least_share)

    def _take(self, index_M: IntArray) -> Detections:
        return replace(
            self,
            video_N=self.video_N[index_M],
            label_N=self.label_N[index_M],
            segments_N2=self.segments_N2[index_M],
            scores_N=self.scores_N[index_M],
        )

    def _objects(self, index: list[int] | slice) -> Iterator[Detection]:
        columns = (self.segments_N2[index], self.label_N[index], self.scores_N[index], self.video_N[index])
        for (start, end), label, score, video in zip(*(column.tolist() for column in columns), strict=True):
            yield Detection(start, end, self.labels[label], score, self.video_ids[video])


def _read(path: Path) -> Detections:
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


def _columns(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Detections:
    rows = list(chain.from_iterable(results.values()))
    names = [row.get("label", "") for row in rows]
    spelling = {name: plain_label(name) for name in dict.fromkeys(names)}  # as annotations are spelt, too
    labels = {name: index for index, name in enumerate(dict.fromkeys(spelling.values()))}
    segments_N2 = np.array([row["segment"] for row in rows], dtype=np.float64).reshape(-1, 2)
    if len(segments_N2) != len(rows):
        raise ValueError("a segment does not have two times")
    return Detections(
        video_ids=tuple(results),
        labels=tuple(labels),
        video_N=np.repeat(np.arange(len(results)), [len(detections) for detections in results.values()]),
        label_N=np.array([labels[spelling[name]] for name in names], dtype=np.int64),
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
