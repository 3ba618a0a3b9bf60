"""`pipeline pretrain`: trimmed clips to encoder weights by action classification (the papers' ACP) or a pretext task.

    RUN/encoder.safetensors, encoder.json   the encoder, for `--weights RUN` of any other command
    RUN/classifier.safetensors              the linear layer above it
    RUN/metrics.json                        top-1 accuracy on the validation clips, and the clips that were skipped

beside what every run folder holds (`pipeline.training.run_folder`). ACP+, further classification on the foreground
segments of the videos to localize in, is the same with those segments as clips and with the weights of ACP. Features of
a pretext task stand beside those of ACP (LoFi, Table 7) as `pipeline merge-features` makes them of two stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders import Encoder
from encoders.weights import save_weights
from pipeline.clips.batches import Augmentation, ClipBatch, ClipBatches
from pipeline.clips.training import Classifier, ClipSet, action_classes, clip_form, decode_if_small, read_clip_sets
from pipeline.commands.pretrain.options import PretrainConfig
from pipeline.commands.pretrain.pretext import PretextBatches, playbacks_of
from pipeline.terminal.notes import say
from pipeline.training.batches import load_batches
from pipeline.training.encoder_run import EncoderRun, build_rgb_encoder, finish, leave_finished, save_encoder
from pipeline.training.loop import Best, fit
from pipeline.training.run_folder import begin_run, is_finished

CLASSIFIER_WEIGHTS = "classifier.safetensors"


def run(config: PretrainConfig) -> EncoderRun:
    """Train and save. An interrupted run goes on, a finished one is left as it is.

    Returns 1 if clips could not be used (listed; it was trained on the others), else 0.

    Raises:
        ValueError: clips that cannot be learnt from, no such encoder or weights, or a run with other options.
        FileNotFoundError: no clips.
    """
    begin_run(config.out, config)
    if is_finished(config.out):
        return leave_finished(config.out)
    train, val = read_clip_sets(config)
    labels = _labels(config, train)
    classifier = _build(config, len(labels))
    failed: dict[str, str] = {}
    train, val = decode_if_small(config, classifier.encoder.resize, train, val, failed)
    line = _train(config, classifier, train, val, labels, failed)
    save_encoder(config.out, classifier.encoder, labels=list(labels))
    save_weights(classifier.linear, config.out / CLASSIFIER_WEIGHTS)
    return _report(config, line, failed)


def _labels(config: PretrainConfig, train: ClipSet) -> tuple[str, ...]:
    if config.task == "classification":
        return action_classes(config, train)
    return tuple(playback.name for playback in playbacks_of(config.task, config.speeds))


def _build(config: PretrainConfig, num_classes: int) -> Classifier:
    encoder = build_rgb_encoder(config)
    if encoder.frame_wise and config.task != "classification":
        raise ValueError(
            f"{encoder.name} looks at one frame at a time, which does not tell {config.task}: choose an encoder that "
            "looks across frames, such as tsm_r18"
        )
    torch.manual_seed(config.training.seed)
    return Classifier(encoder, num_classes, dropout=config.dropout)


def _train(
    config: PretrainConfig,
    classifier: Classifier,
    train: ClipSet,
    val: ClipSet,
    labels: Sequence[str],
    failed: dict[str, str],
) -> dict[str, Any]:
    """Fit the classifier; clips that fail on the way are added to `failed`."""

    def losses(model: nn.Module, batch: ClipBatch) -> dict[str, Tensor]:
        logits_BK = model(batch.clips)
        correct_B = logits_BK.argmax(dim=1) == batch.labels
        return {"loss": F.cross_entropy(logits_BK, batch.labels), "top1": 100 * correct_B.float().mean()}

    training = config.training
    augmentation = Augmentation(training.seed, mirror=config.mirror)
    num_workers = 0 if train.frames is not None else training.num_workers
    loaders = [
        load_batches(
            _batches(config, clip_set, classifier.encoder, labels, augmentation if clip_set is train else None),
            training.batch_size,
            shuffle_seed=training.seed if clip_set is train else None,
            num_workers=num_workers,
        )
        for clip_set in (train, val)
        if clip_set.clips
    ]
    return fit(
        classifier,
        losses,
        loaders[0],
        loaders[1] if val.clips else None,
        run=config.out,
        training=training,
        best=Best("val_top1", "max"),
        failed=failed,
    )


def _batches(
    config: PretrainConfig,
    clip_set: ClipSet,
    encoder: Encoder,
    labels: Sequence[str],
    augmentation: Augmentation | None,
) -> ClipBatches:
    clips, form = clip_set.clips, clip_form(encoder)
    if config.task == "classification":
        classes = [labels.index(clip.label) for clip in clips]
        return ClipBatches(clips, classes, form, augmentation=augmentation, frames=clip_set.frames)
    playbacks = playbacks_of(config.task, config.speeds)
    batches = PretextBatches(clips, playbacks, form, augmentation=augmentation, frames=clip_set.frames)
    batches.check()
    return batches


def _report(config: PretrainConfig, line: dict[str, Any], failed: dict[str, str]) -> EncoderRun:
    """Metrics on stdout and, last of all files, in the run folder; what was skipped on stderr."""
    if "val_top1" in line:
        say(f"top-1 accuracy {line['val_top1']:6.2f} % on the validation clips, after epoch {line['epoch']}")
    else:
        say("there are no validation clips to score on; the weights are those of the last epoch")
    return finish(config.out, {"top1": line.get("val_top1"), "epoch": line["epoch"]}, failed)
