"""`pipeline import-features`: features that others made, in any common format, to a feature store.

Such files do not say which seconds their rows stand for. The options do: rows every `stride_frames` frames of a rate
that is given or each video's own, or every `stride` seconds; or, without a stride, rows that share the video's duration
equally. Rows that then end far from the video's end are refused, since the stride, the rate or the file is wrong.

Shapes: T rows of a video, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pipeline.commands.import_features.options import ImportFeaturesConfig
from pipeline.data.annotations import Video, read_annotations
from pipeline.data.annotations.video_info import SideInfo, read_video_info
from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.features.feature_axes import Layout, Sample, decide_layout, squeeze, to_rows
from pipeline.data.features.foreign_features import ForeignFeatures
from pipeline.data.features.outcome import Store
from pipeline.data.files import match_ids
from pipeline.data.snippets import Timeline, timeline_of_shares, timeline_of_windows
from pipeline.terminal.notes import progress, remark
from pipeline.terminal.outcome import Failure, list_failures

MAX_SAMPLES = 200
"""Arrays that are looked at to see how all of them lie."""


def run(config: ImportFeaturesConfig) -> Store:
    """Import every array that the store lacks. Those that were refused are listed; the others stay.

    Raises:
        ValueError, FileNotFoundError: no features, bad annotations or options, an order of axes that cannot be told, or
            a store that was made otherwise, or has rows of these videos at other seconds.
    """
    header = _header(config)
    features = ForeignFeatures(config.features, pattern=config.pattern, key=config.key)
    clocks = _clocks(config, features)
    with FeatureStore.create_or_resume(config.out, header) as store:
        _check_there(store, clocks, config)
        todo = [video_id for video_id in clocks if video_id not in store.videos]
        remark(f"{len(clocks)} videos, {len(clocks) - len(todo)} of them in {store.path} already")
        channels = next((video.channels for video in store.videos.values()), None)
        layout = _look(todo, features, clocks, channels, config)
        failures = []
        for video_id in progress(todo, "importing"):
            try:
                _import(video_id, features, clocks[video_id], layout, config, store)
            except ValueError as error:
                failures.append(Failure(video_id, str(error)))
    there = sum(video_id in store.videos for video_id in clocks)
    remark(f"{there} of {len(clocks)} videos are in {store.path}")
    list_failures(f"{len(failures)} were refused:", (failure.reason for failure in failures))
    return Store(path=config.out, failed=tuple(failures))


def _header(config: ImportFeaturesConfig) -> StoreHeader:
    """What chooses the arrays and places their rows in time. ValueError if the options do not go together.

    Not where they are: several files may go into one store.
    """
    for name in ("stride", "length", "stride_frames", "window_frames", "fps", "max_mismatch"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be above zero")
    if config.stride is not None and config.stride_frames is not None:
        raise ValueError("--stride and --stride-frames: give one of them")
    if config.length is not None and config.stride is None:
        raise ValueError("--length without --stride: give the seconds from row to row as well, or leave both out")
    if config.stride_frames is None and (config.window_frames is not None or config.fps is not None):
        raise ValueError("--window-frames or --fps without --stride-frames: give the frames from row to row as well")
    if config.stride_frames is not None and config.fps is None and config.video_info is None:
        raise ValueError("--stride-frames: frames of which rate? Give --fps, or --video-info with each video's")
    sampling = {
        "pattern": config.pattern,
        "key": config.key,
        "stride_s": config.stride,
        "length_s": config.length,
        "offset_s": config.offset,
        "stride_frames": config.stride_frames,
        "window_frames": config.window_frames,
        "fps": config.fps,
    }
    return StoreHeader(sampling={name: value for name, value in sampling.items() if value is not None})


# --- Which videos, and their clocks -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Clock:
    """Of one video: its duration and where its features end (seconds), and the rate of their frames. None: unknown."""

    duration: float | None
    feature_duration: float | None
    fps: float | None


def _clocks(config: ImportFeaturesConfig, features: ForeignFeatures) -> dict[str, _Clock]:
    """The clock of each video that is annotated and has features, by the features' id."""
    videos = read_annotations(config.annotations, form=config.annotation_format).videos
    matches = match_ids(videos, features.places)
    if not matches:
        raise ValueError(_no_match(config, features, next(iter(videos))))
    matched = set(matches.values())
    strangers = [file_id for file_id in features.places if file_id not in matched]
    lonely = [video_id for video_id in videos if video_id not in matches]
    _tell("warning: annotated videos without features", lonely)
    _tell(f"features of videos that {config.annotations} does not name, left out", strangers)
    _tell(f"names that do not fit --pattern {config.pattern or '{video}'}, left out", features.ignored)
    infos = {} if config.video_info is None else read_video_info(config.video_info)
    info_ids = match_ids(matches.values(), infos)
    unknown = SideInfo(None, None, None)
    return {
        file_id: _clock(videos[video_id], infos.get(info_ids.get(file_id, ""), unknown), config.fps)
        for video_id, file_id in matches.items()
    }


def _clock(video: Video, info: SideInfo, fps: float | None) -> _Clock:
    duration = info.duration if video.duration is None else video.duration
    feature_duration = info.feature_duration or video.feature_duration or duration
    return _Clock(duration, feature_duration, info.fps if fps is None else fps)


def _no_match(config: ImportFeaturesConfig, features: ForeignFeatures, wanted: str) -> str:
    found, place = next(iter(features.places.items()))
    message = f"{config.annotations} names no video of {config.features}: it has {wanted!r}, there is {found!r}"
    if place.file != config.features and place.file.suffix not in (".npy", ".csv"):
        return f"{message}. Give --pattern, or, if that file holds many videos, it alone: --features {place.file}"
    return f"{message}. If the id is part of the name, give --pattern, such as '{{video}}_rgb'"


def _tell(what: str, names: list[str]) -> None:
    if names:
        remark(f"{what}: {len(names)}, such as {names[0]}")


# --- How the arrays lie -----------------------------------------------------------------------------------------------


def _look(
    todo: list[str],
    features: ForeignFeatures,
    clocks: Mapping[str, _Clock],
    channels: int | None,
    config: ImportFeaturesConfig,
) -> Layout | None:
    """How all arrays lie, from some of them; None if none could be one of features."""
    chosen = todo[:: -(-len(todo) // MAX_SAMPLES)] if todo else []
    samples, padded = [], []
    for video_id in chosen:
        with suppress(ValueError):
            array = features.load(video_id)
            matrix = squeeze(array)
            if matrix.ndim == 2:
                samples.append(Sample(matrix.shape, _expected_rows(config, clocks[video_id])))
                padded += [array.shape] if array.ndim > 2 else []
    if not samples:
        return None
    are_lines = all(features.places[video_id].file.suffix.lower() == ".csv" for video_id in chosen)
    layout = decide_layout(
        samples, axes=config.axes, channels=channels, lines_are_rows=are_lines, near=config.max_mismatch
    )
    if padded:
        remark(f"axes of size 1 are left out: shapes such as {padded[0]}")
    if config.axes is None:
        turned = "(C, T), and are turned" if layout.axes == "ct" else "(T, C)"
        remark(f"arrays are {turned}: {layout.reason}")
    return layout


def _expected_rows(config: ImportFeaturesConfig, clock: _Clock) -> float | None:
    """Rows that the stride lets expect; None where something for it is missing."""
    if clock.duration is None or _lacks_rate(config, clock) or not _has_stride(config):
        return None
    return _timeline(config, clock, num_rows=1).rows_until(clock.duration)


def _lacks_rate(config: ImportFeaturesConfig, clock: _Clock) -> bool:
    return config.stride_frames is not None and clock.fps is None


def _has_stride(config: ImportFeaturesConfig) -> bool:
    return config.stride is not None or config.stride_frames is not None


# --- Importing --------------------------------------------------------------------------------------------------------


def _import(
    video_id: str,
    features: ForeignFeatures,
    clock: _Clock,
    layout: Layout | None,
    config: ImportFeaturesConfig,
    store: FeatureStore,
) -> None:
    """Add one video to the store. ValueError naming the place of its features if something about it is wrong."""
    array = features.load(video_id)
    try:
        features_TC = to_rows(array, layout)
        if clock.duration is None:
            raise ValueError(
                f"{config.annotations} does not say how long the video is; give an annotation file that does, or a "
                "--video-info with a duration"
            )
        timeline = _timeline(config, clock, len(features_TC))
        _check_end(timeline, len(features_TC), clock.duration, config)
        store.add(video_id, features_TC, timeline, clock.duration)
    except ValueError as error:
        raise ValueError(f"{features.places[video_id]}: {error}") from error


def _timeline(config: ImportFeaturesConfig, clock: _Clock, num_rows: int) -> Timeline:
    if config.stride_frames is not None:
        if clock.fps is None:
            raise ValueError(f"{config.video_info} does not say the video's frame rate; add it, or give --fps")
        window = config.stride_frames if config.window_frames is None else config.window_frames
        return timeline_of_windows(config.stride_frames, window, clock.fps, config.offset)
    if config.stride is not None:
        return Timeline(config.offset, config.stride, config.stride if config.length is None else config.length)
    assert clock.feature_duration is not None, "known where the duration is"
    return timeline_of_shares(num_rows, clock.feature_duration, config.offset)


def _check_end(timeline: Timeline, num_rows: int, duration: float, config: ImportFeaturesConfig) -> None:
    """Rows whose stride was told must end where the video does. Those that share its duration do by themselves."""
    end = timeline.end(num_rows)
    allowed = config.max_mismatch * duration + max(timeline.stride, timeline.length)
    if _has_stride(config) and abs(end - duration) > allowed:
        fitting = max(1, round(timeline.rows_until(duration)))
        raise ValueError(
            f"{num_rows} rows, one every {timeline.stride:.4g} s, end at {end:.1f} s, the video at {duration:.1f} s: "
            f"{abs(end - duration) / duration:.0%} off, {fitting} rows would fit. Check the stride and the frame rate; "
            "if they are right, raise --max-mismatch"
        )


def _check_there(store: FeatureStore, clocks: Mapping[str, _Clock], config: ImportFeaturesConfig) -> None:
    """ValueError if this command places rows otherwise than the store has them: annotations or rates were corrected."""
    for video_id, clock in clocks.items():
        there = store.videos.get(video_id)
        if there is None or clock.duration is None or _lacks_rate(config, clock):
            continue
        timeline = _timeline(config, clock, there.rows)
        if (timeline, clock.duration) != (there.timeline, there.duration):
            raise ValueError(
                f"{store.path}: has a row of video {video_id!r} every {there.timeline.stride:.6g} s of "
                f"{there.duration:g} s, and now one every {timeline.stride:.6g} s of {clock.duration:g} s is asked "
                "for; give another --out, or the annotations and rates that the store was made with, or delete it"
            )
