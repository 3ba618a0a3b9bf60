"""Raw videos and a trained run to detections, in memory.

    video ──iterate_features──▶ features ──detect──▶ detections
           pipeline.encoding           pipeline.detection.detector

Both steps are those of `extract` and `localize`, with the encoder, the sampling and the head of the run: a video gets
the detections that it would get through a feature store on disk. Memory holds the features of the videos under way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from encoders import Encoder
from encoders.devices import Device, resolve_device
from encoders.inference import computes_in_bfloat16
from encoders.weights import fingerprint
from pipeline.data.detections import Detections
from pipeline.data.features import StoreHeader
from pipeline.data.features.streams import join_streams
from pipeline.data.files import check_video_id, walk_videos
from pipeline.data.snippets import Sampling
from pipeline.data.video import Decoder
from pipeline.detection.detector import LocalizeRun, detect
from pipeline.encoding.build import build_named_encoder
from pipeline.encoding.refinement import Refinement, load_refinement
from pipeline.encoding.video_features import OnFrames, VideoFeatures, iterate_features
from pipeline.terminal.outcome import Failure


@dataclass(frozen=True)
class Prediction:
    """What was found in a video of `duration` seconds, best first."""

    video_id: str
    path: Path
    duration: float
    detections: Detections


@dataclass(frozen=True, kw_only=True)
class Processing:
    """How videos are read and encoded: fields of the same names as in `PredictConfig`."""

    device: Device = "auto"
    decoder: Decoder = "auto"
    batch_size: int = 16
    time_limit: float = 60.0


class Predictor:
    """A run with its encoders, ready for videos.

    Args:
        run: the run.
        encoders: of `load_encoders`.
        processing: how videos are read and encoded.

    Raises:
        ValueError: the run's SoLa module is not there, or there is no such device.
    """

    def __init__(self, run: LocalizeRun, encoders: Sequence[Encoder], processing: Processing) -> None:
        self.run, self.encoders, self.processing = run, encoders, processing
        device = resolve_device(processing.device)
        self.refine = load_refinement(run.path, run.header, device)
        run.head.to(device)

    def predict(
        self, videos: Mapping[str, Path], on_frames: OnFrames = lambda *_: None
    ) -> Iterator[Prediction | Failure]:
        """What is found in each video, in the order of `videos`, or why nothing can be."""
        for video in extract_features(videos, self.run, self.encoders, self.processing, on_frames):
            yield video if isinstance(video, Failure) else self._detect(video, videos[video.video_id])

    def _detect(self, video: VideoFeatures, path: Path) -> Prediction | Failure:
        """What the run finds in a video, where its head lies; a failure if the features are not finite."""
        return detect_in(video, path, self.run, self.refine)


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


def load_encoders(run: LocalizeRun, named: Collection[str] = ()) -> list[Encoder]:
    """The encoders that made the features on which the run was trained: one, or one for each stream.

    Raises:
        ValueError: the run has none, or other weights than those, or an encoder that the user has not named.
    """
    weights = run.encoder_weights
    return [_load_encoder(part, path, named) for part, path in zip(run.header.parts, weights, strict=True)]


def _load_encoder(header: StoreHeader, weights: Path, named: Collection[str]) -> Encoder:
    assert header.encoder is not None, "a run with weights says what they belong to"
    encoder = build_named_encoder(**header.encoder, named=named, weights=weights)
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
    processing: Processing,
    on_frames: OnFrames = lambda *_: None,
) -> Iterator[VideoFeatures | Failure]:
    """Features of each video, made as the run's own were: by each encoder, then side by side."""
    parts = run.header.parts
    streams = [
        _extract_stream(videos, part, encoder, processing, _share_of(on_frames, number, len(parts)))
        for number, (part, encoder) in enumerate(zip(parts, encoders, strict=True))
    ]
    for results in zip(*streams, strict=True):
        yield results[0] if len(results) == 1 else _side_by_side(results, parts, videos)


def _share_of(on_frames: OnFrames, number: int, count: int) -> OnFrames:
    """Progress of one of `count` encoders as progress of the whole."""
    return lambda video_id, so_far, of: on_frames(video_id, number * of + so_far, count * of)


def _extract_stream(
    videos: Mapping[str, Path], header: StoreHeader, encoder: Encoder, processing: Processing, on_frames: OnFrames
) -> Iterator[VideoFeatures | Failure]:
    assert header.sampling is not None, "a run with an encoder says how snippets were taken"
    device = resolve_device(processing.device)
    in_bfloat16 = header.precision == "bfloat16" and computes_in_bfloat16(device)
    return iterate_features(
        videos,
        encoder,
        Sampling(**header.sampling),
        batch_size=processing.batch_size,
        device=device,
        precision="bfloat16" if in_bfloat16 else "float32",
        decoder=processing.decoder,
        time_limit=processing.time_limit,
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
    found = detect(run, stored_TC, video.timeline, video.duration)
    return Prediction(video.video_id, path, video.duration, Detections.from_videos({video.video_id: found}))
