import numpy as np
import pytest
import reference_sola as reference

from pipeline.measures.self_similarity import (
    average_tsm,
    by_interval,
    self_similarity,
    similarity_std,
    subsequence_length,
)


def features(rows: int, channels: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(loc=0.3, size=(rows, channels)).astype(np.float32)


@pytest.mark.parametrize(("rows", "channels"), [(1, 3), (4, 9), (9, 4)])
def test_similarity_and_its_deviation_are_those_of_the_definition(rows: int, channels: int) -> None:
    features_TC = features(rows, channels)
    expected_TT = reference.self_similarity(features_TC)
    np.testing.assert_allclose(self_similarity(features_TC), expected_TT, atol=1e-12)
    assert similarity_std(features_TC) == pytest.approx(float(np.std(expected_TT)), abs=1e-7)


def test_a_row_of_zeros_is_similar_to_nothing() -> None:
    features_TC = features(5, 3)
    features_TC[2] = 0
    np.testing.assert_allclose(self_similarity(features_TC), reference.self_similarity(features_TC), atol=1e-12)
    assert not self_similarity(features_TC)[2].any()


def test_rows_that_are_all_the_same_do_not_deviate() -> None:
    assert similarity_std(np.full((40, 7), 0.1, np.float32)) < 1e-7


@pytest.mark.parametrize(("size", "step", "rows"), [(2, 1, 2), (3, 2, 5), (3, 2, 11), (4, 1, 9), (1, 3, 4)])
def test_the_average_is_over_every_subsequence(size: int, step: int, rows: int) -> None:
    features_TC = features(rows, 4)
    assert rows >= subsequence_length(size, step)
    expected_SS = reference.average_tsm(features_TC, size, step)
    np.testing.assert_allclose(average_tsm(features_TC, size, step), expected_SS, atol=1e-12)


def test_by_interval_is_the_mean_of_each_diagonal() -> None:
    tsm_33 = np.array([[1.0, 0.8, 0.2], [0.8, 1.0, 0.6], [0.2, 0.6, 1.0]])
    np.testing.assert_allclose(by_interval(tsm_33), [1.0, 0.7, 0.2])
