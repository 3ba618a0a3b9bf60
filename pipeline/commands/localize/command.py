"""`pipeline localize`: a feature store and segments to a trained head, detections and metrics.

    RUN/head.safetensors, head.json        the head of the epoch with the lowest validation loss, or of the last one
                                           (`training.keep`), and how to use it
    RUN/encoder.safetensors, encoder.json  what made the features, so that `pipeline predict` can start from videos;
                                           of merged features, encoder_1.safetensors and so on; of refined ones,
                                           sola.safetensors too
    RUN/detections.json, metrics.json      what the head finds in the validation subset, and how good that is
    RUN/proposals.json                     with --video-scores: the same before these give it classes

beside what every run folder holds (`pipeline.training.run_folder`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.devices import resolve_device
from pipeline.commands.evaluate import command as evaluate
from pipeline.commands.evaluate.options import EvaluateConfig
from pipeline.commands.localize.options import LocalizeConfig
from pipeline.commands.localize.video_scores import VideoScores, read_video_scores
from pipeline.data.annotations import Annotations, Video, read_annotations
from pipeline.data.detections import Detections
from pipeline.data.features import SOLA_WEIGHTS, FeatureStore, load_finite
from pipeline.data.files import copy_whole, match_ids, write_json
from pipeline.detection.detector import PROPOSAL, FeatureRows, LocalizeRun, build_head, detect_all, save_run
from pipeline.detection.fitting import FEWEST_ROWS, fitting_row_step, rows_of_segments
from pipeline.detection.run import DETECTIONS, PROPOSALS, Run
from pipeline.detection.sequences import SequenceBatch, TrainingSequences, training_sequences
from pipeline.detection.windows import FloatArray, TrainingWindows, WindowBatch, cut_training_windows, segment_arrays
from pipeline.options.heads import head_options, option_key
from pipeline.terminal.notes import print_counts, print_note, progress, remark, say, some
from pipeline.training.batches import load_batches
from pipeline.training.loop import fit
from pipeline.training.run_folder import METRICS, begin_run, is_finished


def run(config: LocalizeConfig) -> Run:
    """Train, detect, score. An interrupted run goes on, a finished one is left as it is.

    Raises:
        ValueError: input that cannot be trained on, or a run folder with other options.
        FileNotFoundError: no feature store, no annotations.
    """
    begin_run(config.out, config)
    if is_finished(config.out):
        say(f"{config.out} is finished, its metrics are in {METRICS}; delete the folder to train again")
        return _run(config)
    data = read_data(config)
    config = _fitted(config, data)
    _copy_encoders(config, data)
    localizer = _build(config, data)
    _train(config, data, localizer)
    save_run(localizer)
    _detect(config, data, localizer)
    _score(config)
    return _run(config)


def _run(config: LocalizeConfig) -> Run:
    return Run(path=config.out, named=(config.head,))


# --- What there is to train on ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalizeData:
    """Features and annotations that belong together.

    Attributes:
        store: the features.
        train: videos with features to train on, by their id in the store.
        val: videos with features to detect in.
        labels: classes of the training segments.
        video_scores: others' classification of the videos to detect in, if its classes are to be used.
    """

    store: FeatureStore
    train: dict[str, Video]
    val: dict[str, Video]
    labels: tuple[str, ...]
    video_scores: VideoScores | None = None


def read_data(config: LocalizeConfig) -> LocalizeData:
    """Open the store, read the annotations, match the two, and say on stderr what is odd about them.

    Raises:
        ValueError: a subset that is empty, or that has no features or no segments; features of different widths; video
            scores that cannot be used, or none where the head has no classes.
    """
    if not config.classes and config.video_scores is None:
        raise ValueError("classes is false, so nothing says which action a segment shows; give --video-scores")
    store = FeatureStore.open(config.features)
    annotations = read_annotations(config.annotations, form=config.annotation_format, ambiguous=config.ambiguous)
    print_counts(annotations.blemishes)
    train = _videos_with_features(config, store, annotations, config.train_subset)
    val = _videos_with_features(config, store, annotations, config.val_subset)
    store.channels_of([*train, *val])
    labels = Annotations(train, {}).labels
    print_note(
        "videos last otherwise than their annotation says; look whether they are the files that were annotated",
        [video_id for video_id, video in {**train, **val}.items() if _differs(video, store.videos[video_id].duration)],
    )
    print_note("videos have features but no annotations; they are not used", _unannotated(store, annotations))
    print_note(
        "videos have one row of features, which tells nothing of time; extract with a smaller sampling.step",
        [video_id for video_id in {**train, **val} if store.videos[video_id].rows == 1],
    )
    wanted = Annotations(val, {}).labels
    if config.video_scores is not None:
        scores = _video_scores(config.video_scores, [video.id for video in val.values()], wanted)
        return LocalizeData(store, train, val, labels, scores)
    print_note(
        f"classes occur in subset {config.val_subset!r} alone and cannot be found",
        [label for label in wanted if label not in labels],
    )
    return LocalizeData(store, train, val, labels)


def _video_scores(path: Path, video_ids: Collection[str], wanted: Collection[str]) -> VideoScores:
    """The scores of the videos to detect in, which show the `wanted` classes."""
    scores = read_video_scores(path, video_ids)
    absent = [label for label in wanted if label not in scores.labels]
    if len(absent) == len(wanted):
        raise ValueError(
            f"{path}: none of its classes ({some(scores.labels)}) is annotated ({some(wanted)} are); give the scores "
            "for this data set, with its spelling of the classes"
        )
    print_note(f"classes are not in {path} and cannot be found", absent)
    print_note(
        f"videos have no scores in {path}; nothing is detected in them",
        [video_id for video_id in video_ids if video_id not in scores.by_video],
    )
    return scores


def _videos_with_features(
    config: LocalizeConfig, store: FeatureStore, annotations: Annotations, subset: str
) -> dict[str, Video]:
    """The videos of a subset by the ids that the store has for them."""
    try:
        videos = annotations.in_subset(subset)
    except ValueError as error:
        raise ValueError(f"{config.annotations}: {error}; give --train-subset and --val-subset") from error
    id_in_store = match_ids(videos, store.videos)
    if not id_in_store:
        raise ValueError(
            f"{store.path} has features of none of the {len(videos)} videos of subset {subset!r} of "
            f"{config.annotations}: its videos are {some(store.videos)}, those of the subset {some(videos)}; "
            "run `pipeline extract` on them"
        )
    if not any(videos[video_id].segments for video_id in id_in_store):
        raise ValueError(
            f"{config.annotations}: no video of subset {subset!r} that has features has a segment; annotate some, or "
            "give another --train-subset or --val-subset"
        )
    absent = [video_id for video_id in videos if video_id not in id_in_store]
    print_note(f"videos of subset {subset!r} have no features in {store.path}; run `pipeline extract` on them", absent)
    return {id_in_store[video_id]: video for video_id, video in videos.items() if video_id in id_in_store}


def _differs(video: Video, duration: float) -> bool:
    """Whether the annotated duration is off by more than 5 % and a second."""
    return video.duration is not None and abs(video.duration - duration) > max(1.0, 0.05 * duration)


def _unannotated(store: FeatureStore, annotations: Annotations) -> list[str]:
    annotated = set(match_ids(annotations.videos, store.videos).values())
    return [video_id for video_id in store.videos if video_id not in annotated]


# --- Training ---------------------------------------------------------------------------------------------------------


def _fitted(config: LocalizeConfig, data: LocalizeData) -> LocalizeConfig:
    """The options with what is left to the lengths of the training segments; says these lengths."""
    name, options = option_key(config.head), head_options(config)
    lengths_N = rows_of_segments(data.store, data.train, data.labels, rescale_rows=config.rescale_rows)
    step = config.row_step
    if step is None:
        step = 1 if config.rescale_rows else fitting_row_step(lengths_N, getattr(options, "num_snippets", None))
    rows_N = lengths_N if config.rescale_rows else lengths_N / step
    if hasattr(options, "fitted"):
        options = options.fitted(rows_N.max())
    _say_lengths(data, rows_N, getattr(options, "num_levels", None))
    return replace(config, row_step=step, **{name: options})


def _say_lengths(data: LocalizeData, rows_N: FloatArray, num_levels: int | None) -> None:
    """How long segments are, in seconds and in the rows that the head gets."""
    seconds_N = np.concatenate([segment_arrays(video, data.labels)[0] for video in data.train.values()]) @ (-1, 1)
    levels = "" if num_levels is None else f", {num_levels} levels"
    remark(
        f"segments to learn from last {seconds_N.min():.3g} to {seconds_N.max():.3g} s, in the median "
        f"{np.median(seconds_N):.3g} s, which is {np.median(rows_N):.3g} rows{levels}"
    )
    if np.median(rows_N) < FEWEST_ROWS:
        remark("note: with so few rows, boundaries are coarse and short segments lost; extract with --sampling.step 4")


def _build(config: LocalizeConfig, data: LocalizeData) -> LocalizeRun:
    """An untrained head for these classes and channels, its weights drawn from the seed."""
    torch.manual_seed(config.training.seed)
    channels = data.store.videos[next(iter(data.train))].channels
    arguments: dict[str, Any] = {
        "in_channels": channels,
        "num_classes": len(data.labels) if config.classes else 0,
        **asdict(head_options(config)),
    }
    unified = None if config.unified is None else {"channels": channels, **asdict(config.unified)}
    head = build_head(config.head, arguments, unified, named=[config.head])
    if head.num_snippets is not None and config.rescale_rows is not None:
        raise ValueError(
            f"rescale_rows is {config.rescale_rows}, but head {config.head!r} sees windows of {head.num_snippets} rows "
            f"rather than whole videos; leave it out and give --{option_key(config.head)}.num-snippets"
        )
    return LocalizeRun(
        path=config.out,
        head=head,
        name=config.head,
        arguments=arguments,
        labels=data.labels if config.classes else (PROPOSAL,),
        rescale=config.rescale,
        post=config.post,
        header=data.store.header,
        row_step=config.row_step or 1,
        rescale_rows=config.rescale_rows,
        unified=unified,
    )


def _train(config: LocalizeConfig, data: LocalizeData, localizer: LocalizeRun) -> None:
    train = _training_data(config, data, "train", data.train, localizer)
    val = _training_data(config, data, "val", data.val, localizer)
    if len(train) == 0:
        length, cure = _window_length(config, localizer)
        too_long = "" if length is None else f"is longer than the windows of {length}, or "
        raise ValueError(
            f"{config.annotations}: every segment of subset {config.train_subset!r} {too_long}lies behind the end of "
            f"its video; {cure}"
        )
    training = config.training
    if config.min_steps is not None:
        training = training.of_at_least(config.min_steps, len(train))
        remark(f"{len(train)} samples: {training.epochs} epochs of {math.ceil(len(train) / training.step_size)} steps")
    batches = load_batches(train, training.batch_size, shuffle_seed=training.seed, num_workers=training.num_workers)
    val_batches = load_batches(val, training.batch_size, num_workers=training.num_workers) if len(val) else None
    line = fit(localizer.head, _losses, batches, val_batches, run=config.out, training=training)
    remark(f"kept the weights of epoch {line['epoch']}")
    for windows in (train, val):
        if isinstance(windows, TrainingWindows):
            windows.path.unlink(missing_ok=True)


def _training_data(
    config: LocalizeConfig, data: LocalizeData, role: str, videos: dict[str, Video], localizer: LocalizeRun
) -> TrainingWindows | TrainingSequences:
    """What the head wants to see of some videos: windows, or stretches of whole videos."""
    found: TrainingWindows | TrainingSequences
    if localizer.num_snippets is None:
        seed = config.training.seed if role == "train" else None
        found = training_sequences(
            data.store,
            videos,
            data.labels,
            longest=localizer.crop_rows,
            row_step=localizer.row_step,
            rescale_rows=config.rescale_rows,
            rescale=config.rescale,
            seed=seed,
        )
    else:
        found = cut_training_windows(
            config.out / f"windows_{role}.npy",
            data.store,
            videos,
            data.labels,
            num_rows=localizer.num_snippets,
            longest=config.post.window,
            rescale=config.rescale,
            row_step=localizer.row_step,
        )
    length, cure = _window_length(config, localizer)
    where = "lie mostly" if length is None else f"lie in no window of {length} by more than 90 %, or lie"
    print_note(
        f"segments ({role}) {where} behind the end of their video; nothing is learnt from them: {cure}, or check "
        "the video files",
        found.left_out,
    )
    return found


def _window_length(config: LocalizeConfig, localizer: LocalizeRun) -> tuple[str | None, str]:
    """How long windows are, None where the head sees videos whole, and what to do about segments that are left out."""
    if localizer.num_snippets is None:
        return None, "correct their times"
    if config.rescale == "none":
        cure = f"give more --{option_key(config.head)}.num-snippets or a greater --row-step"
        return f"{localizer.num_snippets} rows", cure
    return f"{config.post.window:g} s", "give a longer --post.window"


def _losses(head: Any, batch: WindowBatch | SequenceBatch) -> dict[str, Tensor]:
    valid = (batch.valid,) if isinstance(batch, SequenceBatch) else ()
    output = head(batch.features, *valid)
    losses: dict[str, Tensor] = head.loss(output, head.targets(batch.segments, batch.labels))
    return losses


def _copy_encoders(config: LocalizeConfig, data: LocalizeData) -> None:
    """What `predict` needs to make features as the store's: the encoders, and the SoLa module behind them."""
    store = data.store
    if store.header.sola is not None:
        if not (store.path / SOLA_WEIGHTS).exists():
            raise ValueError(f"{store.path} lacks {SOLA_WEIGHTS}; copy the store again, or repeat `pipeline sola`")
        copy_whole(store.path / SOLA_WEIGHTS, config.out / SOLA_WEIGHTS)
    weights = [store.path / name for name in store.header.encoder_files]
    if not all(path.exists() for path in weights):
        remark(f"note: {store.path} has no encoder, so {config.out} cannot predict from videos")
        return
    for path in weights:
        copy_whole(path, config.out / path.name)


# --- Detections -------------------------------------------------------------------------------------------------------


def _detect(config: LocalizeConfig, data: LocalizeData, localizer: LocalizeRun) -> None:
    """Detect in every video of the validation subset and write it down, under the annotations' ids."""
    localizer.head.eval().to(resolve_device(config.training.device))
    scores = data.video_scores
    found = detect_all(localizer, _feature_rows(data), classes=scores is None)
    watched = progress(found, "detecting", total=len(data.val))
    results = {video.id: detections for video, detections in zip(data.val.values(), watched, strict=True)}
    if scores is not None:
        Detections.from_videos(results).to_json(config.out / PROPOSALS)
        least = max(config.post.min_score, 0.0)
        results = {name: scores.fuse(name, proposals, config.fusion, least) for name, proposals in results.items()}
    Detections.from_videos(results).to_json(config.out / DETECTIONS)


def _feature_rows(data: LocalizeData) -> Iterator[FeatureRows]:
    for video_id in data.val:
        stored = data.store.videos[video_id]
        yield FeatureRows(load_finite(data.store, video_id), stored.timeline, stored.duration)


def _score(config: LocalizeConfig) -> None:
    """Print how good the detections are, and the proposals that they were made of, if any; write it, last of all files.

    Proposals are scored as they are before they have classes: with classes each is there several times, and its
    classes' scores order it among others.
    """
    detections = EvaluateConfig(
        ground_truth=config.annotations,
        annotation_format=config.annotation_format,
        predictions=config.out / DETECTIONS,
        subset=config.val_subset,
        tiou=config.tiou,
    )
    metrics, notes = evaluate.evaluate(detections)
    print_counts(notes)
    if config.video_scores is not None:
        proposals = replace(detections, predictions=config.out / PROPOSALS, task="proposal", tiou=None)
        metrics |= evaluate.evaluate(proposals)[0]
    say(evaluate.format_metrics(metrics))
    write_json(config.out / METRICS, metrics)
