"""`pipeline lofi-train`: untrimmed videos to encoder weights, trained end to end with a head at low fidelity (LoFi).

    RUN/encoder.safetensors, encoder.json   the encoder, for `--weights RUN` of any other command
    RUN/plan.json                           with --memory: what it allows
    RUN/metrics.json                        the last epoch's loss, and the videos that were skipped

beside what every run folder holds (`pipeline.training.run_folder`). It is the second of the paper's three stages: the
first, classification on trimmed clips, is `pipeline pretrain`; for the third, `pipeline extract` and `pipeline
localize` train a new head on the frozen encoder at full fidelity. The head of this stage has then done its work.

Which fidelity is when, `fidelity` says; or `memory_budget`, where an amount of memory is given. Steps may be made of
several batches to save memory; G-TAD's losses, which weigh positives against negatives within a batch, are then not
quite those of the whole step. What the paper leaves open is decided so: the head has the encoder's
optimiser and, unless told otherwise, its learning rate; batch normalisation keeps its statistics; the weights are those
of the last epoch.

Shapes: B videos, T snippets of a video, L frames of a snippet, C channels, H W pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoders import Encoder
from encoders.activations import saved_bytes
from encoders.devices import resolve_device
from heads.gtad import GTAD
from pipeline.commands.lofi_train.end_to_end import EndToEnd, build_head, build_heads, freeze_batch_norm
from pipeline.commands.lofi_train.fidelity import Fidelity, Schedule, make_schedule
from pipeline.commands.lofi_train.memory_budget import Plan, choose, ladder, measure_costs, parse_size, plan_of_run
from pipeline.commands.lofi_train.options import LofiTrainConfig
from pipeline.commands.lofi_train.video_batches import AnnotatedFile, VideoBatch, VideoBatches
from pipeline.data.annotations import Annotations, read_annotations
from pipeline.data.files import find_videos, match_ids
from pipeline.data.snippets import Sampling
from pipeline.data.video.frame_cache import FrameCache
from pipeline.encoding.build import find_builder
from pipeline.terminal.notes import print_counts, print_note, remark, say, some
from pipeline.training.batches import load_batches
from pipeline.training.encoder_run import EncoderRun, build_rgb_encoder, finish, leave_finished, save_encoder
from pipeline.training.loop import fit
from pipeline.training.options import TrainingConfig
from pipeline.training.run_folder import begin_run, is_finished

PLAN = "plan.json"
GIGABYTE = 10**9


def run(config: LofiTrainConfig) -> EncoderRun:
    """Train and save. An interrupted run goes on, a finished one is left as it is.

    Videos that could not be used are listed; it was trained on the others.

    Raises:
        ValueError: input that cannot be learnt from, no such encoder or weights, a run folder with other options, or
            a loss that is not finite.
        FileNotFoundError: no annotations.
    """
    if begin_run(config.out, config):
        (config.out / PLAN).unlink(missing_ok=True)  # of a run with other options that came to nothing
    if is_finished(config.out):
        return leave_finished(config.out, "videos")
    files, labels = read_files(config)
    encoder = build_rgb_encoder(config)
    num_classes = len(labels) if config.classes else 0
    if config.memory is not None:
        config, schedule = _within_budget(config, encoder, num_classes)
    else:
        schedule = _schedule(config, encoder, len(files))
    model = _build(config, encoder, num_classes, schedule)
    failed: dict[str, str] = {}
    line = _train(config, model, _batches(config, encoder, files, labels, schedule), failed)
    save_encoder(config.out, encoder, labels=list(labels))
    return _report(config, line, failed)


# --- What there is to train on ----------------------------------------------------------------------------------------


def read_files(config: LofiTrainConfig) -> tuple[list[AnnotatedFile], tuple[str, ...]]:
    """The videos of the training subset that have segments, and the classes of these.

    Raises:
        ValueError: there is none.
    """
    annotations = read_annotations(config.annotations, form=config.annotation_format)
    print_counts(annotations.blemishes)
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


def _schedule(config: LofiTrainConfig, encoder: Encoder, num_videos: int) -> Schedule:
    """The schedule, told on stderr.

    Raises:
        ValueError: pictures of a size that the encoder cannot see.
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
        if reason := _refusal(encoder, fidelity.size):
            raise ValueError(
                f"a reduction by {config.reduction:g} leaves {encoder.name} {fidelity}, which it cannot see: {reason}; "
                "or give a smaller --reduction, a larger --size, or --schedule temporal"
            )
    remark(f"{num_videos} videos, {config.schedule}: {' · '.join(map(str, schedule.fidelities))}")
    return schedule


def _refusal(encoder: Encoder, size: int) -> str | None:
    """Why `encoder` cannot be one for pictures of another size; None if it can."""
    try:
        with torch.device("meta"):
            find_builder(encoder.name, named=[encoder.name])(**{**encoder.build_args, "size": size})
    except ValueError as error:
        return str(error)
    return None


def _within_budget(config: LofiTrainConfig, encoder: Encoder, num_classes: int) -> tuple[LofiTrainConfig, Schedule]:
    """The options and the schedule that `config.memory` allows: those that the run began with, if it goes on."""
    assert config.memory is not None
    budget = parse_size(config.memory)
    plan = plan_of_run(config.out / PLAN, lambda: _choose(config, encoder, num_classes, budget))
    training = replace(
        config.training, batch_size=plan.micro_batch, accumulate=plan.accumulate * config.training.accumulate
    )
    return replace(config, training=training, recompute=plan.chunk), Schedule((plan.fidelity,))


def _choose(config: LofiTrainConfig, encoder: Encoder, num_classes: int, budget: int) -> Plan:
    """The highest fidelity that fits into `budget` bytes, measured on the device that trains."""
    training, device = config.training, resolve_device(config.training.device)
    # A copy: in training, batch normalisation would take up the zeros that it is measured with.
    encoder = deepcopy(encoder).to(device).train()
    if config.batch_norm == "frozen":
        freeze_batch_norm(encoder)

    def head_for(num_snippets: int) -> GTAD:
        return build_head(config.gtad, encoder.channels, num_classes, num_snippets).to(device)

    def head_bytes(num_snippets: int) -> int:
        head = head_for(num_snippets)
        features_1CT = torch.zeros(1, encoder.channels, num_snippets, device=device, requires_grad=True)
        targets = head.targets([torch.tensor([[0.0, num_snippets / 2]])], [torch.zeros(1, dtype=torch.long)])
        weights = [*head.parameters(), *head.buffers()]
        return saved_bytes(lambda: head.loss(head(features_1CT), targets)["loss"], excluded=weights)

    full = Fidelity(config.gtad.num_snippets, encoder.size, encoder.resize)
    num_head_parameters = sum(parameter.numel() for parameter in head_for(1).parameters())
    with torch.autocast(device.type, torch.bfloat16, enabled=training.precision != "32-true"):
        costs = measure_costs(
            encoder, head_bytes, num_head_parameters=num_head_parameters, states=_optimizer_states(training)
        )
        return choose(
            costs,
            [full, *(step for step in ladder(full)[1:] if _refusal(encoder, step.size) is None)],
            batch_size=training.batch_size,
            budget=budget,
            may_recompute=config.batch_norm == "frozen",
        )


def _optimizer_states(training: TrainingConfig) -> int:
    """Numbers that are kept for each weight, a moving average of it included."""
    of_optimizer = 2 if training.optimizer in ("adam", "adamw") else int(training.momentum > 0)
    return of_optimizer + (training.ema_decay is not None)


def _build(config: LofiTrainConfig, encoder: Encoder, num_classes: int, schedule: Schedule) -> EndToEnd:
    """The encoder with an untrained head, whose weights follow from the seed, for each T of the schedule."""
    torch.manual_seed(config.training.seed)
    lengths = [fidelity.num_snippets for fidelity in schedule.fidelities]
    heads = build_heads(config.gtad, encoder.channels, num_classes, lengths)
    return EndToEnd(encoder, heads, batch_norm_frozen=config.batch_norm == "frozen", chunk=config.recompute)


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


# --- Training ---------------------------------------------------------------------------------------------------------


def _train(config: LofiTrainConfig, model: EndToEnd, batches: VideoBatches, failed: dict[str, str]) -> dict[str, Any]:
    """Fit the model; videos that fail on the way are added to `failed`."""

    def losses(model: Any, batch: VideoBatch) -> dict[str, Tensor]:
        head = model.head_for(batch.clips.shape[1])
        parts: dict[str, Tensor] = head.loss(model(batch.clips), head.targets(batch.segments, batch.labels))
        return parts

    training = config.training
    loader = load_batches(batches, training.batch_size, shuffle_seed=training.seed, num_workers=training.num_workers)
    rates = {} if config.encoder_lr is None else {"encoder": config.encoder_lr}
    line = fit(model, losses, loader, None, run=config.out, training=training, failed=failed, learning_rates=rates)
    if "train_loss" not in line:
        raise ValueError(
            f"{config.videos}: none of {len(batches)} videos can be decoded: {next(iter(failed.values()))}"
        )
    return line


def _report(config: LofiTrainConfig, line: dict[str, Any], failed: Mapping[str, str]) -> EncoderRun:
    """The loss on stdout and, last of all files, in the run folder; what was skipped on stderr."""
    loss, waiting = line["train_loss"], _share_of_waiting(config.out / "log.jsonl")
    say(f"loss {loss:.3f} in epoch {line['epoch']}; {100 * waiting:.0f} % of the time was waiting for data")
    metrics = {"loss": loss, "epoch": line["epoch"], "waiting": round(waiting, 3)}
    return finish(config.out, metrics, failed, "videos")


def _share_of_waiting(log: Path) -> float:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    seconds = sum(float(line["seconds"]) for line in lines)
    return sum(float(line["waiting"]) * float(line["seconds"]) for line in lines) / seconds
