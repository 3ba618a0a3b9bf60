"""torchvision's video classification networks, trained on Kinetics-400."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from encoders.base import Encoder
from encoders.downloads import torchvision_state

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


class TorchvisionVideo(Encoder):
    """A network of `torchvision.models.video` without its classifier.

    torchvision's preprocessing squeezes pictures to 4:3 (R(2+1)D) or to a square (S3D); here they keep their aspect and
    get the same short side.

    Args:
        name: what `encoders.build_encoder` calls it.
        builder: of the untrained network; torchvision knows its registered weights.
        classifier: name of the layers that are left out.
        least_frames, least_size: the shortest clips and smallest pictures that the network can take.
        fixed: whether it takes no others.
        channels, num_frames, frame_stride, size, fps, mean, std: see `Encoder`.

    Raises:
        ValueError: clips that the network cannot take.
    """

    def __init__(
        self,
        name: str,
        *,
        builder: Callable[[], nn.Module],
        classifier: str,
        channels: int,
        num_frames: int,
        size: int,
        fps: float,
        frame_stride: int = 1,
        mean: Sequence[float] = KINETICS_MEAN,
        std: Sequence[float] = KINETICS_STD,
        least_frames: int = 1,
        least_size: int = 32,
        fixed: bool = False,
    ) -> None:
        if fixed and (num_frames, size) != (least_frames, least_size):
            raise ValueError(
                f"{name} takes clips of {least_frames} frames of {least_size}×{least_size} pixels and no others, "
                f"not {num_frames} of {size}×{size}: leave num_frames and size out, or choose another encoder"
            )
        if num_frames < least_frames or size < least_size:
            raise ValueError(
                f"{name} takes clips of at least {least_frames} frames of {least_size}×{least_size} pixels, "
                f"not {num_frames} of {size}×{size}: set num_frames and size higher, or choose another encoder"
            )
        network = builder()
        setattr(network, classifier, nn.Identity())
        super().__init__(
            network,
            name=name,
            channels=channels,
            num_frames=num_frames,
            frame_stride=frame_stride,
            size=size,
            mean=mean,
            std=std,
            fps=fps,
        )
        self.builder = builder
        self.classifier = classifier

    def own_key(self, key: str) -> str | None:
        return None if key.startswith(f"{self.classifier}.") else key

    def registered_state(self, name: str | None) -> Mapping[str, Tensor]:
        return torchvision_state(self.builder, name)
