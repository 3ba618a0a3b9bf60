"""Soft-NMS and voting against loops over the boxes of one video."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_actionformer import vote as slow_vote
from reference_gtad import soft_nms as slow_soft_nms
from torch import Tensor

import heads.nms
from heads.nms import soft_nms, vote


def random_boxes(seed: int, videos: int, boxes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(videos, boxes, generator=generator, dtype=torch.double) * 80
    end = start + 1 + torch.rand(videos, boxes, generator=generator, dtype=torch.double) * 50
    scores = torch.rand(videos, boxes, generator=generator, dtype=torch.double)
    return torch.stack([start, end], dim=2), scores * (scores > 0.2)


@pytest.mark.parametrize(("method", "sigma", "length"), [("gaussian", 0.8, None), ("bmn", 0.4, 130.0)])
@given(seed=st.integers(0, 1000), boxes=st.integers(1, 25), keep=st.integers(1, 30))
def test_equals_the_loop(method: str, sigma: float, length: float | None, seed: int, boxes: int, keep: int) -> None:
    segments, scores = random_boxes(seed, 3, boxes)
    kept, kept_scores, index = soft_nms(segments, scores, keep=keep, sigma=sigma, method=method, length=length)
    for video in range(3):
        expected = slow_soft_nms(segments[video].tolist(), scores[video].tolist(), keep, sigma, length)
        num = len(expected)
        assert index[video, :num].tolist() == [place for place, _ in expected]
        assert kept_scores[video, :num].tolist() == pytest.approx([score for _, score in expected], rel=1e-9)
        assert kept[video, :num].tolist() == segments[video, index[video, :num]].tolist()
        assert not kept_scores[video, num:].any()
        assert not kept[video, num:].any()


def test_gaussian_by_hand() -> None:
    # [0, 4] and [2, 6] overlap by a third; [8, 9] overlaps neither.
    segments = torch.tensor([[[0.0, 4.0], [2.0, 6.0], [8.0, 9.0]]])
    _, scores, index = soft_nms(segments, torch.tensor([[0.9, 0.8, 0.75]]), keep=3, sigma=0.5)
    assert index.tolist() == [[0, 2, 1]]
    assert scores[0].tolist() == pytest.approx([0.9, 0.75, 0.8 * math.exp(-1 / 9 / 0.5)])


def test_scores_that_nothing_lowers_come_back_to_the_bit_and_all_in_descending_order() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(1, 500, generator=generator)
    start = torch.arange(500.0)
    apart = torch.stack([2 * start, 2 * start + 1], dim=1)[None]
    assert torch.equal(soft_nms(apart, scores, keep=500)[1], scores.sort(descending=True).values)
    near = torch.stack([start, start + 20 * torch.rand(500, generator=generator)], dim=1)[None]
    lowered = soft_nms(near, scores, keep=500)[1]
    assert torch.equal(lowered, lowered.sort(descending=True).values)


def test_a_segment_without_length_lowers_nothing_and_is_not_lowered() -> None:
    segments, scores = torch.tensor([[[3.0, 3.0], [3.0, 3.0], [0.0, 5.0]]]), torch.tensor([[0.9, 0.8, 0.7]])
    _, kept, index = soft_nms(segments, scores, keep=3)
    assert torch.equal(kept, scores)
    assert index.tolist() == [[0, 1, 2]]


def test_bmn_spares_more_beside_a_wide_segment() -> None:
    # IoU 0.6: lowered beside a segment of a tenth of the video (above 0.54), spared beside one of a half (below 0.7).
    segments, scores = torch.tensor([[[0.0, 10.0], [0.0, 6.0]]]), torch.tensor([[0.9, 0.8]])
    _, lowered, _ = soft_nms(segments, scores, keep=2, sigma=0.4, method="bmn", length=100.0)
    _, spared, _ = soft_nms(segments, scores, keep=2, sigma=0.4, method="bmn", length=20.0)
    assert lowered[0].tolist() == pytest.approx([0.9, 0.8 * math.exp(-0.36 / 0.4)])
    assert spared[0].tolist() == pytest.approx([0.9, 0.8])


def test_bmn_needs_the_length() -> None:
    with pytest.raises(ValueError, match="give length="):
        soft_nms(*random_boxes(0, 1, 3), keep=2, method="bmn")


def test_the_first_of_equal_scores_comes_first() -> None:
    segments = torch.tensor([[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]])
    assert soft_nms(segments, torch.full((1, 3), 0.5), keep=3)[2].tolist() == [[0, 1, 2]]


def test_leaves_its_arguments_alone() -> None:
    segments, scores = random_boxes(0, 2, 9)
    before = scores.clone()
    soft_nms(segments, scores, keep=9)
    assert torch.equal(scores, before)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    segments, scores = random_boxes(0, 7, 9)
    whole = soft_nms(segments, scores, keep=5)
    monkeypatch.setattr(heads.nms, "_BOXES_AT_A_TIME", 18)
    for ours, expected in zip(soft_nms(segments, scores, keep=5), whole, strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize(("videos", "boxes"), [(0, 5), (2, 5), (2, 0)])
def test_nothing_to_keep(videos: int, boxes: int) -> None:
    segments, scores, index = soft_nms(torch.ones(videos, boxes, 2), torch.zeros(videos, boxes), keep=4)
    assert segments.shape == (videos, 4, 2)
    assert not segments.any()
    assert not scores.any()
    assert not index.any()


# --- Voting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", ["score-iou", "score"])
@given(seed=st.integers(0, 1000), boxes=st.integers(1, 25), keep=st.integers(1, 30), threshold=st.floats(0.01, 1.0))
def test_votes_equal_the_loop(weight: Any, seed: int, boxes: int, keep: int, threshold: float) -> None:
    segments, scores = random_boxes(seed, 3, boxes)
    kept, kept_scores, _ = soft_nms(segments, scores, keep=keep)
    voted = vote(kept, segments, scores, threshold=threshold, weight=weight)
    for video in range(3):
        number = int((kept_scores[video] > 0).sum())
        expected = [
            slow_vote(segment, segments[video].tolist(), scores[video].tolist(), threshold, weight)
            for segment in kept[video, :number].tolist()
        ]
        assert voted[video, :number].tolist() == [pytest.approx(segment, rel=1e-9) for segment in expected]
        assert not voted[video, number:].any()  # padding


def test_votes_by_hand() -> None:
    # Beside [0, 10] itself, [1, 10] has an IoU of 0.9 with it, [0, 8] one of 0.8.
    segments = torch.tensor([[[0.0, 10.0], [1.0, 10.0], [0.0, 8.0], [20.0, 30.0]]])
    scores = torch.tensor([[0.9, 0.6, 0.5, 0.7]])

    def voted(weight: Any, threshold: float) -> list[float]:
        moved: list[float] = vote(segments[:, :1], segments, scores, threshold=threshold, weight=weight)[0, 0].tolist()
        return moved

    assert voted("score-iou", 0.9) == pytest.approx([0.54 / 1.44, 10])
    assert voted("score", 0.9) == pytest.approx([0.6 / 1.5, 10])
    assert voted("score-iou", 0.8) == pytest.approx([0.54 / 1.84, (9 + 5.4 + 3.2) / 1.84])
    assert voted("score", 0.95) == [0, 10]


def test_votes_in_portions_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    segments, scores = random_boxes(0, 4, 9)
    whole = vote(segments, segments, scores, threshold=0.3)
    monkeypatch.setattr(heads.nms, "_BOXES_AT_A_TIME", 80)
    torch.testing.assert_close(vote(segments, segments, scores, threshold=0.3), whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("videos", "kept", "boxes"), [(0, 4, 5), (2, 0, 5), (2, 4, 0)])
def test_nothing_to_vote_for(videos: int, kept: int, boxes: int) -> None:
    segments = torch.ones(videos, kept, 2)
    assert torch.equal(vote(segments, torch.ones(videos, boxes, 2), torch.ones(videos, boxes), threshold=0.5), segments)
