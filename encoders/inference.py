"""Making an encoder fast where nothing is trained: BatchNorm folded into the convolutions, channels-last, bfloat16."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from encoders.base import Encoder
from encoders.tsm import ShiftedConv

Precision = Literal["auto", "float32", "bfloat16"]
Conv: TypeAlias = nn.Conv2d | nn.Conv3d | ShiftedConv
Norm: TypeAlias = nn.BatchNorm2d | nn.BatchNorm3d


def prepare_for_inference(
    encoder: Encoder, device: torch.device | str = "cpu", precision: Precision = "auto"
) -> Encoder:
    """A frozen copy of the encoder on `device`, with the same features up to rounding; they are float32 always.

    Its weights are no longer the encoder's: take the `fingerprint` of the encoder itself.

    Args:
        encoder: stays as it is.
        device: where the copy runs; clips must be brought there.
        precision: of the network. `auto`: bfloat16 where the hardware computes in it, float32 elsewhere.

    Raises:
        ValueError: `bfloat16` on a device that does not compute in it.
    """
    device = torch.device(device)
    prepared = copy.deepcopy(encoder).eval().requires_grad_(False)
    fold_batch_norm(prepared.network)
    memory_format = _memory_format(prepared.network)
    prepared.network = _InferenceNetwork(prepared.network, _autocast_dtype(device, precision), memory_format)
    return prepared.to(device).to(memory_format=memory_format)


def fold_batch_norm(network: nn.Module) -> None:
    """Multiplies each BatchNorm (in eval mode) into the convolution before it, in place.

    A BatchNorm belongs to the convolution that its parent module holds right before it: so in all networks here. The
    few that stand in another module than their convolution stay (in X3D). timm's BatchNorm layers hold an activation,
    which stays.
    """
    for parent in list(network.modules()):
        for (conv_name, conv), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(norm, Norm) and isinstance(conv, Conv):
                setattr(parent, conv_name, _folded(conv, norm))
                setattr(parent, norm_name, getattr(norm, "act", nn.Identity()))


def _folded(conv: Conv, norm: Norm) -> nn.Module:
    if isinstance(conv, ShiftedConv):
        return ShiftedConv(fuse_conv_bn_eval(conv.net, norm), conv.num_frames)
    return fuse_conv_bn_eval(conv, norm)


class _InferenceNetwork(nn.Module):
    def __init__(self, network: nn.Module, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.memory_format = memory_format

    def forward(self, pixels: Tensor) -> Tensor:
        # Clips have a dimension too many for channels last; a transformer on them has no convolution over time either.
        memory_format = self.memory_format if pixels.ndim == 4 else torch.contiguous_format
        pixels = pixels.contiguous(memory_format=memory_format)
        with torch.autocast(pixels.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            features_NC: Tensor = self.network(pixels)
        return features_NC.float()


def _memory_format(network: nn.Module) -> torch.memory_format:
    """Channels last in networks on pictures; on a CPU, networks on clips were as often slower as faster with it."""
    over_time = any(isinstance(module, nn.Conv3d) for module in network.modules())
    return torch.contiguous_format if over_time else torch.channels_last


def _autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    if precision == "float32" or (precision == "auto" and not computes_in_bfloat16(device)):
        return torch.float32
    if not computes_in_bfloat16(device):
        raise ValueError(f"precision bfloat16: {device} does not compute in it, so it would be slow; use float32")
    return torch.bfloat16


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic, rather than emulating it. False where torch cannot tell."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # torch before 2.10
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(unit, False) for unit in ("amx_bf16", "avx512_bf16", "bf16"))
