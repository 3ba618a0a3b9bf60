"""Folding, memory format and precision: faster, with the same features."""

from __future__ import annotations

import pytest
import torch
from small_encoders import random_clips, small, trained_looking
from test_encoders import LIGHT
from torch import nn

from encoders import Encoder, inference
from encoders.inference import computes_in_bfloat16, prepare_for_inference
from encoders.weights import fingerprint

CPU = torch.device("cpu")


SOME_STAY = ("r2plus1d_18", "x3d_m")  # BatchNorms that stand in another module than their convolution


def made(name: str) -> Encoder:
    return trained_looking(small(name))


def num_norms(encoder: Encoder) -> int:
    return sum(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in encoder.modules())


@pytest.mark.parametrize("name", LIGHT)
def test_folded_features_are_the_same(name: str) -> None:
    encoder = made(name)
    clips = random_clips(encoder)
    prepared = prepare_for_inference(encoder, CPU, "float32")
    assert num_norms(prepared) == 0 or (name in SOME_STAY and num_norms(prepared) < num_norms(encoder) / 1.5)
    with torch.no_grad():
        expected, features = encoder(clips), prepared(clips)
    assert expected.std() > 1e-3
    assert (features - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_folding_uses_the_statistics_also_of_an_encoder_in_training_mode() -> None:
    encoder = made("tsm_tiny")
    clips = random_clips(encoder)
    with torch.no_grad():
        expected = encoder(clips)
        torch.testing.assert_close(prepare_for_inference(encoder.train(), CPU, "float32")(clips), expected)


def test_the_copy_is_frozen_and_channels_last_and_the_encoder_stays_as_it_was() -> None:
    encoder = made("tsm_tiny").train()
    before = fingerprint(encoder)
    prepared = prepare_for_inference(encoder, CPU, "auto")
    assert fingerprint(encoder) == before
    assert encoder.training
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert not prepared.training
    assert not any(parameter.requires_grad for parameter in prepared.parameters())
    convolutions = [module for module in prepared.modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convolutions)
    assert prepared.build_args == encoder.build_args


@pytest.mark.parametrize("name", ["tsn_efficientnet_lite0", "tsm_tiny"])
def test_bfloat16_comes_close_and_gives_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "computes_in_bfloat16", lambda device: True)
    encoder = made(name)
    clips = random_clips(encoder)
    with torch.no_grad():
        expected, features = encoder(clips), prepare_for_inference(encoder, CPU, "auto")(clips)
    assert features.dtype == torch.float32
    error = (features - expected).abs().max() / expected.abs().max()
    assert 1e-6 < error < 0.05


def test_without_bfloat16_hardware_auto_is_float32_and_asking_for_it_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "computes_in_bfloat16", lambda device: False)
    encoder = made("tsm_tiny")
    clips = random_clips(encoder)
    with torch.no_grad():
        auto = prepare_for_inference(encoder, CPU, "auto")(clips)
        assert torch.equal(auto, prepare_for_inference(encoder, CPU, "float32")(clips))
    with pytest.raises(ValueError, match="precision bfloat16: cpu does not compute in it"):
        prepare_for_inference(encoder, CPU, "bfloat16")


@pytest.mark.parametrize(
    ("capabilities", "has_it"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"neon": True}, False),
    ],
)
def test_a_processor_has_bfloat16_if_it_says_so(
    capabilities: dict[str, bool], has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert computes_in_bfloat16(CPU) is has_it


def test_where_torch_cannot_tell_there_is_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert computes_in_bfloat16(CPU) is False


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["tsm_r18", "tsn_efficientnet_lite0"])
def test_a_gpu_gives_the_features_of_the_cpu(name: str) -> None:
    encoder = made(name)
    clips = random_clips(encoder)
    with torch.no_grad():
        expected = encoder(clips)
        exact = prepare_for_inference(encoder, "cuda", "float32")(clips.cuda()).cpu()
        fast = prepare_for_inference(encoder, "cuda", "auto")(clips.cuda()).cpu()
    assert (exact - expected).abs().max() < 5e-3 * expected.abs().max()  # cuDNN may convolve in TF32
    assert (fast - expected).abs().max() < 0.05 * expected.abs().max()
