"""Focal and DIoU loss against their formulas and known values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_actionformer import diou, focal

from heads.point_losses import count_positives, diou_loss, focal_loss, iou, smooth_labels


def test_known_values() -> None:
    offsets = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    torch.testing.assert_close(diou_loss(offsets, torch.full((2, 2), 2.0)), torch.tensor([0.44, 1.0]))
    torch.testing.assert_close(focal_loss(torch.tensor(0.0), torch.tensor(1.0)).item(), 0.04332, rtol=0, atol=5e-6)


@given(st.floats(-8, 8), st.floats(0, 1))
def test_focal_loss_is_its_formula_also_between_the_targets(logit: float, target: float) -> None:
    found = focal_loss(torch.tensor(logit, dtype=torch.double), torch.tensor(target, dtype=torch.double))
    assert found.item() == pytest.approx(focal(logit, target), rel=1e-9)


DISTANCES = st.tuples(st.floats(0, 50), st.floats(0, 50))


@given(DISTANCES, DISTANCES)
def test_diou_loss_is_that_of_the_segments(offsets: tuple[float, float], target: tuple[float, float]) -> None:
    found = diou_loss(torch.tensor(offsets, dtype=torch.double), torch.tensor(target, dtype=torch.double))
    assert found.item() == pytest.approx(diou(offsets, target), rel=1e-6, abs=1e-6)


@given(DISTANCES, DISTANCES)
def test_iou_is_that_of_the_segments(offsets: tuple[float, float], target: tuple[float, float]) -> None:
    overlap = min(offsets[1], target[1]) + min(offsets[0], target[0])
    union = sum(offsets) + sum(target) - overlap
    found = iou(torch.tensor(offsets, dtype=torch.double), torch.tensor(target, dtype=torch.double))
    assert found.item() == pytest.approx(overlap / max(union, 1e-8), abs=1e-9)


def test_losses_are_finite_far_out_and_at_nothing() -> None:
    logits = torch.tensor([-200.0, 200.0, -200.0, 200.0], requires_grad=True)
    offsets = torch.zeros(2, 2, requires_grad=True)
    losses = focal_loss(logits, torch.tensor([0.0, 0.0, 1.0, 1.0])), diou_loss(offsets, torch.tensor([[0, 0], [0, 1]]))
    torch.testing.assert_close(losses[0], torch.tensor([0.0, 150.0, 50.0, 0.0]))
    (losses[0].sum() + losses[1].sum()).backward()
    for part in (logits, offsets):
        assert part.grad is not None
        assert part.grad.isfinite().all()


def test_a_segment_of_nothing_is_pulled_towards_its_target() -> None:
    offsets = torch.zeros(1, 2, requires_grad=True)
    diou_loss(offsets, torch.tensor([[2.0, 2.0]])).sum().backward()
    assert offsets.grad is not None
    assert (offsets.grad < 0).all()


def test_smoothed_labels() -> None:
    smoothed = smooth_labels(torch.tensor([[1.0, 0.0, 0.0]]), 0.1)
    torch.testing.assert_close(smoothed, torch.tensor([[0.925, 0.025, 0.025]]))


def test_positives_run_on_in_training_alone() -> None:
    running = torch.tensor(100.0)
    assert count_positives(running, torch.tensor(20), training=False) == 100
    counted = [count_positives(running, torch.tensor(number), training=True) for number in (20, 0)]
    torch.testing.assert_close(torch.stack(counted), torch.tensor([92.0, 0.9 * 92 + 0.1]))
    torch.testing.assert_close(running, counted[1])
