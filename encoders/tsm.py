"""Temporal shift modules: a picture network whose frames exchange channels (Lin, Gan and Han, ICCV 2019)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from encoders.base import FrameEncoder
from encoders.downloads import torchvision_state
from encoders.resnet import RESNET_CHANNELS, RESNETS, TinyResNet, resnet_without_classifier

SHIFTED_SHARE = 8  # 1/8 of the channels moves each way


def temporal_shift(frames_NCHW: Tensor, num_frames: int) -> Tensor:
    """Moves channels between neighbouring frames of a clip; the frames of one clip are neighbours in N = B·L.

        channels:     [0, C/8)        [C/8, C/4)      [C/4, C)
        frame t gets  frame t+1's     frame t−1's     its own

    The last frame has no next one and the first no previous one: zeros there.
    """
    fold = frames_NCHW.shape[1] // SHIFTED_SHARE
    shifted: Tensor = _Shift.apply(frames_NCHW, num_frames, slice(0, fold), slice(fold, 2 * fold))
    return shifted


class _Shift(torch.autograd.Function):
    """The gradient is the shift the other way. Autograd's own, through slices, takes five times as long."""

    @staticmethod
    def forward(ctx: Any, frames_NCHW: Tensor, num_frames: int, from_next: slice, from_previous: slice) -> Tensor:
        ctx.arguments = num_frames, from_previous, from_next
        shifted_NCHW = frames_NCHW.clone()  # keeps the memory format
        old_BLCHW = frames_NCHW.view(-1, num_frames, *frames_NCHW.shape[1:])
        new_BLCHW = shifted_NCHW.view(old_BLCHW.shape)
        new_BLCHW[:, :-1, from_next] = old_BLCHW[:, 1:, from_next]
        new_BLCHW[:, -1, from_next] = 0
        new_BLCHW[:, 1:, from_previous] = old_BLCHW[:, :-1, from_previous]
        new_BLCHW[:, 0, from_previous] = 0
        return shifted_NCHW

    @staticmethod
    def backward(ctx: Any, grad_NCHW: Tensor) -> tuple[Tensor, None, None, None]:
        return _Shift.apply(grad_NCHW, *ctx.arguments), None, None, None


class ShiftedConv(nn.Module):
    """A convolution that sees shifted frames. Its weight is called `net.weight`, as in the official checkpoints."""

    def __init__(self, net: nn.Conv2d, num_frames: int) -> None:
        super().__init__()
        self.net = net
        self.num_frames = num_frames

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        convolved: Tensor = self.net(temporal_shift(frames_NCHW, self.num_frames))
        return convolved


def insert_shifts(network: nn.Module, num_frames: int) -> None:
    """Puts a shift before the first convolution of every residual block: the skip path keeps the present frame.

    These are the places that the official code calls `blockres`. (It shifts only every second block of networks with
    23 or more blocks in a stage; there is none of them here.)
    """
    for block in network.modules():
        if isinstance(block, (BasicBlock, Bottleneck)):
            block.conv1 = ShiftedConv(block.conv1, num_frames)


class TSM(FrameEncoder):
    """A residual network with temporal shift.

    Weights: the official checkpoints (`module.base_model.layer1.0.conv1.net.weight`), our own, which have the same
    names, and the layout of the network without shifts, as a start for training.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        channels: int,
        *,
        num_frames: int,
        frame_stride: int,
        size: int,
        resize_ratio: float = 256 / 224,
    ) -> None:
        insert_shifts(network, num_frames)
        super().__init__(
            network,
            name=name,
            channels=channels,
            num_frames=num_frames,
            frame_stride=frame_stride,
            size=size,
            resize_ratio=resize_ratio,
        )

    def own_key(self, key: str) -> str | None:
        if key.startswith(("fc.", "new_fc.")):
            return None
        return re.sub(r"(layer\d\.\d+\.conv1)\.weight", r"\1.net.weight", key)


class ResNetTSM(TSM):
    """A torchvision ResNet with temporal shift; its registered weights are torchvision's, trained without shifts.

    The default snippet, 8 frames at stride 8, spans 64 video frames: the dense sampling of the official Kinetics
    models, and the snippet of LoFi.
    """

    def __init__(self, name: str, depth: str, *, num_frames: int = 8, frame_stride: int = 8, size: int = 224) -> None:
        super().__init__(
            name,
            resnet_without_classifier(depth),
            RESNET_CHANNELS[depth],
            num_frames=num_frames,
            frame_stride=frame_stride,
            size=size,
        )
        self.depth = depth

    def registered_state(self, name: str | None) -> Mapping[str, Tensor]:
        return torchvision_state(RESNETS[self.depth], name)


def tsm_tiny(name: str, *, num_frames: int = 8, frame_stride: int = 2, size: int = 64) -> TSM:
    """A TSM that trains on two CPU cores, for small pictures without a margin: 128 features from 64×64 pixels."""
    return TSM(
        name,
        TinyResNet(),
        channels=128,
        num_frames=num_frames,
        frame_stride=frame_stride,
        size=size,
        resize_ratio=1.0,
    )
