"""BN-Inception as temporal segment networks use it: RGB frames, or stacks of five flows (Wang et al., ECCV 2016)."""

from __future__ import annotations

import re
from collections import OrderedDict

import torch
from torch import Tensor, nn

from encoders.base import Encoder, FrameEncoder

FLOWS_IN_STACK = 5

_CLASSIFIERS = ("fc.", "new_fc.", "last_linear.", "fc_action.", "fc-action.")


class BNInceptionTSN(FrameEncoder):
    """BN-Inception on each RGB frame: 1024 features after global pooling.

    The weights come from Caffe, and so do pixels: BGR, 0–255, less (104, 117, 128). The default snippet is the middle
    one of 5 frames, in time where `BNInceptionFlow`'s five flows are.

    TSN resizes frames to 340×256 before it crops; here the short side becomes 256 and the aspect stays. For 4:3 that is
    the same; a 16:9 frame becomes 455×256, so what is in the crop is 1.34 times as wide as published.

    Weights: see `own_layer`.

    Raises:
        ValueError: `size` is not a multiple of 32.
    """

    frame_wise = True

    def __init__(self, name: str, *, num_frames: int = 1, frame_stride: int = 5, size: int = 224) -> None:
        _check_size(name, size)
        super().__init__(
            BNInception(in_channels=3),
            name=name,
            channels=1024,
            num_frames=num_frames,
            frame_stride=frame_stride,
            size=size,
            mean=(128 / 255, 117 / 255, 104 / 255),
            std=(1 / 255,) * 3,
        )

    def own_key(self, key: str) -> str | None:
        return own_layer(key)

    def _normalise(self, pixels: Tensor) -> Tensor:
        return super()._normalise(pixels).flip(1)


class BNInceptionFlow(Encoder):
    """BN-Inception on stacks of five consecutive flows, x y x y ..., less 128: 1024 features, the mean over the stacks.

    TSN resizes frames to 340×256 before it computes the flow; here they keep their aspect (see `BNInceptionTSN`), so
    motion along x in a 16:9 video is 1.34 times the published one.

    Weights: see `own_layer`; the first convolution has 10 input channels.

    Raises:
        ValueError: `num_frames` is not a multiple of 5, or `size` not of 32.
    """

    def __init__(self, name: str, *, num_frames: int = FLOWS_IN_STACK, frame_stride: int = 1, size: int = 224) -> None:
        _check_size(name, size)
        if num_frames % FLOWS_IN_STACK:
            raise ValueError(f"{name}: num_frames is {num_frames}, expected stacks of {FLOWS_IN_STACK}: 5, 10, 15, ...")
        super().__init__(
            BNInception(in_channels=2 * FLOWS_IN_STACK),
            name=name,
            channels=1024,
            num_frames=num_frames,
            frame_stride=frame_stride,
            size=size,
            mean=(128 / 255,) * 2,
            std=(1 / 255,) * 2,
            modality="flow",
        )

    def own_key(self, key: str) -> str | None:
        return own_layer(key)

    def _features(self, clips: Tensor) -> Tensor:
        B, X, L, H, W = clips.shape
        # (B,X,L,H,W) -> (B,L,X,H,W) -> (B·S,5·X,H,W): S stacks, and in each x beside y of one flow after the other
        stacks_NCHW = self._normalise(clips).transpose(1, 2).reshape(-1, FLOWS_IN_STACK * X, H, W)
        features_NC: Tensor = self.network(stacks_NCHW)
        return features_NC.view(B, L // FLOWS_IN_STACK, -1).mean(dim=1)


def _check_size(name: str, size: int) -> None:
    if size % 32:  # its halving convolutions and poolings disagree on odd sizes
        raise ValueError(f"{name}: size is {size}, expected a multiple of 32")


def own_layer(key: str) -> str | None:
    """Our name of a layer of the public checkpoints of yjxiong/tsn-pytorch and of those converted from Caffe for it.

    `inception_3a_double_3x3_1_bn.weight` is `inception_3a.double_3x3_1.bn.weight` here; None: the classifier.
    """
    if key.startswith(_CLASSIFIERS):
        return None
    if layer := re.fullmatch(r"(conv[12]|inception_\d[a-e])_(.+?)(_bn)?\.(\w+)", key):
        return f"{layer[1]}.{layer[2]}.{'bn' if layer[3] else 'conv'}.{layer[4]}"
    return key


class BNInception(nn.Sequential):
    """Pictures (N,in_channels,H,W) to features (N,1024), with Caffe's pooling: windows may hang over the border."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Sequential(OrderedDict({"7x7_s2": Unit(in_channels, 64, kernel=7, stride=2)})),
                pool1=_halving_pool(),
                conv2=nn.Sequential(OrderedDict({"3x3_reduce": Unit(64, 64), "3x3": Unit(64, 192, kernel=3)})),
                pool2=_halving_pool(),
                inception_3a=InceptionBlock(192, 64, (64, 64), (64, 96), _average_pool(), 32),
                inception_3b=InceptionBlock(256, 64, (64, 96), (64, 96), _average_pool(), 64),
                inception_3c=HalvingBlock(320, (128, 160), (64, 96)),
                inception_4a=InceptionBlock(576, 224, (64, 96), (96, 128), _average_pool(), 128),
                inception_4b=InceptionBlock(576, 192, (96, 128), (96, 128), _average_pool(), 128),
                inception_4c=InceptionBlock(576, 160, (128, 160), (128, 160), _average_pool(), 128),
                inception_4d=InceptionBlock(608, 96, (128, 192), (160, 192), _average_pool(), 128),
                inception_4e=HalvingBlock(608, (128, 192), (192, 256)),
                inception_5a=InceptionBlock(1056, 352, (192, 320), (160, 224), _average_pool(), 128),
                inception_5b=InceptionBlock(1024, 352, (192, 320), (192, 224), nn.MaxPool2d(3, 1, padding=1), 128),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
            )
        )


class ConvolutionBranches(nn.ModuleDict):
    """What both kinds of block have side by side: a 3×3 convolution, and two of them.

    Args:
        channels_in: of the input.
        single, double: channels of the 1×1 convolution before the 3×3 ones, and of these.
        stride: of each branch.
    """

    def __init__(self, channels_in: int, single: tuple[int, int], double: tuple[int, int], stride: int) -> None:
        super().__init__(
            {
                "3x3_reduce": Unit(channels_in, single[0]),
                "3x3": Unit(*single, kernel=3, stride=stride),
                "double_3x3_reduce": Unit(channels_in, double[0]),
                "double_3x3_1": Unit(*double, kernel=3),
                "double_3x3_2": Unit(double[1], double[1], kernel=3, stride=stride),
            }
        )

    def _convolutions(self, x: Tensor) -> list[Tensor]:
        double = self["double_3x3_1"](self["double_3x3_reduce"](x))
        return [self["3x3"](self["3x3_reduce"](x)), self["double_3x3_2"](double)]


class HalvingBlock(ConvolutionBranches):
    """The branches, and max-pooling beside them, each with stride 2."""

    def __init__(self, channels_in: int, single: tuple[int, int], double: tuple[int, int]) -> None:
        super().__init__(channels_in, single, double, stride=2)
        self["pool"] = _halving_pool()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*self._convolutions(x), self["pool"](x)], dim=1)


class InceptionBlock(ConvolutionBranches):
    """The branches without a stride, a 1×1 convolution beside them, and pooling with one behind it."""

    def __init__(
        self,
        channels_in: int,
        channels_1x1: int,
        single: tuple[int, int],
        double: tuple[int, int],
        pool: nn.Module,
        channels_pool: int,
    ) -> None:
        super().__init__(channels_in, single, double, stride=1)
        self.update(
            {"1x1": Unit(channels_in, channels_1x1), "pool": pool, "pool_proj": Unit(channels_in, channels_pool)}
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self["1x1"](x), *self._convolutions(x), self["pool_proj"](self["pool"](x))], dim=1)


class Unit(nn.Sequential):
    """Convolution (with a bias, as in the files), BatchNorm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int = 1, stride: int = 1) -> None:
        conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels_out), relu=nn.ReLU(inplace=True)))


def _halving_pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _average_pool() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1)
