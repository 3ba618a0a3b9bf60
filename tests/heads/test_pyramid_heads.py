"""What heads on a pyramid of points have in common: padding, neighbours, counting, bad input, memory, learning."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import pytest
import torch
from largest_tensor import LargestTensor
from torch import Tensor, nn

from heads import HEADS
from heads.points import pyramid_points

SMALL: dict[str, dict[str, Any]] = {
    "temporalmaxer": {},
    # Depthwise weights that can learn, and kernels that see several rows.
    "tridet": {
        "mlp_hidden": 24, "head_hidden": 16, "kernel": 3, "kernel_ratio": 1.5, "depthwise_init": 0.5, "num_bins": 5,
        "drop_path": 0.0,
    },
}  # fmt: skip
ACTIONFORMER = {"num_heads": 2, "window": 5, "drop_path": 0.0}  # which has tests of its own for the rest
VARIANTS = [
    ("temporalmaxer", {}),
    ("temporalmaxer", {"level_norm": "layer"}),
    ("tridet", {}),
    ("tridet", {"boundary_kernel": 1, "head_kernel": 5, "position_rows": 12}),
]


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def small(name: str, **kwargs: Any) -> Any:
    """A head whose scales and biases are far from their first values, so that whatever they do is seen."""
    torch.manual_seed(0)
    head = HEADS[name].load()(8, **{"hidden": 16, "num_levels": 3, **SMALL.get(name, {}), **kwargs})
    for parameter_name, parameter in head.named_parameters():
        if parameter.ndim == 1 and "classify.out" not in parameter_name:
            nn.init.uniform_(parameter, 0.2, 1)
    return head


def rows(lengths: list[int], num_rows: int) -> Tensor:
    return torch.arange(num_rows) < torch.tensor(lengths)[:, None]


def loss_of(
    head: Any, feats_BCT: Tensor, valid_BT: Tensor, *videos: list[tuple[float, float, int]]
) -> dict[str, Tensor]:
    """The losses of a batch whose segments are (start, end, class)."""
    segments = [torch.tensor([ends[:2] for ends in video]).view(-1, 2) for video in videos]
    labels = [torch.tensor([label for *_, label in video], dtype=torch.long) for video in videos]
    parts: dict[str, Tensor] = head.loss(head(feats_BCT, valid_BT), head.targets(segments, labels))
    return parts


@pytest.mark.parametrize("num_classes", [0, 4])
@pytest.mark.parametrize("num_rows", [1, 2, 7, 33])
def test_shapes(name: str, num_rows: int, num_classes: int) -> None:
    head = small(name, num_classes=num_classes, num_levels=6)
    output = head(torch.randn(2, 8, num_rows))
    num_points = sum(math.ceil(num_rows / 2**level) for level in range(6))
    assert output.logits.shape == (2, num_points, max(1, num_classes))
    assert output.valid.shape == (2, num_points)
    assert len(output.points.time) == num_points
    found = head.decode(output)
    assert found.segments.shape == (2, num_points * max(1, num_classes), 2)
    assert found.scores.shape == found.labels.shape == found.segments.shape[:2]


def test_it_begins_with_the_prior(name: str) -> None:
    head = HEADS[name].load()(8, num_classes=3, hidden=16)
    biases = {key: p for key, p in head.named_parameters() if key.endswith("bias")}
    priors = [biases.pop(key) for key in list(biases) if not biases[key].eq(0).all()]
    assert priors
    for bias in priors:
        torch.testing.assert_close(bias.sigmoid(), torch.full((3,), 0.01))


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_result_depends_neither_on_padding_nor_on_neighbours(name: str, options: dict[str, Any]) -> None:
    head = small(name, num_classes=3, num_levels=5, min_score=0.0, **options).eval()
    lengths = [1, 6, 17, 40, 41]
    videos = [torch.randn(8, length) for length in lengths]
    together = torch.full((len(videos), 8, 50), torch.nan)
    for row_CT, feats_CT in zip(together, videos, strict=True):
        row_CT[:, : feats_CT.shape[1]] = feats_CT
    valid_BT = rows(lengths, 50)
    with torch.no_grad():
        batch = head(together, valid_BT)
        found = head.decode(batch)
        for video, (feats_CT, length) in enumerate(zip(videos, lengths, strict=True)):
            alone = head(feats_CT[None])
            padded = head(together[video, None], valid_BT[video, None])
            real_P = batch.valid[video]
            assert torch.equal(batch.points.time[real_P], alone.points.time)
            assert not batch.valid[video, batch.points.time > length].any()
            for here, there, beside in zip(batch, alone, padded, strict=True):
                if isinstance(here, Tensor) and here.dtype != torch.bool:
                    torch.testing.assert_close(here[video, real_P], there[0], rtol=0, atol=1e-5)
                    torch.testing.assert_close(beside[0, real_P], there[0], rtol=0, atol=1e-5)
            expected, proposed = head.decode(alone), found.scores[video] > 0
            own = expected.scores[0] > 0
            torch.testing.assert_close(found.scores[video, proposed], expected.scores[0, own], rtol=0, atol=1e-5)
            torch.testing.assert_close(found.segments[video, proposed], expected.segments[0, own], rtol=0, atol=1e-4)


def test_statistics_over_padding_depend_on_crop_rows_and_not_on_neighbours(name: str) -> None:
    """As in the public code, where every sequence is filled up with zeros."""
    head = small(name, num_classes=2, crop_rows=45, padded_statistics=True).eval()
    feats_BCT, valid_BT = torch.randn(2, 8, 30), rows([30, 11], 30)
    with torch.no_grad():
        batch, alone = head(feats_BCT, valid_BT), head(feats_BCT[1, None, :, :11])
        torch.testing.assert_close(batch.logits[1, batch.valid[1]], alone.logits[0], rtol=0, atol=1e-5)
        assert len(alone.points.time) == len(pyramid_points(11, 3).time)
        for other in ({"crop_rows": 90, "padded_statistics": True}, {}):
            changed = small(name, num_classes=2, **other).eval()
            changed.load_state_dict(head.state_dict())
            assert not torch.allclose(changed(feats_BCT[1, None, :, :11]).logits, alone.logits, atol=1e-3)


def test_losses_depend_neither_on_padding_nor_on_neighbours(name: str) -> None:
    """The loss of a batch is the sum of what its sequences lose alone."""
    head = small(name, num_classes=2, label_smoothing=0.1).eval()
    lengths, videos = [9, 30], [[(2.0, 6.0, 1)], [(0.0, 3.0, 0), (4.0, 29.0, 1)]]
    feats_BCT = torch.randn(2, 8, 40)
    found = loss_of(head, feats_BCT, rows(lengths, 40), *videos)
    alone = [
        loss_of(head, feats_BCT[video, None, :, :length], rows([length], length), videos[video])
        for video, length in enumerate(lengths)
    ]
    for part in ("loss", "cls", "reg"):
        torch.testing.assert_close(found[part], alone[0][part] + alone[1][part], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_rows", [10_000, 40_000])
def test_many_rows_in_memory_linear_in_their_number(name: str, num_rows: int) -> None:
    head = small(name, num_classes=2, num_levels=6)
    with LargestTensor() as largest:
        output = head(torch.randn(1, 8, num_rows))
        segments = head.targets([torch.tensor([[100.0, 9000.0], [40.0, 60.0]])], [torch.tensor([0, 1])])
        head.loss(output, segments)["loss"].backward()
        head.decode(output)
    assert largest.numel < 100 * num_rows


def test_positives_are_counted_in_training_alone_and_saved(name: str) -> None:
    head = small(name, initial_positives=50)
    feats_BCT, valid_BT, video = torch.randn(1, 8, 20), rows([20], 20), [(6.0, 9.0, 0)]
    head.eval()
    loss = loss_of(head, feats_BCT, valid_BT, video)["loss"]
    assert head.num_positives == 50
    counted = head.loss(head(feats_BCT), head.train().targets([torch.tensor([[6.0, 9.0]])], [torch.tensor([0])]))
    # The points at 6.5, 7.5 and 8.5; those of other levels are for longer segments.
    expected = torch.tensor(0.9 * 50 + 0.1 * 3)
    torch.testing.assert_close(head.num_positives, expected)
    torch.testing.assert_close(counted["loss"] * expected, loss * 50)
    other = small(name)
    other.load_state_dict(head.state_dict())
    assert other.num_positives == head.num_positives


def test_two_losses_before_backward(name: str) -> None:
    """As where gradients are accumulated: the count that the first one was divided by stays what it was."""
    head = small(name)
    losses = [loss_of(head, torch.randn(1, 8, 20), rows([20], 20), [(6.0, 9.0, 0)])["loss"] for _ in range(2)]
    (losses[0] + losses[1]).backward()


def test_a_segment_beyond_the_end_is_cut_and_one_outside_is_none(name: str) -> None:
    head = small(name).eval()
    feats_BCT, valid_BT = torch.randn(2, 8, 30), rows([20, 30], 30)

    def loss(*segments: tuple[float, float]) -> Tensor:
        return loss_of(head, feats_BCT, valid_BT, [(*ends, 0) for ends in segments], [])["loss"]

    assert loss((12.0, 50.0), (-9.0, -2.0), (20.0, 25.0), (-3.0, 4.0)) == loss((12.0, 20.0), (0.0, 4.0))
    assert loss((12.0, 20.0)) != loss((12.0, 19.0))


def test_without_classes_every_label_is_the_same_action(name: str) -> None:
    head = small(name).eval()
    feats_BCT, valid_BT = torch.randn(1, 8, 20), rows([20], 20)
    videos = [[(6.0, 9.0, first), (1.0, 4.0, second)] for first, second in ((0, 0), (7, -1))]
    losses = [loss_of(head, feats_BCT, valid_BT, video)["loss"] for video in videos]
    assert losses[0] == losses[1]


# Lengths of the videos of a batch, and their segments (start, end, class).
BAD: dict[str, tuple[list[int], list[list[tuple[float, float, int]]]]] = {
    "one row": ([1, 1], [[(0.0, 1.0, 0)], []]),
    "shorter than the deepest stride": ([3, 5], [[(0.0, 3.0, 1)], [(1.0, 4.5, 0)]]),
    "longer than every range": ([200], [[(0.0, 200.0, 1)]]),
    "without length": ([20, 20], [[(4.0, 4.0, 0), (4.5, 4.5, 1)], [(0.0, 0.0, 0), (2.0, 7.0, 1)]]),
    "no segment at all": ([20, 9], [[], []]),
    "no class at all": ([40, 20], [[(1.0, 6.0, -1), (3.0, 40.0, -1)], [(0.0, 3.0, -1)]]),
}


@pytest.mark.parametrize("num_classes", [0, 2])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", [*SMALL, "actionformer"])
def test_bad_input_has_finite_losses_and_gradients(name: str, bad: str, num_classes: int) -> None:
    lengths, videos = BAD[bad]
    options = ACTIONFORMER if name == "actionformer" else {}
    head = small(name, **options, num_classes=num_classes, num_levels=6, label_smoothing=0.1)
    num_rows = max(lengths)
    feats_BCT, valid_BT = torch.randn(len(lengths), 8, num_rows), rows(lengths, num_rows)
    parts = loss_of(head, feats_BCT, valid_BT, *videos)
    parts["loss"].backward()
    assert all(part.isfinite() for part in parts.values())
    assert parts["cls"] > 0
    of_a_class = name == "tridet" and num_classes > 0  # its segments are
    assert (parts["reg"] == 0) == (bad == "no segment at all" or (bad == "no class at all" and of_a_class))
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
    found = head.eval().decode(head(feats_BCT, valid_BT))
    assert found.segments.isfinite().all()
    assert (found.scores.amax(dim=1) > 0).all()
    assert (found.scores <= 1).all()
    assert (found.segments[..., 1] >= found.segments[..., 0]).all()


def test_every_parameter_learns_from_padded_sequences_of_any_length(name: str) -> None:
    head = small(name, num_classes=2)
    lengths = [1, 2, 40]
    videos = [[(0.0, 1.0, 0)], [(0.0, 2.0, 1)], [(3.0, 6.0, 1), (8.0, 13.0, 0), (5.0, 35.0, 1)]]
    valid_BT = rows(lengths, 40)
    feats_BCT = torch.randn(3, 8, 40).masked_fill(~valid_BT[:, None], torch.nan)
    loss_of(head, feats_BCT, valid_BT, *videos)["loss"].backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


def test_the_ranges_of_levels_overlap_as_told(name: str) -> None:
    points = small(name, range_ratio=4)(torch.randn(1, 8, 3)).points
    assert torch.equal(points.low, pyramid_points(3, 3, range_ratio=4).low)


def test_half_precision_is_near_single(name: str) -> None:
    head = small(name, num_classes=2).eval()
    feats_BCT, valid_BT = torch.randn(2, 8, 40), rows([40, 11], 40)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = head(feats_BCT, valid_BT)
    single = head(feats_BCT, valid_BT)
    assert {value.dtype for value in half if isinstance(value, Tensor)} == {torch.float32, torch.bool}
    torch.testing.assert_close(half.logits.sigmoid(), single.logits.sigmoid(), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_levels": 0}, "num_levels is 0; it must be at least 1"),
        ({"crop_rows": 0}, "crop_rows is 0; it must be at least 1"),
        ({"range_ratio": 1.0}, "range_ratio is 1.0; it must be above 1"),
        ({"initial_positives": 0.0}, "initial_positives is 0.0; it must be above 0"),
        ({"most_per_level": 0}, "most_per_level is 0; it must be at least 1"),
    ],
)
def test_refuses_numbers_it_cannot_have(name: str, kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        small(name, **kwargs)


def test_the_head_can_be_told_what_its_options_say(name: str) -> None:
    head, options = HEADS[name].load(), HEADS[name].options
    assert head.Options is options
    taken = inspect.signature(head).parameters
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    assert {key: parameter.default for key, parameter in taken.items() if key in defaults} == defaults
    assert set(taken) == {"in_channels", "num_classes", *defaults}


def test_learns_planted_segments_of_two_classes_and_lengths(name: str) -> None:
    """Videos of two lengths in one batch; the best of each class is its segment, by half a row and more if longer."""
    torch.manual_seed(0)
    head = HEADS[name].load()(
        8, **{"num_classes": 2, "num_levels": 4, **SMALL[name], "hidden": 32, "initial_positives": 5}
    )
    lengths, planted = [30, 50], [[(4.0, 7.5), (12.0, 27.0)], [(20.0, 48.0), (8.0, 12.0)]]
    feats_BCT = 0.1 * torch.randn(2, 8, 50)
    for feats_CT, ends in zip(feats_BCT, planted, strict=True):
        for label, (start, end) in enumerate(ends):
            feats_CT[4 * label : 4 * label + 4, round(start) : round(end)] += 1
    valid_BT = rows(lengths, 50)
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
