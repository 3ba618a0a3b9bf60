"""LoFi's fidelities and the order in which they come."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from encoders import ENCODERS
from pipeline.commands.lofi_train.fidelity import Fidelity, Schedule, low_fidelities, make_schedule

FULL = Fidelity(num_snippets=100, size=224, resize=256)
S, T, ST = Fidelity(100, 112, 128), Fidelity(25, 224, 256), Fidelity(50, 158, 181)


def test_the_papers_setting() -> None:
    assert list(low_fidelities(FULL).items()) == [("spatial", S), ("temporal", T), ("spatiotemporal", ST)]
    assert [str(fidelity) for fidelity in (S, T, ST)] == [
        "100 snippets at 112×112", "25 snippets at 224×224", "50 snippets at 158×158",
    ]  # fmt: skip


def test_they_have_the_same_number_of_pixels() -> None:
    pixels = [fidelity.pixels for fidelity in (S, T, ST)]
    assert max(pixels) / min(pixels) < 1.01
    assert all(FULL.pixels / 4 * 0.99 < number < FULL.pixels / 4 * 1.01 for number in pixels)


def test_they_take_the_encoder_the_same_work() -> None:
    with torch.device("meta"):
        encoder = ENCODERS["tsm_r18"]("tsm_r18", size=224)
        flops = [f.num_snippets * flops_of(encoder, torch.empty(1, 3, 8, f.size, f.size)) for f in (S, T, ST)]
    assert flops[0] > 1e11
    assert max(flops) / min(flops) < 1.08


def flops_of(encoder: torch.nn.Module, clips: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        encoder(clips)
    return int(counter.get_total_flops())


@given(
    st.integers(1, 500), st.integers(32, 400), st.integers(0, 100), st.floats(1, 16, allow_nan=False, exclude_max=True)
)
def test_any_length_and_size_is_lowered_to_the_nearest_whole_numbers(
    num_snippets: int, size: int, margin: int, reduction: float
) -> None:
    full = Fidelity(num_snippets, size, size + margin)
    factors = [(math.sqrt(reduction), 1.0), (1.0, reduction), (reduction**0.25, math.sqrt(reduction))]
    if num_snippets / reduction < 0.5:
        with pytest.raises(ValueError, match="0 snippets"):
            low_fidelities(full, reduction)
        return
    for fidelity, (space, time) in zip(low_fidelities(full, reduction).values(), factors, strict=True):
        assert abs(fidelity.num_snippets - num_snippets / time) <= 0.5 + 1e-9
        assert abs(fidelity.size - size / space) <= 0.5 + 1e-9
        assert abs(fidelity.resize - full.resize / space) <= 0.5 + 1e-9
        assert fidelity.size <= fidelity.resize


def at(schedule: Schedule, places: list[tuple[int, int]]) -> list[Fidelity]:
    return [schedule.at(*place) for place in places]


def test_the_long_cycle_goes_by_epochs() -> None:
    long = make_schedule("long", FULL, batches_per_epoch=7)
    assert at(long, [(0, 0), (0, 6), (1, 0), (2, 5), (3, 0), (4, 1)]) == [S, S, T, ST, S, T]
    slower = make_schedule("long", FULL, batches_per_epoch=7, cycle_epochs=2)
    assert at(slower, [(epoch, 3) for epoch in range(8)]) == [S, S, T, T, ST, ST, S, S]


def test_the_short_cycle_goes_by_batches_and_on_across_epochs() -> None:
    short = make_schedule("short", FULL, batches_per_epoch=40)
    assert at(short, [(0, 0), (0, 15), (0, 16), (0, 32), (0, 39)]) == [S, S, T, ST, ST]
    assert at(short, [(1, 0), (1, 7), (1, 8), (1, 24)]) == [ST, ST, S, T]
    few = make_schedule("short", FULL, batches_per_epoch=2, cycle_batches=3)
    assert at(few, [(epoch, batch) for epoch in range(5) for batch in range(2)]) == [*[S] * 3, *[T] * 3, *[ST] * 3, S]


@pytest.mark.parametrize(
    ("name", "fidelity"), [("spatial", S), ("temporal", T), ("spatiotemporal", ST), ("full", FULL)]
)
def test_the_others_stay_at_one_fidelity(name: str, fidelity: Fidelity) -> None:
    schedule = make_schedule(name, FULL, batches_per_epoch=7)  # type: ignore[arg-type]
    assert set(at(schedule, [(0, 0), (1, 3), (2, 20), (5, 0)])) == {fidelity}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reduction": 0.5}, "reduction is 0.5"),
        ({"reduction": math.nan}, "reduction is nan"),
        ({"reduction": 1000.0}, "0 snippets"),
        ({"cycle_epochs": 0}, "cycle_epochs is 0"),
        ({"cycle_batches": 0}, "cycle_batches 0"),
    ],
)
def test_numbers_out_of_range(options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_schedule("long", FULL, batches_per_epoch=7, **options)  # type: ignore[arg-type]


def test_a_crop_that_is_larger_than_its_frame() -> None:
    with pytest.raises(ValueError, match="crops no larger than frames"):
        Fidelity(1, 64, 63)
