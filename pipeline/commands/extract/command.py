"""`pipeline extract`: raw videos to a feature store, one vector a snippet.

Videos come in the order of their ids (`pipeline.encoding.video_features`) and are written one by one, so that a run
that was killed, started again, does what is missing and ends with the same store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from encoders import Encoder
from encoders.devices import resolve_device
from encoders.inference import Precision, computes_in_bfloat16
from encoders.weights import fingerprint, save_weights
from pipeline.commands.extract.options import ExtractConfig, SamplingConfig
from pipeline.data.annotations import read_annotations
from pipeline.data.features import ENCODER_WEIGHTS, FeatureStore, StoreHeader
from pipeline.data.features.outcome import Store
from pipeline.data.files import find_videos, match_ids
from pipeline.data.snippets import Sampling
from pipeline.encoding.build import build_named_encoder
from pipeline.encoding.progress import ExtractionProgress
from pipeline.encoding.video_features import VideoFeatures, iterate_features
from pipeline.terminal.notes import print_note, remark, shows_progress
from pipeline.terminal.outcome import Failure, list_failures


def run(config: ExtractConfig) -> Store:
    """Extract every video that the store lacks. Those that failed are listed at the end; the others stay.

    Raises:
        ValueError, FileNotFoundError: no videos, no such encoder or weights, or a store that was made otherwise.
    """
    videos = _chosen_videos(config)
    encoder = build_named_encoder(
        config.encoder,
        named=[config.encoder],
        weights=config.weights,
        num_frames=config.sampling.num_frames,
        frame_stride=config.sampling.frame_stride,
        size=config.size,
        allow_missing=config.allow_missing,
    )
    sampling = resolve_sampling(encoder, config.sampling)
    device = resolve_device(config.device)
    precision = _resolve_precision(config.precision, device)
    header = StoreHeader(encoder.build_args, fingerprint(encoder), asdict(sampling), precision, config.dtype)
    with FeatureStore.create_or_resume(config.out, header) as store:
        if not (config.out / ENCODER_WEIGHTS).exists():
            save_weights(encoder, config.out / ENCODER_WEIGHTS)
        missing = {video_id: path for video_id, path in videos.items() if video_id not in store.videos}
        remark(f"{len(videos)} videos, {len(videos) - len(missing)} of them in {config.out} already")
        with ExtractionProgress(missing, show=shows_progress()) as progress:
            results = iterate_features(
                missing,
                encoder,
                sampling,
                batch_size=config.batch_size,
                device=device,
                precision=precision,
                decoder=config.decoder,
                time_limit=config.time_limit,
                flow_cache=config.flow_cache,
                on_frames=progress.on_frames,
            )
            failures = _add_all(store, progress.track(results))
    list_failures(f"{len(failures)} of {len(missing)} videos failed; the others are done:", failures)
    return Store(path=config.out, failed=tuple(failures))


def _chosen_videos(config: ExtractConfig) -> dict[str, Path]:
    """Videos of the folder, sorted by id; only the annotated ones if there is an annotation file."""
    videos = dict(sorted(find_videos(config.videos).items()))
    if config.annotations is None:
        return videos
    annotated = read_annotations(config.annotations, form=config.annotation_format).videos
    matches = match_ids(annotated, videos)
    if not matches:
        raise ValueError(f"{config.videos}: none of the videos that {config.annotations} names is here")
    absent = [video_id for video_id in annotated if video_id not in matches]
    print_note(f"annotated videos that are not in {config.videos}", absent)
    chosen = set(matches.values())
    return {video_id: path for video_id, path in videos.items() if video_id in chosen}


def resolve_sampling(encoder: Encoder, config: SamplingConfig) -> Sampling:
    """What the options leave open, filled in: the encoder's own snippets, each half a span after the one before."""
    span = encoder.num_frames * encoder.frame_stride
    step = max(1, span // 2) if config.step is None and config.num_snippets is None else config.step
    fps = encoder.fps if config.fps is None else config.fps
    return Sampling(encoder.num_frames, encoder.frame_stride, step, config.num_snippets, fps)


def _resolve_precision(precision: Precision, device: torch.device) -> Precision:
    if precision != "auto":
        return precision
    return "bfloat16" if computes_in_bfloat16(device) else "float32"


def _add_all(store: FeatureStore, results: Iterable[VideoFeatures | Failure]) -> list[Failure]:
    failures = []
    for result in results:
        if isinstance(result, Failure):
            failures.append(result)
            continue
        try:
            store.add(result.video_id, result.features_TC, result.timeline, result.duration)
        except ValueError as error:
            failures.append(Failure(result.video_id, str(error)))
    return failures
