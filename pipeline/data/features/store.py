"""Feature stores: a folder of ``<video_id>.npy``, each (T, C), and a manifest that says what each row stands for.

``STORE/manifest.jsonl`` begins with the header, one JSON object (`StoreHeader`): the encoder and how to build it, the
fingerprint of its weights, the sampling. One line follows for each video (`StoredVideo`). A store that
`pipeline extract` wrote also holds the encoder's weights as ``STORE/encoder.safetensors``.

A file is written under a temporary name, flushed to disk and renamed; only then is its line appended to the manifest.
So whatever the manifest names is whole, and what a killed run leaves besides (a temporary file, a .npy without a line,
half a line) is taken away or made again when the run is repeated.

Shapes: T rows (snippets) of a video, C channels.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.files import check_video_id
from pipeline.data.snippets import Timeline

MANIFEST = "manifest.jsonl"
ENCODER_WEIGHTS = "encoder.safetensors"  # `encoders.weights.FILE_IN_FOLDER`, which would bring torch along
SOLA_WEIGHTS = "sola.safetensors"
FeatureArray = NDArray[np.float32]
_FORMAT = 1
_PARTIAL = ".part"


@dataclass(frozen=True)
class StoreHeader:
    """What all rows of a store have in common.

    Attributes:
        encoder: name and build arguments of the encoder; None: features made elsewhere.
        weights: fingerprint of its weights.
        sampling: how snippets were taken from the videos, or what else places the rows in time.
        precision: of the arithmetic that the encoder ran in.
        dtype: type of the stored numbers.
        streams: of a store that `pipeline merge-features` wrote, the headers of the stores whose channels stand side by
            side in it, in this order; it then has no encoder, weights, sampling and precision of its own.
        sola: the module that refined the features (`pipeline.encoding.refinement`), and the store it took them from;
            None: they are the encoder's own.
    """

    encoder: dict[str, Any] | None = None
    weights: str | None = None
    sampling: dict[str, Any] | None = None
    precision: str | None = None
    dtype: str = "float32"
    streams: tuple[StoreHeader, ...] = ()
    sola: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16"):
            raise ValueError(f"features are stored as float32 or float16, not {self.dtype}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoreHeader:
        """Inverse of `dataclasses.asdict`, also by way of JSON; an unknown key is a `TypeError`."""
        streams = tuple(cls.from_dict(stream) for stream in values.get("streams", ()))
        return cls(**{**values, "streams": streams})

    @property
    def parts(self) -> tuple[StoreHeader, ...]:
        """The header of each encoder's features: the streams, or this one itself."""
        return self.streams or (self,)

    @property
    def encoder_files(self) -> tuple[str, ...]:
        """What the files with the encoders' weights are called, in a store and in a run folder, one for each part."""
        if not self.streams:
            return (ENCODER_WEIGHTS,)
        stem, _, suffix = ENCODER_WEIGHTS.rpartition(".")
        return tuple(f"{stem}_{number}.{suffix}" for number in range(1, 1 + len(self.streams)))

    def differences(self, other: StoreHeader) -> list[str]:
        """What differs, ``key: mine, not theirs`` for each key."""
        mine, theirs = _flat(asdict(self)), _flat(asdict(other))
        return [
            f"{key}: {mine.get(key)}, not {theirs.get(key)}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        branch = dict(enumerate(value, start=1)) if isinstance(value, tuple) else value
        flat.update(_flat(branch, f"{prefix}{key}.") if isinstance(branch, dict) else {f"{prefix}{key}": branch})
    return flat


@dataclass(frozen=True)
class StoredVideo:
    """A line of the manifest: shape, timeline (seconds) and duration (seconds) of one video's features."""

    id: str
    rows: int
    channels: int
    timeline: Timeline
    duration: float

    def to_json(self) -> str:
        values = {"video": self.id, "rows": self.rows, "channels": self.channels, "duration": self.duration}
        return json.dumps(values | self.timeline.as_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> StoredVideo:
        values = json.loads(line)
        return cls(
            id=check_video_id(values["video"]),
            rows=int(values["rows"]),
            channels=int(values["channels"]),
            timeline=Timeline.from_dict(values),
            duration=float(values["duration"]),
        )


class FeatureStore:
    """A feature store on disk. `open` reads one, `create_or_resume` also writes.

    Attributes:
        path: its folder.
        header: what all rows have in common.
        videos: what is in it, by video id, in the manifest's order.
    """

    def __init__(self, path: Path, header: StoreHeader, videos: Iterable[StoredVideo], lock: IO[bytes] | None) -> None:
        self.path = path
        self.header = header
        self.videos = {video.id: video for video in videos}
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """Open a store for reading.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: the folder has no manifest, or a damaged one.
        """
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: no such feature store; `pipeline extract` makes one")
        if not (path / MANIFEST).is_file():
            raise ValueError(
                f"{path}: no {MANIFEST}, so this is no feature store; `pipeline import-features` makes one of others' "
                "features, `pipeline extract` of videos"
            )
        header, videos = _read_manifest(path / MANIFEST)
        return cls(path, header, videos, lock=None)

    @classmethod
    def create_or_resume(cls, path: Path, header: StoreHeader) -> FeatureStore:
        """Begin a store, or go on with the one that is there, whose leftovers of a killed run are cleared away.

        Use it as a context manager: no one else can write until it is closed.

        Raises:
            ValueError: the store there has another header; the folder holds .npy files but no manifest; its manifest is
                damaged; or someone else is writing to it.
        """
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        try:
            videos = _resume(path, header) if (path / MANIFEST).exists() else _begin(path, header)
        except BaseException:
            lock.close()
            raise
        return cls(path, header, videos, lock)

    def channels_of(self, video_ids: Iterable[str]) -> int:
        """C, which is the same for all of these videos. ValueError if it is not."""
        by_channels = {self.videos[video_id].channels: video_id for video_id in video_ids}
        if len(by_channels) > 1:
            found = ", ".join(f"{channels} in {video_id}" for channels, video_id in sorted(by_channels.items()))
            raise ValueError(f"{self.path}: its features have different numbers of channels ({found}); extract anew")
        return next(iter(by_channels))

    def load(self, video_id: str) -> NDArray[np.float32]:
        """Features of a video, (T, C) float32; float32 files are memory-mapped, read-only.

        Raises:
            ValueError: the store lacks the video, or its file is missing or not of the shape in the manifest.
        """
        if video_id not in self.videos:
            raise ValueError(f"{self.path}: no features of video {video_id!r}; run `pipeline extract` on it")
        video, file = self.videos[video_id], self._file(video_id)
        try:
            features_TC: NDArray[np.float32] = np.load(file, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a damaged header makes numpy raise nearly anything
            raise ValueError(f"{file}: cannot be read ({error}); delete it and repeat `pipeline extract`") from error
        if features_TC.shape != (video.rows, video.channels):
            raise ValueError(
                f"{file}: shape {features_TC.shape}, the manifest says {(video.rows, video.channels)}; "
                "delete it and repeat `pipeline extract`"
            )
        return features_TC.astype(np.float32, copy=False)

    def add(self, video_id: str, features_TC: NDArray[np.floating], timeline: Timeline, duration: float) -> None:
        """Write a video's features, on disk and whole when this returns.

        Raises:
            ValueError: the features are not (T ≥ 1, C), not finite in the store's type, have other channels than
                those before, or the video is there already.
        """
        assert self._lock is not None, "the store was opened for reading"
        if video_id in self.videos:
            raise ValueError(f"{self.path}: video {video_id!r} is in the store already")
        stored_TC = self._checked(check_video_id(video_id), features_TC)
        rows, channels = stored_TC.shape
        video = StoredVideo(video_id, rows, channels, timeline, float(duration))
        file = self._file(video_id)
        with _partial(file).open("wb") as partial:
            np.save(partial, stored_TC)
        _replace(_partial(file), file)
        with (self.path / MANIFEST).open("a", encoding="utf-8", newline="\n") as manifest:
            manifest.write(video.to_json() + "\n")
            _flush(manifest)
        self.videos[video_id] = video

    def close(self) -> None:
        """Put the manifest in the order of ids, so that a store does not show in what order it came about; unlock."""
        if self._lock is None:
            return
        ordered = dict(sorted(self.videos.items()))
        if list(ordered) != list(self.videos):
            self.videos = ordered
            _write_manifest(self.path, self.header, ordered.values())
        self._lock.close()
        self._lock = None

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _file(self, video_id: str) -> Path:
        return self.path / f"{video_id}.npy"

    def _checked(self, video_id: str, features_TC: NDArray[np.floating]) -> NDArray[np.floating]:
        if features_TC.ndim != 2 or 0 in features_TC.shape:
            raise ValueError(
                f"video {video_id!r}: features of shape {features_TC.shape}, expected (T, C), both above 0"
            )
        known = next(iter(self.videos.values()), None)
        if known is not None and known.channels != features_TC.shape[1]:
            raise ValueError(
                f"video {video_id!r}: {features_TC.shape[1]} channels, but {known.channels} in the videos before"
            )
        with np.errstate(over="ignore"):
            stored_TC = np.ascontiguousarray(features_TC, dtype=self.header.dtype)
        if not np.isfinite(stored_TC).all():
            raise ValueError(f"video {video_id!r}: features hold NaN or infinity as {self.header.dtype}")
        return stored_TC


def _begin(path: Path, header: StoreHeader) -> list[StoredVideo]:
    _remove_partial_files(path)
    if any(path.glob("*.npy")):
        raise ValueError(
            f"{path}: holds .npy files but no {MANIFEST}, so they are not overwritten; choose another folder, or take "
            "them over with `pipeline import-features`"
        )
    _write_manifest(path, header, [])
    return []


def _resume(path: Path, header: StoreHeader) -> list[StoredVideo]:
    found, videos = _read_manifest(path / MANIFEST)
    if differences := found.differences(header):
        raise ValueError(
            f"{path}: was made otherwise than asked for now ({'; '.join(differences)}); "
            "give another --out, or the options that the store was made with, or delete it"
        )
    _remove_partial_files(path)
    there = [video for video in videos if (path / f"{video.id}.npy").is_file()]
    if len(there) < len(videos) or not (path / MANIFEST).read_bytes().endswith(b"\n"):
        _write_manifest(path, header, there)
    return there


def _remove_partial_files(path: Path) -> None:
    for leftover in path.glob(f"*{_PARTIAL}"):
        leftover.unlink()


def _read_manifest(file: Path) -> tuple[StoreHeader, list[StoredVideo]]:
    """Header and videos; half a line at the end, which a killed run leaves, counts as not written."""
    *lines, _ = file.read_bytes().split(b"\n")
    try:
        header = _header_from_json(lines[0].decode())
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: the first line is no header of a feature store ({error})") from error
    videos = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            video = StoredVideo.from_json(line.decode())
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{file}, line {number}: damaged ({error!r}); delete this line and repeat the run"
            ) from error
        if video.id in videos:
            raise ValueError(f"{file}, line {number}: video {video.id!r} for the second time; delete one of its lines")
        videos[video.id] = video
    return header, list(videos.values())


def _header_from_json(line: str) -> StoreHeader:
    values = json.loads(line)
    if values.pop("format") != _FORMAT:
        raise ValueError(f"this version reads format {_FORMAT}")
    return StoreHeader.from_dict(values)


def _write_manifest(path: Path, header: StoreHeader, videos: Iterable[StoredVideo]) -> None:
    lines = [json.dumps({"format": _FORMAT} | asdict(header), ensure_ascii=False)]
    lines += [video.to_json() for video in videos]
    partial = _partial(path / MANIFEST)
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    _replace(partial, path / MANIFEST)


def _partial(file: Path) -> Path:
    return file.with_name(file.name + _PARTIAL)


def _replace(partial: Path, file: Path) -> None:
    """Give a written file its name once its content is on disk."""
    with partial.open("rb+") as written:
        _flush(written)
    os.replace(partial, file)


def _flush(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _lock(path: Path) -> IO[bytes]:
    """Take the store's lock, which the system releases when the file is closed or the process dies."""
    lock = (path / ".lock").open("ab")
    try:
        _lock_file(lock)
    except OSError as error:
        lock.close()
        raise ValueError(
            f"{path}: another process is writing to this store; wait for it, or give another --out"
        ) from error
    return lock


if sys.platform == "win32":
    import msvcrt

    def _lock_file(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock_file(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def rescale_linear(
    features_TC: NDArray[np.floating], timeline: Timeline, start_s: float, end_s: float, num_rows: int
) -> NDArray[np.float32]:
    """Features at the centres of `num_rows` equal parts of ``[start_s, end_s]``, linear between the centres of rows.

    Before the first and behind the last centre, their features hold. Where the rows cover the seconds asked for without
    gap or overlap, this equals torch's ``interpolate(mode="linear", align_corners=False)``.

    Returns:
        Shape (num_rows, C).
    """
    seconds = start_s + (np.arange(num_rows, dtype=np.float64) + 0.5) * ((end_s - start_s) / num_rows)
    return _at_seconds(features_TC, timeline, seconds)


def rescale_bins(
    features_TC: NDArray[np.floating], timeline: Timeline, start_s: float, end_s: float, num_rows: int
) -> NDArray[np.float32]:
    """The rule of BSN and G-TAD: each of `num_rows` equal bins of ``[start_s, end_s]`` is the mean of three points.

    The points stand at both ends and in the middle of the bin, after it was cut to what lies 0.1 ms inside the first
    and the last row's centre; features are linear between centres. A bin that lies outside of them is zero. A single
    row is repeated.

    Returns:
        Shape (num_rows, C).
    """
    num_features = len(features_TC)
    if num_features == 1:
        return np.repeat(features_TC, num_rows, axis=0).astype(np.float32)
    first, last = timeline.centers(num_features)[[0, -1]]
    edges = start_s + np.arange(num_rows + 1) * ((end_s - start_s) / num_rows)
    low, high = np.maximum(edges[:-1], first + 1e-4), np.minimum(edges[1:], last - 1e-4)
    points = np.stack([low, (low + high) / 2, high], axis=1)
    samples_T3C = _at_seconds(features_TC, timeline, points.ravel()).reshape(num_rows, 3, -1)
    means_TC: NDArray[np.float32] = samples_T3C.mean(axis=1, dtype=np.float32)
    means_TC[(high < first) | (low > last)] = 0
    return means_TC


def take_rows(
    features_TC: NDArray[np.floating], timeline: Timeline, start_s: float, end_s: float, num_rows: int
) -> NDArray[np.float32]:
    """The `num_rows` rows from the one that begins at `start_s` (by `Timeline.edge`) as they are, zero behind the last.

    Returns:
        Shape (num_rows, C).
    """
    first = timeline.row_from(start_s)
    assert timeline.row_from(end_s) == first + num_rows, "a window of other than num_rows rows"
    rows_TC = np.zeros((num_rows, features_TC.shape[1]), np.float32)
    taken_TC = features_TC[first : first + num_rows]
    rows_TC[: len(taken_TC)] = taken_TC
    return rows_TC


def _at_seconds(
    features_TC: NDArray[np.floating], timeline: Timeline, seconds: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Features at some seconds (S,), linear between the centres of rows: shape (S, C)."""
    last = len(features_TC) - 1
    rows = np.clip((seconds - timeline.offset - timeline.length / 2) / timeline.stride, 0, last)
    below = np.floor(rows).astype(np.int64)
    above = np.minimum(below + 1, last)
    weight = (rows - below).astype(np.float32)[:, None]
    features_SC = features_TC[below] * (1 - weight) + features_TC[above] * weight
    return np.asarray(features_SC, np.float32)


def load_finite(store: FeatureStore, video_id: str) -> FeatureArray:
    """Features of a video, (T, C). ValueError if they are not all finite: one such row spoils the whole training."""
    features_TC = store.load(video_id)
    if not np.isfinite(features_TC).all():
        bad = np.flatnonzero(~np.isfinite(features_TC).all(axis=1))
        raise ValueError(
            f"{store.path}: the features of video {video_id!r} are NaN or infinite in {len(bad)} rows, the first being "
            f"row {bad[0]}; delete its .npy and its line in the manifest, then extract or import it again"
        )
    return features_TC
