"""TriDet: sizes, the network, loss and decoding against their literal forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_actionformer import decode as slow_decode
from reference_tridet import loss as slow_loss
from reference_tridet import network, offsets_of
from torch import nn

from heads.assignment import assign_segments
from heads.points import pyramid_points
from heads.tridet import TriDet, TriDetOutput

HACS = {
    "num_classes": 200, "hidden": 1024, "mlp_hidden": 1024, "head_hidden": 1024, "kernel_ratio": 1.2,
    "head_kernel": 5, "boundary_kernel": 1,
}  # fmt: skip
EPIC = {"mlp_hidden": 1024}


def small(**kwargs: Any) -> TriDet:
    """Scales and biases far from their first values, so that whatever they do is seen."""
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "hidden": 16, "mlp_hidden": 24, "head_hidden": 20, "num_levels": 3, "kernel": 3, "kernel_ratio": 1.5,
        "depthwise_init": 0.5, "num_bins": 5, "drop_path": 0.0, "input_noise": 0.0, **kwargs,
    }  # fmt: skip
    head = TriDet(8, **options)
    for name, parameter in head.named_parameters():
        if parameter.ndim == 1 and "classify.out" not in name:
            nn.init.uniform_(parameter, 0.2, 1)
    return head


def random_output(head: TriDet, lengths: list[int]) -> TriDetOutput:
    """Logits and votes at random, for padded sequences, of whose padding boundaries say 0."""
    generator = torch.Generator().manual_seed(0)
    points = pyramid_points(max(lengths), head.num_levels)
    valid_BP = points.time < torch.tensor(lengths)[:, None]
    shape = (len(lengths), len(points.time))
    logits, starts, ends = torch.randn(3, *shape, max(1, head.num_classes), generator=generator) * valid_BP[..., None]
    centres = 2 * torch.randn(*shape, 2, 6, generator=generator).relu() * valid_BP[..., None, None]
    return TriDetOutput(logits, starts, ends, centres, valid_BP, points)


def slow_offsets(output: TriDetOutput) -> list[list[list[tuple[float, float]]]]:
    return [
        offsets_of(starts, ends, centres, output.points.sizes)
        for starts, ends, centres in zip(output.starts, output.ends, output.centres, strict=True)
    ]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("channels", "options", "expected"),
    [
        (2048, {"num_classes": 20}, 15_989_604),  # THUMOS14
        (
            512,
            {"num_classes": 1, "hidden": 256, "mlp_hidden": 2048, "kernel": 15, "kernel_ratio": 1.3, "num_bins": 12},
            12_811_555,  # ActivityNet with TSP
        ),
        (2304, {**HACS, "kernel": 3, "num_bins": 14}, 51_860_092),  # HACS with SlowFast
        (2048, {**HACS, "kernel": 15, "num_bins": 12, "num_levels": 7}, 53_412_473),  # and with I3D
        (2304, {**EPIC, "num_classes": 97, "kernel": 5, "kernel_ratio": 2}, 18_594_123),  # EPIC-Kitchens' verbs
        (2304, {**EPIC, "num_classes": 300, "kernel": 1, "kernel_ratio": 4}, 19_503_532),  # its nouns
    ],
)
def test_parameters_as_in_the_original(channels: int, options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        assert count(TriDet(channels, **options)) == expected


def test_parts_as_in_the_original_on_thumos14() -> None:
    with torch.device("meta"):
        head = TriDet(2048, num_classes=20)
    counts = [count(part) for part in (head.stem, head.branch, head.classify, head.start, head.end)]
    assert counts == [1_600_000, 4_005_120, 1_605_652, 1_605_652, 1_605_652]
    assert count(head.centre) + head.level_scale.numel() == 1_627_176


@pytest.mark.parametrize("num_rows", [1, 2, 3, 11, 40])
@pytest.mark.parametrize("kernels", [(3, 3), (5, 1)])
def test_the_network_equals_its_literal_form(num_rows: int, kernels: tuple[int, int]) -> None:
    head = small(num_classes=3, head_kernel=kernels[0], boundary_kernel=kernels[1]).eval()
    feats_CT = torch.randn(8, num_rows)
    with torch.no_grad():
        output, expected = head(feats_CT[None]), network(head, feats_CT)
    found = (output.logits[0], output.starts[0], output.ends[0], output.centres[0].flatten(1))
    for here, there in zip(found, expected, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-4)
    assert output.valid.all()


@pytest.mark.parametrize(("num_rows", "padded_rows"), [(5, 24), (24, 24), (41, 44)])
def test_statistics_over_padding_are_those_of_sequences_filled_up(num_rows: int, padded_rows: int) -> None:
    """Up to crop_rows rows, and to a multiple of the last stride."""
    head = small(num_classes=3, padded_statistics=True, crop_rows=24).eval()
    feats_CT = torch.randn(8, num_rows)
    with torch.no_grad():
        output, expected = head(feats_CT[None]), network(head, feats_CT, padded_rows=padded_rows)
    found = (output.logits[0], output.starts[0], output.ends[0], output.centres[0].flatten(1))
    for here, there in zip(found, expected, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-4)


def test_positions_are_added_behind_the_embedding() -> None:
    head, plain = small(position_rows=12).eval(), small().eval()
    plain.load_state_dict(head.state_dict())
    feats_BCT, valid_BT = torch.randn(1, 8, 30), torch.ones(1, 30, dtype=torch.bool)
    assert head.positions is not None
    added = head.positions(torch.zeros(1, 16, 30), valid_BT)
    plain.embedding.register_forward_hook(lambda _module, _inputs, out: out + added)
    torch.testing.assert_close(head(feats_BCT).logits, plain(feats_BCT).logits)


def test_noise_is_on_the_features_in_training_alone() -> None:
    head = small(input_noise=0.5)
    seen = []
    head.embedding.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    feats_BCT = torch.zeros(1, 8, 4000)
    head(feats_BCT)
    head.eval()(feats_BCT)
    assert seen[0].std().item() == pytest.approx(0.5, rel=0.05)
    assert seen[0].mean().item() == pytest.approx(0, abs=0.02)
    assert torch.equal(seen[1], feats_BCT)


def test_boundary_branches_do_not_shape_the_features() -> None:
    head = small(num_classes=2)
    output = head(torch.randn(1, 8, 20))
    (output.starts.sum() + output.ends.sum()).backward()
    learnt = {name.split(".")[0] for name, parameter in head.named_parameters() if parameter.grad is not None}
    assert learnt == {"start", "end"}


def test_the_first_two_blocks_see_one_row_and_have_no_scale() -> None:
    head = small(kernel=7)
    assert [block.sgp.narrow.kernel_size[0] for block in (*head.stem, *head.branch)] == [1, 1, 7, 7]
    assert [hasattr(block.drop1, "scale") for block in (*head.stem, *head.branch)] == [False, False, True, True]


@st.composite
def videos_with_segments(draw: st.DrawFn) -> tuple[list[int], list[list[tuple[float, float]]], list[list[int]]]:
    """Lengths, segments on a grid of quarters that may lie outside, some twice, and classes, -1 for none."""
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    ends = st.tuples(st.integers(-20, 180), st.integers(-20, 180))
    segments = [draw(st.lists(ends, max_size=3)) for _ in lengths]
    segments = [video + video[: draw(st.integers(0, 2))] for video in segments]
    labels = [[draw(st.integers(-1, 2)) for _ in video] for video in segments]
    return lengths, [[(min(x) / 4, max(x) / 4) for x in video] for video in segments], labels


@settings(deadline=None)
@given(videos_with_segments(), st.sampled_from([0.0, 0.1]), st.sampled_from([0.0, 0.2, 1.0]))
def test_the_loss_equals_a_loop(
    videos: tuple[list[int], list[list[tuple[float, float]]], list[list[int]]], smoothing: float, power: float
) -> None:
    lengths, segments, labels = videos
    head = small(num_classes=3, label_smoothing=smoothing, iou_power=power, reg_weight=2, initial_positives=50)
    output = random_output(head, lengths)
    targets = head.targets(
        [torch.tensor(x).view(-1, 2) for x in segments], [torch.tensor(x, dtype=torch.long) for x in labels]
    )
    parts = head.loss(output, targets)
    cls, reg, positives = slow_loss(
        output.logits.tolist(), slow_offsets(output), lengths, max(lengths), 3, segments, labels, smoothing, power
    )
    divisor = 0.9 * 50 + 0.1 * max(positives, 1)
    assert head.num_positives.item() == pytest.approx(divisor)
    assert parts["cls"].item() == pytest.approx(cls / divisor, rel=1e-4)
    assert parts["reg"].item() == pytest.approx(reg / divisor, rel=1e-4, abs=1e-6)
    assert parts["loss"].item() == pytest.approx((cls + 2 * reg) / divisor, rel=1e-4)


def test_a_point_of_two_classes_regresses_for_each() -> None:
    head = small(num_classes=3).eval()
    output = random_output(head, [20])

    def reg(*labels: int) -> float:
        segments = torch.tensor([[6.0, 9.0]]).expand(len(labels), 2)
        return head.loss(output, head.targets([segments], [torch.tensor(labels)]))["reg"].item()

    assert reg(0, 2) == pytest.approx(reg(0) + reg(2))
    assert reg(0) != pytest.approx(reg(2))


def test_the_loss_on_classes_moves_the_ends() -> None:
    """The IoU that it is weighted with is not detached."""
    head = small(num_classes=2, iou_power=0.2)
    parts = head.loss(head(torch.randn(1, 8, 20)), head.targets([torch.tensor([[6.0, 9.0]])], [torch.tensor([1])]))
    parts["cls"].backward()
    for branch in (head.start, head.end, head.centre):
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in branch.parameters())


def test_a_segment_that_overlaps_nothing_has_finite_gradients() -> None:
    """Though the derivative of a root is infinite at 0."""
    head = small(iou_power=0.2)
    output = random_output(head, [20])
    # All votes are for the point itself, on both sides: segments without length.
    centres = torch.full_like(output.centres, -300.0)
    centres[..., 0, -1], centres[..., 1, 0] = 300.0, 300.0
    centres.requires_grad_(True)
    targets = head.targets([torch.tensor([[6.0, 9.0]])], [torch.tensor([0])])
    loss = head.loss(output._replace(centres=centres), targets)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert centres.grad is not None
    assert centres.grad.isfinite().all()


@pytest.mark.parametrize("num_classes", [0, 3])
def test_decode_equals_a_loop(num_classes: int) -> None:
    head = small(num_classes=num_classes, most_per_level=9, min_score=0.5, min_length=4.5)
    output = random_output(head, [14, 25])
    found, offsets = head.decode(output), slow_offsets(output)
    for video, length in enumerate((14, 25)):
        scores, segments = [], []
        for place, (time, stride) in enumerate(zip(output.points.time, output.points.stride, strict=True)):
            segments.append(
                [((time - back * stride).item(), (time + on * stride).item()) for back, on in offsets[video][place]]
            )
            scores.append((output.logits[video, place].sigmoid() * (time < length)).tolist())
        expected = slow_decode(scores, segments, list(output.points.sizes), 9, 0.5, 4.5)
        real = found.scores[video] > 0
        assert 0 < real.sum() < (found.scores[video] > 0.5).numel()
        assert found.scores[video, real].tolist() == pytest.approx([score for _, score, _ in expected])
        assert found.labels[video, real].tolist() == [label for *_, label in expected]
        expected_N2 = torch.tensor([segment for segment, *_ in expected])
        torch.testing.assert_close(found.segments[video, real], expected_N2, rtol=1e-4, atol=1e-4)


def test_what_a_point_is_given_it_decodes() -> None:
    """Votes at the assigned distances, if these are whole, make the very segment, at every level."""
    head = small(num_levels=4)
    output = random_output(head, [64])
    segments = torch.tensor([[[2.5, 6.5], [10.5, 16.5], [20.5, 34.5], [0.5, 48.5]]])
    assigned = assign_segments(output.points, output.valid, segments, torch.zeros(1, 4).long(), 1)
    whole_BP = assigned.positive & (assigned.offsets == assigned.offsets.round()).all(dim=2)
    whole_BP &= (assigned.offsets <= 5).all(dim=2)
    centres = torch.full_like(output.centres, -100.0)
    back_BP, on_BP = assigned.offsets.long().clamp(max=5).unbind(dim=2)
    centres[..., 0, :].scatter_(2, 5 - back_BP[..., None], 100.0)
    centres[..., 1, :].scatter_(2, on_BP[..., None], 100.0)
    found = head.decode(output._replace(centres=centres, logits=whole_BP[..., None] * 20.0 - 10))
    proposed = found.segments[0, found.scores[0] > 0.5]
    assert {tuple(segment) for segment in proposed.tolist()} == {tuple(segment) for segment in segments[0].tolist()}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden": 24}, "hidden is 24; it must be a multiple of 16"),
        ({"kernel": 2}, "kernel is 2; it must be odd"),
        ({"head_kernel": 0}, "head_kernel is 0; it must be odd"),
        ({"boundary_kernel": -1}, "boundary_kernel is -1; it must be odd"),
        ({"kernel_ratio": 0.0}, "kernel_ratio is 0.0; it must be above 0"),
        ({"num_bins": 0}, "num_bins is 0; it must be at least 1"),
        ({"depthwise_init": -0.1}, "depthwise_init is -0.1; it must be 0 or above"),
        ({"iou_power": -1.0}, "iou_power is -1.0; it must be 0 or above"),
        ({"input_noise": -1.0}, "input_noise is -1.0; it must be 0 or above"),
        ({"drop_path": 1.0}, "drop_path is 1.0; it must be at least 0 and below 1"),
        ({"position_rows": -1}, "position_rows is -1"),
    ],
)
def test_refuses_numbers_it_cannot_have(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**kwargs)
