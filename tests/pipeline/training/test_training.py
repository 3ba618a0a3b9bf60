"""Training: exact resumption, schedules, what is kept and logged."""

import json
import math
import pickle
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
import train_along
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.training.batches import EpochBatches, load_batches
from pipeline.training.loop import Best, _build_optimizer, fit, lr_factor
from pipeline.training.options import TrainingConfig
from pipeline.training.places import Places

TRAINING = TrainingConfig(epochs=4, batch_size=4, lr=1e-2, lr_steps=(2,), device="cpu", num_workers=0)


class Points:
    """Noisy samples of a line; the noise follows from (epoch, index)."""

    def __init__(self, num: int = 10) -> None:
        self.inputs = torch.linspace(-1, 1, num)[:, None].expand(-1, 3)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, places: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        noise = torch.tensor([[math.sin(1000 * epoch + index)] for epoch, index in places])
        inputs = self.inputs[[index for _, index in places]]
        return inputs + 0.01 * noise, 2 * inputs[:, :1]


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    inputs, wanted = batch
    return {"loss": F.mse_loss(model(inputs), wanted), "one": torch.ones(())}


class KilledError(Exception):
    pass


def killed_at(step: int) -> Any:
    """The losses, until they are asked for the given time."""
    calls = iter(range(step))

    def until(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        if next(calls, None) is None:
            raise KilledError
        return losses(model, batch)

    return until


def train(run: Path, training: TrainingConfig, loss: Any = losses, *, validate: bool = True) -> tuple[nn.Module, Any]:
    run.mkdir(exist_ok=True)
    model, points, num_workers = build(), Points(), training.num_workers
    batches = load_batches(points, training.batch_size, shuffle_seed=training.seed, num_workers=num_workers)
    validation = load_batches(points, 4, num_workers=num_workers) if validate else None
    line = fit(model, loss, batches, validation, run=run, training=training)
    return model, line


def first_weight(model: nn.Module) -> Tensor:
    return next(model.parameters()).detach()


def log_lines(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [untimed(line) for line in lines]


def untimed(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in ("seconds", "waiting")}


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("killed_after", [1, 6, 8, 17, 23])  # an epoch is 3 training and 3 validation steps
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, ema: float | None, killed_after: int) -> None:
    training = replace(TRAINING, ema_decay=ema, optimizer="sgd", warmup_epochs=1.5, clip_grad_norm=1.0)
    whole, whole_line = train(tmp_path / "whole", training)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", training, killed_at(killed_after))
    torch.manual_seed(99)
    resumed, resumed_line = train(tmp_path / "killed", training)
    assert same_weights(whole, resumed)
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "killed")
    assert untimed(whole_line) == untimed(resumed_line)


def test_a_part_with_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    """After one step of SGD, the first layer has moved by a tenth of what it moves otherwise, the rest as otherwise."""
    training = replace(TRAINING, optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=50.0, epochs=1, batch_size=10)
    change: dict[str, list[Tensor]] = {}
    for name, rates in (("one", {}), ("two", {"0": 5.0})):
        (tmp_path / name).mkdir()
        model = build()
        start = [parameter.detach().clone() for parameter in model.parameters()]
        fit(
            model,
            losses,
            load_batches(Points(), 10),
            None,
            run=tmp_path / name,
            training=training,
            learning_rates=rates,
        )
        change[name] = [(end - begin).detach() for end, begin in zip(model.parameters(), start, strict=True)]
    assert change["one"][0].abs().max() > 1e-2
    factors = [0.1, 0.1, 1, 1, 1, 1]  # weight and bias of each layer
    for factor, one, two in zip(factors, change["one"], change["two"], strict=True):
        torch.testing.assert_close(two, factor * one, rtol=1e-3, atol=1e-5)


def test_data_workers_go_on_where_the_killed_run_was(tmp_path: Path) -> None:
    """They are asked for their first batches before the epoch begins."""
    whole, _ = train(tmp_path / "whole", TRAINING)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", TRAINING, killed_at(17))
    resumed, _ = train(tmp_path / "killed", replace(TRAINING, num_workers=1))
    assert same_weights(whole, resumed)
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "killed")


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first, _ = train(tmp_path, TRAINING)
    second, _ = train(tmp_path, TRAINING, killed_at(0))
    assert same_weights(first, second)


def test_the_best_epoch_is_kept_and_the_last_one_without_validation(tmp_path: Path) -> None:
    diverging = replace(TRAINING, lr=0.5, lr_schedule="constant", epochs=6)
    _, line = train(tmp_path / "a", diverging)
    values = [entry["val_loss"] for entry in log_lines(tmp_path / "a")]
    assert line["epoch"] == values.index(min(values)) != 5
    _, line = train(tmp_path / "b", diverging, validate=False)
    assert line["epoch"] == 5


def test_best_can_be_the_highest(tmp_path: Path) -> None:
    model, points = build(), Points()
    line = fit(
        model,
        losses,
        load_batches(points, 4, shuffle_seed=0),
        load_batches(points, 4),
        run=tmp_path,
        training=TRAINING,
        best=Best("val_loss", "max"),
    )
    values = [entry["val_loss"] for entry in log_lines(tmp_path)]
    assert line["epoch"] == values.index(max(values))


def test_the_weight_average_is_what_is_kept(tmp_path: Path) -> None:
    one_step = 1.001 * TRAINING.lr  # of Adam; with a decay of 1 the average stays where the first step led
    frozen, _ = train(tmp_path / "ema", replace(TRAINING, ema_decay=1.0))
    moved, _ = train(tmp_path / "plain", TRAINING)
    assert (first_weight(frozen) - first_weight(build())).abs().max() <= one_step
    assert (first_weight(moved) - first_weight(build())).abs().max() > one_step


def test_the_seed_decides(tmp_path: Path) -> None:
    one, _ = train(tmp_path / "0", TRAINING)
    other, _ = train(tmp_path / "1", replace(TRAINING, seed=1))
    assert not same_weights(one, other)


def test_log_holds_losses_rate_and_seconds(tmp_path: Path) -> None:
    train(tmp_path, TRAINING)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert [line["lr"] for line in lines] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3])
    assert all(line["seconds"] >= 0 and line["train_one"] == line["val_one"] == 1.0 for line in lines)
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]


def test_the_log_holds_the_share_of_waiting(tmp_path: Path) -> None:
    class Slow(Points):
        def __getitem__(self, places: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
            time.sleep(0.2)
            return super().__getitem__(places)

    fit(build(), losses, load_batches(Slow(), 4), None, run=tmp_path, training=replace(TRAINING, epochs=1))
    [line] = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert 0.6 <= line["waiting"] * line["seconds"] < line["seconds"]


@pytest.mark.parametrize("bad", ["loss", "gradient"])
@pytest.mark.parametrize("batch", [0, 2])  # the first of an epoch and, just before a checkpoint is taken, the last
def test_what_is_not_finite_stops_before_the_weights_take_it_up(tmp_path: Path, bad: str, batch: int) -> None:
    class Batch(NamedTuple):
        inputs: Tensor
        wanted: Tensor
        names: list[str]

    class Named(Points):
        def __getitem__(self, places: list[tuple[int, int]]) -> Batch:  # type: ignore[override]
            return Batch(*super().__getitem__(places), [f"sample {epoch}.{index}" for epoch, index in places])

    def diverging(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        loss = losses(model, batch[:2])["loss"]
        if batch.names[0] == bad_name:
            # The root of zero is zero, its gradient infinite.
            loss = loss * math.nan if bad == "loss" else loss + (0 * model(batch.inputs).sum()).sqrt()
        return {"loss": loss}

    bad_name = f"sample 1.{4 * batch}"
    training = replace(TRAINING, optimizer="sgd")
    named = rf"the {bad} is not finite in epoch 1, batch {batch} \({bad_name}, .*lower training.lr"
    with pytest.raises(ValueError, match=named):
        fit(build(), diverging, load_batches(Named(), 4), None, run=tmp_path, training=training)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert all(weight.isfinite().all() for weight in kept.values())
    assert len(log_lines(tmp_path)) == 1


def test_nothing_is_written_outside_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    train(tmp_path / "run", TRAINING)
    assert list((tmp_path / "cwd").iterdir()) == []
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"best.ckpt", "last.ckpt", "log.jsonl"}


def test_stdout_stays_clean(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, TRAINING)
    assert capfd.readouterr().out == ""


def test_empty_batches_are_passed_over(tmp_path: Path) -> None:
    class Holes(Points):
        def __getitem__(self, places: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
            inputs, wanted = super().__getitem__(places)
            return (inputs[:0], wanted[:0]) if places[0][1] < 5 else (inputs, wanted)

    line = fit(build(), losses, load_batches(Holes(), 2), load_batches(Holes(), 2), run=tmp_path, training=TRAINING)
    assert math.isfinite(line["val_loss"])


def test_what_batches_name_as_failed_is_collected_of_empty_ones_too(tmp_path: Path) -> None:
    class Batch(NamedTuple):
        inputs: Tensor
        wanted: Tensor
        failed: list[tuple[str, str]]

    class Holes(Points):
        def __getitem__(self, places: list[tuple[int, int]]) -> Batch:  # type: ignore[override]
            inputs, wanted = super().__getitem__(places)
            failed = [(f"{index}.mp4", f"reason {index}") for _, index in places if index < 5]
            return Batch(inputs[len(failed) :], wanted[len(failed) :], failed)

    for _ in ("trained", "found finished, as after a kill before the stage's report"):
        failed: dict[str, str] = {}
        fit(
            build(),
            lambda model, batch: losses(model, batch[:2]),
            load_batches(Holes(), 4),
            None,
            run=tmp_path,
            training=replace(TRAINING, epochs=1),
            failed=failed,
        )
        assert failed == {f"{index}.mp4": f"reason {index}" for index in range(5)}


def test_ctrl_c_is_passed_on(tmp_path: Path) -> None:
    def interrupted(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, TRAINING, interrupted)
    assert signal.getsignal(signal.SIGINT) is handler


def test_cuda_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"no CUDA device; give training.device=cpu"):
        train(tmp_path, replace(TRAINING, device="cuda"))


# --- Steps of several batches -----------------------------------------------------------------------------------------


def build_plain() -> nn.Module:
    """A model that does the same to a sample whatever else is in its batch."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


class Blamed(NamedTuple):
    inputs: Tensor
    wanted: Tensor
    failed: list[tuple[str, str]]


class BlamedPoints(Points):
    """Points that are each named as failed, though they are there."""

    def __getitem__(self, places: list[tuple[int, int]]) -> Blamed:  # type: ignore[override]
        return Blamed(*super().__getitem__(places), [(f"point {index}", "why") for _, index in places])


def train_plain(run: Path, training: TrainingConfig, loss: Any = losses) -> tuple[nn.Module, dict[str, str]]:
    """On 11 points, so that the last step of an epoch sees fewer; validated on 5, of which two processes share the last
    batch unevenly. Returns the model and what failed."""
    run.mkdir(exist_ok=True)
    model, failed = build_plain(), dict[str, str]()
    batches = load_batches(BlamedPoints(11), training.batch_size, shuffle_seed=training.seed)
    validation = load_batches(BlamedPoints(5), 2)
    fit(
        model,
        lambda *given: loss(given[0], given[1][:2]),
        batches,
        validation,
        run=run,
        training=training,
        failed=failed,
    )
    return model, failed


def assert_alike(run: Path, other: Path, a: nn.Module, b: nn.Module) -> None:
    for one, two in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        assert (one - two).abs().max() < 1e-6
    for line, other_line in zip(log_lines(run), log_lines(other), strict=True):
        assert line == pytest.approx(other_line, abs=1e-6)


SGD = replace(TRAINING, optimizer="sgd", lr=0.1, momentum=0.9, warmup_epochs=1.5, clip_grad_norm=1.0)


def test_accumulated_batches_equal_a_larger_one(tmp_path: Path) -> None:
    """In both, an epoch's last step sees 3 samples, which then are batches of 2 and 1."""
    whole, _ = train_plain(tmp_path / "whole", SGD)
    parts, _ = train_plain(tmp_path / "parts", replace(SGD, batch_size=2, accumulate=2))
    assert_alike(tmp_path / "whole", tmp_path / "parts", whole, parts)


@pytest.mark.slow
def test_two_processes_go_on_with_a_killed_training_as_one_with_batches_of_twice_the_size(tmp_path: Path) -> None:
    whole, failed = train_plain(tmp_path / "whole", SGD)
    with pytest.raises(KilledError):
        train_plain(tmp_path / "killed", SGD, killed_at(9))  # an epoch is 3 training and 3 validation steps
    command = [sys.executable, str(Path(train_along.__file__)), str(tmp_path / "killed")]
    subprocess.run(command, check=True, timeout=200)
    model = build_plain()
    model.load_state_dict(torch.load(tmp_path / "killed" / "model.pt", weights_only=True))
    assert_alike(tmp_path / "whole", tmp_path / "killed", whole, model)
    left = json.loads((tmp_path / "killed" / "left.json").read_text())
    assert left == {"process": "0", "failed": failed}  # the other one left, and told what had failed


def collect(batches: EpochBatches, epoch: int) -> Iterator[tuple[int, int]]:
    batches.set_epoch(epoch)
    for batch in batches:
        yield from batch


def test_epoch_batches_are_whole_and_follow_from_seed_and_epoch() -> None:
    first = list(collect(EpochBatches(10, 4, seed=3), 0))
    assert first == list(collect(EpochBatches(10, 4, seed=3), 0))
    assert sorted(first) == [(0, index) for index in range(10)]
    assert [i for _, i in first] != [i for _, i in collect(EpochBatches(10, 4, seed=3), 1)]
    assert [i for _, i in first] != [i for _, i in collect(EpochBatches(10, 4, seed=4), 0)]
    assert [len(batch) for batch in EpochBatches(10, 4, seed=None)] == [4, 4, 2]
    assert list(collect(EpochBatches(3, 2, seed=None), 7)) == [(7, 0), (7, 1), (7, 2)]


def test_batches_know_their_number() -> None:
    assert [places.batch for places in EpochBatches(10, 4, seed=3)] == [0, 1, 2]


def test_there_are_no_more_workers_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert [load_batches(Points(8), 4, num_workers=asked).num_workers for asked in (0, 2, 9)] == [0, 2, 3]


def test_places_reach_the_data_workers() -> None:
    places = pickle.loads(pickle.dumps(Places([(7, 0), (7, 1)], batch=3)))
    assert (list(places), places.batch) == ([(7, 0), (7, 1)], 3)


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 4), st.integers(1, 4))
def test_processes_share_each_sample_once(num: int, batch_size: int, num_processes: int, accumulate: int) -> None:
    shares = []
    for process in range(num_processes):
        batches = EpochBatches(num, batch_size, seed=1)
        batches.share(process, num_processes)
        shares.append((batches, list(batches)))
    steps: dict[int, float] = defaultdict(float)
    seen = []
    for batches, own in shares:
        assert len(own) == len(batches) == len(shares[0][1])
        for number, batch in enumerate(own):
            assert 1 <= len(batch) <= batch_size
            counted = batches.num_counted(number)
            assert counted in (0, len(batch))
            seen += batch[:counted]
            # A mean of means: each sample is to have the same weight in it.
            share = batches.weight(number, accumulate) / (accumulate * num_processes)
            steps[number // accumulate] += share
            samples = min(num, (number // accumulate + 1) * accumulate * batch_size * num_processes)
            samples -= number // accumulate * accumulate * batch_size * num_processes
            assert share == pytest.approx(counted / samples)
    assert sorted(seen) == [(0, index) for index in range(num)]
    assert list(steps.values()) == pytest.approx([1.0] * len(steps))
    together = [chain.from_iterable(batch) for batch in zip(*(own for _, own in shares), strict=True)]
    larger = EpochBatches(num, batch_size * num_processes, seed=1)
    assert [set(batch) for batch in together] == [set(batch) for batch in larger]


def test_numbers_out_of_range() -> None:
    for name in ("epochs", "batch_size", "accumulate", "devices"):
        wrong: dict[str, Any] = {name: 0}
        with pytest.raises(ValueError, match=f"training.{name} is 0; it must be at least 1"):
            replace(TRAINING, **wrong)


def test_more_devices_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"training.devices is 2, but torch sees 1 CUDA devices"):
        train(tmp_path, replace(TRAINING, device="auto", devices=2))


def test_more_devices_than_an_interactive_session_can_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.ps1", ">>> ", raising=False)
    with pytest.raises(ValueError, match=r"training.devices is 2: .* an interactive session is neither"):
        train(tmp_path, replace(TRAINING, devices=2))


def test_what_decays() -> None:
    encoder, head = torch.nn.Sequential(torch.nn.Conv1d(2, 1, 1), torch.nn.LayerNorm(2)), torch.nn.Linear(2, 1)
    model = torch.nn.ModuleDict({"encoder": encoder, "head": head})
    options = replace(TRAINING, weight_decay=0.5, lr=1.0)

    def groups(decay_only: Any) -> list[tuple[float, float, list[str]]]:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        optimizer = _build_optimizer(model, replace(options, decay_only=decay_only), {"encoder": 0.1})
        return [
            (group["lr"], group["weight_decay"], [names[id(p)] for p in group["params"]])
            for group in optimizer.param_groups
        ]

    of_encoder = ["encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias"]
    assert groups(None) == [(1.0, 0.5, ["head.weight", "head.bias"]), (0.1, 0.5, of_encoder)]
    assert groups("matrices") == [
        (1.0, 0.5, ["head.weight"]),
        (1.0, 0.0, ["head.bias"]),
        (0.1, 0.5, of_encoder[:1]),
        (0.1, 0.0, of_encoder[1:]),
    ]


def test_as_many_epochs_as_make_enough_steps() -> None:
    options = replace(TRAINING, epochs=30, batch_size=2, accumulate=1, lr_steps=(10, 20), warmup_epochs=5.0)
    assert options.of_at_least(300, 20) is options
    few = options.of_at_least(300, 5)  # 3 steps an epoch
    assert (few.epochs, few.lr_steps, few.warmup_epochs) == (100, (33, 67), pytest.approx(50 / 3))
    assert options.of_at_least(301, 5).epochs == 101


def test_lr_factor() -> None:
    step = replace(TRAINING, lr_schedule="step", lr_steps=(5, 8), lr_gamma=0.1)
    assert [lr_factor(step, epoch) for epoch in (0, 4.99, 5, 7.9, 8)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = replace(TRAINING, lr_schedule="cosine", epochs=12, warmup_epochs=2)
    assert [lr_factor(cosine, epoch) for epoch in (0, 2, 7, 12)] == pytest.approx([1, 1, 0.5, 0], abs=1e-12)
    ends = replace(cosine, lr=1e-3, lr_min=4e-4)
    assert [lr_factor(ends, epoch) for epoch in (0, 2, 7, 12, 13)] == pytest.approx([1, 1, 0.7, 0.4, 0.4])
    assert lr_factor(replace(TRAINING, lr_schedule="constant"), 9.0) == 1.0
