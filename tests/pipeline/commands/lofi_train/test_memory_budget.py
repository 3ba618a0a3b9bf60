"""Plans that keep a memory budget: measured bytes, the order of preference, amounts in words."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from encoders import Encoder, build_encoder
from encoders.activations import peak_bytes, saved_bytes
from encoders.recompute import encode_recomputing
from heads.gtad import GTAD
from pipeline.commands.lofi_train.fidelity import Fidelity
from pipeline.commands.lofi_train.memory_budget import (
    EFFICIENT_CHUNK,
    Costs,
    Plan,
    choose,
    format_size,
    ladder,
    measure_costs,
    parse_size,
    plan_of_run,
    shared_bytes,
    snippet_bytes,
)

FULL = Fidelity(num_snippets=16, size=64, resize=64)
BATCH = 4
FRAMES = 2


# --- The budget is kept -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder("tsm_tiny", weights="random", num_frames=FRAMES).eval()


def build_head(num_snippets: int) -> GTAD:
    torch.manual_seed(0)
    return GTAD(128, num_snippets=num_snippets, hidden=64, inner_bins=4, context_bins=2)


def head_loss(head: GTAD, features_BCT: Tensor) -> Tensor:
    output = head(features_BCT)
    loss: Tensor = output.start.sum() + output.end.sum() + output.iou_reg.sum() + output.iou_cls.sum()
    return loss


def head_bytes(num_snippets: int) -> int:
    head = build_head(num_snippets)
    features_1CT = torch.zeros(1, 128, num_snippets, requires_grad=True)
    return saved_bytes(lambda: head_loss(head, features_1CT), excluded=[*head.parameters(), *head.buffers()])


@pytest.fixture(scope="module")
def costs(encoder: Encoder) -> Costs:
    num_head_parameters = sum(parameter.numel() for parameter in build_head(8).parameters())
    return measure_costs(encoder, head_bytes, num_head_parameters=num_head_parameters, states=0)


def peak_of(plan: Plan, encoder: Encoder) -> int:
    """The most bytes that a training step under this plan takes, with gradients of earlier micro-batches there."""
    head, fidelity = build_head(plan.fidelity.num_snippets), plan.fidelity
    num_clips = plan.micro_batch * fidelity.num_snippets
    weights = [*encoder.parameters(), *head.parameters()]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)

    def step() -> None:
        clips = torch.zeros(num_clips, 3, FRAMES, fidelity.size, fidelity.size, dtype=torch.uint8)
        features_NC = encoder(clips) if plan.chunk is None else encode_recomputing(encoder, clips, plan.chunk)
        loss = head_loss(head, features_NC.view(plan.micro_batch, -1, 128).mT)
        loss.backward()  # type: ignore[no-untyped-call]

    return peak_bytes(step) + 2 * sum(weight.untyped_storage().nbytes() for weight in weights)


@pytest.mark.parametrize("megabytes", [10, 14, 50])
@pytest.mark.parametrize("may_recompute", [False, True])
def test_a_step_under_the_plan_stays_within_the_budget(
    encoder: Encoder, costs: Costs, megabytes: int, may_recompute: bool
) -> None:
    budget = megabytes * 10**6
    plan = choose(costs, ladder(FULL), batch_size=BATCH, budget=budget, may_recompute=may_recompute)
    peak = peak_of(plan, encoder)
    assert peak <= plan.num_bytes <= budget
    assert peak > 0.7 * plan.num_bytes  # the model is no wild guess
    assert plan.micro_batch * plan.accumulate == BATCH


def test_bytes_are_measured_and_grow_with_pixels(encoder: Encoder) -> None:
    clips = torch.zeros(3, 3, FRAMES, 64, 64, dtype=torch.uint8)
    of_three = saved_bytes(lambda: encoder(clips), excluded=[*encoder.parameters(), *encoder.buffers(), clips])
    assert snippet_bytes(encoder, 64) == of_three / 3
    assert snippet_bytes(encoder, 128) == pytest.approx(4 * snippet_bytes(encoder, 64), rel=0.01)


def test_weights_in_16_bits_are_there_once(encoder: Encoder) -> None:
    """Autocast converts the weights of convolutions once, however many snippets go through."""
    assert shared_bytes(encoder, 64) == 0
    converted = [weight for weight in encoder.parameters() if weight.ndim > 1]
    with torch.autocast("cpu", torch.bfloat16):
        assert shared_bytes(encoder, 64) == 2 * sum(weight.numel() for weight in converted)
        assert snippet_bytes(encoder, 128) == pytest.approx(4 * snippet_bytes(encoder, 64), rel=0.01)


def test_measuring_draws_nothing(costs: Costs) -> None:
    state = torch.random.get_rng_state()
    snippet_bytes(build_encoder("tsm_tiny", weights="random"), 32)
    assert torch.equal(torch.random.get_rng_state(), state)


# --- What is preferred ------------------------------------------------------------------------------------------------

# A snippet of s×s pixels saves s² bytes, a head T, and a budget of so much has no other uses.
PLAIN = Costs(fixed=0, chunks=0, snippet=lambda size: size**2, head=lambda t: t, frames=lambda size: 0, features=0)


def plan_for(budget: float, *, may_recompute: bool = True) -> Plan:
    return choose(PLAIN, ladder(FULL), batch_size=4, budget=int(budget), may_recompute=may_recompute)


def test_preferences_in_turn() -> None:
    video = 1.2 * (16 * 64**2 + 16)
    chunk = 1.2 * EFFICIENT_CHUNK * 64**2
    keeping = [plan_for(share * video + 1) for share in (4, 2, 1)]
    assert [(plan.fidelity, plan.micro_batch, plan.accumulate, plan.chunk) for plan in keeping] == [
        (FULL, 4, 1, None),
        (FULL, 2, 2, None),
        (FULL, 1, 4, None),
    ]
    twice = plan_for(video - 1)  # not even one video's activations: computed twice, of all four videos together
    assert (twice.fidelity, twice.micro_batch, twice.chunk) == (FULL, 4, 16)
    assert (plan_for(chunk + 1).fidelity, plan_for(chunk + 1).chunk) == (FULL, EFFICIENT_CHUNK)
    assert (plan_for(chunk - 1).fidelity, plan_for(chunk - 1).chunk) == (FULL, EFFICIENT_CHUNK - 1)
    assert plan_for(1.2 * 64**2 - 1).fidelity == ladder(FULL)[1]
    lower = plan_for(video - 1, may_recompute=False)
    assert (lower.fidelity, lower.micro_batch, lower.chunk) == (ladder(FULL)[1], 2, None)


@given(st.integers(700, 10**6), st.integers(0, 10**6), st.booleans())
def test_more_memory_never_gives_less(budget: int, more: int, may_recompute: bool) -> None:
    def pixels(budget: int) -> int:
        try:
            plan = plan_for(budget, may_recompute=may_recompute)
        except ValueError:
            return 0
        assert plan.num_bytes <= budget
        return plan.fidelity.pixels

    assert pixels(budget) <= pixels(budget + more)


def test_nothing_fits() -> None:
    with pytest.raises(ValueError, match=r"1 KB of memory are too few: .* 8 snippets at 45×45, .*: 2\.43 KB"):
        plan_for(1000)


def test_the_ladder_meets_st_lofi() -> None:
    steps = ladder(Fidelity(100, 224, 256))
    assert steps[0] == Fidelity(100, 224, 256)
    assert steps[2] == Fidelity(50, 158, 181)
    for step, lower in pairwise(steps):
        assert lower.pixels == pytest.approx(step.pixels / 2, rel=0.1)
    assert steps[-1].num_snippets >= 8
    assert len(steps) == 1 + math.floor(2 * math.log2(100 / 8))
    assert [step.num_snippets for step in ladder(FULL)] == [16, 11, 8]
    assert ladder(Fidelity(4, 16, 16)) == [Fidelity(4, 16, 16)]


# --- A run's plan -----------------------------------------------------------------------------------------------------


def test_a_run_keeps_its_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(Fidelity(50, 158, 181), 2, 8, 16, 7_300_000_000)
    assert plan_of_run(tmp_path / "plan.json", lambda: plan) == plan
    assert plan_of_run(tmp_path / "plan.json", lambda: replace(plan, micro_batch=1)) == plan
    line = "50 snippets at 158×158, micro-batch 2 × 8, activations computed twice, in chunks of 16 snippets: 7.3 GB\n"
    assert capsys.readouterr().out == 2 * line


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("8GB", 8 * 10**9), ("6GiB", 6 * 2**30), ("1.5 gib", 3 * 2**29), ("500MB", 5 * 10**8), ("70000", 70_000)],
)
def test_amounts(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GB", "8 gigs", "-8GB", "8TBs", "0GB", "1e9", "8,5GB"])
def test_no_amounts(text: str) -> None:
    with pytest.raises(ValueError, match="no amount of memory: expected one such as 8GB, 6GiB or 500MB"):
        parse_size(text)


@given(st.integers(1, 10**12))
def test_amounts_are_written_as_they_are_read(num_bytes: int) -> None:
    assert parse_size(format_size(num_bytes)) == pytest.approx(num_bytes, rel=0.006)
