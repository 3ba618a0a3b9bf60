"""ActionFormer whole: sizes, the network against its literal form, padding, targets, loss, decoding, and learning."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from largest_tensor import LargestTensor
from reference_actionformer import decode as slow_decode
from reference_actionformer import loss as slow_loss
from reference_actionformer import network
from torch import Tensor, nn

from heads.actionformer import ActionFormer
from heads.assignment import assign_segments
from heads.options import ActionFormerOptions
from heads.point_decoding import PointOutput
from heads.points import pyramid_points

ACTIVITYNET = {"num_classes": 1, "hidden": 256, "window": 7, "last_window": 0, "position_rows": 192}


def small(**kwargs: float | int | None) -> ActionFormer:
    """Blocks with scales and biases far from their first values, so that whatever they do is seen."""
    torch.manual_seed(0)
    head = ActionFormer(8, **{"hidden": 16, "num_heads": 2, "num_levels": 3, "window": 5, **kwargs})
    for name, parameter in head.named_parameters():
        if parameter.ndim == 1 and "classify.out" not in name:
            nn.init.uniform_(parameter, 0.2, 1)
    return head


def random_output(head: ActionFormer, lengths: list[int]) -> PointOutput:
    """Logits and offsets at random, some of which are 0, for padded sequences."""
    generator = torch.Generator().manual_seed(0)
    points = pyramid_points(max(lengths), head.num_levels)
    shape = (len(lengths), len(points.time))
    logits = torch.randn(*shape, max(1, head.num_classes), generator=generator)
    offsets = 3 * torch.randn(*shape, 2, generator=generator).relu()
    return PointOutput(logits, offsets, points.time < torch.tensor(lengths)[:, None], points)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_as_in_the_original_on_thumos14() -> None:
    head = ActionFormer(2048, num_classes=20)
    assert count(head) == 29_251_612
    parts = (head.embedding, head.stem, head.branch, head.neck, head.classify, head.regress)
    counts = [count(part) for part in parts]
    assert counts[:5] == [3_934_208, 6_322_176, 15_805_440, 6_144, 1_605_652]
    assert counts[5] + head.level_scale.numel() == 1_577_992


@pytest.mark.parametrize(("channels", "expected"), [(512, 6_943_497), (2048, 8_123_145)])
def test_parameters_as_in_the_original_on_activitynet(channels: int, expected: int) -> None:
    assert count(ActionFormer(channels, **ACTIVITYNET)) == expected


@pytest.mark.parametrize(("num_classes", "expected"), [(97, 29_763_177), (300, 30_075_188)])
def test_parameters_as_in_the_original_on_epic_kitchens(num_classes: int, expected: int) -> None:
    assert count(ActionFormer(2304, num_classes=num_classes, window=9)) == expected


def test_it_begins_with_the_prior_and_nearly_idle_blocks() -> None:
    head = ActionFormer(8, num_classes=3, hidden=16, num_heads=2, num_levels=3).eval()
    biases = {name: p for name, p in head.named_parameters() if name.endswith("bias") and "classify.out" not in name}
    assert len(biases) > 20
    assert not any(bias.any() for bias in biases.values())
    torch.testing.assert_close(head.classify.out.convolution.bias.sigmoid(), torch.full((3,), 0.01))
    feats_BCT, valid_BT = torch.randn(1, 16, 9), torch.ones(1, 9, dtype=torch.bool)
    torch.testing.assert_close(head.stem[0](feats_BCT, valid_BT)[0], feats_BCT, rtol=0, atol=1e-3)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 11, 40])
@pytest.mark.parametrize(("window", "last_window"), [(5, None), (3, 0), (0, None)])
def test_the_network_equals_its_literal_form(num_rows: int, window: int, last_window: int | None) -> None:
    head = small(num_classes=3, window=window, last_window=last_window).eval()
    feats_CT = torch.randn(8, num_rows)
    with torch.no_grad():
        output = head(feats_CT[None])
        last_window = window if last_window is None else last_window
        logits_PK, offsets_P2 = network(head, feats_CT, num_heads=2, window=window, last_window=last_window)
    torch.testing.assert_close(output.logits[0], logits_PK, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.offsets[0], offsets_P2, rtol=1e-4, atol=1e-4)
    assert output.valid.all()


def test_positions_are_added_behind_the_embedding() -> None:
    head, plain = small(position_rows=12).eval(), small().eval()
    plain.load_state_dict(head.state_dict())
    feats_BCT, valid_BT = torch.randn(1, 8, 30), torch.ones(1, 30, dtype=torch.bool)
    assert head.positions is not None
    added = head.positions(torch.zeros(1, 16, 30), valid_BT)
    plain.embedding.register_forward_hook(lambda _module, _inputs, out: out + added)
    torch.testing.assert_close(head(feats_BCT).logits, plain(feats_BCT).logits)


@pytest.mark.parametrize("num_classes", [0, 4])
@pytest.mark.parametrize("num_rows", [1, 2, 7, 33])
def test_shapes(num_rows: int, num_classes: int) -> None:
    head = small(num_classes=num_classes, num_levels=6)
    output = head(torch.randn(2, 8, num_rows))
    num_points = sum(math.ceil(num_rows / 2**level) for level in range(6))
    assert output.logits.shape == (2, num_points, max(1, num_classes))
    assert output.offsets.shape == (2, num_points, 2)
    assert output.valid.shape == (2, num_points)
    assert len(output.points.time) == num_points
    found = head.decode(output)
    assert found.segments.shape == (2, num_points * max(1, num_classes), 2)
    assert found.scores.shape == found.labels.shape == found.segments.shape[:2]


@pytest.mark.parametrize("options", [{}, {"last_window": 0}, {"window": 0}, {"position_rows": 12}])
def test_a_result_depends_neither_on_padding_nor_on_neighbours(options: dict[str, int]) -> None:
    head = small(num_classes=3, num_levels=5, min_score=0.0, **options).eval()
    lengths = [1, 6, 17, 40, 41]
    videos = [torch.randn(8, length) for length in lengths]
    together = torch.full((len(videos), 8, 50), torch.nan)
    for row_CT, feats_CT in zip(together, videos, strict=True):
        row_CT[:, : feats_CT.shape[1]] = feats_CT
    valid_BT = torch.arange(50) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        batch = head(together, valid_BT)
        for video, (feats_CT, length) in enumerate(zip(videos, lengths, strict=True)):
            alone, padded = head(feats_CT[None]), head(together[video, None], valid_BT[video, None])
            real_P = batch.valid[video]
            assert torch.equal(batch.points.time[real_P], alone.points.time)
            for other in (batch.logits[video], padded.logits[0]):
                torch.testing.assert_close(other[real_P], alone.logits[0], rtol=0, atol=1e-5)
            for other in (batch.offsets[video], padded.offsets[0]):
                torch.testing.assert_close(other[real_P], alone.offsets[0], rtol=0, atol=1e-5)
            assert not batch.valid[video, batch.points.time > length].any()
            found, expected = head.decode(batch), head.decode(alone)
            proposed = found.scores[video] > 0
            torch.testing.assert_close(found.scores[video, proposed], expected.scores[0, expected.scores[0] > 0])


def test_losses_depend_neither_on_padding_nor_on_neighbours() -> None:
    """The loss of a batch is the sum of what its sequences lose alone."""
    head = small(num_classes=2, label_smoothing=0.1).eval()
    lengths, segments = [9, 30], [torch.tensor([[2.0, 6.0]]), torch.tensor([[0.0, 3.0], [4.0, 29.0]])]
    labels = [torch.tensor([1]), torch.tensor([0, 1])]
    feats_BCT = torch.randn(2, 8, 40)
    batch = head(feats_BCT, torch.arange(40) < torch.tensor(lengths)[:, None])
    found = head.loss(batch, head.targets(segments, labels))
    alone = [
        head.loss(head(feats_BCT[video, None, :, :length]), head.targets([segments[video]], [labels[video]]))
        for video, length in enumerate(lengths)
    ]
    for part in ("loss", "cls", "reg"):
        torch.testing.assert_close(found[part], alone[0][part] + alone[1][part], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_rows", [10_000, 40_000])
def test_many_rows_in_memory_linear_in_their_number(num_rows: int) -> None:
    head, segments = small(num_classes=2, num_levels=6), torch.tensor([[100.0, 9000.0], [40.0, 60.0]])
    with LargestTensor() as largest:
        output = head(torch.randn(1, 8, num_rows))
        head.loss(output, head.targets([segments], [torch.tensor([0, 1])]))["loss"].backward()
        head.decode(output)
    # The hidden layer of the MLP has 64 channels, the scores of attention 2 heads of some 36 keys.
    assert largest.numel < 100 * num_rows


def test_the_ranges_of_levels_overlap_as_told() -> None:
    points = small(range_ratio=4)(torch.randn(1, 8, 3)).points
    assert torch.equal(points.low, pyramid_points(3, 3, range_ratio=4).low)


def test_targets_lie_side_by_side() -> None:
    targets = small(num_classes=3).targets(
        [torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.double), torch.zeros(0, 2), torch.tensor([[5.0, 6.0]])],
        [torch.tensor([2, 0]), torch.zeros(0, dtype=torch.long), torch.tensor([-1])],
    )
    assert targets.segments.dtype == torch.float
    assert targets.segments.tolist() == [[[1, 2], [3, 4]], [[0, 0], [0, 0]], [[5, 6], [0, 0]]]
    assert targets.labels.tolist() == [[2, 0], [-1, -1], [-1, -1]]


@st.composite
def videos_with_segments(draw: st.DrawFn) -> tuple[list[int], list[list[tuple[float, float]]], list[list[int]]]:
    """Lengths, segments on a grid of quarters that may lie outside, and classes, -1 for none."""
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    ends = st.tuples(st.integers(-20, 180), st.integers(-20, 180))
    segments = [draw(st.lists(ends, max_size=4)) for _ in lengths]
    labels = [[draw(st.integers(-1, 2)) for _ in video] for video in segments]
    return lengths, [[(min(x) / 4, max(x) / 4) for x in video] for video in segments], labels


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


def test_positives_are_counted_in_training_alone_and_saved() -> None:
    head = small(initial_positives=50)
    output = random_output(head, [20])
    targets = head.targets([torch.tensor([[6.0, 9.0]])], [torch.tensor([0])])
    head.eval()
    loss = head.loss(output, targets)["loss"]
    assert head.num_positives == 50
    head.train()
    counted = head.loss(output, targets)["loss"]
    # The points at 6.5, 7.5 and 8.5; those of other levels are for longer segments.
    expected = torch.tensor(0.9 * 50 + 0.1 * 3)
    torch.testing.assert_close(head.num_positives, expected)
    torch.testing.assert_close(counted * expected, loss * 50)
    other = small()
    other.load_state_dict(head.state_dict())
    assert other.num_positives == head.num_positives


def test_two_losses_before_backward() -> None:
    """As where gradients are accumulated: the count that the first one was divided by stays what it was."""
    head = small()
    targets = head.targets([torch.tensor([[6.0, 9.0]])], [torch.tensor([0])])
    losses = [head.loss(head(torch.randn(1, 8, 20)), targets)["loss"] for _ in range(2)]
    (losses[0] + losses[1]).backward()


def test_a_segment_beyond_the_end_is_cut_and_one_outside_is_none() -> None:
    head = small().eval()
    output = random_output(head, [20, 30])

    def loss(*segments: tuple[float, float]) -> Tensor:
        both = [torch.tensor(segments), torch.zeros(0, 2)]
        return head.loss(output, head.targets(both, [torch.zeros(len(x), dtype=torch.long) for x in both]))["loss"]

    assert loss((12.0, 50.0), (-9.0, -2.0), (20.0, 25.0), (-3.0, 4.0)) == loss((12.0, 20.0), (0.0, 4.0))
    assert loss((12.0, 20.0)) != loss((12.0, 19.0))


@pytest.mark.parametrize("num_classes", [0, 2])
def test_a_batch_without_any_segment_has_finite_gradients(num_classes: int) -> None:
    head = small(num_classes=num_classes)
    parts = head.loss(
        head(torch.randn(2, 8, 12)), head.targets([torch.zeros(0, 2)] * 2, [torch.zeros(0, dtype=torch.long)] * 2)
    )
    parts["loss"].backward()
    assert parts["reg"] == 0
    assert parts["cls"] > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


def test_every_parameter_learns_from_padded_sequences_of_any_length() -> None:
    head = small(num_classes=2, num_levels=3, drop_path=0)
    lengths = torch.tensor([[1], [2], [40]])
    segments = [
        torch.tensor([[0.0, 1.0]]),
        torch.tensor([[0.0, 2.0]]),
        torch.tensor([[3.0, 6.0], [8.0, 13.0], [5, 35]]),
    ]
    labels = [torch.tensor([0]), torch.tensor([1]), torch.tensor([1, 0, 1])]
    feats_BCT = torch.randn(3, 8, 40).masked_fill(torch.arange(40) >= lengths[:, None], torch.nan)
    head.loss(head(feats_BCT, torch.arange(40) < lengths), head.targets(segments, labels))["loss"].backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias on all keys alike does not change a softmax.
        assert parameter.grad.any() or re.fullmatch(r".*attention.projections.1.1.bias", name), name


def test_without_classes_every_label_is_the_same_action() -> None:
    head = small().eval()
    output, segments = random_output(head, [20]), [torch.tensor([[6.0, 9.0], [1.0, 4.0]])]
    losses = [head.loss(output, head.targets(segments, [torch.tensor(labels)])) for labels in ([0, 0], [7, -1])]
    assert losses[0] == losses[1]


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


def test_what_a_point_is_given_it_decodes() -> None:
    """Offsets as assigned make the very segment, at every level."""
    head = small(num_levels=4)
    output = random_output(head, [64])
    segments = torch.tensor([[[3.0, 6.25], [10.0, 17.0], [20.0, 34.5], [0.0, 63.0]]])
    assigned = assign_segments(output.points, output.valid, segments, torch.zeros(1, 4).long(), 1)
    logits = assigned.positive[..., None] * 20.0 - 10
    found = head.decode(output._replace(offsets=assigned.offsets, logits=logits))
    proposed = found.segments[0, found.scores[0] > 0.5]
    assert {tuple(segment) for segment in proposed.tolist()} == {tuple(segment) for segment in segments[0].tolist()}


def test_half_precision_is_near_single() -> None:
    head = small(num_classes=2, last_window=0).eval()
    feats_BCT, valid_BT = torch.randn(2, 8, 40), torch.arange(40) < torch.tensor([[40], [11]])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = head(feats_BCT, valid_BT)
    single = head(feats_BCT, valid_BT)
    assert half.logits.dtype == half.offsets.dtype == torch.float32
    torch.testing.assert_close(half.logits.sigmoid(), single.logits.sigmoid(), rtol=0, atol=0.05)


def test_in_training_branches_are_left_out_and_in_evaluation_not() -> None:
    head, feats_BCT = small(drop_path=0.5), torch.randn(1, 8, 20)
    assert not torch.equal(head(feats_BCT).logits, head(feats_BCT).logits)
    head.eval()
    assert torch.equal(head(feats_BCT).logits, head(feats_BCT).logits)


def test_dropout_is_in_every_block() -> None:
    head, feats_BCT, valid_BT = small(dropout=0.5, drop_path=0), torch.randn(1, 16, 20), torch.ones(1, 20).bool()
    for module in (*head.stem, *head.branch, *(block.attention for block in head.stem)):
        outs = [module(feats_BCT, valid_BT) for _ in range(2)]
        assert not torch.equal(*(out if isinstance(out, Tensor) else out[0] for out in outs))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden": 15}, "hidden is 15, num_heads 2; hidden must be a multiple"),
        ({"num_heads": 0}, "num_heads 0"),
        ({"num_levels": 0}, "num_levels is 0; it must be at least 1"),
        ({"window": 4}, "window is 4; it must be odd"),
        ({"last_window": -1}, "last_window is -1; it must be odd"),
        ({"position_rows": -1}, "position_rows is -1"),
        ({"drop_path": 1.0}, "drop_path is 1.0; it must be at least 0 and below 1"),
        ({"range_ratio": 1.0}, "range_ratio is 1.0; it must be above 1"),
        ({"initial_positives": 0.0}, "initial_positives is 0.0; it must be above 0"),
        ({"most_per_level": 0}, "most_per_level is 0; it must be at least 1"),
    ],
)
def test_refuses_numbers_it_cannot_have(kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**kwargs)


def test_the_head_can_be_told_what_its_options_say() -> None:
    assert ActionFormer.Options is ActionFormerOptions
    taken = inspect.signature(ActionFormer).parameters
    defaults = {field.name: field.default for field in dataclasses.fields(ActionFormerOptions)}
    assert {name: parameter.default for name, parameter in taken.items() if name in defaults} == defaults
    assert set(taken) == {"in_channels", "num_classes", *defaults}


def test_weights_move_between_lengths_and_windows() -> None:
    head, other = small(), small(window=9, last_window=0, position_rows=30)
    other.load_state_dict(copy.deepcopy(head.state_dict()))


def test_learns_planted_segments_of_two_classes_and_lengths() -> None:
    """Videos of two lengths in one batch; the best of each class is its segment, by half a row and more if longer."""
    torch.manual_seed(0)
    head = ActionFormer(8, num_classes=2, hidden=32, num_heads=2, num_levels=4, window=5, initial_positives=5)
    lengths, planted = [30, 50], [[(4.0, 7.5), (12.0, 27.0)], [(20.0, 48.0), (8.0, 12.0)]]
    feats_BCT = 0.1 * torch.randn(2, 8, 50)
    for feats_CT, ends in zip(feats_BCT, planted, strict=True):
        for label, (start, end) in enumerate(ends):
            feats_CT[4 * label : 4 * label + 4, round(start) : round(end)] += 1
    valid_BT = torch.arange(50) < torch.tensor(lengths)[:, None]
    targets = head.targets([torch.tensor(ends) for ends in planted], [torch.tensor([0, 1])] * 2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    for _ in range(80):
        loss = head.loss(head(feats_BCT, valid_BT), targets)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = head.eval().decode(head(feats_BCT, valid_BT))
    for video, ends in enumerate(planted):
        for label, segment in enumerate(ends):
            best = (found.scores[video] * (found.labels[video] == label)).argmax()
            assert found.scores[video, best] > 0.3
            assert found.segments[video, best].tolist() == pytest.approx(segment, abs=0.5 + (segment[1] > 10))
