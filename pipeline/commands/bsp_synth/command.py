"""`pipeline bsp-synth`: trimmed clips to boundary clips, and to an encoder that feels boundaries (BSP, ICCV 2021).

    RUN/encoder.safetensors, encoder.json   the encoder, for `--weights RUN` of any other command
    RUN/metrics.json                        scores on the validation clips, and the clips that were skipped
    RUN/boundary_clips/                     with --write: some boundary clips to look at (`boundary_files`)

beside what every run folder holds (`pipeline.training.run_folder`). What the encoder learns:

    --task classification                   which kind of boundary a clip has, if any (section 3.3; the default)
    --task regression                       when the change comes
    --task none                             nothing: with --write, the clips are all that is made
    --integration two-head                  kinds of boundary clips and actions of real ones (Fig. 3b)
    --integration distillation              actions, and the features of two trained encoders (Fig. 3c)

The paper's best integration, two-stream (Fig. 3a), needs no training: extract with both encoders, then
`pipeline merge-features`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from encoders import Encoder
from encoders.boundary import ChangePointRegressor, Distillation, TwoHeads, heatmap_loss
from encoders.devices import resolve_device
from pipeline.clips.batches import Augmentation, ClipBatches, ClipForm
from pipeline.clips.training import Classifier, ClipSet, action_classes, clip_form, decode_if_small, read_clip_sets
from pipeline.commands.bsp_synth.boundary_clips import BoundaryBatch, BoundaryBatches, make_synthesis
from pipeline.commands.bsp_synth.boundary_files import TABLE, write_boundary_clips
from pipeline.commands.bsp_synth.boundary_scores import score_change_points, score_kinds
from pipeline.commands.bsp_synth.joint_batches import JointBatch, JointBatches
from pipeline.commands.bsp_synth.options import BspConfig
from pipeline.terminal.notes import remark, say
from pipeline.training.batches import BatchSource, load_batches
from pipeline.training.encoder_run import (
    EncoderRun,
    build_rgb_encoder,
    finish,
    leave_finished,
    load_encoder,
    save_encoder,
)
from pipeline.training.loop import LOWEST_LOSS, Best, Losses, fit
from pipeline.training.run_folder import begin_run, is_finished
from synth.boundaries import Synthesis

BOUNDARY_CLIPS = "boundary_clips"


def run(config: BspConfig) -> EncoderRun:
    """Train and save. An interrupted run goes on, a finished one is left as it is.

    Returns 1 if clips could not be used (listed; it was trained on the others), else 0.

    Raises:
        ValueError: clips that give no such boundaries, no such encoder, weights or teachers, or a run with other
            options.
        FileNotFoundError: no clips, no teacher.
    """
    if begin_run(config.out, config):
        shutil.rmtree(config.out / BOUNDARY_CLIPS, ignore_errors=True)  # of a run that was stopped early
    if is_finished(config.out):
        return leave_finished(config.out)
    train, val = read_clip_sets(config)
    encoder = build_rgb_encoder(config)
    synthesis = make_synthesis(config.synthesis, encoder.num_frames)
    actions = () if config.integration == "none" else action_classes(config, train)
    learning = _prepare(config, encoder, synthesis, len(actions))
    failed: dict[str, str] = {}
    train, val = decode_if_small(config, encoder.resize, train, val, failed)
    mixing = Mixing(config, clip_form(encoder), synthesis, actions)
    boundary = mixing.boundary(train)
    # Frames in memory are not copied to other processes.
    num_workers = config.training.num_workers if train.frames is None else 0
    if config.write is not None and not (config.out / BOUNDARY_CLIPS / TABLE).exists():
        failed |= write_boundary_clips(config.out / BOUNDARY_CLIPS, boundary, config.write, num_workers=num_workers)
    if config.task == "none":
        return finish(config.out, {"task": config.task, "kinds": list(config.kinds)}, failed)
    sources = mixing.training(boundary, train), mixing.validation(val)
    line, scores = _train(config, learning, *sources, failed, num_workers=num_workers)
    save_encoder(config.out, encoder, kinds=list(config.kinds), labels=list(actions))
    return _report(config, line, scores, failed)


# --- What is learnt ---------------------------------------------------------------------------------------------------


class Learning(NamedTuple):
    """A network around the encoder, what it minimises, which epoch is kept, and scores beside those that are logged."""

    model: nn.Module
    losses: Losses
    best: Best
    score: Callable[[nn.Module, DataLoader[Any]], dict[str, Any]] = lambda *_: {}


def _prepare(config: BspConfig, encoder: Encoder, synthesis: Synthesis, num_actions: int) -> Learning:
    torch.manual_seed(config.training.seed)
    if config.integration == "two-head":
        two_heads = TwoHeads(encoder, num_actions, len(config.kinds), dropout=config.dropout)
        return Learning(two_heads, _two_head_losses, LOWEST_LOSS)
    if config.integration == "distillation":
        assert config.action_teacher is not None
        assert config.boundary_teacher is not None
        action_teacher = load_encoder(config.action_teacher, made_by="pipeline pretrain", named=[config.encoder])
        boundary_teacher = load_encoder(config.boundary_teacher, made_by="pipeline bsp-synth", named=[config.encoder])
        distillation = Distillation(encoder, action_teacher, boundary_teacher, num_actions, dropout=config.dropout)
        return Learning(distillation, _distillation_losses, LOWEST_LOSS)
    if config.task == "regression":
        regressor = ChangePointRegressor(encoder, dropout=config.dropout)
        losses = _change_point_losses(synthesis.tau)
        return Learning(regressor, losses, LOWEST_LOSS, partial(score_change_points, tau=synthesis.tau))
    classifier = Classifier(encoder, len(config.kinds), dropout=config.dropout)
    return Learning(classifier, _kind_losses, Best("val_top1", "max"), score_kinds)


def _kind_losses(model: nn.Module, batch: BoundaryBatch) -> dict[str, Tensor]:
    logits_BK = model(batch.clips)
    return {"loss": F.cross_entropy(logits_BK, batch.kinds), "top1": _top1(logits_BK, batch.kinds)}


def _change_point_losses(tau: int) -> Losses:
    def losses(model: nn.Module, batch: BoundaryBatch) -> dict[str, Tensor]:
        return {"loss": heatmap_loss(model(batch.clips), batch.change_points, tau)}

    return losses


def _two_head_losses(model: nn.Module, batch: JointBatch) -> dict[str, Tensor]:
    actions_RK, kinds_SK = model(batch.clips, len(batch.actions))
    return {
        "loss": _cross_entropy(actions_RK, batch.actions) + _cross_entropy(kinds_SK, batch.kinds),
        "action_top1": _top1(actions_RK, batch.actions),
        "kind_top1": _top1(kinds_SK, batch.kinds),
    }


def _distillation_losses(model: nn.Module, batch: JointBatch) -> dict[str, Tensor]:
    matching = model(batch.clips, len(batch.actions))
    matched = matching.action_features + matching.boundary_features
    return {
        "loss": matched + _cross_entropy(matching.logits, batch.actions),
        "action_top1": _top1(matching.logits, batch.actions),
        "action_features": matching.action_features,
        "boundary_features": matching.boundary_features,
    }


def _cross_entropy(logits_BK: Tensor, classes_B: Tensor) -> Tensor:
    """The mean over the batch; 0 where no clip of this sort could be decoded."""
    return F.cross_entropy(logits_BK, classes_B, reduction="sum") / max(1, len(classes_B))


def _top1(logits_BK: Tensor, classes_B: Tensor) -> Tensor:
    correct_B = logits_BK.argmax(dim=1) == classes_B
    return 100 * correct_B.float().sum() / max(1, len(classes_B))


# --- What it is learnt from -------------------------------------------------------------------------------------------


class Mixing(NamedTuple):
    """How batches are made of clips; `actions` are the classes of real clips, where these are learnt too."""

    config: BspConfig
    form: ClipForm
    synthesis: Synthesis
    actions: Sequence[str]

    def boundary(self, clip_set: ClipSet) -> BoundaryBatches:
        """Boundary clips to learn from. ValueError where the clips do not give all kinds."""
        try:
            boundary = self._boundary(clip_set, training=True)
            boundary.check()
        except ValueError as error:
            raise ValueError(f"{self.config.clips}: {error}") from error
        if boundary.num_alone:
            remark(f"note: {boundary.num_alone} clips are alone in their class, so not used")
        return boundary

    def training(self, boundary: BoundaryBatches, clip_set: ClipSet) -> BatchSource:
        """Batches to learn from."""
        augmentation = Augmentation(self.config.training.seed, mirror=self.config.mirror)
        return self._joined(boundary, clip_set, augmentation)

    def validation(self, clip_set: ClipSet) -> BatchSource | None:
        """Batches that stay the same; None, and a line that says so, where the clips do not give all kinds."""
        if not clip_set.clips:
            return None
        try:
            boundary = self._boundary(clip_set, training=False)
            boundary.check()
        except ValueError as error:
            remark(f"note: the validation clips are not used: {error}")
            return None
        return self._joined(boundary, clip_set, None)

    def _boundary(self, clip_set: ClipSet, *, training: bool) -> BoundaryBatches:
        samples = self.config.samples if training else None
        return BoundaryBatches(
            clip_set.clips,
            self.form,
            self.synthesis,
            kinds=self.config.kinds,
            seed=self.config.training.seed,
            size=len(clip_set.clips) if samples is None else samples,
            mirror=self.config.mirror,
            augment=training,
            frames=clip_set.frames,
            shift=self.config.task == "regression",
        )

    def _joined(self, boundary: BoundaryBatches, clip_set: ClipSet, augmentation: Augmentation | None) -> BatchSource:
        if not self.actions:
            return boundary
        classes = [self.actions.index(clip.label) for clip in clip_set.clips]
        frames = clip_set.frames
        return JointBatches(
            ClipBatches(clip_set.clips, classes, self.form, augmentation=augmentation, frames=frames), boundary
        )


# --- Training ---------------------------------------------------------------------------------------------------------


def _train(
    config: BspConfig,
    learning: Learning,
    train: BatchSource,
    val: BatchSource | None,
    failed: dict[str, str],
    *,
    num_workers: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit; clips that fail on the way are added to `failed`. The kept epoch's line of the log, and its scores."""
    training = config.training

    def load(source: BatchSource, shuffle_seed: int | None = None) -> DataLoader[Any]:
        return load_batches(source, training.batch_size, shuffle_seed=shuffle_seed, num_workers=num_workers)

    line = fit(
        learning.model,
        learning.losses,
        load(train, training.seed),
        None if val is None else load(val),
        run=config.out,
        training=training,
        best=learning.best,
        failed=failed,
    )
    if val is None:
        return line, {}
    device = resolve_device(training.device)
    # A new loader: where several devices trained, each had its share of the old one.
    scores = learning.score(learning.model.to(device).eval(), load(val))
    learning.model.cpu()
    logged = {name.removeprefix("val_"): value for name, value in line.items() if name.startswith("val_")}
    return line, logged | scores


def _report(
    config: BspConfig, line: Mapping[str, Any], scores: Mapping[str, Any], failed: Mapping[str, str]
) -> EncoderRun:
    """Scores on stdout and, last of all files, in the run folder; what was skipped on stderr."""
    if scores:
        said = ", ".join(f"{name} {value:.4g}" for name, value in scores.items() if isinstance(value, float))
        say(f"on the validation clips, after epoch {line['epoch']}: {said}")
    else:
        say("there are no validation clips to score on; the weights are those of the last epoch")
    metrics = {
        "task": config.task,
        "integration": config.integration,
        "kinds": list(config.kinds),
        "epoch": line["epoch"],
        **scores,
    }
    return finish(config.out, metrics, failed)
