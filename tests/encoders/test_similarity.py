"""SoLa's targets and losses against the slow ones of `reference_sola`, and what the supplement derives from them."""

import numpy as np
import pytest
import reference_sola as reference
import torch
from numpy.typing import NDArray

from encoders.similarity import nt_xent_in, nt_xent_out, predicted_tsm, similarity_bce, target_tsm

Array = NDArray[np.float64]


def pair(batch: int = 3, size: int = 5, channels: int = 4) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, size, channels)), rng.standard_normal((batch, size, channels))


@pytest.mark.parametrize("k", [4.0, 16.0])
def test_targets_follow_equation_1(k: float) -> None:
    np.testing.assert_allclose(target_tsm(8, k).numpy(), reference.target_tsm(8, k), rtol=1e-6)


def test_targets_have_the_golden_values_of_the_default() -> None:
    golden = [1, 1.000, 0.982, 0.855, 0.731, 0.655, 0.609, 0.581]
    np.testing.assert_allclose(target_tsm(8, 16.0)[0].numpy(), golden, atol=5e-4)


def test_predictions_follow_equation_2() -> None:
    rows_BSC, columns_BSC = pair()
    found = predicted_tsm(torch.from_numpy(rows_BSC), torch.from_numpy(columns_BSC))
    np.testing.assert_allclose(found.numpy(), reference.predicted_tsm(rows_BSC, columns_BSC))


def test_similarity_matching_follows_equation_3() -> None:
    rows_BSC, columns_BSC = pair()
    target_SS = reference.target_tsm(5, 16.0)
    found = similarity_bce(torch.from_numpy(rows_BSC), torch.from_numpy(columns_BSC), torch.from_numpy(target_SS))
    expected = reference.similarity_bce(reference.predicted_tsm(rows_BSC, columns_BSC), target_SS)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_similarity_matching_stays_finite_where_features_point_the_same_or_the_opposite_way() -> None:
    rows_BSC = torch.ones(1, 4, 3)
    for sign in (1, -1):
        assert similarity_bce(rows_BSC, sign * rows_BSC, target_tsm(4, 16.0)).isfinite()


@pytest.mark.parametrize(("fast", "slow"), [(nt_xent_in, reference.nt_xent_in), (nt_xent_out, reference.nt_xent_out)])
def test_softened_nt_xent_follows_the_supplement(fast: object, slow: object) -> None:
    rows_BSC, columns_BSC = pair()
    target_SS = reference.target_tsm(5, 16.0)
    found = fast(*map(torch.from_numpy, (rows_BSC, columns_BSC, target_SS)))  # type: ignore[operator]
    assert found.item() == pytest.approx(slow(rows_BSC, columns_BSC, target_SS), rel=1e-9)  # type: ignore[operator]


def test_a_discrete_lambda_gives_back_nt_xent() -> None:
    rows_BSC, columns_BSC = pair()
    positive_SS = reference.one_positive_a_row(5)
    tensors = [torch.from_numpy(array) for array in (rows_BSC, columns_BSC, positive_SS)]
    expected_in, expected_out = reference.nt_xent_of_discrete(rows_BSC, columns_BSC, positive_SS)
    assert nt_xent_in(*tensors).item() == pytest.approx(expected_in, rel=1e-9)
    assert nt_xent_out(*tensors).item() == pytest.approx(expected_out, rel=1e-9)


def test_a_single_pair_is_equation_4_and_leads_to_similarity_matching() -> None:
    rows_BSC = np.array([[[1.0, 0.0], [0.6, 0.8]]])
    positiveness, sim = 0.3, 0.6
    target_SS = np.array([[1, positiveness], [positiveness, 1]])
    found = nt_xent_out(*map(torch.from_numpy, (rows_BSC, rows_BSC, target_SS))).item()
    assert found == pytest.approx(reference.single_pair_out(sim, positiveness))
    assert found == pytest.approx(reference.single_pair_out_as_bce(sim, positiveness))
    p = 1 - np.exp(-sim)
    assert reference.similarity_matching_from_single_pair(sim, positiveness) == pytest.approx(
        reference.bce(p, positiveness)
    )


def test_inside_the_exponent_a_single_pair_has_nothing_to_learn() -> None:
    rows_BSC = torch.randn(1, 2, 4, dtype=torch.float64)
    assert nt_xent_in(rows_BSC, rows_BSC, target_tsm(2, 16.0)).item() == pytest.approx(0, abs=1e-12)
