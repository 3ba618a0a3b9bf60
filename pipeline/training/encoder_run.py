"""The run folder of a trained encoder: the encoder that training starts from, and the one that it leaves."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from encoders import Encoder, build_encoder
from encoders.weights import fingerprint, save_weights
from pipeline.data.features import ENCODER_WEIGHTS
from pipeline.data.files import write_json
from pipeline.training.options import TrainingConfig
from pipeline.training.run_folder import METRICS, read_run_json

ENCODER = "encoder.json"


class EncoderOptions(Protocol):
    """The options of a command that trains an encoder, as far as they build it."""

    @property
    def encoder(self) -> str: ...
    @property
    def weights(self) -> str | None: ...
    @property
    def num_frames(self) -> int | None: ...
    @property
    def frame_stride(self) -> int | None: ...
    @property
    def size(self) -> int | None: ...
    @property
    def training(self) -> TrainingConfig: ...


def build_rgb_encoder(config: EncoderOptions) -> Encoder:
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
