"""The SoLa module: its two ways of computing the same, its form, and that padding and chunks do not show."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv1d, pad

from encoders.sola import Projector, SoLa, refine_video

CHANNELS, HIDDEN = 6, 10


def opened(**options: object) -> SoLa:
    """A module whose gate is open, as after training."""
    torch.manual_seed(0)
    sola = SoLa(CHANNELS, hidden=HIDDEN, **options)  # type: ignore[arg-type]
    if sola.alpha is not None:
        torch.nn.init.constant_(sola.alpha, 0.7)
    return sola


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_the_first_step_is_the_identity() -> None:
    feats_BCT = features(2, CHANNELS, 9)
    torch.testing.assert_close(SoLa(CHANNELS, hidden=HIDDEN)(feats_BCT), feats_BCT, rtol=0, atol=0)


@pytest.mark.parametrize("form", ["adapter", "direct"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_it_is_three_convolutions_residual_and_gated_in_the_adapter_form(form: str, kernel_size: int) -> None:
    sola, feats_BCT = opened(form=form, kernel_size=kernel_size), features(2, CHANNELS, 9)
    state = sola.state_dict()
    padded_BCT = pad(feats_BCT, (kernel_size // 2, kernel_size // 2))
    hidden_BHT = conv1d(padded_BCT, state["local.weight"], state["local.bias"]).relu()
    hidden_BHT = conv1d(hidden_BHT, state["middle.weight"], state["middle.bias"]).relu()
    change_BCT = conv1d(hidden_BHT, state["last.weight"], state["last.bias"])
    expected_BCT = change_BCT if form == "direct" else feats_BCT + torch.tanh(torch.tensor(0.7)) * change_BCT
    torch.testing.assert_close(sola(feats_BCT), expected_BCT)


@pytest.mark.parametrize("form", ["adapter", "direct"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_at_centers_equals_forward_where_no_edge_is_near(form: str, kernel_size: int) -> None:
    sola, feats_CT, reach = opened(form=form, kernel_size=kernel_size), features(CHANNELS, 30), kernel_size // 2
    centers = [4, 12, 25]
    near_SkC = torch.stack([feats_CT[:, c - reach : c + reach + 1].T for c in centers])
    torch.testing.assert_close(sola.at_centers(near_SkC[None])[0], sola(feats_CT[None])[0].T[centers])


def test_a_video_is_refined_alone_as_in_company() -> None:
    sola = opened()
    short_CT, long_CT = features(CHANNELS, 7), features(CHANNELS, 12) + 1
    batch_BCT = torch.full((2, CHANNELS, 12), float("nan"))
    batch_BCT[0, :, :7], batch_BCT[1] = short_CT, long_CT
    mask_BT = torch.arange(12) < torch.tensor([[7], [12]])
    refined_BCT = sola(batch_BCT, mask_BT)
    torch.testing.assert_close(refined_BCT[0, :, :7], sola(short_CT[None])[0])
    torch.testing.assert_close(refined_BCT[1], sola(long_CT[None])[0])
    assert (refined_BCT[0, :, 7:] == 0).all()


@settings(deadline=None, max_examples=50)
@given(num_rows=st.integers(1, 40), chunk=st.integers(1, 45), kernel_size=st.sampled_from([1, 3, 5, 7]))
def test_chunks_do_not_show(num_rows: int, chunk: int, kernel_size: int) -> None:
    sola, features_TC = opened(kernel_size=kernel_size), features(num_rows, CHANNELS)
    with torch.inference_mode():
        whole_TC = sola(features_TC.T[None])[0].T
    torch.testing.assert_close(refine_video(sola, features_TC, chunk=chunk), whole_TC, rtol=1e-6, atol=1e-6)


def test_the_projector_does_not_see_how_long_a_vector_is() -> None:
    projector, rows_SC = Projector(CHANNELS, hidden=8), features(3, CHANNELS)
    torch.testing.assert_close(projector(5 * rows_SC), projector(rows_SC))
    unit_SC = rows_SC / rows_SC.norm(dim=1, keepdim=True)
    torch.testing.assert_close(projector(rows_SC), projector.layers(unit_SC))


def test_the_build_arguments_build_it_again() -> None:
    sola = opened(kernel_size=3, form="direct")
    again = SoLa(**sola.build_args)
    again.load_state_dict(sola.state_dict())
    torch.testing.assert_close(again(features(1, CHANNELS, 5)), sola(features(1, CHANNELS, 5)))


@pytest.mark.parametrize("kernel_size", [0, 4])
def test_a_kernel_without_a_middle_is_refused(kernel_size: int) -> None:
    with pytest.raises(ValueError, match=f"kernel_size is {kernel_size}; it must be odd"):
        SoLa(CHANNELS, kernel_size=kernel_size)
