"""The run folder of a trained encoder: the encoder that training starts from, and the one that it leaves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from encoders import Encoder
from encoders.weights import fingerprint, save_weights
from pipeline.data.features import ENCODER_WEIGHTS
from pipeline.data.files import write_json
from pipeline.encoding.build import build_named_encoder
from pipeline.terminal.notes import say
from pipeline.terminal.outcome import Failure, Outcome, list_failures
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
    encoder = build_named_encoder(
        config.encoder,
        named=[config.encoder],
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


def load_encoder(run: Path, *, made_by: str, named: Collection[str] = ()) -> Encoder:
    """The encoder of a finished run of the command `made_by`; `named` are names that the user has given on this call.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no finished run, weights that do not fit, or another's encoder that the user has not named.
    """
    described = read_run_json(run / ENCODER, made_by=made_by)
    return build_named_encoder(**described["encoder"], named=named, weights=run)


@dataclass(frozen=True, kw_only=True)
class EncoderRun(Outcome):
    """The run folder of a trained encoder. Give it wherever weights are asked for.

    Attributes:
        path: the folder.
        metrics: what is in its metrics.json.
    """

    path: Path
    metrics: dict[str, Any]

    def __fspath__(self) -> str:
        return str(self.path)


def finish(run: Path, metrics: Mapping[str, Any], failed: Mapping[str, str], kind: str = "clips") -> EncoderRun:
    """Write the metrics, last of all files; remark on what was `failed`: reasons, which name the file, by file."""
    write_json(run / METRICS, {**metrics, "skipped": dict(failed)})
    return _finished(run, {**metrics, "skipped": dict(failed)}, kind)


def leave_finished(run: Path, kind: str = "clips") -> EncoderRun:
    """Say that a run is finished, and what it had skipped."""
    say(f"{run} is finished, its metrics are in {METRICS}; delete the folder to train again")
    return _finished(run, read_run_json(run / METRICS, made_by="pipeline"), kind)


def _finished(run: Path, metrics: dict[str, Any], kind: str) -> EncoderRun:
    skipped: Mapping[str, str] = metrics["skipped"]
    list_failures(f"{len(skipped)} {kind} could not be used and were skipped; the others were:", skipped.values())
    failed = tuple(Failure(name, reason) for name, reason in skipped.items())
    return EncoderRun(path=run, metrics=metrics, failed=failed)
