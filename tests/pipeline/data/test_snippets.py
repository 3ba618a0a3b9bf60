"""The arithmetic between seconds, ticks, frames and rows."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.snippets import (
    Sampling,
    SnippetAssembler,
    Timeline,
    sample_flow,
    sample_snippets,
    timeline_of_shares,
    timeline_of_windows,
)

Video = tuple[npt.NDArray[np.float64], float]  # timestamps, duration

LENGTHS = st.integers(1, 12)


@st.composite
def videos(draw: st.DrawFn) -> Video:
    """Timestamps and duration of a video whose frames are shown for 10 to 200 ms each."""
    shown_ms = np.array(draw(st.lists(st.integers(10, 200), min_size=1, max_size=60)))
    ends = np.cumsum(shown_ms) / 1000
    return np.concatenate([[0.0], ends[:-1]]), float(ends[-1])


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    step, number = draw(st.sampled_from([(True, False), (False, True)]))
    return Sampling(
        num_frames=draw(LENGTHS),
        frame_stride=draw(LENGTHS),
        step=draw(st.integers(1, 40)) if step else None,
        num_snippets=draw(st.integers(1, 30)) if number else None,
        fps=draw(st.none() | st.floats(1, 60)),
    )


def constant_rate(num_frames: int, fps: float = 25.0) -> Video:
    return np.arange(num_frames) / fps, num_frames / fps


def indices_of(video_frames: int, **sampling: Any) -> list[list[int]]:
    return sample_snippets(*constant_rate(video_frames), Sampling(**sampling))[0].tolist()


@given(videos(), samplings())
def test_indices_are_frames_in_order(video: Video, sampling: Sampling) -> None:
    indices_TL, _ = sample_snippets(*video, sampling)
    assert indices_TL.shape[1] == sampling.num_frames
    assert indices_TL.dtype == np.int64
    assert indices_TL.min() >= 0
    assert indices_TL.max() < len(video[0])
    assert (np.diff(indices_TL, axis=0) >= 0).all()
    assert (np.diff(indices_TL, axis=1) >= 0).all()


@given(videos(), samplings())
def test_each_frame_is_on_screen_in_the_middle_of_its_tick(video: Video, sampling: Sampling) -> None:
    """Slow reference: start of each snippet in exact fractions, then a walk over the frames for what is shown."""
    timestamps, duration = video
    rate = sampling.fps or len(timestamps) / duration
    num_ticks = max(1, round(duration * rate))
    indices_TL, timeline = sample_snippets(timestamps, duration, sampling)
    for i, row in enumerate(indices_TL):
        if sampling.step:
            start = i * sampling.step
        else:
            centre = Fraction(2 * i + 1, 2 * sampling.num_snippets) * num_ticks
            start = math.floor(centre - Fraction(sampling.span, 2) + Fraction(1, 2))
        assert abs((timeline.offset + i * timeline.stride) * rate - start) <= 1 + 1e-6
        for j, frame in enumerate(row):
            tick = start + j * sampling.frame_stride + (sampling.frame_stride - 1) // 2
            time = (min(max(tick, 0), num_ticks - 1) + 0.5) / rate
            assert timestamps[frame] <= time + 1e-9
            assert frame + 1 == len(timestamps) or timestamps[frame + 1] >= time - 1e-9


@given(videos(), samplings().filter(lambda sampling: sampling.step is not None))
def test_as_many_snippets_as_cover_the_last_tick(video: Video, sampling: Sampling) -> None:
    timestamps, duration = video
    num_ticks = max(1, round(duration * (sampling.fps or len(timestamps) / duration)))
    num_rows = len(sample_snippets(timestamps, duration, sampling)[0])
    assert (num_rows - 1) * sampling.step < num_ticks, "the last snippet starts inside the video"
    if num_rows > 1:
        assert (num_rows - 2) * sampling.step + sampling.span < num_ticks, "one snippet less would not cover it"
    if sampling.step <= sampling.span:
        assert (num_rows - 1) * sampling.step + sampling.span >= num_ticks


@given(videos(), samplings().filter(lambda sampling: sampling.num_snippets is not None))
def test_a_number_of_snippets_is_centred_uniformly(video: Video, sampling: Sampling) -> None:
    indices_TL, timeline = sample_snippets(*video, sampling)
    T = sampling.num_snippets
    assert len(indices_TL) == T
    np.testing.assert_allclose(timeline.centers(T), (np.arange(T) + 0.5) / T * video[1], atol=1e-9)


@given(st.integers(1, 300), st.floats(5, 120), st.integers(0, 3))
def test_at_constant_rate_ticks_are_frames_even_with_rounded_timestamps(
    num_frames: int, fps: float, digits: int
) -> None:
    timestamps, duration = constant_rate(num_frames, fps)
    timestamps = np.round(timestamps, 3 + digits)  # Matroska keeps milliseconds
    indices_TL, timeline = sample_snippets(timestamps, duration, Sampling(num_frames=1, frame_stride=1, step=1))
    assert indices_TL.ravel().tolist() == list(range(num_frames))
    np.testing.assert_allclose(timeline.stride, 1 / fps)


def test_the_drawings_of_the_docstring() -> None:
    assert indices_of(8, num_frames=3, frame_stride=2, step=4) == [[0, 2, 4], [4, 6, 7]]
    assert indices_of(8, num_frames=3, frame_stride=2, num_snippets=2) == [[0, 1, 3], [3, 5, 7]]


@pytest.mark.parametrize(
    ("video_frames", "expected"),
    [
        (1, [[0, 0, 0]]),
        (3, [[0, 1, 2]]),
        (4, [[0, 1, 2], [2, 3, 3]]),
        (5, [[0, 1, 2], [2, 3, 4]]),
    ],
)
def test_the_last_snippet_repeats_the_last_frame(video_frames: int, expected: list[list[int]]) -> None:
    assert indices_of(video_frames, num_frames=3, frame_stride=1, step=2) == expected


def test_steps_longer_than_a_snippet_never_start_behind_the_end() -> None:
    assert indices_of(10, num_frames=2, frame_stride=1, step=10) == [[0, 1]]
    assert indices_of(11, num_frames=2, frame_stride=1, step=10) == [[0, 1], [10, 10]]


def test_lofi_setting() -> None:
    indices_TL, timeline = sample_snippets(
        *constant_rate(3000), Sampling(num_frames=8, frame_stride=8, num_snippets=100)
    )
    assert indices_TL.shape == (100, 8)
    assert indices_TL[50].tolist() == [1483 + 3 + 8 * j for j in range(8)]
    assert timeline == Timeline(offset=(1.2 - 64 / 25) / 2, stride=1.2, length=64 / 25)


def test_fixed_rate_clock() -> None:
    """A 25 fps video at 5 fps: the frame in the middle of each fifth of a second."""
    timestamps, duration = constant_rate(25)
    indices_TL, timeline = sample_snippets(
        timestamps, duration, Sampling(num_frames=1, frame_stride=1, step=1, fps=5.0)
    )
    assert indices_TL.ravel().tolist() == [2, 7, 12, 17, 22]
    assert timeline == Timeline(offset=0.0, stride=0.2, length=0.2)


def test_variable_frame_rate_keeps_the_timeline_in_real_seconds() -> None:
    """Ten frames in the first second, then one that is shown for nine: most ticks show the last frame."""
    timestamps = np.concatenate([np.arange(10) / 10, [1.0]])
    indices_TL, timeline = sample_snippets(timestamps, 10.0, Sampling(num_frames=1, frame_stride=1, step=1, fps=2.0))
    assert indices_TL.ravel().tolist() == [2, 7, *[10] * 18]
    assert timeline.stride == 0.5


@pytest.mark.parametrize(("timestamps", "duration"), [([], 1.0), ([0.0, 1.0], 1.0), ([0.0], math.nan)])
def test_a_video_without_frames_or_duration_is_refused(timestamps: list[float], duration: float) -> None:
    with pytest.raises(ValueError, match="needs frames and a duration"):
        sample_snippets(np.array(timestamps), duration, Sampling(num_frames=1, frame_stride=1, step=1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"step": 2, "num_snippets": 3}, "either step or num_snippets"),
        ({}, "either step or num_snippets"),
        ({"step": 0}, r"sampling.step is 0"),
        ({"step": 1, "fps": math.inf}, r"sampling.fps is inf"),
    ],
)
def test_sampling_checks_itself(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(num_frames=2, frame_stride=1, **wrong)


def test_timeline_centers_and_round_trip() -> None:
    timeline = Timeline(offset=1.0, stride=2.0, length=3.0)
    assert timeline.centers(3).tolist() == [2.5, 4.5, 6.5]
    assert Timeline.from_dict({"id": "x", **timeline.as_dict()}) == timeline


@pytest.mark.parametrize("wrong", [(0, 0, 1), (0, 1, 0), (math.nan, 1, 1), (0, math.inf, 1)])
def test_timeline_checks_itself(wrong: Any) -> None:
    with pytest.raises(ValueError, match="timeline needs"):
        Timeline(*wrong)


RATES = st.floats(1, 120)


@given(st.integers(1, 5000), LENGTHS, LENGTHS, RATES)
def test_sliding_windows_end_within_one_row_of_the_video(frames: int, stride: int, window: int, fps: float) -> None:
    """However the tail is treated: only whole windows, or as many as it takes to cover the last frame."""
    timeline = timeline_of_windows(stride, window, fps)
    whole = max(1, 1 + (frames - window) // stride)
    covering = 1 + max(0, -(-(frames - window) // stride))
    for T in (whole, covering):
        starts = np.arange(T) * stride
        np.testing.assert_allclose(timeline.centers(T), (starts + window / 2) / fps)
        assert timeline.end(T) == pytest.approx((starts[-1] + window) / fps)
        assert abs(timeline.end(T) - frames / fps) <= max(stride, window) / fps + 1e-9


@given(st.integers(1, 5000), st.floats(0, 10), st.floats(0.1, 1e4))
def test_shares_meet_end_to_end_and_fill_the_seconds(num_rows: int, offset: float, seconds: float) -> None:
    timeline = timeline_of_shares(num_rows, offset + seconds, offset)
    assert timeline.length == timeline.stride
    assert timeline.offset == offset
    assert timeline.end(num_rows) == pytest.approx(offset + seconds)


@given(st.integers(1, 5000), st.floats(-5, 5), st.floats(0.01, 10), st.floats(0.01, 10))
def test_rows_until_is_the_inverse_of_end(num_rows: int, offset: float, stride: float, length: float) -> None:
    timeline = Timeline(offset, stride, length)
    assert timeline.rows_until(timeline.end(num_rows)) == pytest.approx(num_rows)


def test_timelines_made_elsewhere_check_themselves() -> None:
    with pytest.raises(ValueError, match="frame rate is 0"):
        timeline_of_windows(16, 16, 0)
    with pytest.raises(ValueError, match="above zero"):
        timeline_of_windows(16, 0, 25)
    with pytest.raises(ValueError, match="above zero"):
        timeline_of_shares(5, 1.0, offset=1.0)


@given(videos(), samplings())
def test_assembler_gives_each_snippet_its_frames(video: Video, sampling: Sampling) -> None:
    indices_TL, _ = sample_snippets(*video, sampling)
    assembler = SnippetAssembler(indices_TL)
    assert assembler.frames.tolist() == sorted(set(indices_TL.ravel().tolist()))
    rows = [row for frame in assembler.frames for row in assembler.push(int(frame))]
    assert rows == indices_TL.tolist()


def test_assembler_holds_no_more_than_one_snippet_spans() -> None:
    assembler = SnippetAssembler(np.arange(16) + 4 * np.arange(100)[:, None])
    held = []
    for frame in assembler.frames:
        list(assembler.push(frame))
        held.append(len(assembler._window))
    assert max(held) <= 16
    assert held[-1] == 0


@given(videos(), samplings())
def test_a_flow_is_from_the_frame_of_its_tick_to_that_of_the_next(video: Video, sampling: Sampling) -> None:
    pairs_P2, indices_TL, timeline = sample_flow(*video, sampling)
    frames_TL, expected_timeline = sample_snippets(*video, sampling)
    assert timeline == expected_timeline
    assert len(np.unique(pairs_P2, axis=0)) == len(pairs_P2) == indices_TL.max() + 1
    assert (np.diff(indices_TL, axis=0) >= 0).all()
    assert (np.diff(indices_TL, axis=1) >= 0).all()
    from_TL, to_TL = np.moveaxis(pairs_P2[indices_TL], 2, 0)
    np.testing.assert_array_equal(from_TL, frames_TL)
    # Dense flows follow each other: where one ends, the next one begins.
    dense_P2, dense_TL, _ = sample_flow(*video, replace(sampling, frame_stride=1))
    np.testing.assert_array_equal(dense_P2[dense_TL][:, :-1, 1], dense_P2[dense_TL][:, 1:, 0])
    assert to_TL.max() < len(video[0])


def test_the_drawing_of_flows() -> None:
    pairs_P2, indices_TL, _ = sample_flow(*constant_rate(4), Sampling(num_frames=3, frame_stride=1, step=2))
    assert pairs_P2[indices_TL].tolist() == [[[0, 1], [1, 2], [2, 3]], [[2, 3], [3, 3], [3, 3]]]


def test_flows_go_to_the_next_tick_whatever_the_stride_of_frames() -> None:
    pairs_P2, indices_TL, _ = sample_flow(*constant_rate(8), Sampling(num_frames=2, frame_stride=4, step=8))
    assert pairs_P2[indices_TL].tolist() == [[[1, 2], [5, 6]]]


def test_before_the_video_the_picture_stands_still() -> None:
    pairs_P2, indices_TL, _ = sample_flow(*constant_rate(4), Sampling(num_frames=6, frame_stride=1, num_snippets=1))
    assert pairs_P2[indices_TL].tolist() == [[[0, 0], [0, 1], [1, 2], [2, 3], [3, 3], [3, 3]]]


def test_a_frame_that_two_ticks_show_has_a_flow_that_rests_and_one_that_goes_on() -> None:
    """Two frames of half a second, on a clock of four ticks a second."""
    sampling = Sampling(num_frames=4, frame_stride=1, step=4, fps=4.0)
    pairs_P2, indices_TL, _ = sample_flow(*constant_rate(2, fps=2.0), sampling)
    assert pairs_P2[indices_TL].tolist() == [[[0, 0], [0, 1], [1, 1], [1, 1]]]
