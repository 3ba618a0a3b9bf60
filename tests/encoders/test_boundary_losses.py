"""What boundary-sensitive pre-training puts on an encoder: losses against slow references, and what is trained."""

import numpy as np
import pytest
import reference_boundary as reference
import torch

from encoders import build_encoder
from encoders.boundary import ChangePointRegressor, Distillation, TwoHeads, heatmap, heatmap_loss, matching_loss

SMALL = {"weights": "random", "size": 32}


def clips(number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (number, 3, 8, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("tau", [1, 4])
def test_the_heatmap_loss_is_that_of_the_formula(tau: int) -> None:
    rng = np.random.default_rng(tau)
    predicted_BL = rng.normal(0.5, 1.5, size=(6, 8)).astype(np.float32)  # errors below and above 1
    change_points = [2.0, 3.0, 4.0, 4.0, 5.5, 6.0]
    expected = reference.heatmap_loss(predicted_BL, change_points, tau)
    found = heatmap_loss(torch.from_numpy(predicted_BL), torch.tensor(change_points), tau)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_heatmap_peaks_at_the_last_frame_before_the_change() -> None:
    heatmap_BL = heatmap(torch.tensor([3.0]), 8, tau=4)
    assert heatmap_BL.argmax().item() == 2
    assert heatmap_BL.max().item() == 1


def test_the_matching_loss_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    projected_BC, teacher_BC = rng.normal(size=(2, 5, 7))
    found = matching_loss(torch.from_numpy(projected_BC), torch.from_numpy(teacher_BC))
    assert found.item() == pytest.approx(reference.matching_loss(projected_BC, teacher_BC))


def test_a_clips_features_are_the_mean_over_its_frames() -> None:
    encoder = build_encoder("tsm_tiny", **SMALL).eval()  # type: ignore[arg-type]
    frames_BLC = encoder.frame_features(clips(2))
    assert frames_BLC.shape == (2, 8, 128)
    torch.testing.assert_close(frames_BLC.mean(dim=1), encoder(clips(2)))


def test_the_regressor_looks_at_each_frame() -> None:
    encoder = build_encoder("tsn_r18", num_frames=8, **SMALL)  # type: ignore[arg-type]
    regressor = ChangePointRegressor(encoder, dropout=0.0).eval()
    before = regressor(clips(1))
    changed = clips(1)
    changed[:, :, 5] = 0
    other = regressor(changed)
    assert before.shape == (1, 8)
    assert torch.nonzero((before - other).abs() > 1e-4)[:, 1].tolist() == [5]  # a TSN looks at each frame alone


def test_an_encoder_without_frames_of_its_own_is_refused() -> None:
    encoder = build_encoder("slow_r50", weights="random", size=32, num_frames=4)
    with pytest.raises(ValueError, match="slow_r50 gives one vector for all frames"):
        ChangePointRegressor(encoder, dropout=0.5)


def test_two_heads_share_the_encoder_and_nothing_else() -> None:
    torch.manual_seed(0)
    two_heads = TwoHeads(build_encoder("tsm_tiny", **SMALL), 5, 4, dropout=0.0)  # type: ignore[arg-type]
    actions_RK, kinds_SK = two_heads(clips(6), 2)
    assert actions_RK.shape == (2, 5)
    assert kinds_SK.shape == (4, 4)
    for logits, own, other in (
        (actions_RK, two_heads.actions, two_heads.kinds),
        (kinds_SK, two_heads.kinds, two_heads.actions),
    ):
        two_heads.zero_grad()
        logits.square().sum().backward(retain_graph=True)
        assert own.weight.grad is not None
        assert other.weight.grad is None
        assert all(parameter.grad is not None for parameter in two_heads.encoder.parameters())
    two_heads.eval()
    actions_RK, kinds_SK = two_heads(clips(6), 2)
    torch.testing.assert_close(two_heads(clips(6)[:2], 2)[0], actions_RK)
    torch.testing.assert_close(two_heads(clips(6)[2:], 0)[1], kinds_SK)


def test_teachers_stay_as_they_are_and_the_student_comes_nearer() -> None:
    torch.manual_seed(0)
    student, *teachers = (build_encoder("tsm_tiny", seed=seed, **SMALL) for seed in range(3))  # type: ignore[arg-type]
    before = [{key: value.clone() for key, value in teacher.state_dict().items()} for teacher in teachers]
    expected = [teacher.eval()(clips(8)) for teacher in teachers]
    distillation = Distillation(student, *teachers, 3, dropout=0.0).train()
    learned = [parameter for parameter in distillation.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.02, momentum=0.9)
    losses = []
    for _ in range(12):
        matching = distillation(clips(8), 3)
        loss = matching.action_features + matching.boundary_features
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert matching.logits.shape == (3, 3)
    for teacher, state, features_BC in zip(teachers, before, expected, strict=True):
        assert not teacher.training
        assert all(torch.equal(teacher.state_dict()[key], value) for key, value in state.items())
        torch.testing.assert_close(teacher(clips(8)), features_BC)


def test_each_projection_matches_its_own_teacher() -> None:
    encoders = [build_encoder("tsm_tiny", seed=seed, **SMALL) for seed in range(3)]  # type: ignore[arg-type]
    distillation = Distillation(*encoders, 2, dropout=0.0).eval()
    features_BC = distillation.encoder(clips(4))
    matching = distillation(clips(4), 2)
    for found, projection, teacher in (
        (matching.action_features, distillation.h1, encoders[1]),
        (matching.boundary_features, distillation.h2, encoders[2]),
    ):
        projected_BC, teacher_BC = projection(features_BC), teacher(clips(4))
        expected = reference.matching_loss(projected_BC.detach().numpy(), teacher_BC.detach().numpy())
        assert found.item() == pytest.approx(expected, rel=1e-4)


def test_a_teacher_that_wants_other_clips_is_refused() -> None:
    student, teacher = (build_encoder("tsm_tiny", weights="random", size=size) for size in (32, 64))
    with pytest.raises(ValueError, match=r"teacher tsm_tiny wants other clips .*64, 64\).*32, 32\)"):
        Distillation(student, teacher, teacher, 3, dropout=0.5)
