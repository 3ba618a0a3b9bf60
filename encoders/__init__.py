"""Snippet encoders: clips (B,3,L,H,W), or (B,2,L,H,W) of flow, to features (B,C), chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torchvision.models import video

from encoders.base import IMAGENET_MEAN, IMAGENET_STD, Encoder
from encoders.bninception import BNInceptionFlow, BNInceptionTSN
from encoders.efficientnet import EfficientNetTSN
from encoders.i3d import I3D
from encoders.pytorchvideo_zoo import PytorchvideoZoo
from encoders.r2plus1d import R2Plus1D, R2Plus1D34
from encoders.torchvision_video import TorchvisionVideo
from encoders.tsm import ResNetTSM, tsm_tiny
from encoders.tsn import TSN
from encoders.weights import load_weights

__all__ = ["ENCODERS", "Builder", "Encoder", "build_encoder"]

Builder = Callable[..., Encoder]
"""`build(name, *, num_frames, frame_stride, size)`, of which any keyword may be left out: an encoder, weights random,
that knows itself under `name`."""

ENCODERS: dict[str, Builder] = {
    "tsn_r18": partial(TSN, depth="r18"),
    "tsn_r50": partial(TSN, depth="r50"),
    "tsn_efficientnet_lite0": EfficientNetTSN,
    "tsm_r18": partial(ResNetTSM, depth="r18"),
    "tsm_r34": partial(ResNetTSM, depth="r34"),
    "tsm_r50": partial(ResNetTSM, depth="r50"),
    "tsm_tiny": tsm_tiny,
    "tsn_bninception": BNInceptionTSN,
    "tsn_bninception_flow": BNInceptionFlow,
    "i3d": I3D,
    "i3d_flow": partial(I3D, modality="flow"),
    "i3d_r50": partial(PytorchvideoZoo, family="resnet", num_frames=8, frame_stride=8),
    "slow_r50": partial(PytorchvideoZoo, family="resnet", num_frames=8, frame_stride=8),
    "x3d_m": partial(PytorchvideoZoo, family="x3d", num_frames=16, frame_stride=5),
    "r2plus1d_18": partial(R2Plus1D, builder=video.r2plus1d_18),
    "r2plus1d_34": R2Plus1D34,
    "s3d": partial(
        TorchvisionVideo,
        builder=video.s3d,
        classifier="classifier",
        channels=1024,
        num_frames=128,
        size=224,
        fps=15.0,
        least_frames=14,
        least_size=224,
    ),
    "swin3d_t": partial(
        TorchvisionVideo,
        builder=video.swin3d_t,
        classifier="head",
        channels=768,
        num_frames=32,
        size=224,
        fps=15.0,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    ),
    "mvit_v2_s": partial(
        TorchvisionVideo,
        builder=video.mvit_v2_s,
        classifier="head",
        channels=768,
        num_frames=16,
        size=224,
        fps=7.5,
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        least_frames=16,
        least_size=224,
        fixed=True,
    ),
}


def build_encoder(
    name: str,
    *,
    builder: Builder | None = None,
    weights: str | Path | None = None,
    num_frames: int | None = None,
    size: int | None = None,
    frame_stride: int | None = None,
    allow_missing: bool = False,
    seed: int = 0,
) -> Encoder:
    """The encoder called `name`, in training mode.

    Args:
        name: a key of `ENCODERS`, or whatever an encoder of others is called.
        builder: what builds it; None: `ENCODERS[name]`.
        weights: see `encoders.weights.load_weights`. None: the registered pretrained weights.
        num_frames: frames of a clip (L). None: the encoder's own, as with the next two.
        size: side of the square crop in pixels; the short side before cropping is scaled with it.
        frame_stride: video frames from one frame of a clip to the next.
        allow_missing: load a weight file although keys are missing or unexpected.
        seed: draws what is random: all weights for `weights="random"`. The global random state is left as it is.

    Raises:
        ValueError: no such encoder, a number out of range, weights that are not there or do not fit, or a builder that
            builds something else.
    """
    if builder is None and name not in ENCODERS:
        raise ValueError(f"there is no encoder {name!r}: choose one of {', '.join(ENCODERS)}")
    given = {"num_frames": num_frames, "size": size, "frame_stride": frame_stride}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the accelerators' states too
        build = builder or ENCODERS[name]
        encoder = build(name, **{key: value for key, value in given.items() if value is not None})
    if not isinstance(encoder, Encoder) or encoder.name != name:
        found = f"one called {encoder.name!r}" if isinstance(encoder, Encoder) else type(encoder).__name__
        raise ValueError(f"{name!r} gave {found}; expected an encoders.Encoder that was given name={name!r}")
    load_weights(encoder, weights, allow_missing=allow_missing)
    return encoder
