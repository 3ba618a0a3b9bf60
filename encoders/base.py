"""What every snippet encoder is: clips in, one vector a clip out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Modality = Literal["rgb", "flow"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, pixels in 0–1
IMAGENET_STD = (0.229, 0.224, 0.225)

_IN_DIMENSION_1: dict[Modality, tuple[int, str]] = {"rgb": (3, "RGB"), "flow": (2, "flow (x, y)")}


class Encoder(nn.Module):
    """A network that looks at whole clips.

    It knows how it wants its clips: `num_frames` frames (L), each `frame_stride` video frames after the last, at `fps`
    video frames a second, short side brought to `resize` pixels, then the central `size`×`size` pixels. `channels` is
    C. What a clip's pixels are is its `modality`:

    - `rgb`: (B,3,L,H,W), 0–255;
    - `flow`: (B,2,L,H,W), 0–255, the motion along x and along y from each of L frames to the next one. A motion of v
      pixels, clipped to ±20, is round(255·(v + 20)/40), so that 127.5 would be none: the coding of TSN and I3D.

    Args:
        network: clips (B,3,L,H,W), or (B,2,L,H,W) for flow, normalised, to features (B,C).
        name: what `encoders.build_encoder` calls it.
        resize_ratio: short side of the resized frame, divided by `size`.
        mean: of the pixels in 0–1, one number a channel, over the data that the weights were trained on.
        std: their standard deviation, likewise.
        fps: frame rate of the videos that the weights were trained on. None: each video's own will do.
        modality: what the network sees.

    Raises:
        ValueError: a number is out of range.
    """

    frame_wise = False
    """Whether a frame's features depend on that frame alone: `encode_frames` may then be used on single frames."""

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        channels: int,
        num_frames: int,
        frame_stride: int,
        size: int,
        resize_ratio: float = 256 / 224,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        fps: float | None = None,
        modality: Modality = "rgb",
    ) -> None:
        super().__init__()
        _check_at_least(name, 1, num_frames=num_frames, frame_stride=frame_stride)
        _check_at_least(name, 32, size=size)  # every network here halves the picture five times
        self.network = network
        self.name = name
        self.channels = channels
        self.num_frames = num_frames
        self.frame_stride = frame_stride
        self.size = size
        self.resize = round(size * resize_ratio)
        self.fps = fps
        self.modality = modality
        # Not in the state dict: they belong to the architecture's name, and weight files of others lack them.
        self.register_buffer("mean", 255 * torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(-1, 1, 1), persistent=False)

    mean: Tensor
    std: Tensor

    @property
    def build_args(self) -> dict[str, str | int]:
        """What `build_encoder(**build_args)` needs to build this architecture again; fit for JSON."""
        return {
            "name": self.name,
            "num_frames": self.num_frames,
            "frame_stride": self.frame_stride,
            "size": self.size,
        }

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B,3,L,H,W), or (B,2,L,H,W) for flow, 0–255 in uint8 or float, to features (B,C).

        Raises:
            ValueError: another shape or type, or another L where the network looks across frames.
        """
        self._check_clips(clips)
        return self._features(clips)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Frames (N,3,H,W), RGB 0–255 in uint8 or float, to features (N,C). Only where `frame_wise` is true.

        Raises:
            ValueError: another shape or type.
        """
        assert self.frame_wise, f"{self.name} looks across frames"
        if frames.ndim != 4:
            raise ValueError(f"{self.name} expects frames (N,3,H,W), got shape {tuple(frames.shape)}")
        self._check_pixels(frames)
        features_NC: Tensor = self.network(self._normalise(frames))
        return features_NC

    def own_key(self, key: str) -> str | None:
        """The name that a weight file's `key` has in `network`; None if the encoder knowingly does without it."""
        return key

    def registered_state(self, name: str | None) -> Mapping[str, Tensor]:
        """The registered pretrained weights called `name`; None: the usual ones.

        Raises:
            ValueError: there are none of that name, or they cannot be had.
        """
        asked = "" if name is None else f" called {name!r}, nor is there a file or folder of that name"
        raise ValueError(
            f"{self.name} has no registered pretrained weights{asked}: give --weights PATH, or --weights random"
        )

    def _features(self, clips: Tensor) -> Tensor:
        features_BC: Tensor = self.network(self._normalise(clips))
        return features_BC

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Of clips or frames, channels in dimension 1."""
        per_channel = (-1,) + (1,) * (pixels.ndim - 2)
        return (pixels - self.mean.view(per_channel)).div_(self.std.view(per_channel))

    def _check_clips(self, clips: Tensor) -> None:
        if clips.ndim != 5:
            num_channels, _ = _IN_DIMENSION_1[self.modality]
            raise ValueError(f"{self.name} expects clips (B,{num_channels},L,H,W), got shape {tuple(clips.shape)}")
        self._check_pixels(clips)
        if not self.frame_wise and clips.shape[2] != self.num_frames:
            raise ValueError(
                f"{self.name} was built for clips of {self.num_frames} frames, got {clips.shape[2]}: "
                f"give it {self.num_frames} frames, or build it with num_frames={clips.shape[2]}"
            )

    def _check_pixels(self, pixels: Tensor) -> None:
        num_channels, meaning = _IN_DIMENSION_1[self.modality]
        if pixels.shape[1] != num_channels:
            raise ValueError(f"{self.name} expects {meaning} in dimension 1, got shape {tuple(pixels.shape)}")
        if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
            raise ValueError(f"{self.name} expects pixels 0–255 as uint8 or float, got {pixels.dtype}")


class FrameEncoder(Encoder):
    """A 2D network run on the frames of a clip, and the mean of its frame features.

    Its `network` takes frames (N,3,H,W), normalised, to features (N,C). Frames of one clip are neighbours in N.
    """

    def frame_features(self, clips: Tensor) -> Tensor:
        """Clips (B,3,L,H,W) to a vector for each frame, (B,L,C): those whose mean the clip's features are.

        Raises:
            ValueError: as `forward`.
        """
        self._check_clips(clips)
        return self._features_of_frames(clips)

    def _features(self, clips: Tensor) -> Tensor:
        return self._features_of_frames(clips).mean(dim=1)

    def _features_of_frames(self, clips: Tensor) -> Tensor:
        num_clips, _, num_frames = clips.shape[:3]
        frames_NCHW = clips.transpose(1, 2).flatten(0, 1)
        features_NC: Tensor = self.network(self._normalise(frames_NCHW))
        return features_NC.view(num_clips, num_frames, -1)


def _check_at_least(name: str, least: int, **values: int) -> None:
    for what, value in values.items():
        if value < least:
            raise ValueError(f"{name}: {what} is {value}, expected at least {least}")
