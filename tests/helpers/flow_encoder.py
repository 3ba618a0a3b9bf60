"""A small encoder that sees flow, for tests, and a stand-in for flow; both are quick."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from encoders import ENCODERS
from encoders.base import FrameEncoder

NAME = "mean_motion"


class MeanMotion(nn.Module):
    """Flow pictures (N,2,H,W) to (N,3): the mean along x and along y, and a trained number."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.randn(1))

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        means_N2 = frames_NCHW.mean(dim=(2, 3))
        return torch.cat([means_N2, self.number.expand(len(means_N2), 1)], dim=1)


def mean_motion(
    name: str = NAME, *, num_frames: int = 2, frame_stride: int = 1, size: int = 32, frame_wise: bool = False
) -> FrameEncoder:
    """Features are the mean code (0–255) along x and y, and one number of its weights: C = 3."""
    encoder = FrameEncoder(
        MeanMotion(),
        name=name,
        channels=3,
        num_frames=num_frames,
        frame_stride=frame_stride,
        size=size,
        resize_ratio=1.0,
        mean=(0.0, 0.0),
        std=(1 / 255, 1 / 255),
        modality="flow",
    )
    encoder.frame_wise = frame_wise
    return encoder


def register(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let `build_encoder` know it; returns its name."""
    monkeypatch.setitem(ENCODERS, NAME, partial(mean_motion))
    return NAME


def quick_flow(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Stands for optical flow, which takes long: anything that depends on both frames."""
    return np.stack([first / 20.0, second / 20.0], axis=2).astype(np.float32)
