"""Rows and levels that follow from the lengths of training segments."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heads.options import ActionFormerOptions, fitting_levels
from heads.points import pyramid_points
from pipeline.data.annotations import Segment, Video
from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline
from pipeline.detection.fitting import fitting_row_step, rows_of_segments


@pytest.mark.parametrize(
    ("rows", "num_snippets", "step"),
    [
        (30, None, 1),  # GTEA: 2 s at 15 rows a second
        (63, None, 1),
        (300, None, 9),  # 10 s at 30 rows a second
        (0.7, None, 1),  # nothing makes rows denser than they are
        (30, 100, 3),
        (2000, 100, 250),
    ],
)
def test_the_median_segment_keeps_as_many_rows_as_a_head_can_use(
    rows: float, num_snippets: int | None, step: int
) -> None:
    assert fitting_row_step(np.array([0.1 * rows, rows, 1.2 * rows]), num_snippets) == step


def test_long_segments_fit_into_half_a_window() -> None:
    lengths_N = np.array([8.0] * 15 + [200.0] * 5)
    assert fitting_row_step(lengths_N, 100) == 4
    assert fitting_row_step(lengths_N, None) == 1


@given(st.floats(1e-3, 1e5))
def test_the_last_level_but_one_is_too_short_for_the_longest_segment_or_is_among_the_published(longest: float) -> None:
    num_levels = fitting_levels(longest)
    points = pyramid_points(2**num_levels, num_levels + 1)
    high = {level: points.high[sum(points.sizes[:level])].item() for level in range(num_levels)}
    assert longest / 2 <= high[num_levels - 1]
    assert num_levels == 6 or longest / 2 > high[num_levels - 2]


def test_options_say_which_levels_they_leave_to_the_segments() -> None:
    assert ActionFormerOptions(num_levels=4).fitted(1e4) == ActionFormerOptions(num_levels=4)
    assert ActionFormerOptions(num_levels=None).fitted(1e4) == ActionFormerOptions(num_levels=12)


def test_lengths_in_rows(tmp_path: Path) -> None:
    with FeatureStore.create_or_resume(tmp_path / "store", StoreHeader()) as store:
        for name, stride in (("a", 0.5), ("b", 0.1)):
            store.add(name, np.zeros((10, 3), np.float32), Timeline(0, stride, stride), 10 * stride)
    segments = (Segment(1, 3, "x"), Segment(0, 4, "other"))
    videos = {name: Video(name, None, "training", segments) for name in "ab"}
    store = FeatureStore.open(tmp_path / "store")
    np.testing.assert_allclose(rows_of_segments(store, videos, ["x"]), [4, 20])
    np.testing.assert_allclose(rows_of_segments(store, videos, ["x"], rescale_rows=5), [2, 10])
    assert not len(rows_of_segments(store, {}, ["x"]))
    assert math.isclose(rows_of_segments(store, videos, ["x", "other"]).sum(), 4 + 8 + 20 + 40)
