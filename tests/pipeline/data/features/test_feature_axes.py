"""Which axis is time is told by what the arrays show, and asked for where they show nothing."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.features.feature_axes import Layout, Sample, decide_layout, squeeze, to_rows


def decide(shapes: Any, expected: Any = None, **options: Any) -> Layout:
    samples = [Sample(shape, rows) for shape, rows in zip(shapes, expected or [None] * len(shapes), strict=True)]
    defaults: dict[str, Any] = {"axes": None, "channels": None, "lines_are_rows": False, "near": 0.1}
    return decide_layout(samples, **(defaults | options))


@given(st.integers(1, 5000), st.lists(st.integers(1, 5000), min_size=2, max_size=30, unique=True))
def test_the_axis_of_one_size_holds_the_channels(channels: int, rows: list[int]) -> None:
    assert decide([(T, channels) for T in rows])[::2] == ("tc", channels)
    assert decide([(channels, T) for T in rows])[::2] == ("ct", channels)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 9))
def test_arrays_of_one_shape_need_to_be_told(first: int, second: int, count: int) -> None:
    with pytest.raises(ValueError, match=rf"\({first}, {second}\) do not tell .* --axes tc .* --axes ct"):
        decide([(first, second)] * count)
    assert decide([(first, second)] * count, axes="tc").channels == second
    assert decide([(first, second)] * count, axes="ct").channels == first


def test_a_few_wrong_arrays_do_not_decide() -> None:
    assert decide([(T, 4) for T in range(10, 19)] + [(10, 5)]).axes == "tc"
    with pytest.raises(ValueError, match="do not tell"):
        decide([(100, 400)] * 9 + [(100, 200)])


def test_the_duration_decides_between_arrays_of_one_shape() -> None:
    assert decide([(100, 400)], [104.0]).axes == "tc"
    assert decide([(400, 100)], [104.0]).axes == "ct"
    assert decide([(100, 400)] * 2, [None, 104.0]).reason == "the duration fits"
    with pytest.raises(ValueError, match="do not tell"):
        decide([(100, 400)], [200.0])
    with pytest.raises(ValueError, match="do not tell"):
        decide([(100, 105)], [104.0])


def test_the_store_decides_before_the_shapes() -> None:
    assert decide([(100, 400)], channels=400) == Layout("tc", "400 channels as in the store", 400)
    assert decide([(100, 400)], channels=100).axes == "ct"
    assert decide([(7, 3), (8, 3)], channels=5).channels == 5


def test_a_line_of_text_is_a_row_unless_shapes_say_otherwise() -> None:
    assert decide([(100, 400)], lines_are_rows=True).axes == "tc"
    assert decide([(400, 90), (400, 80)], lines_are_rows=True).axes == "ct"


@pytest.mark.parametrize("shape", [(5, 3), (1, 5, 3), (5, 3, 1, 1), (5, 1, 1, 3), (1, 5, 1, 3, 1)])
def test_axes_of_size_1_are_left_out(shape: tuple[int, ...]) -> None:
    features_TC = np.arange(15.0).reshape(5, 3)
    np.testing.assert_array_equal(to_rows(features_TC.reshape(shape), Layout("tc", "", 3)), features_TC)
    turned = np.ascontiguousarray(features_TC.T).reshape([3 if n == 5 else 5 if n == 3 else n for n in shape])
    np.testing.assert_array_equal(to_rows(turned, Layout("ct", "", 3)), features_TC)


@pytest.mark.parametrize(
    ("shape", "squeezed"),
    [
        ((1, 3), (1, 3)),
        ((3, 1), (3, 1)),
        ((1, 3, 1, 1), (1, 3)),
        ((1, 1, 1), (1, 1)),
        ((2, 3, 4), (2, 3, 4)),
        ((3,), (3,)),
    ],
)
def test_what_squeezing_makes_of_few_or_many_sizes(shape: tuple[int, ...], squeezed: tuple[int, ...]) -> None:
    assert squeeze(np.zeros(shape)).shape == squeezed


def test_one_vector_a_video_is_refused() -> None:
    """Such as the global features that TSP computes besides."""
    for layout in (None, Layout("tc", "", 512)):
        with pytest.raises(ValueError, match=r"\(512,\): one vector"):
            to_rows(np.zeros(512), layout)


@pytest.mark.parametrize("shape", [(5, 4), (5, 3, 2), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(T, 3\) as most have$"):
        to_rows(np.zeros(shape), Layout("tc", "", 3))
    with pytest.raises(ValueError, match=r"expected \(T, C\) or \(C, T\)"):
        to_rows(np.zeros(shape), None)


def test_an_array_that_lies_the_other_way_is_named_so() -> None:
    with pytest.raises(ValueError, match=r"\(3, 7\), expected \(T, 3\) as most have; it seems to lie the other way"):
        to_rows(np.zeros((3, 7)), Layout("tc", "", 3))
