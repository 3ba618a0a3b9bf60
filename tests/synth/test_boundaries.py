"""BSP's boundary clips: their frames and weights against the paper's equations, written down slowly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from synth.boundaries import (
    KINDS,
    PAIRS,
    BoundaryPlan,
    Kind,
    Synthesis,
    blend_weights,
    compose,
    draw_plan,
    nearest_frames,
    speed_plan,
    speed_ticks,
)

BOTH = Synthesis(blend=PAIRS)
FrameArray = NDArray[np.uint8]


def picture(source: int, frame: int) -> NDArray[np.float64]:
    """What frame `frame` of an endless source shows: (2, 2, 3) pixels that no other frame has."""
    return np.random.default_rng((source, 10**6 + frame)).integers(0, 256, (2, 2, 3)).astype(np.float64)


def sampled(source: int, start: int, stride: int) -> Callable[[int], NDArray[np.float64]]:
    """f₁ or f₂: the i-th sampled frame, from i = 1 on, which is the source's frame `start`."""
    return lambda i: picture(source, start + stride * (i - 1))


def composed(plan: BoundaryPlan) -> FrameArray:
    sources = [
        np.stack([picture(source, int(frame)) for frame in frames]).astype(np.uint8)
        for source, frames in enumerate(plan.frames)
    ]
    return compose(plan, sources)


def equation_1(f1: Any, f2: Any, tau: int, epsilon: int) -> list[NDArray[np.float64]]:
    """Frames 1 to 2τ. f1 and f2 give the i-th sampled frame of each video, from i = 1 on."""
    frames = []
    for i in range(1, 2 * tau + 1):
        if i <= tau - epsilon:
            frames.append(f1(i))
        elif i <= tau + epsilon:
            weight_1, weight_2 = (tau + epsilon - i) / (2 * epsilon), (i - tau + epsilon) / (2 * epsilon)
            frames.append(weight_1 * f1(i) + weight_2 * f2(i - tau + epsilon))
        else:
            frames.append(f2(i - tau + epsilon))
    return frames


def equation_2(f1: Any, f2: Any, tau: int) -> list[NDArray[np.float64]]:
    return [f1(i) if i <= tau else f2(i - tau) for i in range(1, 2 * tau + 1)]


def equation_3(i: int, t: int, gamma: float) -> float:
    """Which frame of the source, from 1 on, is the i-th of the clip."""
    return i if i <= t else t + gamma * (i - t)


def nearest_by_search(place: float) -> int:
    """The whole number that is nearest; of two, the larger one."""
    candidates = range(int(place) - 2, int(place) + 3)
    return max(candidates, key=lambda number: (-abs(number - place), number))


@st.composite
def syntheses(draw: Any) -> Synthesis:
    tau = draw(st.integers(1, 8))
    epsilon = draw(st.integers(0, tau))
    rates = draw(
        st.lists(st.sampled_from([0.2, 0.25, 0.3, 1 / 3, 0.5, 0.6, 0.75, 1.5, 2.0, 3.0, 4.0]), min_size=1, max_size=3)
    )
    blend = draw(st.sampled_from([(), ("diff-class",), ("same-class",), PAIRS]))
    return Synthesis(tau, epsilon, blend, tuple(rates))


# --- Weights ----------------------------------------------------------------------------------------------------------


def test_the_drawing() -> None:
    np.testing.assert_array_equal(blend_weights(8, 4, 2)[1], [0, 0, 0.25, 0.5, 0.75, 1, 1, 1])
    np.testing.assert_array_equal(blend_weights(8, 4, 0)[1], [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(blend_weights(8, 4, 1)[1], [0, 0, 0, 0.5, 1, 1, 1, 1])


@given(st.data(), st.integers(2, 40))
def test_weights_are_exact_at_both_ends_and_add_up(data: Any, num_frames: int) -> None:
    change_point = data.draw(st.integers(1, num_frames - 1))
    epsilon = data.draw(st.integers(0, min(change_point, num_frames - change_point)))
    first_L, second_L = blend_weights(num_frames, change_point, epsilon)
    before, behind = change_point - epsilon, change_point + epsilon
    assert (first_L[:before] == 1).all()
    assert (second_L[:before] == 0).all()
    assert (first_L[behind - (epsilon > 0) :] == 0).all()  # frame τ + ε shows the second source alone
    assert (second_L[behind - (epsilon > 0) :] == 1).all()
    assert ((second_L[before : behind - 1] > 0) & (second_L[before : behind - 1] < 1)).all()
    np.testing.assert_allclose(first_L + second_L, 1, atol=1e-12)


# --- Two sources ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tau", "epsilon"), [(4, 2), (4, 1), (4, 4), (3, 3), (8, 3), (1, 1)])
@pytest.mark.parametrize("kind", PAIRS)
def test_a_blend_is_that_of_equation_1(kind: Kind, tau: int, epsilon: int) -> None:
    synthesis = Synthesis(tau, epsilon, PAIRS)
    plan = draw_plan(kind, synthesis, (200, 200), np.random.default_rng(tau), stride=3)
    starts = int(plan.frames[0][0]), int(plan.frames[1][-1]) - 3 * (tau + epsilon - 1)
    expected = equation_1(sampled(0, starts[0], 3), sampled(1, starts[1], 3), tau, epsilon)
    np.testing.assert_array_equal(composed(plan), np.rint(expected))
    assert plan.change_point == tau


@pytest.mark.parametrize("tau", [4, 1, 7])
@pytest.mark.parametrize("kind", PAIRS)
def test_a_hard_cut_is_that_of_equation_2(kind: Kind, tau: int) -> None:
    synthesis = Synthesis(tau, min(2, tau), blend=())
    plan = draw_plan(kind, synthesis, (60, 90), np.random.default_rng(tau), stride=3)
    starts = [int(frames[0]) for frames in plan.frames]
    expected = equation_2(sampled(0, starts[0], 3), sampled(1, starts[1], 3), tau)
    np.testing.assert_array_equal(composed(plan), expected)
    assert plan.change_point == tau


def test_the_paper_blends_diff_class_alone() -> None:
    rng = np.random.default_rng(0)
    plans = {kind: draw_plan(kind, Synthesis(), (50, 50), rng, stride=2) for kind in PAIRS}
    assert plans["diff-class"].weights_SL[1].tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert plans["same-class"].weights_SL[1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("blend", [(), PAIRS])
def test_shifting_cuts_a_window_out_of_a_longer_synthesis(blend: tuple[Kind, ...]) -> None:
    synthesis = Synthesis(4, 2, blend)
    seen = set()
    for seed in range(30):
        plan = draw_plan("same-class", synthesis, (200, 200), np.random.default_rng(seed), stride=2, shift=True)
        assert plan.change_point is not None
        seen.add(plan.change_point)
        long_tau = 2 * synthesis.tau
        cut = long_tau - plan.change_point  # frames of the long one that come before the window
        first = int(plan.frames[0][0]) - 2 * cut
        if blend:
            last = int(plan.frames[1][-1]) + 2 * (long_tau - (synthesis.num_frames - plan.change_point))
            second = last - 2 * (long_tau + synthesis.epsilon - 1)
            long = equation_1(sampled(0, first, 2), sampled(1, second, 2), long_tau, synthesis.epsilon)
        else:
            long = equation_2(sampled(0, first, 2), sampled(1, int(plan.frames[1][0]), 2), long_tau)
        np.testing.assert_array_equal(composed(plan), np.rint(long[cut : cut + synthesis.num_frames]))
    assert seen == {2, 3, 4, 5, 6}


def test_only_frames_that_show_are_used() -> None:
    plan = draw_plan("diff-class", Synthesis(), (50, 50), np.random.default_rng(0), stride=2)
    assert [len(frames) for frames in plan.frames] == [5, 6]
    plan = draw_plan("same-class", Synthesis(), (50, 50), np.random.default_rng(0), stride=2)
    assert [len(frames) for frames in plan.frames] == [4, 4]


# --- One source -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 0.25, 0.3, 2.0, 4.0, 1.5])
@pytest.mark.parametrize("stride", [4, 5, 8])
def test_a_change_of_speed_is_that_of_equation_3(gamma: float, stride: int) -> None:
    synthesis = Synthesis(rates=(gamma,))
    assert synthesis.stride_for(stride) == stride
    for t in range(2, 7):
        plan = speed_plan(synthesis, t, gamma, stride)
        expected = [nearest_by_search(stride * (equation_3(i, t, gamma) - 1)) for i in range(1, 9)]
        assert plan.frames[0].tolist() == expected
        assert plan.change_point == t
        assert plan.rate == gamma


def test_at_stride_1_a_faster_rate_is_the_papers() -> None:
    np.testing.assert_array_equal(speed_ticks(8, 4, 2.0) + 1, [1, 2, 3, 4, 6, 8, 10, 12])
    np.testing.assert_array_equal(speed_ticks(8, 4, 0.5) + 1, [1, 2, 3, 4, 4.5, 5, 5.5, 6])


def test_halfway_takes_the_later_frame_always() -> None:
    assert nearest_frames(np.array([0.5, 1.5, 2.5]), 1).tolist() == [1, 2, 3]


def test_the_same_speed_is_a_clip_as_it_is() -> None:
    plan = draw_plan("same-speed", Synthesis(), (40,), np.random.default_rng(0), stride=3)
    assert np.diff(plan.frames[0]).tolist() == [3] * 7
    assert plan.change_point is None
    expected = [picture(0, int(frame)) for frame in plan.frames[0]]
    np.testing.assert_array_equal(composed(plan), expected)


@pytest.mark.parametrize(("rates", "stride"), [((0.5, 2.0), 2), ((0.25, 0.5), 4), ((0.3,), 4), ((2.0,), 1)])
def test_slow_rates_make_the_stride_of_all_kinds_longer(rates: tuple[float, ...], stride: int) -> None:
    synthesis = Synthesis(rates=rates)
    assert synthesis.stride_for(1) == stride
    assert synthesis.stride_for(8) == 8


# --- Index arithmetic -------------------------------------------------------------------------------------------------


@given(st.data(), syntheses(), st.sampled_from(KINDS), st.integers(1, 9), st.booleans())
def test_plans_stay_in_their_sources_and_repeat_nothing(
    data: Any, synthesis: Synthesis, kind: Kind, frame_stride: int, shift: bool
) -> None:
    stride = synthesis.stride_for(frame_stride)
    needed = synthesis.frames_needed(stride)
    lengths = [needed + data.draw(st.integers(0, 50)) for _ in range(1 + (kind in PAIRS))]
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    plan = draw_plan(kind, synthesis, lengths, rng, stride=stride, shift=shift)
    assert plan.weights_SL.shape == (len(lengths), synthesis.num_frames)
    np.testing.assert_allclose(plan.weights_SL.sum(axis=0), 1, atol=1e-12)
    for frames, weights_L, length in zip(plan.frames, plan.weights_SL, lengths, strict=True):
        assert len(frames) == np.count_nonzero(weights_L) > 0
        assert frames[0] >= 0
        assert frames[-1] < length
        assert (np.diff(frames) >= 1).all()


@given(syntheses(), st.integers(1, 9))
def test_shorter_sources_are_too_short(synthesis: Synthesis, frame_stride: int) -> None:
    stride = synthesis.stride_for(frame_stride)
    needed = synthesis.frames_needed(stride)
    ticks = [
        max(equation_3(i, t, gamma) for i in range(1, synthesis.num_frames + 1))
        for gamma in synthesis.rates
        for t in range(synthesis.change_range[0], synthesis.change_range[1] + 1)
    ]
    spans = [nearest_by_search(stride * (tick - 1)) + 1 for tick in (synthesis.num_frames, min(ticks))]
    assert needed == max(spans)


@pytest.mark.parametrize("kind", ["diff-class", "same-class", "same-speed"])
def test_windows_lie_anywhere_and_alike_in_all_kinds(kind: Kind) -> None:
    """21 frames and windows of 15: seven places. Source 1 shows its window's first frame, source 2 its last."""
    rng = np.random.default_rng(0)
    lengths = (21,) * (1 + (kind in PAIRS))
    plans = [draw_plan(kind, BOTH, lengths, rng, stride=2) for _ in range(300)]
    firsts = Counter(int(plan.frames[0][0]) for plan in plans)
    lasts = Counter(int(plan.frames[-1][-1]) for plan in plans)
    assert sorted(firsts) == [0, 1, 2, 3, 4, 5, 6]
    assert sorted(lasts) == [14, 15, 16, 17, 18, 19, 20]
    assert min(firsts.values()) > 20
    assert min(lasts.values()) > 20


# --- Change points and rates ------------------------------------------------------------------------------------------


def test_a_source_too_short_for_some_change_points_gives_the_others() -> None:
    """At stride 2, rate 2 from frame t on takes 31 - 2t source frames: 23 are enough from t = 4 on."""
    rng = np.random.default_rng(0)
    drawn = Counter(
        (plan.rate, plan.change_point)
        for plan in (draw_plan("diff-speed", Synthesis(), (23,), rng, stride=2) for _ in range(800))
    )
    assert set(drawn) == {(0.5, t) for t in (2, 3, 4, 5, 6)} | {(2.0, t) for t in (4, 5, 6)}
    fast = sum(count for (rate, _), count in drawn.items() if rate == 2.0)
    assert 340 < fast < 460
    assert min(drawn.values()) > 50


def test_a_rate_for_which_a_source_is_too_short_is_not_drawn() -> None:
    rng = np.random.default_rng(0)
    plans = [draw_plan("diff-speed", Synthesis(rates=(0.5, 4.0)), (15,), rng, stride=2) for _ in range(30)]
    assert {plan.rate for plan in plans} == {0.5}


def test_change_points_can_be_chosen() -> None:
    rng = np.random.default_rng(0)
    synthesis = Synthesis(change_points=(3, 4))
    plans = [draw_plan("diff-speed", synthesis, (90,), rng, stride=2) for _ in range(30)]
    assert {plan.change_point for plan in plans} == {3, 4}
    plans = [draw_plan("diff-class", synthesis, (90, 90), rng, stride=2, shift=True) for _ in range(30)]
    assert {plan.change_point for plan in plans} == {3, 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0}, "tau is 0"),
        ({"epsilon": 5}, "epsilon 5; expected tau of at least 1, epsilon from 0 to tau"),
        ({"epsilon": -1}, "epsilon -1"),
        ({"blend": ("same-speed",)}, "only diff-class and same-class have two sources"),
        ({"rates": ()}, "expected one or more above 0"),
        ({"rates": (0.5, 1.0)}, "none of them 1"),
        ({"rates": (0.0,)}, "above 0"),
        ({"rates": (-2.0,)}, "above 0"),
        ({"rates": (float("inf"),)}, "above 0"),
        ({"rates": (float("nan"),)}, "above 0"),
        ({"change_points": (1, 4)}, "change points from 1 to 4: expected 2 to 6"),
        ({"change_points": (2, 7)}, "expected 2 to 6"),
        ({"change_points": (5, 4)}, "from 5 to 4"),
        ({"change_points": (0, 8), "epsilon": 0}, "expected 1 to 7"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Synthesis(**options)


@given(st.integers(1, 12), st.data())
def test_left_out_change_points_always_fit(tau: int, data: Any) -> None:
    low, high = Synthesis(tau, data.draw(st.integers(0, tau))).change_range
    assert 1 <= low <= high == 2 * tau - low
