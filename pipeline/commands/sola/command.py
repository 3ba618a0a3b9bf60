"""`pipeline sola`: a feature store to a SoLa module, trained on it without labels, and the store refined by it.

    RUN/sola.safetensors, sola.json   the module, how to build it, and what it was trained on
    RUN/tsm.npz                       the average predicted TSM at some steps of the training: steps (N,), tsm (N,S,S)
    RUN/features/                     the refined store: `localize` and `predict` take it like any other
    RUN/metrics.json                  the gate, how far features moved, how much was trained on

beside what every run folder holds (`pipeline.training.run_folder`).

Shapes: B subsequences, S gathered rows of each, k rows around each, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.devices import resolve_device
from encoders.similarity import LOSSES, predicted_tsm, target_tsm
from encoders.sola import Projector, SoLa
from encoders.weights import fingerprint, save_weights
from pipeline.commands.sola.label_choice import LabelledRows, LabelledVideos, linear_accuracy
from pipeline.commands.sola.options import SolaConfig
from pipeline.commands.sola.subsequences import Gathering, NeighbourhoodBatch, Subsequences, write_rows
from pipeline.data.annotations import read_annotations
from pipeline.data.features import SOLA_WEIGHTS, FeatureStore
from pipeline.data.features.outcome import Store
from pipeline.data.files import copy_whole, match_ids, write_json
from pipeline.encoding.refinement import Refinement, load_sola, refined_header
from pipeline.terminal.notes import print_note, progress, remark, say
from pipeline.terminal.outcome import Failure, Outcome, list_failures
from pipeline.training.batches import load_batches
from pipeline.training.loop import Best, fit
from pipeline.training.options import TrainingConfig
from pipeline.training.run_folder import METRICS, begin_run, is_finished, read_run_json

FEATURES = "features"
ROWS = "rows.npy"
DESCRIPTION = "sola.json"
SNAPSHOTS = 6
SHUT = 0.05
"""A gate below may have left the features about as they were."""
UNMOVED = 0.1
"""A relative change below is as good as none."""
LONGEST_SHARE = 0.5
"""Of a video. A subsequence that spans more is no longer the local one of the paper (supplement C)."""


@dataclass(frozen=True, kw_only=True)
class SolaRun(Outcome):
    """A trained SoLa module and what it made.

    Attributes:
        path: the run folder.
        features: the refined store.
        metrics: the gate, how far features moved, how much was trained on.
    """

    path: Path
    features: Store
    metrics: dict[str, Any]

    def __fspath__(self) -> str:
        return str(self.path)


def run(config: SolaConfig) -> SolaRun:
    """Train, then refine every video. An interrupted run goes on; a finished one refines what its store got since.

    Videos that could not be refined are listed; the others stay.

    Raises:
        ValueError: a store that cannot be trained on, or that the module does not fit; a run folder with other options.
        FileNotFoundError: no feature store, no annotations, no run to take the module from.
    """
    begin_run(config.out, config)
    store = _open_store(config)
    if is_finished(config.out) and store.videos.keys() <= FeatureStore.open(config.out / FEATURES).videos.keys():
        say(f"{config.out} is finished, its store is {config.out / FEATURES}; delete the folder to train again")
        return _run(config, read_run_json(config.out / METRICS, made_by="pipeline sola"))
    if config.weights is None and not (config.out / DESCRIPTION).exists():
        _save(config, store, *train(config, store))
    source = config.weights or config.out
    description = read_run_json(source / DESCRIPTION, made_by="pipeline sola")
    _check_fit(store, description, source)
    module = load_sola(source / SOLA_WEIGHTS, description).to(resolve_device(config.training.device))
    failures = _refine(config, store, module)
    metrics = {
        "gate": None if module.gate is None else module.gate.item(),
        "change": relative_change(store, FeatureStore.open(config.out / FEATURES)),
        **description["training"],
    }
    _report(metrics, failures)
    if not failures:  # else it is not finished: run again, the command does what is missing
        write_json(config.out / METRICS, metrics)
    return _run(config, metrics, failures)


def _run(config: SolaConfig, metrics: dict[str, Any], failures: Collection[Failure] = ()) -> SolaRun:
    return SolaRun(path=config.out, features=Store(path=config.out / FEATURES), metrics=metrics, failed=tuple(failures))


# --- What there is to train on ----------------------------------------------------------------------------------------


def _open_store(config: SolaConfig) -> FeatureStore:
    store = FeatureStore.open(config.features)
    if store.header.sola is not None:
        raise ValueError(f"{store.path} is refined already, from {store.header.sola['parent']}; give that store")
    if not store.videos:
        raise ValueError(f"{store.path} holds no videos; `pipeline extract` adds some")
    store.channels_of(store.videos)
    return store


def _prepare(config: SolaConfig, store: FeatureStore) -> Subsequences:
    """The subsequences to train on, their rows written to one file; says on stderr what is odd about them."""
    gathering = Gathering(config.tsm_size, config.step)
    chosen = _training_videos(config, store)
    long_enough = [video_id for video_id in chosen if store.videos[video_id].rows >= gathering.length]
    print_note(
        f"videos have fewer rows than a subsequence ({gathering.length}); they are refined, not trained on",
        [video_id for video_id in chosen if store.videos[video_id].rows < gathering.length],
    )
    if not long_enough:
        longest = max(store.videos[video_id].rows for video_id in chosen)
        raise ValueError(
            f"{store.path}: no video has the {gathering.length} rows of a subsequence, the longest has {longest}; "
            f"give a smaller --step than {config.step}, or extract with a smaller sampling.step"
        )
    _warn_of_long_subsequences(store, long_enough, gathering)
    path = config.out / ROWS
    first_V, constant = write_rows(path, store, long_enough)
    print_note("training videos have the same features in all rows; look whether they decode", constant)
    if len(constant) == len(long_enough):
        raise ValueError(f"{store.path}: the features do not change within any video; are they those of an encoder?")
    return Subsequences(
        path,
        first_V,
        np.array([store.videos[video_id].rows for video_id in long_enough]),
        gathering,
        config.module.kernel_size,
        config.per_video,
        config.training.seed,
    )


def _training_videos(config: SolaConfig, store: FeatureStore) -> list[str]:
    if config.annotations is None:
        return list(store.videos)
    subset = read_annotations(config.annotations, form=config.annotation_format).in_subset(config.train_subset)
    chosen = list(match_ids(subset, store.videos).values())
    if not chosen:
        raise ValueError(
            f"{store.path} has features of none of the {len(subset)} videos of subset {config.train_subset!r} of "
            f"{config.annotations}; give another --train-subset, or leave --annotations out to train on all"
        )
    return chosen


def _warn_of_long_subsequences(store: FeatureStore, video_ids: Collection[str], gathering: Gathering) -> None:
    if (store.header.sampling or {}).get("num_snippets") is not None:
        remark(
            f"warning: {store.path} has as many rows of a short video as of a long one, so that a subsequence spans "
            f"other times in each; make one with sampling.step, as `localize` itself brings features to its length"
        )
    rows = float(np.median([store.videos[video_id].rows for video_id in video_ids]))
    seconds = gathering.length * float(np.median([store.videos[video_id].timeline.stride for video_id in video_ids]))
    if gathering.length > LONGEST_SHARE * rows:
        remark(
            f"warning: a subsequence of {gathering.length} rows ({seconds:.1f} s) spans {gathering.length / rows:.0%} "
            f"of the median video ({rows:.0f} rows); that distant rows differ is to be expected only of a small part "
            "of a video: give a smaller --step, or a store with more rows a second"
        )


# --- Training ---------------------------------------------------------------------------------------------------------


class SimilarityMatching(nn.Module):
    """What is trained: the module, the projector that is left behind, and the TSMs predicted on the way.

    Args:
        sola: the module.
        projector: put on the columns' side of each pair; None: none (Table 6, symmetric).
        target_SS: target TSM.
        loss: key of `LOSSES`.
        num_steps: optimiser steps of the whole training, at `SNAPSHOTS` of which the average TSM is kept (Fig. 4).
    """

    def __init__(
        self, sola: SoLa, projector: Projector | None, target_SS: Tensor, *, loss: str, num_steps: int
    ) -> None:
        super().__init__()
        self.sola, self.projector, self.loss = sola, projector, LOSSES[loss]
        self.register_buffer("target", target_SS, persistent=False)
        # In the checkpoints, so that a resumed training has them too.
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("snapshot_steps", torch.linspace(0, num_steps - 1, SNAPSHOTS).long())
        self.register_buffer("snapshots", torch.zeros(SNAPSHOTS, *target_SS.shape))

    target: Tensor
    step: Tensor
    snapshot_steps: Tensor
    snapshots: Tensor

    def forward(self, near_BSkC: Tensor) -> Tensor:
        """The loss of gathered rows amid their neighbours."""
        rows_BSC = self.sola.at_centers(near_BSkC)
        columns_BSC = rows_BSC
        if self.projector is not None:
            # As in SimSiam, the gradient flows through the projected side alone.
            rows_BSC, columns_BSC = rows_BSC.detach(), self.projector(rows_BSC)
        if not columns_BSC.isfinite().all():
            raise ValueError(
                "the training diverged: features are infinite or NaN; give another --out and a smaller --training.lr"
            )
        with torch.autocast(columns_BSC.device.type, enabled=False):  # half precision cannot tell 0.99999 from 1
            rows_BSC, columns_BSC = rows_BSC.float(), columns_BSC.float()
            self._keep_snapshot(rows_BSC, columns_BSC)
            return self.loss(rows_BSC, columns_BSC, self.target)

    @torch.no_grad()
    def _keep_snapshot(self, rows_BSC: Tensor, columns_BSC: Tensor) -> None:
        due = self.snapshot_steps == self.step
        if due.any():
            self.snapshots[due] = predicted_tsm(rows_BSC, columns_BSC).mean(dim=0)
        self.step += 1


def train(config: SolaConfig, store: FeatureStore) -> tuple[SimilarityMatching, Subsequences]:
    """Similarity matching on the store's subsequences, which are returned too."""
    try:
        subsequences = _prepare(config, store)
        return _fit(config, store, subsequences), subsequences
    finally:
        (config.out / ROWS).unlink(missing_ok=True)


def _fit(config: SolaConfig, store: FeatureStore, subsequences: Subsequences) -> SimilarityMatching:
    training = _with_epochs(config, len(subsequences))
    batches = load_batches(
        subsequences, training.batch_size, shuffle_seed=training.seed, num_workers=training.num_workers
    )
    matching = _build(config, store.channels_of(store.videos), num_steps=training.epochs * len(batches))
    steps_per_epoch = math.ceil(len(subsequences) / training.step_size)
    remark(
        f"{len(subsequences.rows)} videos, {training.epochs} epochs of {len(subsequences)} subsequences: "
        f"{training.epochs * steps_per_epoch} optimiser steps"
    )
    choice = None if config.choose == "last" else load_batches(_labelled_rows(config, store), 1)
    best = Best("val_accuracy", "max")
    line = fit(matching, _losses, batches, choice, run=config.out, training=replace(training, keep="best"), best=best)
    if choice is not None:
        remark(f"kept the module of epoch {line['epoch']}, chosen by labels")
    return matching.eval()


def _with_epochs(config: SolaConfig, subsequences: int) -> TrainingConfig:
    """The training options with as many whole epochs as `config.steps` asks for."""
    if config.steps is None:
        return config.training
    steps_per_epoch = math.ceil(subsequences / config.training.step_size)
    return replace(config.training, epochs=math.ceil(config.steps / steps_per_epoch))


def _build(config: SolaConfig, channels: int, *, num_steps: int) -> SimilarityMatching:
    torch.manual_seed(config.training.seed)
    sola = SoLa(channels, **asdict(config.module))
    projector = Projector(channels, config.projector_hidden) if config.projector == "asymmetric" else None
    target_SS = target_tsm(config.tsm_size, config.k)
    return SimilarityMatching(sola, projector, target_SS, loss=config.loss, num_steps=num_steps)


def _labelled_rows(config: SolaConfig, store: FeatureStore) -> LabelledRows:
    if config.annotations is None:
        raise ValueError("--choose linear-evaluation uses labels: give --annotations, or leave it out")
    annotations = read_annotations(config.annotations, form=config.annotation_format)
    train, val = (
        {match: videos[video_id] for video_id, match in match_ids(videos, store.videos).items()}
        for videos in map(annotations.in_subset, (config.train_subset, config.val_subset))
    )
    if not val:
        raise ValueError(f"{store.path} has features of no video of subset {config.val_subset!r}; give --val-subset")
    return LabelledRows(store, train, val)


def _losses(matching: nn.Module, batch: NeighbourhoodBatch | LabelledVideos) -> dict[str, Tensor]:
    assert isinstance(matching, SimilarityMatching)
    if isinstance(batch, LabelledVideos):
        accuracy = torch.tensor(linear_accuracy(matching.sola, batch))
        return {"loss": 100 - accuracy, "accuracy": accuracy}
    losses = {"loss": matching(batch.features)}
    if matching.sola.gate is not None:
        losses["gate"] = matching.sola.gate
    return losses


# --- What it leaves ---------------------------------------------------------------------------------------------------


def _save(config: SolaConfig, store: FeatureStore, matching: SimilarityMatching, subsequences: Subsequences) -> None:
    save_weights(matching.sola, config.out / SOLA_WEIGHTS)
    taken = matching.snapshot_steps < matching.step  # of the epoch that was kept: later ones are not in its checkpoint
    np.savez(
        config.out / "tsm.npz",
        steps=matching.snapshot_steps[taken].numpy(),
        tsm=matching.snapshots[taken].numpy(),
    )
    description = {
        "module": matching.sola.build_args,
        "weights": fingerprint(matching.sola),
        "encoders": _encoders_of(store),
        "training": {
            "steps": int(matching.step),
            "training_videos": len(subsequences.rows),
            "subsequence_rows": subsequences.gathering.length,
        },
    }
    write_json(config.out / DESCRIPTION, description)


def _encoders_of(store: FeatureStore) -> list[str | None]:
    """The fingerprints of the weights that made the features; None where they were made elsewhere."""
    return [part.weights for part in store.header.parts]


def _check_fit(store: FeatureStore, description: Mapping[str, Any], source: Path) -> None:
    """Raises ValueError if the module of `source` was trained on other features than the store's."""
    channels, expected = store.channels_of(store.videos), description["module"]["channels"]
    if channels != expected:
        raise ValueError(
            f"{store.path} has features of {channels} channels, the module in {source} was trained on {expected}; "
            "give a store of the same encoder, or train another module"
        )
    if _encoders_of(store) != description["encoders"]:
        raise ValueError(
            f"{store.path} was made by encoder weights {_encoders_of(store)}, the module in {source} was trained on "
            f"features of {description['encoders']}; give a store of the same encoder, or train another module"
        )


def _refine(config: SolaConfig, store: FeatureStore, sola: SoLa) -> list[Failure]:
    """Refine each video that the new store lacks; those that could not be."""
    refine = Refinement(sola, store.header.dtype)
    failures = []
    with FeatureStore.create_or_resume(
        config.out / FEATURES, refined_header(store.header, sola, config.features)
    ) as refined:
        copy_whole((config.weights or config.out) / SOLA_WEIGHTS, refined.path / SOLA_WEIGHTS)
        for name in store.header.encoder_files:
            if (store.path / name).exists():
                copy_whole(store.path / name, refined.path / name)
        todo = [video_id for video_id in store.videos if video_id not in refined.videos]
        for video_id in progress(todo, "refining"):
            video = store.videos[video_id]
            try:
                refined.add(video_id, refine(store.load(video_id)), video.timeline, video.duration)
            except ValueError as error:
                failures.append(Failure(video_id, str(error)))
    return failures


def relative_change(store: FeatureStore, refined: FeatureStore, most: int = 100) -> float:
    """How far rows were moved, as a share of how far they lie from their video's mean row; median over some videos."""
    changes = []
    for video_id in list(refined.videos)[:: max(1, math.ceil(len(refined.videos) / most))]:
        features_TC, refined_TC = store.load(video_id), refined.load(video_id)
        spread = float(np.linalg.norm(features_TC - features_TC.mean(axis=0)))
        if spread > 0:
            changes.append(float(np.linalg.norm(refined_TC - features_TC)) / spread)
    return float(np.median(changes)) if changes else 0.0


def _report(metrics: Mapping[str, Any], failures: Collection[Failure]) -> None:
    gate, change = metrics["gate"], metrics["change"]
    if gate is not None:
        say(f"gate {gate:+.3f}, features moved by {change:.2f} of their spread within a video")
        if abs(gate) < SHUT:
            remark(_about_a_shut_gate(change))
    list_failures(f"{len(failures)} videos could not be refined; the others are done:", failures)


def _about_a_shut_gate(change: float) -> str:
    if change < UNMOVED:
        return (
            f"warning: the gate ends below {SHUT} and the features hardly moved; a step moves the gate by about the "
            "learning rate at most: give more --steps or a higher --training.lr"
        )
    return f"note: the gate ends below {SHUT}, but the convolutions behind it grew: the features moved"
