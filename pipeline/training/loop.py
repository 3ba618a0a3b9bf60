"""Training with Lightning, shared by the training stages: a model, its losses and batches in, the best weights out.

Lightning runs the loop, the precision, the clipping, the weight average, the checkpoints and the progress bar. What
this file adds is that a killed run, started again, comes to the same weights as one that was left alone: checkpoints
are taken at epoch ends, data order and augmentation follow from (seed, epoch, index), and every epoch begins with
random states that follow from (seed, epoch), so that nothing of an interrupted epoch is left over.

An optimiser step sees `batch_size` samples, times `accumulate` batches, times `devices`: whichever of the three is
doubled, the step is the same, as long as the loss is a mean over samples. Lightning starts the processes of further
devices as copies of the command, which go through the stage until here, train, and leave.

Lightning takes seconds to import: only training stages import this module, and no data worker does.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as lightning
import numpy as np
import rich
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.data import DataLoader

from pipeline.terminal.notes import shows_progress
from pipeline.training.batches import EpochBatches
from pipeline.training.options import TrainingConfig
from pipeline.training.run_folder import LAST_CHECKPOINT, write_text

Losses = Callable[[Any, Any], dict[str, Tensor]]
"""(model, batch) to the scalar `loss` and whatever else is to be logged. A batch is a tuple; its first item's first
axis is the batch axis, and it may be empty. If it has `names`, a loss that is not finite is reported with them."""


class Best(NamedTuple):
    """Which epoch's weights are kept."""

    metric: str
    mode: Literal["min", "max"]


LOWEST_LOSS = Best("val_loss", "min")


def fit(
    model: nn.Module,
    losses: Losses,
    train: DataLoader[Any],
    validation: DataLoader[Any] | None,
    *,
    run: Path,
    training: TrainingConfig,
    best: Best = LOWEST_LOSS,
    failed: dict[str, str] | None = None,
    learning_rates: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Train `model` in place, going on from `run`/last.ckpt if there is one.

    Args:
        model: on return, on the CPU and with the weights of the best epoch (of the last, without validation data or if
            `training.keep` says so), or with their average where `training.ema_decay` is given.
        losses: what is minimised and logged.
        train: batches to learn from, made by `load_batches`.
        validation: batches to choose the epoch with.
        run: run folder.
        training: the options.
        best: which metric chooses the epoch.
        failed: to be filled with what batches, empty ones too, name in their `failed`: (file, reason); of an
            interrupted run, also with what they named before.
        learning_rates: of the model's parts that have another one than `training.lr`, by their name in it.

    Returns:
        The line of `run`/log.jsonl of the epoch whose weights the model has.

    Raises:
        ValueError: a loss or a gradient is not finite; `run`/last.ckpt is then what it was after the epoch before.
    """
    loaders = {"train": train} if validation is None else {"train": train, "val": validation}
    places = {stage: _places(loader) for stage, loader in loaders.items()}
    task = _Task(model, losses, training, places, learning_rates or {}, {} if failed is None else failed)
    monitored = best if validation is not None and training.keep == "best" else None
    with _lightning_kept_quiet():
        trainer = lightning.Trainer(
            accelerator=_accelerator(training.device, training.devices),
            devices=training.devices,
            strategy="ddp" if training.devices > 1 else "auto",
            accumulate_grad_batches=training.accumulate,
            precision=training.precision,
            max_epochs=training.epochs,
            gradient_clip_val=training.clip_grad_norm,
            callbacks=_callbacks(run, training, monitored),
            default_root_dir=run,
            logger=False,
            enable_progress_bar=shows_progress(),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        last = run / LAST_CHECKPOINT
        with _ctrl_c_passed_on():
            trainer.fit(task, train, validation, ckpt_path=last if last.exists() else None)
    if not trainer.is_global_zero:
        raise SystemExit(0)  # this process was started to train along; the first one goes on with the stage
    model.cpu()
    kept = torch.load(run / ("best.ckpt" if monitored else LAST_CHECKPOINT), map_location="cpu", weights_only=True)
    task.load_state_dict(kept["state_dict"])
    line: dict[str, Any] = _read_log(run / "log.jsonl")[kept["epoch"]]
    return line


def _places(loader: DataLoader[Any]) -> EpochBatches:
    assert isinstance(loader.sampler, EpochBatches), "a loader that load_batches did not make"
    return loader.sampler


def lr_factor(training: TrainingConfig, epoch: float) -> float:
    """What the learning rate is multiplied with at a point in time, in epochs since the start."""
    if training.lr_schedule == "cosine":
        span = max(training.epochs - training.warmup_epochs, 1e-9)
        progress = min(max(epoch - training.warmup_epochs, 0.0) / span, 1.0)
        least = training.lr_min / training.lr if training.lr_min else 0.0
        return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * progress))
    if training.lr_schedule == "step":
        return training.lr_gamma ** sum(epoch >= step for step in training.lr_steps)
    return 1.0


def seed_epoch(seed: int, *parts: int) -> None:
    """Set the random states of Python, NumPy and torch, CUDA included, to what these numbers say."""
    lightning.seed_everything(int(np.random.SeedSequence((seed, *parts)).generate_state(1)[0]), verbose=False)


class _Task(lightning.LightningModule):
    """The stage's model and losses in the shape that Lightning asks for."""

    def __init__(
        self,
        model: nn.Module,
        losses: Losses,
        training: TrainingConfig,
        places: dict[str, EpochBatches],
        learning_rates: Mapping[str, float],
        failed: dict[str, str],
    ) -> None:
        super().__init__()
        self.model = model
        self.losses = losses
        self.options = training
        self.places = places
        self.learning_rates = learning_rates
        self.failed = failed

    def setup(self, stage: str) -> None:
        for places in self.places.values():
            places.share(self.global_rank, self.trainer.world_size)
        self.steps_per_epoch = math.ceil(len(self.places["train"]) / self.options.accumulate)

    def configure_optimizers(self) -> Any:
        optimizer = _build_optimizer(self.model, self.options, self.learning_rates)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor_at)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _lr_factor_at(self, step: int) -> float:
        warm_up_steps = self.options.warmup_epochs * self.steps_per_epoch
        warm_up = min(1.0, (step + 1) / warm_up_steps) if warm_up_steps else 1.0
        return warm_up * lr_factor(self.options, step / self.steps_per_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["failed"] = dict(self.failed)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.failed.update(checkpoint.get("failed", {}))
        # Data workers are handed the first batches before Lightning says which epoch it is, as if it were the first.
        self.places["train"].set_epoch(checkpoint["epoch"] + 1)

    def on_train_epoch_start(self) -> None:
        process = [self.global_rank] if self.global_rank else []  # each draws its own dropout
        seed_epoch(self.options.seed, 0, self.current_epoch, *process)

    def on_validation_epoch_start(self) -> None:
        # The same draws at every validation, so that losses that sample can be compared between epochs.
        seed_epoch(self.options.seed, 1)

    def on_train_end(self) -> None:
        if self.trainer.world_size > 1:
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, self.failed)
            for failed in gathered:
                self.failed.update(failed)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        self.batch_at_work = f"batch {batch_idx}{_named(batch)}"
        loss = self._loss_of("train", batch, batch_idx)
        if loss is not None:
            self._check_finite("loss", [loss])
            return loss * self.places["train"].weight(batch_idx, self.options.accumulate)
        if self.trainer.world_size == 1:
            return None
        # The other processes wait for this one's gradients.
        return torch.stack([0.0 * learned.sum() for learned in self.parameters() if learned.requires_grad]).sum()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # At 16 bits, gradients that are not finite are in order: the scaler then skips the step.
        if self.options.precision != "16-mixed":
            gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
            self._check_finite("gradient", gradients)

    def _check_finite(self, what: str, values: list[Tensor]) -> None:
        """Before the weights take it up: what is saved stays good."""
        if values and not torch.stack([value.isfinite().all() for value in values]).all():
            raise ValueError(
                f"the {what} is not finite in epoch {self.current_epoch}, {self.batch_at_work}; the checkpoint of the "
                "epoch before, if any, is kept. Train to another --out with a lower training.lr, or with "
                "training.clip_grad_norm"
            )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._loss_of("val", batch, batch_idx)

    def _loss_of(self, stage: str, batch: Any, batch_idx: int) -> Tensor | None:
        """The loss of a batch, which is logged with all others; None if it is empty."""
        self.failed.update(getattr(batch, "failed", ()))
        if len(batch[0]) == 0:
            return None
        losses = self.losses(self.model, batch)
        named = {f"{stage}_{name}": value.detach() for name, value in losses.items()}
        # A float, because Lightning takes the mean over processes and cuts that of whole numbers down to one.
        counted: Any = float(len(batch[0]) if self.places[stage].num_counted(batch_idx) else 0)
        several = self.trainer.world_size > 1
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=counted, sync_dist=several)
        return losses["loss"]


def _named(batch: Any) -> str:
    names = getattr(batch, "names", ())
    return f" ({', '.join(names)})" if names else ""


class _EpochLog(Callback):
    """`log.jsonl`: a line an epoch. Lightning's own CSV logger deletes the earlier epochs when a run is resumed.

    `seconds` are those of the training batches and of the validation in the epoch, `waiting` is the share of them in
    which the model waited for training batches.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.lines = _read_log(self.path)[: trainer.current_epoch]

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.started = self.idle_since = time.perf_counter()
        self.waited = 0.0
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_start(self, *_: Any) -> None:
        self.waited += time.perf_counter() - self.idle_since

    def on_train_batch_end(self, *_: Any) -> None:
        self.idle_since = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        if not trainer.is_global_zero:
            return
        seconds = time.perf_counter() - self.started
        spent = {"seconds": round(seconds, 3), "waiting": round(self.waited / seconds, 3)}
        self.lines.append({"epoch": trainer.current_epoch, "lr": self.lr, **spent, **metrics})
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))


def _read_log(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _callbacks(run: Path, training: TrainingConfig, best: Best | None) -> list[Callback]:
    callbacks: list[Callback] = [_EpochLog(run / "log.jsonl")]
    if shows_progress():
        callbacks.insert(0, RichProgressBar(console_kwargs={"stderr": True}))
    if training.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=training.ema_decay))
    if best is not None:
        callbacks.append(_checkpoint(run, "best", best))
    # After the best one, so that it holds what the best one now is.
    return [*callbacks, _checkpoint(run, "last", None)]


def _checkpoint(run: Path, name: str, best: Best | None) -> ModelCheckpoint:
    return ModelCheckpoint(
        dirpath=run,
        filename=name,
        monitor=best.metric if best else None,
        mode=best.mode if best else "min",
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )


def _build_optimizer(
    model: nn.Module, training: TrainingConfig, learning_rates: Mapping[str, float]
) -> torch.optim.Optimizer:
    learned = _parameter_groups(model, training, learning_rates)
    common: dict[str, Any] = {"lr": training.lr, "weight_decay": training.weight_decay}
    if training.optimizer == "sgd":
        return torch.optim.SGD(learned, momentum=training.momentum, **common)
    adaptive = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
    return adaptive(learned, **common)


def _parameter_groups(
    model: nn.Module, training: TrainingConfig, learning_rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """What is learnt: first, with the common learning rate, all that is not in a part with one of its own.

    Of each, what does not decay is a group of its own, if there is such.
    """
    assert learning_rates.keys() <= dict(model.named_children()).keys()
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Linear, _ConvNd))}
    by_part: dict[str, list[nn.Parameter]] = {name: [] for name in ("", *learning_rates)}
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        if parameter.requires_grad:
            by_part[part if part in learning_rates else ""].append(parameter)
    groups: list[dict[str, Any]] = []
    for part, parameters in by_part.items():
        rate = {"lr": learning_rates[part]} if part else {}
        spared = [p for p in parameters if training.decay_only is not None and id(p) not in matrices]
        groups.append({"params": [p for p in parameters if not spared or id(p) in matrices], **rate})
        if spared:
            groups.append({"params": spared, "weight_decay": 0.0, **rate})
    return groups


def _accelerator(device: str, devices: int) -> str:
    if devices > 1 and hasattr(sys, "ps1"):  # set where Python is interactive
        raise ValueError(
            f"training.devices is {devices}: further processes are started as copies of the command or the script, and "
            "an interactive session is neither; run this on the command line or as a script, or on one device"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device is cuda, but torch sees no CUDA device; give training.device=cpu or auto")
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    if devices > torch.cuda.device_count():
        raise ValueError(f"training.devices is {devices}, but torch sees {torch.cuda.device_count()} CUDA devices")
    return "gpu"


# What Lightning remarks on and we do on purpose, and what newer torch remarks on in Lightning.
_EXPECTED_WARNINGS = (
    ".*LeafSpec.* is deprecated.*",
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*`training_step` returned `None`.*",
    ".*have no `val_dataloader`.*",
    ".*Grad strides do not match bucket view strides.*",
    ".*in eval mode at the start of training.*",
)


@contextmanager
def _lightning_kept_quiet() -> Iterator[None]:
    """No advertisements, and the shared rich console, which the progress bar turns to stderr, as it was before."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        rich.reconfigure()


@contextmanager
def _ctrl_c_passed_on() -> Iterator[None]:
    """Ctrl-C stays a KeyboardInterrupt. Lightning makes it a SystemExit and ignores further ones."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as interrupted:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from interrupted
