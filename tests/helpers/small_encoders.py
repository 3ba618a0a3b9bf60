"""Encoders that are quick to run, clips for them, and statistics as of a trained network."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from encoders import Encoder, build_encoder

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1, 1)


def random_clips(encoder: Encoder, num_clips: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    in_channels = 2 if encoder.modality == "flow" else 3
    shape = (num_clips, in_channels, encoder.num_frames, encoder.size, encoder.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def small(name: str) -> Encoder:
    """The untrained encoder on the smallest pictures, and short clips, in eval mode."""
    num_frames = 5 if name == "tsn_bninception_flow" else 3
    return build_encoder(name, weights="random", num_frames=num_frames, size=32).eval()


Network = TypeVar("Network", bound=nn.Module)


def trained_looking(network: Network) -> Network:
    """The same, with BatchNorm statistics and scales far from their initial 0 and 1, and features of order 1."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.5, generator=generator)
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
    return network
