"""`pipeline import-features`: a folder of others' .npy files to a feature store.

Such files do not say which seconds their rows stand for. The options do: rows every `stride` seconds from `offset` on,
each covering `length` seconds; or, without a stride, rows that share the video's annotated duration equally.

Shapes: T rows of a video, C channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from pipeline.config import ImportFeaturesConfig
from pipeline.data.annotations import Video, read_annotations
from pipeline.data.features import MANIFEST, FeatureStore, StoreHeader
from pipeline.data.files import match_ids
from pipeline.data.snippets import Timeline

GAP_WORTH_A_WORD = 0.1
"""Share of a video's duration by which its last row may end too early or too late without a warning."""


def run(config: ImportFeaturesConfig) -> int:
    """Import every file that the store lacks. Returns 1 if one was refused (listed; the others stay), else 0.

    Raises:
        ValueError, FileNotFoundError: no files, bad annotations or options, or a store that was made otherwise.
    """
    console = Console(stderr=True, soft_wrap=True)
    files = _find_files(config.features)
    videos = read_annotations(config.annotations).videos
    matches = match_ids(videos, files)
    video_of = {file_id: videos[video_id] for video_id, file_id in matches.items()}
    with FeatureStore.create_or_resume(config.out, _header(config)) as store:
        todo = [path for file_id, path in files.items() if file_id not in store.videos]
        channels = _usual_channels(todo)
        failures = []
        for path in track(todo, "importing", console=console):
            try:
                _import(path, channels, video_of, config, store)
            except ValueError as error:
                failures.append(str(error))
    _report(store, files, len(videos) - len(matches), failures, console)
    return 1 if failures else 0


def _find_files(folder: Path) -> dict[str, Path]:
    """The .npy files of a folder by video id, sorted."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of features")
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder}: is a feature store already; use it as it is")
    files = {path.stem: path for path in sorted(folder.glob("*.npy"))}
    if not files:
        raise ValueError(f"{folder}: holds no .npy file; expected one a video, named VIDEO_ID.npy, of shape (T, C)")
    return files


def _header(config: ImportFeaturesConfig) -> StoreHeader:
    if config.length is not None and config.stride is None:
        raise ValueError("--length without --stride: give the seconds from row to row as well, or leave both out")
    return StoreHeader(sampling={"stride_s": config.stride, "length_s": config.length, "offset_s": config.offset})


def _usual_channels(paths: list[Path]) -> int | None:
    """C of most files: where a file has another, that file is the wrong one, wherever it stands in the order."""
    counts: Counter[int] = Counter()
    for path in paths:
        with suppress(ValueError):
            shape = _load(path).shape
            counts.update(shape[1:] if len(shape) == 2 else ())
    return counts.most_common(1)[0][0] if counts else None


def _import(
    path: Path, channels: int | None, video_of: Mapping[str, Video], config: ImportFeaturesConfig, store: FeatureStore
) -> None:
    """Add one file to the store. ValueError naming the file if something about it is wrong."""
    if path.stem not in video_of:
        raise ValueError(f"{path}: {config.annotations} names no video {path.stem}")
    duration = video_of[path.stem].duration
    if duration is None:
        raise ValueError(f"{path}: {config.annotations} does not say how long the video is; give an ActivityNet JSON")
    features_TC = _read(path, channels)
    timeline = _timeline(config, len(features_TC), duration)
    try:
        store.add(path.stem, features_TC, timeline, duration)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _load(path: Path) -> NDArray[np.floating]:
    try:
        array: NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a .npy file of numbers ({error})") from error
    return array


def _read(path: Path, channels: int | None) -> NDArray[np.floating]:
    features_TC = _load(path)
    if features_TC.ndim != 2 or features_TC.shape[1] != channels:
        raise ValueError(f"{path}: shape {features_TC.shape}, expected (T, {channels}) as most files here have")
    if not np.issubdtype(features_TC.dtype, np.floating):
        raise ValueError(f"{path}: holds {features_TC.dtype}, expected floating-point numbers")
    return features_TC


def _timeline(config: ImportFeaturesConfig, num_rows: int, duration: float) -> Timeline:
    stride = (duration - config.offset) / max(1, num_rows) if config.stride is None else config.stride
    return Timeline(config.offset, stride, stride if config.length is None else config.length)


def _report(
    store: FeatureStore, files: Mapping[str, Path], num_without: int, failures: list[str], console: Console
) -> None:
    there = [store.videos[file_id] for file_id in files if file_id in store.videos]
    console.print(f"{len(there)} of {len(files)} files are in {store.path}")
    if num_without:
        console.print(f"warning: annotated videos without features: {num_without}")
    gaps = [video.id for video in there if _gap(video.rows, video.timeline, video.duration) > GAP_WORTH_A_WORD]
    if gaps:
        console.print(
            f"warning: videos whose rows end more than {GAP_WORTH_A_WORD:.0%} of the duration away from their own end: "
            f"{len(gaps)}, such as {gaps[0]}; check --stride"
        )
    if failures:
        console.print(f"{len(failures)} files were refused:")
    for failure in failures:
        console.print(f"  {failure}", markup=False, highlight=False)


def _gap(num_rows: int, timeline: Timeline, duration: float) -> float:
    end = timeline.offset + (num_rows - 1) * timeline.stride + timeline.length
    return abs(end - duration) / duration
