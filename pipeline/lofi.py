"""`pipeline lofi-train`: untrimmed videos to encoder weights, trained end to end with a head at low fidelity (LoFi).

    RUN/encoder.safetensors, encoder.json   the encoder, for `--weights RUN` of any other command
    RUN/metrics.json                        the last epoch's loss, and the videos that were skipped

beside what every run folder holds (`pipeline.run_folder`). It is the second of the paper's three stages: the first,
classification on trimmed clips, is `pipeline pretrain`; for the third, `pipeline extract` and `pipeline localize` train
a new head on the frozen encoder at full fidelity. The head of this stage has then done its work.

Which fidelity is when, `pipeline.fidelity` says. What the paper leaves open is decided so: the head has the encoder's
optimiser; batch normalisation keeps its statistics; the weights are those of the last epoch.

Shapes: B videos, T snippets of a video, L frames of a snippet, C channels, H W pixels.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encoders import Encoder, build_encoder
from heads import HEADS
from pipeline.clip_training import save_encoder
from pipeline.config import LofiTrainConfig
from pipeline.data.annotations import Annotations, format_blemishes, read_annotations
from pipeline.data.files import find_videos, match_ids, write_json
from pipeline.data.frame_cache import FrameCache
from pipeline.data.snippets import Sampling
from pipeline.fidelity import Fidelity, Schedule, make_schedule
from pipeline.lofi_batches import AnnotatedFile, VideoBatch, VideoBatches
from pipeline.notes import print_note, some
from pipeline.run_folder import METRICS, begin_run, is_finished
from pipeline.training import fit, load_batches

LEAST_SIZE = 32  # every network halves the picture five times
GIGABYTE = 10**9


def run(config: LofiTrainConfig) -> int:
    """Train and save. An interrupted run goes on, a finished one is left as it is. Returns the exit code.

    Raises:
        ValueError: input that cannot be learnt from, no such encoder or weights, a run folder with other options, or
            a loss that is not finite.
        FileNotFoundError: no annotations.
    """
    begin_run(config.out, config)
    if is_finished(config.out):
        print(f"{config.out} is finished, its metrics are in {METRICS}; delete the folder to train again")
        return 0
    files, labels = read_files(config)
    encoder = _build_encoder(config)
    schedule = _schedule(config, encoder, len(files))
    model = build_model(config, encoder, len(labels), schedule)
    failed: dict[str, str] = {}
    line = _train(config, model, _batches(config, encoder, files, labels, schedule), failed)
    save_encoder(config.out, encoder, labels=list(labels))
    _report(config, line, failed)
    return 0


# --- What there is to train on ----------------------------------------------------------------------------------------


def read_files(config: LofiTrainConfig) -> tuple[list[AnnotatedFile], tuple[str, ...]]:
    """The videos of the training subset that have segments, and the classes of these.

    Raises:
        ValueError: there is none.
    """
    annotations = read_annotations(config.annotations)
    if line := format_blemishes(annotations.blemishes):
        print(f"note: {line}", file=sys.stderr)
    try:
        videos = annotations.in_subset(config.train_subset)
    except ValueError as error:
        raise ValueError(f"{config.annotations}: {error}; give --train-subset") from error
    here = find_videos(config.videos)
    id_of_file = match_ids(videos, here)
    chosen = {video_id: videos[video_id] for video_id in id_of_file if videos[video_id].segments}
    if not chosen:
        raise ValueError(
            f"{config.videos}: none of the {len(videos)} videos of subset {config.train_subset!r} of "
            f"{config.annotations} is here and has a segment; the videos here are {some(here)}, those of the subset "
            f"{some(videos)}"
        )
    print_note(
        f"videos of subset {config.train_subset!r} are not in {config.videos}",
        sorted(videos.keys() - id_of_file.keys()),
    )
    print_note("videos have no segment; nothing is learnt from them", sorted(id_of_file.keys() - chosen.keys()))
    files = [AnnotatedFile(here[id_of_file[video_id]], video) for video_id, video in chosen.items()]
    return files, Annotations(chosen, {}).labels


def _build_encoder(config: LofiTrainConfig) -> Encoder:
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


def _schedule(config: LofiTrainConfig, encoder: Encoder, num_videos: int) -> Schedule:
    """The schedule, told on stderr.

    Raises:
        ValueError: pictures that are too small for any encoder.
    """
    per_step = config.training.accumulate  # batches, all of one fidelity
    schedule = make_schedule(
        config.schedule,
        Fidelity(config.gtad.num_snippets, encoder.size, encoder.resize),
        batches_per_epoch=per_step * math.ceil(num_videos / config.training.step_size),
        reduction=config.reduction,
        cycle_epochs=config.cycle_epochs,
        cycle_batches=per_step * config.cycle_batches,
    )
    for fidelity in schedule.fidelities:
        if fidelity.size < LEAST_SIZE:
            raise ValueError(
                f"a reduction by {config.reduction:g} leaves {encoder.name} {fidelity}, and it needs pictures of at "
                f"least {LEAST_SIZE}: give a smaller --reduction, a larger --size, or --schedule temporal"
            )
    print(f"{num_videos} videos, {config.schedule}: {' · '.join(map(str, schedule.fidelities))}", file=sys.stderr)
    return schedule


def _batches(
    config: LofiTrainConfig,
    encoder: Encoder,
    files: list[AnnotatedFile],
    labels: tuple[str, ...],
    schedule: Schedule,
) -> VideoBatches:
    cache = None if config.cache is None else FrameCache(config.cache, int(config.cache_gb * GIGABYTE))
    if cache is not None:
        cache.prepare()
    return VideoBatches(
        files,
        labels,
        Sampling(encoder.num_frames, encoder.frame_stride, num_snippets=config.gtad.num_snippets, fps=encoder.fps),
        schedule,
        seed=config.training.seed,
        mirror=config.mirror,
        cache=cache,
    )


# --- The model --------------------------------------------------------------------------------------------------------


class EndToEnd(nn.Module):
    """An encoder and, for each number of snippets T, a head: raw videos (B,T,3,L,H,W) to what the head says of them.

    Args:
        encoder: clips (N,3,L,H,W) to features (N,C).
        heads: by T. They have the same parameters, not copies of them.
        batch_norm_frozen: the encoder's batch normalisation stays in evaluation mode.
    """

    def __init__(self, encoder: Encoder, heads: Mapping[int, nn.Module], *, batch_norm_frozen: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({str(num_snippets): head for num_snippets, head in heads.items()})
        self.batch_norm_frozen = batch_norm_frozen
        self.train()  # Lightning leaves modules in the mode that they are in

    def train(self, mode: bool = True) -> EndToEnd:
        super().train(mode)
        if self.batch_norm_frozen:
            for module in self.encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def head_for(self, num_snippets: int) -> Any:
        """The head for T."""
        return self.heads[str(num_snippets)]

    def forward(self, clips_BT3LHW: Tensor) -> Any:
        batch, num_snippets = clips_BT3LHW.shape[:2]
        # (B, T, 3, L, H, W) -> (B*T, C) -> (B, C, T)
        features_NC = self.encoder(clips_BT3LHW.flatten(0, 1))
        return self.head_for(num_snippets)(features_NC.view(batch, num_snippets, -1).mT)


def build_model(config: LofiTrainConfig, encoder: Encoder, num_classes: int, schedule: Schedule) -> EndToEnd:
    """The encoder with an untrained G-TAD, whose weights follow from the seed, for each T of the schedule."""
    torch.manual_seed(config.training.seed)
    first, *others = sorted({fidelity.num_snippets for fidelity in schedule.fidelities}, reverse=True)
    heads = {first: _head(config, encoder, num_classes, first)}
    for num_snippets in others:
        heads[num_snippets] = _head(config, encoder, num_classes, num_snippets)
        share_parameters(heads[first], heads[num_snippets])
    return EndToEnd(encoder, heads, batch_norm_frozen=config.batch_norm == "frozen")


def _head(config: LofiTrainConfig, encoder: Encoder, num_classes: int, num_snippets: int) -> nn.Module:
    """G-TAD for T snippets. Its anchors are all pairs of these, or if the longest is limited, as long in seconds."""
    options = asdict(config.gtad)
    share = num_snippets / options["num_snippets"]
    for name in ("max_duration", "longest_proposal"):
        if options[name] is not None:
            options[name] = math.ceil(options[name] * share)
    options["num_snippets"] = num_snippets
    return HEADS["gtad"](encoder.channels, num_classes=num_classes if config.classes else 0, **options)


def share_parameters(owner: nn.Module, other: nn.Module) -> None:
    """Give `other` the parameters of `owner`, which have the same names: the same tensors from then on."""
    for name, parameter in owner.named_parameters():
        module, _, attribute = name.rpartition(".")
        setattr(other.get_submodule(module), attribute, parameter)


# --- Training ---------------------------------------------------------------------------------------------------------


def _train(config: LofiTrainConfig, model: EndToEnd, batches: VideoBatches, failed: dict[str, str]) -> dict[str, Any]:
    """Fit the model; videos that fail on the way are added to `failed`."""

    def losses(model: Any, batch: VideoBatch) -> dict[str, Tensor]:
        head = model.head_for(batch.clips.shape[1])
        parts: dict[str, Tensor] = head.loss(model(batch.clips), head.targets(batch.segments, batch.labels))
        return parts

    training = config.training
    loader = load_batches(batches, training.batch_size, shuffle_seed=training.seed, num_workers=training.num_workers)
    line = fit(model, losses, loader, None, run=config.out, training=training, failed=failed)
    if "train_loss" not in line:
        raise ValueError(
            f"{config.videos}: none of {len(batches)} videos can be decoded: {next(iter(failed.values()))}"
        )
    return line


def _report(config: LofiTrainConfig, line: dict[str, Any], failed: Mapping[str, str]) -> None:
    """The loss on stdout and, last of all files, in the run folder; what was skipped on stderr."""
    if failed:
        print(f"{len(failed)} videos could not be decoded and were skipped:", file=sys.stderr)
    for reason in failed.values():
        print(f"  {reason}", file=sys.stderr)
    loss, waiting = line["train_loss"], _share_of_waiting(config.out / "log.jsonl")
    print(f"loss {loss:.3f} in epoch {line['epoch']}; {100 * waiting:.0f} % of the time was waiting for data")
    write_json(
        config.out / METRICS, {"loss": loss, "epoch": line["epoch"], "waiting": round(waiting, 3), "skipped": failed}
    )


def _share_of_waiting(log: Path) -> float:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    seconds = sum(float(line["seconds"]) for line in lines)
    return sum(float(line["waiting"]) * float(line["seconds"]) for line in lines) / seconds
