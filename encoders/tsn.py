"""Temporal segment networks: a picture network on each frame, averaged over the snippet (Wang et al., ECCV 2016)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from encoders.base import FrameEncoder
from encoders.downloads import torchvision_state
from encoders.resnet import RESNET_CHANNELS, RESNETS, resnet_without_classifier


class TSN(FrameEncoder):
    """A ResNet without its classifier on each frame.

    The default snippet, 4 frames at stride 4, spans 16 video frames: the unit of the TSN features that the ActivityNet
    literature uses. Weights: torchvision's ResNet layout.
    """

    frame_wise = True

    def __init__(self, name: str, depth: str, *, num_frames: int = 4, frame_stride: int = 4, size: int = 224) -> None:
        super().__init__(
            resnet_without_classifier(depth),
            name=name,
            channels=RESNET_CHANNELS[depth],
            num_frames=num_frames,
            frame_stride=frame_stride,
            size=size,
        )
        self.depth = depth

    def own_key(self, key: str) -> str | None:
        return None if key.startswith("fc.") else key

    def registered_state(self, name: str | None) -> Mapping[str, Tensor]:
        return torchvision_state(RESNETS[self.depth], name)
