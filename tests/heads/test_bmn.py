"""BMN whole and in parts: the sampling mask, the folded form against the direct one, labels, losses, decoding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_bmn as slow
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heads import HEADS
from heads.bmn import BMN, BoundaryMatching, sample_weights
from heads.cells import MapOutput, valid_cells
from heads.labels import boundary_scores


def small(**kwargs: int) -> BMN:
    torch.manual_seed(0)
    return BMN(8, **{"num_snippets": 12, "hidden": 16, "num_samples": 4, **kwargs})


def in_rows(map_SE: np.ndarray) -> np.ndarray:
    """A map [first row, last row] as our maps are, [duration, start]."""
    result = np.zeros_like(map_SE)
    for first, last in slow.places(len(map_SE)):
        result[last - first, first] = map_SE[first, last]
    return result


def by_place(map_DT: Tensor) -> np.ndarray:
    """And back."""
    result = np.zeros(map_DT.shape)
    for first, last in slow.places(len(map_DT)):
        result[first, last] = map_DT[last - first, first]
    return result


# --- The sampling mask ------------------------------------------------------------------------------------------------


def dense_weights(cells: list[tuple[int, int]], num_samples: int, num_snippets: int) -> np.ndarray:
    """`sample_weights` of the cells (start, duration), as (cells, N, T)."""
    start_N, duration_N = torch.tensor(cells).T
    cell, column, weight = sample_weights(start_N, duration_N, num_samples, num_snippets)
    matrix = torch.zeros(len(cells), num_snippets * num_samples, dtype=torch.double)
    matrix[cell, column] = weight
    return matrix.view(-1, num_snippets, num_samples).transpose(1, 2).numpy()


def test_sampling_golden() -> None:
    """T = 100, N = 32, first row 2, last row 4: points from 0 to 7, at distance 7/95."""
    assert slow.sample_points(2, 4, 32)[:2] + slow.sample_points(2, 4, 32)[-1:] == [0, pytest.approx(7 / 95), 7]
    for mask_NT in (slow.cell_mask(2, 4, 32, 100), dense_weights([(2, 2)], 32, 100)[0]):
        assert mask_NT[0, :2].round(4).tolist() == [0.9263, 0.0737]
        np.testing.assert_allclose(mask_NT[0, :2], [88 / 95, 7 / 95], atol=1e-12)
        assert not mask_NT[0, 2:].any()
        np.testing.assert_allclose(mask_NT[31, 6:8], [7 / 95, 88 / 95], atol=1e-12)
        np.testing.assert_allclose(mask_NT.sum(axis=1), 1, atol=1e-12)


def test_sampling_at_the_edges_of_the_window() -> None:
    """Before row 0 the first row is held, down to -1; behind the last row it fades, up to T."""
    rows_T = np.array([1.0, 1.0, 1.0])
    first, last, longest = dense_weights([(0, 0), (2, 0), (0, 2)], 2, 3) @ rows_T
    # Cell (0, 0): points -1, -.4, .2, .8, 1.4, 2. Cell (2, 0): points 1, 1.6, 2.2, 2.8, 3.4, 4.
    np.testing.assert_allclose(first, [2 / 3, 1])
    np.testing.assert_allclose(last, [(1 + 1 + 0.8) / 3, 0.2 / 3])
    # Cell (0, 2): points -2, -.6, .8, 2.2, 3.6, 5.
    np.testing.assert_allclose(longest, [2 / 3, 0.8 / 3])


@given(num_snippets=st.integers(1, 40), num_samples=st.integers(1, 9), data=st.data())
def test_sample_weights_are_the_mask(num_snippets: int, num_samples: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, num_snippets - 1))
    last = data.draw(st.integers(first, num_snippets - 1))
    ours = dense_weights([(0, 0), (first, last - first)], num_samples, num_snippets)[1]
    np.testing.assert_allclose(ours, slow.cell_mask(first, last, num_samples, num_snippets), atol=1e-12)


@given(num_snippets=st.integers(1, 30), num_samples=st.integers(1, 6), data=st.data())
def test_sample_weights_are_shares_in_order(num_snippets: int, num_samples: int, data: st.DataObject) -> None:
    """Sorted, each place once, nothing outside of the window; a sample takes at most one row's worth."""
    max_duration = data.draw(st.integers(1, num_snippets))
    start_N, duration_N = valid_cells(num_snippets, max_duration)
    cell, column, weight = sample_weights(start_N, duration_N, num_samples, num_snippets)
    keys = cell * num_snippets * num_samples + column
    assert (keys.diff() > 0).all()
    assert (weight > 0).all()
    assert 0 <= column.min() <= column.max() < num_snippets * num_samples
    per_sample = torch.zeros(len(start_N), num_samples, dtype=torch.double)
    per_sample.index_put_((cell, column % num_samples), weight, accumulate=True)
    assert per_sample.max() <= 1 + 1e-12


def test_the_whole_mask_of_a_small_window() -> None:
    start_N, duration_N = valid_cells(15, 9)
    mask_TNSE = slow.sampling_mask(5, 15, 9)
    ours = dense_weights(torch.stack([start_N, duration_N], dim=1).tolist(), 5, 15)
    expected = mask_TNSE[:, :, start_N, start_N + duration_N].permute(2, 1, 0)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert mask_TNSE.sum() == pytest.approx(expected.sum().item(), rel=1e-6)


# --- Sampling and the 3-D convolution, folded and direct --------------------------------------------------------------


NUM_SNIPPETS, MAX_DURATION, NUM_SAMPLES = 40, 37, 32


def convolution_weight(samples: Tensor) -> Tensor:
    return slow.convolution_weight(samples, NUM_SAMPLES)


def outputs_and_gradients(module: BoundaryMatching, folded: bool, feats: Tensor) -> list[Tensor]:
    """Valid cells (B, N, O), then the gradients of the features and of the convolution's weight and bias."""
    start_N, duration_N = valid_cells(NUM_SNIPPETS, MAX_DURATION)
    feats = feats.clone().requires_grad_()
    weight = convolution_weight(module.samples.weight).detach().clone().requires_grad_()
    bias = module.bias.detach().clone().requires_grad_()
    if folded:
        cells = module(feats.mT)
    else:
        map_BOSE = slow.DirectBoundaryMatching(NUM_SAMPLES, NUM_SNIPPETS, MAX_DURATION)(feats, weight, bias)
        cells = map_BOSE[:, :, start_N, start_N + duration_N].mT
    module.zero_grad()
    (cells * torch.linspace(-1, 2, cells.numel()).view(cells.shape)).sum().backward()
    if folded:
        weight.grad = convolution_weight(module.samples.weight.grad)
        bias.grad = module.bias.grad
    return [cells.detach(), feats.grad, weight.grad, bias.grad]


def test_folded_equals_direct_forward_and_backward() -> None:
    torch.manual_seed(0)
    module = BoundaryMatching(6, 5, num_snippets=NUM_SNIPPETS, max_duration=MAX_DURATION, num_samples=NUM_SAMPLES)
    feats = torch.randn(2, 6, NUM_SNIPPETS)
    folded, direct = (outputs_and_gradients(module, form, feats) for form in (True, False))
    for ours, reference in zip(folded, direct, strict=True):
        assert reference.norm() > 0
        assert (ours - reference).norm() <= 1e-5 * reference.norm()


def test_the_samples_of_a_cell_are_never_kept() -> None:
    num_snippets, channels, outputs, kept = 32, 16, 8, []
    module = BoundaryMatching(channels, outputs, num_snippets=num_snippets, max_duration=num_snippets, num_samples=32)
    feats = torch.randn(1, num_snippets, channels, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        cells = module(feats)
    weights = sum(p.numel() for p in module.parameters())
    assert sum(kept) <= cells.numel() + weights + 4 * feats.numel()


def test_the_mask_of_the_paper_is_never_built() -> None:
    """At T = 100 and N = 32 the dense mask has 100 x 320,000 numbers, which no buffer may come near."""
    module = BoundaryMatching(2, 2, num_snippets=100, max_duration=100, num_samples=32)
    assert sum(buffer.numel() for buffer in module.buffers()) < 100 * 320_000 / 10


def test_initial_weights_are_drawn_as_those_of_a_convolution() -> None:
    torch.manual_seed(0)
    module = BoundaryMatching(16, 32, num_snippets=4, max_duration=4, num_samples=8)
    convolution = torch.nn.Conv3d(16, 32, (8, 1, 1), stride=(8, 1, 1))
    for ours, expected in ((module.samples.weight, convolution.weight), (module.bias, convolution.bias)):
        assert ours.abs().max() <= 1 / math.sqrt(16 * 8)
        assert ours.std().item() == pytest.approx(expected.std().item(), rel=0.3)


# --- The network ------------------------------------------------------------------------------------------------------


def test_parameters_as_in_the_original() -> None:
    head = BMN(400)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in head.named_children()}
    assert parts == {
        "base": 126_464, "start": 49_665, "end": 49_665, "proposal": 196_864, "match": 4_194_816, "localize": 361_090,
    }  # fmt: skip
    assert sum(p.numel() for p in head.parameters()) == 4_978_564


def test_a_class_costs_one_output_channel() -> None:
    without, with_classes = (sum(p.numel() for p in small(num_classes=k).parameters()) for k in (0, 5))
    assert with_classes - without == 5 * (16 // 2 + 1)


@pytest.mark.parametrize(
    ("num_snippets", "max_duration", "num_classes"), [(12, 12, 0), (12, 5, 3), (2, 2, 1), (1, 1, 2)]
)
def test_the_network_equals_its_literal_form(num_snippets: int, max_duration: int, num_classes: int) -> None:
    head = small(num_snippets=num_snippets, max_duration=max_duration, num_classes=num_classes)
    feats = torch.randn(3, 8, num_snippets)
    output = head(feats)
    start, end, cells_BKSE = slow.network(head, feats)
    torch.testing.assert_close(output.start, start.sigmoid())
    torch.testing.assert_close(output.end, end.sigmoid())
    assert output.iou_reg.shape == output.iou_cls.shape == (3, max_duration, num_snippets)
    assert (output.class_logits is None) == (num_classes == 0)
    for first, last in slow.places(num_snippets, max_duration):
        here = ..., last - first, first
        torch.testing.assert_close(output.iou_reg[here], cells_BKSE[:, 0, first, last].sigmoid())
        torch.testing.assert_close(output.iou_cls[here], cells_BKSE[:, 1, first, last].sigmoid())
        if num_classes:
            torch.testing.assert_close(output.class_logits[here], cells_BKSE[:, 2:, first, last], rtol=1e-4, atol=1e-5)


def test_cells_that_end_after_the_window_are_zero() -> None:
    output = small(num_classes=2)(torch.randn(2, 8, 12))
    duration, start = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    valid = start + duration < 12
    for map_BDT in (output.iou_reg, output.iou_cls, output.class_logits):
        assert not map_BDT[..., ~valid].any()
        assert map_BDT[..., valid].all()


def test_a_neighbour_in_the_batch_changes_nothing() -> None:
    head, feats = small(), torch.randn(3, 8, 12)
    for alone, together in zip(head(feats[:1])[:4], head(feats)[:4], strict=True):
        torch.testing.assert_close(together[:1], alone)


def test_features_of_any_number_of_channels() -> None:
    assert BMN(6, num_snippets=4, hidden=8)(torch.randn(1, 6, 4)).start.shape == (1, 4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden": 18}, "bmn: hidden is 18; it must be a multiple of 4"),
        ({"hidden": 0}, "hidden is 0; it must be a multiple of 4"),
        ({"max_duration": 13}, "bmn: max_duration is 13; it must be between 1 and num_snippets=12"),
        ({"max_duration": 0}, "max_duration is 0"),
        ({"num_snippets": 0}, "max_duration is 0; it must be between 1 and num_snippets=0"),
        ({"num_samples": 0}, "bmn: num_samples is 0; it must be at least 1"),
    ],
)
def test_refuses_sizes_it_cannot_have(kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**kwargs)


def test_weights_move_between_window_lengths_and_are_all_there_is() -> None:
    short, long = small(), small(num_snippets=20, max_duration=16)
    long.load_state_dict(short.state_dict())
    assert set(short.state_dict()) == {name for name, _ in short.named_parameters()}


# --- Targets and losses -----------------------------------------------------------------------------------------------


times = st.floats(0, 12, width=32)


@given(boundaries=st.lists(times, min_size=1, max_size=4))
def test_boundary_scores(boundaries: list[float]) -> None:
    ours = boundary_scores(torch.tensor(boundaries), 12, anchor=BMN.ANCHOR)
    np.testing.assert_allclose(ours, slow.boundary_scores(boundaries, 12), atol=1e-5)


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [
        (3.0, [0, 0, 1, 1, 1, 0]),
        (2.5, [0, 0.5, 1, 1, 0.5, 0]),
        (0.0, [1, 1, 0, 0, 0, 0]),
        (6.0, [0, 0, 0, 0, 0, 1]),
    ],
)
def test_boundary_scores_by_hand(boundary: float, expected: list[float]) -> None:
    """Anchors are one row wide, so a boundary on row k makes rows k-1, k and k+1 positive."""
    assert boundary_scores(torch.tensor([boundary]), 6, anchor=BMN.ANCHOR).tolist() == pytest.approx(expected)


def test_targets() -> None:
    head = small(num_classes=3)
    segments = [(1.2, 4.0), (3.0, 9.5)]
    targets = head.targets([torch.tensor(segments), torch.zeros(0, 2)], [torch.tensor([2, 0]), torch.zeros(0).long()])
    np.testing.assert_allclose(targets.start[0], slow.boundary_scores([1.2, 3.0], 12), atol=1e-6)
    np.testing.assert_allclose(targets.end[0], slow.boundary_scores([4.0, 9.5], 12), atol=1e-6)
    np.testing.assert_allclose(targets.iou[0], in_rows(slow.iou_map(segments, 12)), atol=1e-6)
    separate = np.stack([in_rows(slow.iou_map([segment], 12)) for segment in segments])
    expected = np.where(separate.max(axis=0) > 0.5, np.array([2, 0])[separate.argmax(axis=0)], -1)
    np.testing.assert_array_equal(targets.label[0], expected)
    assert {-1, 0, 2} == set(expected.flat)
    assert not any(part[1].any() for part in (targets.start, targets.end, targets.iou))
    assert (targets.label[1] == -1).all()


def test_losses_are_the_originals() -> None:
    head = small()
    segments = [(1.23, 6.17), (7.31, 11.43)]  # nothing lies on a threshold
    output = head(torch.randn(1, 8, 12))
    parts = head.loss(
        output,
        head.targets([torch.tensor(segments)], [torch.tensor([0, 0])]),
        generator=torch.Generator().manual_seed(5),
    )
    start_N, duration_N = valid_cells(12, 12)
    draws_N = torch.rand(1, len(start_N), generator=torch.Generator().manual_seed(5))[0]
    cells = zip(start_N.tolist(), duration_N.tolist(), draws_N.tolist(), strict=True)
    expected = slow.losses(
        output.start[0].detach().numpy(),
        output.end[0].detach().numpy(),
        by_place(output.iou_reg[0].detach()),
        by_place(output.iou_cls[0].detach()),
        segments,
        {(start, start + duration): draw for start, duration, draw in cells},
    )
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected, rel=1e-5)


def test_loss_is_the_weighted_sum_of_its_parts() -> None:
    head = small(num_classes=2, reg_weight=3, cls_weight=7, class_weight=5)
    targets = head.targets([torch.tensor([[2.0, 7.0]])], [torch.tensor([1])])
    parts = head.loss(head(torch.randn(1, 8, 12)), targets)
    expected = parts["node"] + 3 * parts["reg"] + 7 * parts["cls"] + 5 * parts["class"]
    assert all(part > 0 for part in parts.values())
    torch.testing.assert_close(parts["loss"], expected)


def test_a_batch_without_any_segment_has_finite_gradients() -> None:
    head = small(num_classes=2)
    nothing = head.targets([torch.zeros(0, 2)] * 2, [torch.zeros(0, dtype=torch.long)] * 2)
    parts = head.loss(head(torch.randn(2, 8, 12)), nothing)
    parts["loss"].backward()
    assert parts["reg"] == parts["class"] == 0
    assert math.isfinite(parts["loss"].item())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


# --- Decoding ---------------------------------------------------------------------------------------------------------


def random_output(num_snippets: int, max_duration: int, logits: Tensor | None = None) -> MapOutput:
    generator = torch.Generator().manual_seed(3)
    start, end = torch.rand(2, 1, num_snippets, generator=generator)
    reg, cls = torch.rand(2, 1, max_duration, num_snippets, generator=generator)
    return MapOutput(start, end, reg, cls, logits)


def test_decode_equals_the_original_but_at_the_end_of_the_window() -> None:
    output = random_output(12, 12)
    start, end, reg, cls = (part[0].numpy() for part in output[:4])
    proposals = small().decode(output)
    found = {
        (int(s), int(e)): score
        for (s, e), score in zip(proposals.segments[0].tolist(), proposals.scores[0, :, 0].tolist(), strict=True)
    }
    expected = slow.decode(start, end, by_place(output.iou_reg[0]), by_place(output.iou_cls[0]))
    assert {segment: score for segment, score in found.items() if segment[1] < 12} == pytest.approx(expected)
    for s in range(12):
        duration = 12 - s - 1
        assert found.pop((s, 12)) == pytest.approx(start[s] * end[11] * reg[duration, s] * cls[duration, s])
    assert found.keys() == expected.keys()


def test_decode_proposes_segments_up_to_the_longest() -> None:
    proposals = small(max_duration=5).decode(random_output(12, 5))
    lengths = proposals.segments[0].diff(dim=1)
    assert (lengths.min(), lengths.max(), len(lengths)) == (1, 5, 12 + 11 + 10 + 9 + 8)


def test_decode_scores_each_class() -> None:
    head, logits = small(num_classes=3), torch.randn(1, 3, 12, 12)
    with_classes, without = (head.decode(random_output(12, 12, x)) for x in (logits, None))
    torch.testing.assert_close(with_classes.scores.sum(dim=2), without.scores[..., 0])
    for (start, end), scores in zip(with_classes.segments[0].long().tolist(), with_classes.scores[0], strict=True):
        torch.testing.assert_close(scores / scores.sum(), logits[0, :, end - start - 1, start].softmax(dim=0))


# --- Learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_classes", "max_duration"), [(2, 24), (0, 12)])
def test_learns(num_classes: int, max_duration: int) -> None:
    """Rows inside a segment look like its class; after some steps each class's best cell is its segment, by a row."""
    torch.manual_seed(0)
    head = HEADS["bmn"].load()(8, num_snippets=24, hidden=32, num_classes=num_classes, max_duration=max_duration)
    segments, labels = torch.tensor([[3.0, 9.0], [14.0, 24.0]]), torch.tensor([1, 0])
    feats = 0.1 * torch.randn(1, 8, 24)
    feats[:, :4, 3:9] += 1
    feats[:, 4:, 14:24] += 1
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    targets = head.targets([segments], [labels])
    losses = []
    for _ in range(80):
        loss = head.loss(head(feats), targets)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    [found_N2], [scores_NK] = head.decode(head(feats))
    best = scores_NK.argmax(dim=0) if num_classes else best_in_each_half(found_N2, scores_NK[:, 0])
    torch.testing.assert_close(found_N2[best], segments.flip(0), rtol=0, atol=1)


def best_in_each_half(found_N2: Tensor, scores_N: Tensor) -> Tensor:
    """The best cell of the second half of the window and of the first."""
    late_N = found_N2.mean(dim=1) > 12
    return torch.stack([(scores_N * half).argmax() for half in (late_N, ~late_N)])
