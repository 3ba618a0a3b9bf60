"""`pipeline pretrain`: trimmed clips to encoder weights by action classification (the papers' ACP).

    RUN/encoder.safetensors, encoder.json   the encoder, for `--weights RUN` of any other command
    RUN/classifier.safetensors              the linear layer above it
    RUN/metrics.json                        top-1 accuracy on the validation clips, and the clips that were skipped

beside what every run folder holds (`pipeline.run_folder`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from encoders import Encoder, build_encoder
from encoders.weights import fingerprint, save_weights
from pipeline.clip_batches import (
    Augmentation,
    ClipBatch,
    ClipBatches,
    ClipForm,
    FrameArray,
    decode_clips,
    fits_in_memory,
)
from pipeline.config import PretrainConfig
from pipeline.data.annotations import format_blemishes
from pipeline.data.clips import Clip, read_clips
from pipeline.data.features import ENCODER_WEIGHTS
from pipeline.data.files import write_json
from pipeline.run_folder import METRICS, begin_run, is_finished
from pipeline.training import Best, fit, load_batches

CLASSIFIER_WEIGHTS = "classifier.safetensors"


class Classifier(nn.Module):
    """An encoder with dropout and a linear layer on its features: clips (B,3,L,H,W) to logits (B,K)."""

    def __init__(self, encoder: Encoder, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(encoder.channels, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.dropout(self.encoder(clips)))
        return logits


@dataclass(frozen=True)
class ClipSet:
    """The clips of one subset; `frames` are theirs if all were decoded beforehand."""

    clips: Sequence[Clip]
    frames: Sequence[FrameArray] | None = None


def run(config: PretrainConfig) -> int:
    """Train and save. An interrupted run goes on, a finished one is left as it is. Returns the exit code.

    Raises:
        ValueError: clips that cannot be learnt from, no such encoder or weights, or a run with other options.
        FileNotFoundError: no clips.
    """
    begin_run(config.out, config)
    if is_finished(config.out):
        print(f"{config.out} is finished, its metrics are in {METRICS}; delete the folder to train again")
        return 0
    train, val, labels = _read(config)
    classifier = _build(config, len(labels))
    failed: dict[str, str] = {}
    if fits_in_memory([*train.clips, *val.clips], classifier.encoder.resize):
        train, val = (_decode(clip_set, config, classifier.encoder, failed) for clip_set in (train, val))
    line = _train(config, classifier, train, val, labels, failed)
    _save(config, classifier, labels)
    _report(config, line, failed)
    return 0


def _read(config: PretrainConfig) -> tuple[ClipSet, ClipSet, tuple[str, ...]]:
    """Training clips, validation clips of the same classes if there are any, and the classes."""
    found = read_clips(config.clips, config.videos)
    if line := format_blemishes(found.blemishes):
        print(f"note: {line}", file=sys.stderr)
    try:
        train = found.in_subset("training")
    except ValueError as error:
        raise ValueError(f"{config.clips}: {error}") from error
    labels = tuple(sorted({clip.label for clip in train}))
    if len(labels) < 2:
        raise ValueError(
            f"{config.clips}: all training clips are of class {labels[0]!r}; to classify takes two or more"
        )
    val = [clip for clip in found.clips if clip.subset == "validation" and clip.label in labels]
    return ClipSet(train), ClipSet(val), labels


def _build(config: PretrainConfig, num_classes: int) -> Classifier:
    encoder = build_encoder(
        config.encoder,
        weights=config.weights,
        num_frames=config.num_frames,
        frame_stride=config.frame_stride,
        size=config.size,
        seed=config.training.seed,
    )
    if encoder.modality != "rgb":
        raise ValueError(f"{encoder.name} sees optical flow, and clips give RGB: choose an encoder that sees RGB")
    torch.manual_seed(config.training.seed)
    return Classifier(encoder, num_classes, dropout=config.dropout)


def _decode(clip_set: ClipSet, config: PretrainConfig, encoder: Encoder, failed: dict[str, str]) -> ClipSet:
    """The clips that decode, with their frames; the others are added to `failed`."""
    decoded = decode_clips(clip_set.clips, encoder.resize, num_workers=config.training.num_workers)
    progress = track(decoded, "decoding clips", total=len(clip_set.clips), console=Console(stderr=True))
    clips, frames = [], []
    for clip, result in zip(clip_set.clips, progress, strict=True):
        if result.frames is None:
            failed[str(clip.path)] = result.reason
        else:
            clips.append(clip)
            frames.append(result.frames)
    if clip_set.clips and not clips:
        raise ValueError(f"{config.clips}: none of {len(clip_set.clips)} clips can be decoded: {result.reason}")
    return ClipSet(clips, frames)


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
        failed.update(batch.failed)
        logits_BK = model(batch.clips)
        correct_B = logits_BK.argmax(dim=1) == batch.labels
        return {"loss": F.cross_entropy(logits_BK, batch.labels), "top1": 100 * correct_B.float().mean()}

    training = config.training
    augmentation = Augmentation(training.seed, mirror=config.mirror)
    num_workers = 0 if train.frames is not None else training.num_workers
    loaders = [
        load_batches(
            _batches(clip_set, classifier.encoder, labels, augmentation if clip_set is train else None),
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
    )


def _batches(
    clip_set: ClipSet, encoder: Encoder, labels: Sequence[str], augmentation: Augmentation | None
) -> ClipBatches:
    form = ClipForm(encoder.num_frames, encoder.frame_stride, encoder.resize, encoder.size)
    classes = [labels.index(clip.label) for clip in clip_set.clips]
    return ClipBatches(clip_set.clips, classes, form, augmentation=augmentation, frames=clip_set.frames)


def _save(config: PretrainConfig, classifier: Classifier, labels: Sequence[str]) -> None:
    encoder = classifier.encoder
    save_weights(encoder, config.out / ENCODER_WEIGHTS)
    save_weights(classifier.linear, config.out / CLASSIFIER_WEIGHTS)
    description = {"encoder": encoder.build_args, "weights": fingerprint(encoder), "labels": list(labels)}
    write_json(config.out / "encoder.json", description)


def _report(config: PretrainConfig, line: dict[str, Any], failed: dict[str, str]) -> None:
    """Metrics on stdout and, last of all files, in the run folder; what was skipped on stderr."""
    if failed:
        print(f"{len(failed)} clips could not be decoded and were skipped:", file=sys.stderr)
    for reason in failed.values():
        print(f"  {reason}", file=sys.stderr)
    if "val_top1" in line:
        print(f"top-1 accuracy {line['val_top1']:6.2f} % on the validation clips, after epoch {line['epoch']}")
    else:
        print("there are no validation clips to score on; the weights are those of the last epoch")
    metrics = {"top1": line.get("val_top1"), "epoch": line["epoch"], "skipped": failed}
    write_json(config.out / METRICS, metrics)
