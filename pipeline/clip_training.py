"""What the stages share that train an encoder on trimmed clips: reading the clips, and the encoder that they leave."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from encoders import Encoder, build_encoder
from encoders.weights import fingerprint, save_weights
from pipeline.clip_batches import ClipForm, FrameArray, decode_clips, fits_in_memory
from pipeline.config import ClipTrainingConfig, LofiTrainConfig
from pipeline.data.annotations import format_blemishes
from pipeline.data.clips import Clip, read_clips
from pipeline.data.features import ENCODER_WEIGHTS
from pipeline.data.files import write_json
from pipeline.run_folder import METRICS, read_run_json

ENCODER = "encoder.json"


@dataclass(frozen=True)
class ClipSet:
    """The clips of one subset; `frames` are theirs if all were decoded beforehand."""

    clips: Sequence[Clip]
    frames: Sequence[FrameArray] | None = None


def read_clip_sets(config: ClipTrainingConfig) -> tuple[ClipSet, ClipSet]:
    """Training clips, and validation clips of the same classes if there are any.

    Raises:
        ValueError: no training clip.
    """
    found = read_clips(config.clips, config.videos)
    if line := format_blemishes(found.blemishes):
        print(f"note: {line}", file=sys.stderr)
    try:
        train = ClipSet(found.in_subset("training"))
    except ValueError as error:
        raise ValueError(f"{config.clips}: {error}") from error
    labels = {clip.label for clip in train.clips}
    val = [clip for clip in found.clips if clip.subset == "validation" and clip.label in labels]
    return train, ClipSet(val)


def action_classes(config: ClipTrainingConfig, train: ClipSet) -> tuple[str, ...]:
    """The classes of the training clips, sorted. ValueError if there is nothing to tell apart."""
    labels = tuple(sorted({clip.label for clip in train.clips}))
    if len(labels) < 2:
        raise ValueError(
            f"{config.clips}: all training clips are of class {labels[0]!r}; to classify takes two or more"
        )
    return labels


def decode_if_small(
    config: ClipTrainingConfig, resize: int, train: ClipSet, val: ClipSet, failed: dict[str, str]
) -> tuple[ClipSet, ClipSet]:
    """Both sets with their frames, if these fit in memory; clips that cannot be decoded are added to `failed`.

    Raises:
        ValueError: no training clip can be decoded.
    """
    if not fits_in_memory([*train.clips, *val.clips], resize):
        return train, val
    decoded = _decode(config, resize, train, failed)
    if not decoded.clips:
        reason = next(iter(failed.values()))
        raise ValueError(f"{config.clips}: none of {len(train.clips)} training clips can be decoded: {reason}")
    return decoded, _decode(config, resize, val, failed)


def _decode(config: ClipTrainingConfig, resize: int, clip_set: ClipSet, failed: dict[str, str]) -> ClipSet:
    decoded = decode_clips(clip_set.clips, resize, num_workers=config.training.num_workers)
    progress = track(decoded, "decoding clips", total=len(clip_set.clips), console=Console(stderr=True))
    clips, frames = [], []
    for clip, result in zip(clip_set.clips, progress, strict=True):
        if result.frames is None:
            failed[str(clip)] = result.reason
        else:
            clips.append(clip)
            frames.append(result.frames)
    return ClipSet(clips, frames)


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


def build_rgb_encoder(config: ClipTrainingConfig | LofiTrainConfig) -> Encoder:
    """The encoder that is to be trained. ValueError if there is no such one, or if it does not see RGB."""
    encoder = build_encoder(
        config.encoder,
        weights=config.weights,
        num_frames=config.num_frames,
        frame_stride=config.frame_stride,
        size=config.size,
        seed=config.training.seed,
    )
    if encoder.modality != "rgb":
        raise ValueError(f"{encoder.name} sees optical flow, and videos give RGB: choose an encoder that sees RGB")
    return encoder


def clip_form(encoder: Encoder) -> ClipForm:
    """How the encoder wants its snippets."""
    return ClipForm(encoder.num_frames, encoder.frame_stride, encoder.resize, encoder.size)


def save_encoder(run: Path, encoder: Encoder, **described: Any) -> None:
    """Write the weights, for `--weights RUN` of any command, and beside them how to build what they belong to."""
    save_weights(encoder, run / ENCODER_WEIGHTS)
    description = {"encoder": encoder.build_args, "weights": fingerprint(encoder), **described}
    write_json(run / ENCODER, description)


def load_encoder(run: Path, *, made_by: str) -> Encoder:
    """The encoder of a finished run of the command `made_by`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no finished run, or weights that do not fit.
    """
    described = read_run_json(run / ENCODER, made_by=made_by)
    return build_encoder(**described["encoder"], weights=run)


def list_skipped(failed: Mapping[str, str], kind: str = "clips") -> int:
    """Say on stderr which files of a kind were left out, and why. Returns the exit code of a training without them."""
    if failed:
        print(f"{len(failed)} {kind} could not be used and were skipped; the others were:", file=sys.stderr)
    for reason in failed.values():
        print(f"  {reason}", file=sys.stderr)
    return 1 if failed else 0


def leave_finished(run: Path, kind: str = "clips") -> int:
    """Say that a run is finished, and what it had skipped. Returns the exit code that it had."""
    print(f"{run} is finished, its metrics are in {METRICS}; delete the folder to train again")
    return list_skipped(read_run_json(run / METRICS, made_by="pipeline")["skipped"], kind)
