"""The points of a pyramid."""

from __future__ import annotations

import pytest
from reference_actionformer import points as slow_points

from heads.points import pyramid_points


@pytest.mark.parametrize("num_rows", [1, 2, 5, 32, 33])
@pytest.mark.parametrize(("num_levels", "range_ratio"), [(1, 2), (3, 2), (6, 4)])
def test_points_are_as_described(num_rows: int, num_levels: int, range_ratio: float) -> None:
    points = pyramid_points(num_rows, num_levels, range_ratio=range_ratio)
    found = list(zip(*(part.tolist() for part in points[:4]), strict=True))
    assert found == slow_points(num_rows, num_levels, range_ratio)
    assert [list(points.stride).count(2**level) for level in range(num_levels)] == list(points.sizes)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (2, [(0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, float("inf"))]),
        (4, [(0, 4), (2, 8), (4, 16), (8, 32), (16, 64), (32, float("inf"))]),
    ],
)
def test_ranges_are_the_published_ones(ratio: float, expected: list[tuple[float, float]]) -> None:
    points = pyramid_points(1, 6, range_ratio=ratio)
    assert list(zip(points.low.tolist(), points.high.tolist(), strict=True)) == expected
