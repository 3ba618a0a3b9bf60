"""`pipeline predict`: raw videos and a run of `pipeline localize` to detections.

    video ──iterate_features──▶ features, in memory ──detect──▶ detections ──▶ DETECTIONS.json, DETECTIONS.csv,
           pipeline.encoding                   pipeline.detection              VIDEO.vtt, DETECTIONS.html

Both steps are those of `extract` and `localize`, with the encoder, the sampling and the head of the run: a video gets
the detections that it would get through a feature store on disk. Memory holds the features of the videos under way and
the detections of all.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from encoders import Encoder, build_encoder
from encoders.devices import resolve_device
from encoders.inference import computes_in_bfloat16
from encoders.weights import fingerprint
from pipeline.commands.predict.options import PredictConfig
from pipeline.data.detections import Detection, write_detections
from pipeline.data.features import StoreHeader
from pipeline.data.features.streams import join_streams
from pipeline.data.files import check_video_id, walk_videos
from pipeline.data.snippets import Sampling
from pipeline.data.subtitles import without_repeats, write_subtitles
from pipeline.detection.detector import LocalizeRun, detect, load_run
from pipeline.encoding.progress import ExtractionProgress, report_failures
from pipeline.encoding.refinement import Refinement, load_refinement
from pipeline.encoding.video_features import OnFrames, VideoFeatures, iterate_features
from pipeline.show.report import ReportVideo, write_report
from pipeline.terminal.failures import Failure

DETECTIONS_PRINTED = 5  # for each video


@dataclass(frozen=True)
class Prediction:
    """What was found in a video of `duration` seconds, best first."""

    video_id: str
    path: Path
    duration: float
    detections: list[Detection]


def run(config: PredictConfig) -> int:
    """Detect actions in the videos and write all outputs. Returns 1 if a video failed, else 0.

    A failed video is listed at the end and is in no output; the others are whole.

    Raises:
        ValueError: two videos of one id, no video, an output that is no .json, or a run that cannot predict.
        FileNotFoundError: a video or the run is not there.
    """
    if config.out.suffix.lower() != ".json":
        raise ValueError(f"--out {config.out}: detections are written as JSON; give a name that ends in .json")
    console = Console(stderr=True, soft_wrap=True)
    videos = collect_videos(config.video)
    trained = load_run(config.run)
    encoders = load_encoders(trained)
    refine = load_refinement(trained.path, trained.header, resolve_device(config.device))
    trained.head.to(resolve_device(config.device))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    predictions: list[Prediction] = []
    failures: list[Failure] = []
    with ExtractionProgress(videos, console) as progress:
        for video in progress.track(extract_features(videos, trained, encoders, config, progress.on_frames)):
            result = video if isinstance(video, Failure) else detect_in(video, videos[video.video_id], trained, refine)
            if isinstance(result, Failure):
                failures.append(result)
            else:
                predictions.append(_without_worse(result, config.min_score))
    write_outputs(config, predictions)
    print(format_summary(predictions))
    page = f", {config.out.with_suffix('.html')}" if config.report else ""
    print(f"written: {config.out}, {config.out.with_suffix('.csv')}{page}, and beside them a .vtt for each video")
    report_failures(failures, len(videos), console)
    return 1 if failures else 0


# --- What goes in -----------------------------------------------------------------------------------------------------


def collect_videos(paths: Iterable[Path]) -> dict[str, Path]:
    """Video files by id, folders searched with their subfolders. A file that is named twice counts once.

    Raises:
        FileNotFoundError: a path is not there.
        ValueError: a folder without videos, two files of one id, or an id that cannot name a file.
    """
    videos: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no video or folder {path}")
        for file in walk_videos(path) if path.is_dir() else [path]:
            other = videos.setdefault(check_video_id(file.stem), file)
            if not other.samefile(file):
                raise ValueError(f"two videos have the id {file.stem!r}: {other} and {file}; rename or leave out one")
    return videos


def load_encoders(run: LocalizeRun) -> list[Encoder]:
    """The encoders that made the features on which the run was trained: one, or one for each stream.

    Raises:
        ValueError: the run has none, or other weights than those.
    """
    return [_load_encoder(part, weights) for part, weights in zip(run.header.parts, run.encoder_weights, strict=True)]


def _load_encoder(header: StoreHeader, weights: Path) -> Encoder:
    assert header.encoder is not None, "a run with weights says what they belong to"
    encoder = build_encoder(**header.encoder, weights=weights)
    if (found := fingerprint(encoder)) != header.weights:
        raise ValueError(
            f"{weights} holds other weights ({found}) than the head was trained with ({header.weights}); "
            "copy the run folder again, or repeat `pipeline localize`"
        )
    return encoder


# --- From videos to detections ----------------------------------------------------------------------------------------


def extract_features(
    videos: Mapping[str, Path],
    run: LocalizeRun,
    encoders: Sequence[Encoder],
    config: PredictConfig,
    on_frames: OnFrames = lambda *_: None,
) -> Iterator[VideoFeatures | Failure]:
    """Features of each video, made as the run's own were: by each encoder, then side by side."""
    parts = run.header.parts
    streams = [
        _extract_stream(videos, part, encoder, config, _share_of(on_frames, number, len(parts)))
        for number, (part, encoder) in enumerate(zip(parts, encoders, strict=True))
    ]
    for results in zip(*streams, strict=True):
        yield results[0] if len(results) == 1 else _side_by_side(results, parts, videos)


def _share_of(on_frames: OnFrames, number: int, count: int) -> OnFrames:
    """Progress of one of `count` encoders as progress of the whole."""
    return lambda video_id, so_far, of: on_frames(video_id, number * of + so_far, count * of)


def _extract_stream(
    videos: Mapping[str, Path], header: StoreHeader, encoder: Encoder, config: PredictConfig, on_frames: OnFrames
) -> Iterator[VideoFeatures | Failure]:
    assert header.sampling is not None, "a run with an encoder says how snippets were taken"
    device = resolve_device(config.device)
    in_bfloat16 = header.precision == "bfloat16" and computes_in_bfloat16(device)
    return iterate_features(
        videos,
        encoder,
        Sampling(**header.sampling),
        batch_size=config.batch_size,
        device=device,
        precision="bfloat16" if in_bfloat16 else "float32",
        decoder=config.decoder,
        time_limit=config.time_limit,
        on_frames=on_frames,
    )


def _side_by_side(
    results: Sequence[VideoFeatures | Failure], parts: Sequence[StoreHeader], videos: Mapping[str, Path]
) -> VideoFeatures | Failure:
    """What the encoders gave for one video as one, with the rounding of the stores that were merged."""
    streams = []
    for result in results:
        if isinstance(result, Failure):
            return result
        streams.append(result)
    stored = [stream.features_TC.astype(part.dtype) for stream, part in zip(streams, parts, strict=True)]
    try:
        features_TC, timeline = join_streams(stored, [stream.timeline for stream in streams])
    except ValueError as error:
        return Failure(streams[0].video_id, f"{videos[streams[0].video_id]}: {error}")
    return replace(streams[0], features_TC=features_TC, timeline=timeline)


def detect_in(video: VideoFeatures, path: Path, run: LocalizeRun, refine: Refinement | None) -> Prediction | Failure:
    """What the run finds in a video, where its head lies; a failure if the features are not finite."""
    features_TC = video.features_TC if refine is None else refine(video.features_TC)
    if not np.isfinite(features_TC).all():
        return Failure(video.video_id, f"{path}: the encoder gave features that are NaN or infinite")
    stored_TC = features_TC.astype(run.header.dtype).astype(np.float32)  # with the rounding of the run's store
    return Prediction(video.video_id, path, video.duration, detect(run, stored_TC, video.timeline, video.duration))


def _without_worse(prediction: Prediction, min_score: float) -> Prediction:
    kept = [detection for detection in prediction.detections if detection.score >= min_score]
    return replace(prediction, detections=kept)


# --- What comes out ---------------------------------------------------------------------------------------------------


def write_outputs(config: PredictConfig, predictions: Sequence[Prediction]) -> None:
    """The JSON; beside it the csv, subtitles for each video, and the page if it is asked for."""
    write_detections(config.out, {prediction.video_id: prediction.detections for prediction in predictions})
    write_csv(config.out.with_suffix(".csv"), predictions)
    for prediction in predictions:
        subtitles = config.out.with_name(f"{prediction.video_id}.vtt")
        write_subtitles(subtitles, prediction.detections, least_share=config.subtitle_score)
    if config.report:
        page = config.out.with_suffix(".html")
        write_report(
            page,
            title="Detected actions",
            description=f"Detections of {config.run} in {_count(len(predictions), 'video')}.",
            videos=[ReportVideo(p.video_id, p.path, p.duration, p.detections) for p in predictions],
        )


def write_csv(path: Path, predictions: Iterable[Prediction]) -> None:
    """A row for each detection, and one of the id alone for a video without any, as `read_annotations` reads them.

    Times are in seconds, to the millisecond.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("video", "start", "end", "label", "score"))
        for prediction in predictions:
            for d in prediction.detections:
                writer.writerow((prediction.video_id, f"{d.start:.3f}", f"{d.end:.3f}", d.label, f"{d.score:.6g}"))
            if not prediction.detections:
                writer.writerow((prediction.video_id, "", "", "", ""))


def format_summary(predictions: Iterable[Prediction]) -> str:
    """The best few detections of each video, repeats left out, a line each: start, end, score, label."""
    blocks = []
    for prediction in predictions:
        best = without_repeats(prediction.detections)[:DETECTIONS_PRINTED]
        found = _count(len(prediction.detections), "detection")
        head = f"{prediction.video_id} ({_clock(prediction.duration)}): {found}" + (", best first" if best else "")
        blocks.append("\n".join([head, *map(_summary_line, best)]))
    return "\n".join(blocks)


def _summary_line(detection: Detection) -> str:
    return f"  {_clock(detection.start):>9} – {_clock(detection.end):>9}  {detection.score:6.3f}  {detection.label}"


def _clock(seconds: float) -> str:
    """0:05.2, 12:05.2 or 1:12:05.2."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes_of_hour = divmod(minutes, 60)
    upper = f"{hours}:{minutes_of_hour:02}" if hours else str(minutes)
    return f"{upper}:{rest // 10:02}.{rest % 10}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
