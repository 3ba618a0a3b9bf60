"""G-TAD whole: sizes, its parts against literal forms, targets, decoding, and that it learns."""

from __future__ import annotations

import dataclasses
import inspect
import math

import numpy as np
import pytest
import torch
from reference_gtad import decode as slow_decode
from reference_gtad import gcnext as slow_gcnext
from reference_gtad import iou_map
from torch import Tensor

from heads import HEADS
from heads.cells import MapConvolution, MapOutput, valid_cells
from heads.gtad import GTAD, GCNeXt, boundary_candidates, nearest_rows


def small(**kwargs: int | bool) -> GTAD:
    torch.manual_seed(0)
    return GTAD(8, **{"num_snippets": 12, "hidden": 64, **kwargs})


def constant_output(head: GTAD, start: list[float], end: list[float], logits: Tensor | None = None) -> MapOutput:
    """An output with random maps and the given boundaries, B = 1."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, head.max_duration, head.num_snippets)
    maps = [torch.rand(shape, generator=generator) for _ in range(2)]
    return MapOutput(torch.tensor([start]), torch.tensor([end]), *maps, logits)


@pytest.mark.parametrize(("channels", "expected"), [(400, 5_563_268), (2048, 5_879_684)])
def test_parameters_as_in_the_original(channels: int, expected: int) -> None:
    assert sum(p.numel() for p in GTAD(channels).parameters()) == expected


def test_parameters_as_in_the_original_on_thumos14() -> None:
    # T and D decide about no parameter.
    head = GTAD(2048, num_snippets=16, max_duration=4, inner_bins=16, context_bins=16, map_kernel=3)
    assert sum(p.numel() for p in head.parameters()) == 5_617_540


def test_a_class_costs_one_output_channel() -> None:
    without, with_classes = (sum(p.numel() for p in small(num_classes=k).parameters()) for k in (0, 5))
    assert with_classes - without == 5 * (64 // 2 + 1)


@pytest.mark.parametrize(
    ("num_snippets", "max_duration", "num_classes"), [(12, 12, 0), (12, 5, 3), (2, 2, 1), (1, 1, 2)]
)
def test_shapes(num_snippets: int, max_duration: int, num_classes: int) -> None:
    head = small(num_snippets=num_snippets, max_duration=max_duration, num_classes=num_classes)
    output = head(torch.randn(3, 8, num_snippets))
    assert output.start.shape == output.end.shape == (3, num_snippets)
    assert output.iou_reg.shape == output.iou_cls.shape == (3, max_duration, num_snippets)
    assert num_classes or output.class_logits is None
    if output.class_logits is not None:
        assert output.class_logits.shape == (3, num_classes, max_duration, num_snippets)
    proposals = head.decode(output)
    assert proposals.segments.shape == (*proposals.scores.shape[:2], 2)
    assert proposals.scores.shape[2] == max(1, num_classes)
    assert proposals.segments.max() == num_snippets


def test_cells_that_end_after_the_window_are_zero() -> None:
    output = small(num_classes=2)(torch.randn(2, 8, 12))
    duration, start = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    valid = start + duration < 12
    for map_BDT in (output.iou_reg, output.iou_cls, output.class_logits):
        assert not map_BDT[..., ~valid].any()
        assert map_BDT[..., valid].all()


def test_features_of_any_number_of_channels() -> None:
    assert GTAD(6, num_snippets=4, hidden=64)(torch.randn(1, 6, 4)).start.shape == (1, 4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden": 100}, "hidden is 100; it must be a multiple of 64"),
        ({"hidden": 0}, "multiple of 64"),
        ({"max_duration": 13}, "max_duration is 13; it must be between 1 and num_snippets=12"),
        ({"max_duration": 0}, "max_duration is 0"),
        ({"map_kernel": 2}, "map_kernel is 2; it must be odd"),
        ({"inner_bins": 0}, "inner_bins is 0, context_bins 4; both must be at least 1"),
        ({"longest_proposal": 0}, "longest_proposal is 0; it must be at least 1 row"),
    ],
)
def test_refuses_sizes_it_cannot_have(kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**kwargs)


def test_a_map_convolution_sees_zeros_where_there_is_no_cell() -> None:
    torch.manual_seed(0)
    start_N, duration_N = valid_cells(7, 4)
    module, cells_BNC = MapConvolution(5, 3, duration_N, start_N), torch.randn(2, len(start_N), 5, requires_grad=True)
    expected = torch.zeros_like(cells_BNC)
    weight, bias = module.convolution.weight, module.convolution.bias
    places = list(zip(duration_N.tolist(), start_N.tolist(), strict=True))
    for here, (d, s) in enumerate(places):
        terms = [
            cells_BNC[:, there] @ weight[:, :, e - d + 1, t - s + 1].T
            for there, (e, t) in enumerate(places)
            if abs(e - d) <= 1 and abs(t - s) <= 1
        ]
        expected[:, here] = bias + torch.stack(terms).sum(dim=0)
    found = module(cells_BNC)
    torch.testing.assert_close(found, expected)
    pull = torch.randn_like(expected)
    gradients = (torch.autograd.grad((x * pull).sum(), cells_BNC, retain_graph=True)[0] for x in (found, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("num_rows", [1, 2, 9])
def test_gcnext_equals_its_literal_form(num_rows: int) -> None:
    torch.manual_seed(0)
    block, feats = GCNeXt(64), torch.randn(2, 64, num_rows)
    torch.testing.assert_close(block(feats), slow_gcnext(block, feats), rtol=1e-4, atol=1e-5)


def test_nearest_rows_are_near_in_features_and_include_the_row_itself() -> None:
    feats = torch.tensor([[[0.0, 10.0, 0.2, 10.1, 0.3, 9.9]]])
    neighbours = [set(row) for row in nearest_rows(feats)[0].tolist()]
    assert neighbours == [{0, 2, 4}, {1, 3, 5}] * 3


def test_targets() -> None:
    head = small(num_classes=3)
    segments = [(1.2, 4.0), (3.0, 9.5)]
    targets = head.targets([torch.tensor(segments), torch.zeros(0, 2)], [torch.tensor([2, 0]), torch.zeros(0).long()])
    np.testing.assert_allclose(targets.iou[0], iou_map(segments, 12, 12), atol=1e-6)
    assert not targets.iou[1].any()
    assert not targets.start[1].any()
    assert not targets.end[1].any()
    assert (targets.label[1] == -1).all()
    assert targets.start[0, 3] == targets.end[0, 9] == 1
    for duration in range(12):
        for start in range(12):
            separate = [iou_map([segment], 12, 12)[duration, start] for segment in segments]
            expected = (2, 0)[int(np.argmax(separate))] if max(separate) > 0.5 else -1
            assert targets.label[0, duration, start] == expected


def test_targets_cut_segments_to_the_window() -> None:
    head = small()
    beyond = head.targets([torch.tensor([[-5.0, 6.0], [20.0, 30.0]])], [torch.tensor([0, 0])])
    inside = head.targets([torch.tensor([[0.0, 6.0]])], [torch.tensor([0])])
    for ours, expected in zip(beyond, inside, strict=True):
        assert torch.equal(ours, expected)


def test_loss_is_the_weighted_sum_of_its_parts() -> None:
    head = small(num_classes=2, reg_weight=3, cls_weight=7, class_weight=5)
    targets = head.targets([torch.tensor([[2.0, 7.0]])], [torch.tensor([1])])
    parts = head.loss(head(torch.randn(1, 8, 12)), targets)
    expected = parts["node"] + 3 * parts["reg"] + 7 * parts["cls"] + 5 * parts["class"]
    assert all(part > 0 for part in parts.values())
    torch.testing.assert_close(parts["loss"], expected)


def test_loss_draws_from_the_generator() -> None:
    head = small(num_snippets=24)
    output = head(torch.randn(2, 8, 24))
    targets = head.targets([torch.tensor([[2.0, 7.0]])] * 2, [torch.tensor([0])] * 2)
    draws = [head.loss(output, targets, generator=torch.Generator().manual_seed(seed))["reg"] for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_a_batch_without_any_segment_has_finite_gradients() -> None:
    head = small(num_classes=2)
    nothing = head.targets([torch.zeros(0, 2)] * 2, [torch.zeros(0, dtype=torch.long)] * 2)
    parts = head.loss(head(torch.randn(2, 8, 12)), nothing)
    parts["loss"].backward()
    assert parts["reg"] == parts["class"] == 0
    assert math.isfinite(parts["loss"].item())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_boundary_candidates() -> None:
    probability = torch.tensor([[0.1, 0.2, 0.1, 0.1, 0.9, 0.5, 0.5, 0.4]])
    expected = [True, True, False, False, True, True, True, False]
    assert boundary_candidates(probability, edge=0)[0].tolist() == expected
    assert boundary_candidates(probability, edge=-1)[0].tolist() == [False, *expected[1:7], True]


def test_decode_equals_the_original_but_at_the_end_of_the_window() -> None:
    head = small(max_duration=10)
    start, end = torch.rand(2, 12, generator=torch.Generator().manual_seed(3)).tolist()
    output = constant_output(head, start, end)
    proposals = head.decode(output)
    found = {
        (int(s), int(e)): score
        for (s, e), score in zip(proposals.segments[0].tolist(), proposals.scores[0, :, 0].tolist(), strict=True)
        if score > 0
    }
    expected = slow_decode(start, end, output.iou_reg[0].numpy(), output.iou_cls[0].numpy())
    assert {segment: score for segment, score in found.items() if segment[1] < 12} == pytest.approx(expected)
    # The longest cell has 10 rows, so a segment that ends at row 12 starts at row 2 at the earliest.
    candidates = boundary_candidates(output.start, edge=0)[0].nonzero()[:, 0].tolist()
    assert {s for s, e in found if e == 12} == {s for s in candidates if s >= 2}


def test_decode_without_peaks_proposes_all_cells_up_to_the_longest() -> None:
    head = small(max_duration=10, peaks=False, longest_proposal=4)
    start, end = torch.rand(2, 12, generator=torch.Generator().manual_seed(3)).tolist()
    output = constant_output(head, start, end)
    proposals = head.decode(output)
    for (s, e), score in zip(proposals.segments[0].long().tolist(), proposals.scores[0, :, 0].tolist(), strict=True):
        cell = 0, e - s - 1, s
        expected = output.iou_cls[cell] * output.iou_reg[cell] if e - s <= 4 else 0.0
        assert score == pytest.approx(float(expected))


def test_the_pseudocount_reaches_the_loss() -> None:
    plain, damped = small(), small(cls_pseudocount=10)
    targets = plain.targets([torch.tensor([[2.0, 7.0]])], [torch.tensor([0])])
    output = plain(torch.randn(1, 8, 12))
    assert damped.loss(output, targets)["cls"] < plain.loss(output, targets)["cls"]


def test_decode_scores_each_class() -> None:
    head = small(num_classes=3)
    logits = torch.randn(1, 3, 12, 12)
    flat = [1.0] * 12
    with_classes, without = (head.decode(constant_output(head, flat, flat, x)) for x in (logits, None))
    torch.testing.assert_close(with_classes.scores.sum(dim=2), without.scores[..., 0])
    for (start, end), scores in zip(with_classes.segments[0].long().tolist(), with_classes.scores[0], strict=True):
        expected = logits[0, :, end - start - 1, start].softmax(dim=0)
        torch.testing.assert_close(scores / scores.sum(), expected)


def test_learns_over_a_map_with_neighbours() -> None:
    """The THUMOS14 variant, small: the best cell is the segment."""
    torch.manual_seed(0)
    head = small(num_snippets=24, max_duration=10, map_kernel=3, inner_bins=8, context_bins=8, peaks=False)
    segment = torch.tensor([[9.0, 15.0]])
    feats = 0.1 * torch.randn(1, 8, 24)
    feats[:, :4, 9:15] += 1
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    targets = head.targets([segment], [torch.tensor([0])])
    for _ in range(40):
        loss = head.loss(head(feats), targets)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    proposals = head.decode(head(feats))
    best = proposals.scores[0, :, 0].argmax()
    torch.testing.assert_close(proposals.segments[0, best], segment[0], rtol=0, atol=1)


def test_learns_two_classes_in_one_video() -> None:
    """Rows inside a segment look like its class; after some steps each class's best cell is its segment, by a row."""
    torch.manual_seed(0)
    head = HEADS["gtad"].load()(8, num_snippets=24, hidden=64, num_classes=2)
    segments, labels = torch.tensor([[3.0, 9.0], [14.0, 24.0]]), torch.tensor([1, 0])
    feats = 0.1 * torch.randn(1, 8, 24)
    feats[:, :4, 3:9] += 1
    feats[:, 4:, 14:24] += 1
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    targets = head.targets([segments], [labels])
    for _ in range(60):
        loss = head.loss(head(feats), targets)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    proposals = head.decode(head(feats))
    best_K = proposals.scores[0].argmax(dim=0)
    torch.testing.assert_close(proposals.segments[0, best_K], segments.flip(0), rtol=0, atol=1)


def test_weights_move_between_window_lengths() -> None:
    """No weight depends on T or D, so a head can be used at another length (LoFi trains at several)."""
    short, long = small(), small(num_snippets=20, max_duration=16)
    long.load_state_dict(short.state_dict())


def test_the_head_can_be_told_what_its_options_say() -> None:
    for entry in HEADS.values():
        head = entry.load()
        assert head.Options is entry.options
        taken = inspect.signature(head).parameters
        defaults = {field.name: field.default for field in dataclasses.fields(entry.options)}
        assert {name: parameter.default for name, parameter in taken.items() if name in defaults} == defaults
        assert set(taken) == {"in_channels", "num_classes", *defaults}
