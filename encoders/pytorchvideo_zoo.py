"""pytorchvideo's model zoo, trained on Kinetics-400."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from encoders.base import Encoder
from encoders.downloads import state_by_name


class PytorchvideoZoo(Encoder):
    """A network of `pytorchvideo.models.hub` without its classifier: 2048 features, pooled over the whole clip.

    At 224×224 pixels that is what the network's own pooling gives: it was trained on such crops of pictures with a
    short side of 256 and up, at 30 frames a second.

    Args:
        name: what `encoders.build_encoder` and the zoo call it.
        family: the zoo's module that has it, `resnet` or `x3d`.
        num_frames, frame_stride, size: see `Encoder`.
    """

    def __init__(self, name: str, *, family: str, num_frames: int, frame_stride: int, size: int = 224) -> None:
        zoo = _import_zoo(family)
        network = getattr(zoo, name)()
        remove_classifier(network)
        modernise(network)
        super().__init__(
            network,
            name=name,
            channels=2048,
            num_frames=num_frames,
            frame_stride=frame_stride,
            size=size,
            mean=(0.45,) * 3,
            std=(0.225,) * 3,
            fps=30.0,
        )
        self._classifier = f"blocks.{len(network.blocks) - 1}.proj."
        self._urls = {"KINETICS400": zoo.checkpoint_paths[name]}

    def own_key(self, key: str) -> str | None:
        return None if key.startswith(self._classifier) else key

    def registered_state(self, name: str | None) -> Mapping[str, Tensor]:
        return state_by_name(self.name, self._urls, name)


def remove_classifier(network: Any) -> None:
    """Leaves of the head, the network's last block, the pooling (in X3D between two layers), for clips of any size."""
    head = network.blocks[-1]
    pooling = head if isinstance(head.pool, nn.AvgPool3d) else head.pool
    pooling.pool = nn.AdaptiveAvgPool3d(1)
    head.proj = nn.Identity()
    head.dropout = head.activation = None


def modernise(network: nn.Module) -> None:
    """Puts torch's SiLU in the place of pytorchvideo's own, whose gradient needs what torch has deprecated."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == "Swish":
                setattr(parent, name, nn.SiLU(inplace=True))


def _import_zoo(family: str) -> Any:
    """The zoo's module, imported here alone: no other encoder needs the package. ValueError if it is not there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # a package that it imports compiles functions with torch.jit
        try:
            return importlib.import_module(f"pytorchvideo.models.hub.{family}")
        except ImportError as error:
            raise ValueError(
                f"i3d_r50, slow_r50 and x3d_m are pytorchvideo's, which cannot be imported here ({error}): "
                "run `pip install pytorchvideo` (it comes as source and needs no compiler), or choose another encoder"
            ) from error
