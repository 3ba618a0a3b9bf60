"""What the stages share that train an encoder on trimmed clips: reading the clips, and the encoder that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from encoders import Encoder
from pipeline.clips.batches import ClipForm, FrameArray, decode_clips, fits_in_memory
from pipeline.clips.options import ClipTrainingConfig
from pipeline.clips.reading import Clip, read_clips
from pipeline.terminal.notes import print_counts, progress


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
    found = read_clips(config.clips, config.videos, form=config.annotation_format)
    print_counts(found.blemishes)
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
    clips, frames = [], []
    watched = progress(decoded, "decoding clips", total=len(clip_set.clips))
    for clip, result in zip(clip_set.clips, watched, strict=True):
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


def clip_form(encoder: Encoder) -> ClipForm:
    """How the encoder wants its snippets."""
    return ClipForm(encoder.num_frames, encoder.frame_stride, encoder.resize, encoder.size)
