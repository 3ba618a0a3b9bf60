"""TemporalMaxer: sizes, the network, loss and decoding against their literal forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_actionformer import decode as slow_decode
from reference_temporalmaxer import loss as slow_loss
from reference_temporalmaxer import network
from torch import nn

from heads.point_decoding import PointOutput
from heads.points import pyramid_points
from heads.temporalmaxer import TemporalMaxer, cheapest_offsets


def small(**kwargs: Any) -> TemporalMaxer:
    """Scales and biases far from their first values, so that whatever they do is seen."""
    torch.manual_seed(0)
    head = TemporalMaxer(8, **{"hidden": 16, "num_levels": 3, **kwargs})
    for name, parameter in head.named_parameters():
        if parameter.ndim == 1 and "classify.out" not in name:
            nn.init.uniform_(parameter, 0.2, 1)
    return head


def random_output(head: TemporalMaxer, lengths: list[int]) -> PointOutput:
    """Logits and offsets at random, some of which are 0, for padded sequences."""
    generator = torch.Generator().manual_seed(0)
    points = pyramid_points(max(lengths), head.num_levels)
    shape = (len(lengths), len(points.time))
    logits = torch.randn(*shape, max(1, head.num_classes), generator=generator)
    offsets = 3 * torch.randn(*shape, 2, generator=generator).relu()
    return PointOutput(logits, offsets, points.time < torch.tensor(lengths)[:, None], points)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("channels", "options", "expected"),
    [
        (2048, {"num_classes": 20}, 7_117_852),  # THUMOS14
        (2304, {"num_classes": 97, "level_norm": "layer"}, 7_630_441),  # EPIC-Kitchens' verbs
        (2304, {"num_classes": 300}, 7_941_428),  # its nouns
        (1024, {"num_classes": 65, "level_norm": "layer", "num_convolutions": 3}, 6_402_633),  # MultiTHUMOS
    ],
)
def test_parameters_as_in_the_original(channels: int, options: dict[str, Any], expected: int) -> None:
    assert count(TemporalMaxer(channels, **options)) == expected


def test_parts_as_in_the_original_on_thumos14() -> None:
    head = TemporalMaxer(2048, num_classes=20)
    counts = [count(part) for part in (head.embedding, head.pool, head.norm, head.classify, head.regress)]
    assert counts == [3_934_208, 0, 0, 1_605_652, 1_577_992 - 6]


@pytest.mark.parametrize("num_rows", [1, 2, 3, 11, 40])
@pytest.mark.parametrize("level_norm", ["group", "layer"])
def test_the_network_equals_its_literal_form(num_rows: int, level_norm: str) -> None:
    head = small(num_classes=3, level_norm=level_norm, num_convolutions=3).eval()
    feats_CT = torch.randn(8, num_rows)
    with torch.no_grad():
        output = head(feats_CT[None])
        logits_PK, offsets_P2 = network(head, feats_CT)
    torch.testing.assert_close(output.logits[0], logits_PK, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.offsets[0], offsets_P2, rtol=1e-4, atol=1e-4)
    assert output.valid.all()


@pytest.mark.parametrize(("num_rows", "padded_rows"), [(5, 24), (24, 24), (25, 28), (41, 44)])
def test_statistics_over_padding_count_zeros_up_to_crop_rows_or_a_multiple_of_the_stride(
    num_rows: int, padded_rows: int
) -> None:
    head = small(num_classes=3, padded_statistics=True, crop_rows=24).eval()
    feats_CT = torch.randn(8, num_rows)
    with torch.no_grad():
        output = head(feats_CT[None])
        logits_PK, offsets_P2 = network(head, feats_CT, padded_rows=padded_rows)
    torch.testing.assert_close(output.logits[0], logits_PK, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.offsets[0], offsets_P2, rtol=1e-4, atol=1e-4)


@st.composite
def videos_with_segments(draw: st.DrawFn) -> tuple[list[int], list[list[tuple[float, float]]], list[list[int]]]:
    """Lengths, segments on a grid of quarters that may lie outside, and classes, -1 for none."""
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    ends = st.tuples(st.integers(-20, 180), st.integers(-20, 180))
    segments = [draw(st.lists(ends, max_size=6)) for _ in lengths]
    labels = [[draw(st.integers(-1, 2)) for _ in video] for video in segments]
    return lengths, [[(min(x) / 4, max(x) / 4) for x in video] for video in segments], labels


@settings(deadline=None)
@given(videos_with_segments(), st.sampled_from([0.0, 0.1]))
def test_the_loss_equals_a_loop(
    videos: tuple[list[int], list[list[tuple[float, float]]], list[list[int]]], smoothing: float
) -> None:
    lengths, segments, labels = videos
    head = small(num_classes=3, label_smoothing=smoothing, reg_weight=2, initial_positives=50)
    output = random_output(head, lengths)
    targets = head.targets(
        [torch.tensor(x).view(-1, 2) for x in segments], [torch.tensor(x, dtype=torch.long) for x in labels]
    )
    parts = head.loss(output, targets)
    cls, reg, positives = slow_loss(
        output.logits.tolist(), output.offsets.tolist(), lengths, max(lengths), 3, segments, labels, smoothing
    )
    divisor = 0.9 * 50 + 0.1 * max(positives, 1)
    assert head.num_positives.item() == pytest.approx(divisor)
    assert parts["cls"].item() == pytest.approx(cls / divisor, rel=1e-4)
    assert parts["reg"].item() == pytest.approx(reg / divisor, rel=1e-4, abs=1e-6)
    assert parts["loss"].item() == pytest.approx((cls + 2 * reg) / divisor, rel=1e-4)


def test_a_point_regresses_to_a_segment_that_did_not_give_it_its_class() -> None:
    """To the longer one, where that is what its ends and its class are nearer to."""
    head = small(num_classes=2)
    output = random_output(head, [40])
    segments_BN2, labels_BN = torch.tensor([[[10.0, 13.0], [8.0, 32.0]]]), torch.tensor([[0, 1]])
    positive_BP = torch.zeros(1, len(output.points.time), dtype=torch.bool)
    positive_BP[0, 11] = True  # the point at 11.5, which both hold
    for label, ends in enumerate(segments_BN2[0].tolist()):
        output.offsets[0, 11] = torch.tensor([11.5 - ends[0], ends[1] - 11.5])
        output.logits[0, 11] = torch.tensor([-3.0, -3.0]).index_fill(0, torch.tensor(label), 3.0)
        found = cheapest_offsets(output, positive_BP, segments_BN2, labels_BN)
        assert found.tolist() == [[11.5 - ends[0], ends[1] - 11.5]]


def test_a_segment_without_length_is_none_to_regress_to() -> None:
    """Though a point may lie on it, and its class be the likelier one."""
    head = small(num_classes=2)
    output = random_output(head, [40])
    output.offsets[0, 11], output.logits[0, 11] = torch.zeros(2), torch.tensor([9.0, -9.0])
    positive_BP = torch.arange(len(output.points.time))[None] == 11
    segments_BN2 = torch.tensor([[[11.5, 11.5], [10.0, 13.0]]])
    assert cheapest_offsets(output, positive_BP, segments_BN2, torch.tensor([[0, 1]])).tolist() == [[1.5, 1.5]]


@pytest.mark.parametrize("num_classes", [0, 3])
def test_decode_equals_a_loop(num_classes: int) -> None:
    head = small(num_classes=num_classes, most_per_level=9, min_score=0.5, min_length=0.5)
    output = random_output(head, [14, 25])
    found = head.decode(output)
    for video, length in enumerate((14, 25)):
        scores, segments = [], []
        for place, (time, stride) in enumerate(zip(output.points.time, output.points.stride, strict=True)):
            back, on = output.offsets[video, place]
            segments.append([((time - back * stride).item(), (time + on * stride).item())])
            scores.append((output.logits[video, place].sigmoid() * (time < length)).tolist())
        expected = slow_decode(scores, segments, list(output.points.sizes), 9, 0.5, 0.5)
        real = found.scores[video] > 0
        assert found.scores[video, real].tolist() == pytest.approx([score for _, score, _ in expected])
        assert found.labels[video, real].tolist() == [label for *_, label in expected]
        assert found.segments[video, real].tolist() == [list(segment) for segment, *_ in expected]


def test_a_long_video_proposes_as_much_as_its_parts() -> None:
    short, long = (small(most_per_level=2, crop_rows=rows, num_levels=2) for rows in (40, 10))
    output = random_output(short, [40])
    assert short.decode(output).scores.shape == (1, 2 * 2)
    assert long.decode(output).scores.shape == (1, 2 * 8)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden": 18}, "hidden is 18; it must be a multiple of 4"),
        ({"num_convolutions": 0}, "num_convolutions is 0; it must be at least 1"),
    ],
)
def test_refuses_numbers_it_cannot_have(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**kwargs)
