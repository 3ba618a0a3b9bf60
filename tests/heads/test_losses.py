"""Losses against the formulas as their authors write them, and the batches that lack something."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference_gtad import weighted_bce, weighted_bce_with_ten

from heads.losses import balanced_bce, class_loss, iou_classification_loss, iou_regression_loss, node_loss


def test_balanced_bce_is_bsns_weighting() -> None:
    rng = np.random.default_rng(0)
    probability, positive = rng.uniform(0.01, 0.99, (3, 20)), rng.uniform(size=(3, 20)) > 0.8
    ours = balanced_bce(torch.from_numpy(probability), torch.from_numpy(positive))
    assert ours.item() == pytest.approx(weighted_bce(probability, positive, np.ones_like(positive)), rel=1e-9)


@pytest.mark.parametrize("positives", [0, 4, 60])
def test_a_pseudocount_is_gtads_on_thumos14(positives: int) -> None:
    rng = np.random.default_rng(0)
    probability, iou = rng.uniform(0.01, 0.99, 60), np.where(np.arange(60) < positives, 0.95, 0.9)
    ours = iou_classification_loss(torch.from_numpy(probability), torch.from_numpy(iou), pseudocount=10)
    assert ours.item() == pytest.approx(weighted_bce_with_ten(probability, iou > 0.9), rel=1e-9)


@pytest.mark.parametrize(("positive", "probability"), [(False, 0.2), (True, 0.8)])
def test_balanced_bce_of_one_kind_is_half_its_mean(positive: bool, probability: float) -> None:
    loss = balanced_bce(torch.full((4,), probability), torch.full((4,), positive))
    assert loss.item() == pytest.approx(-0.5 * math.log(0.8), rel=1e-4)


def test_balanced_bce_is_finite_at_zero_and_one() -> None:
    assert balanced_bce(torch.tensor([0.0, 1.0]), torch.tensor([True, False])).item() == pytest.approx(
        -math.log(1e-6), rel=0.02
    )


def test_node_loss_counts_anchors_by_more_than_half() -> None:
    start, end = torch.tensor([[0.9, 0.2]]), torch.tensor([[0.4, 0.3]])
    loss = node_loss(start, end, torch.tensor([[0.51, 0.5]]), torch.tensor([[0.5, 0.75]]))
    expected = -0.5 * (math.log(0.9) + math.log(0.8) + math.log(0.6) + math.log(0.3))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_iou_classification_counts_cells_above_nine_tenths() -> None:
    loss = iou_classification_loss(torch.tensor([[0.9, 0.2, 0.3]]), torch.tensor([[0.91, 0.9, 0.0]]))
    expected = -0.5 * (math.log(0.9) + (math.log(0.8) + math.log(0.7)) / 2)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_regression_takes_all_high_cells_and_about_as_many_of_the_others() -> None:
    """Each kind has its own error, so that the mean tells how many of each were drawn."""
    iou = torch.cat([torch.full((400,), 0.8), torch.full((4000,), 0.5), torch.full((3000,), 0.2), torch.zeros(2000)])
    error = torch.cat([torch.zeros(400), torch.ones(4000), torch.full((3000,), 2.0), torch.full((2000,), 100.0)])
    loss = iou_regression_loss((iou + error)[None], iou[None], torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(0.5 * (0 + 1 + 4) / 3, rel=0.1)


def test_regression_takes_every_cell_of_a_kind_that_is_rarer_than_the_high_ones() -> None:
    iou = torch.tensor([[0.8, 0.9, 0.71, 0.5, 0.7, 0.3, 0.0]])
    error = torch.tensor([[1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 100.0]])
    assert iou_regression_loss(iou + error, iou).item() == pytest.approx(0.5 * (3 * 1 + 2 * 4 + 9) / 6, rel=1e-5)


def test_regression_is_reproducible() -> None:
    prediction, iou = torch.rand(2, 500), torch.rand(2, 500) * 0.75
    losses = [iou_regression_loss(prediction, iou, torch.Generator().manual_seed(seed)).item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_regression_without_a_high_cell_is_zero() -> None:
    assert iou_regression_loss(torch.rand(2, 9), torch.full((2, 9), 0.4)).item() == 0


def test_class_loss_is_the_mean_over_labelled_cells() -> None:
    logits = torch.tensor([[[2.0, 0.0], [9.0, -9.0], [0.0, 1.0]]])
    loss = class_loss(logits, torch.tensor([[0, -1, 0]]))
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.e)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_class_loss_without_a_labelled_cell_is_zero_and_has_a_gradient() -> None:
    logits = torch.randn(1, 3, 2, requires_grad=True)
    loss = class_loss(logits, torch.full((1, 3), -1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0
