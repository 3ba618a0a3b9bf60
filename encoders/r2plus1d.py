"""R(2+1)D: 3D convolutions split into one over space and one over time (Tran et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from encoders.downloads import state_by_name
from encoders.torchvision_video import TorchvisionVideo

_IG65M = "https://github.com/moabitcoin/ig65m-pytorch/releases/download/v1.0.0/r2plus1d_34_"
_TSP = "https://github.com/HumamAlwassel/TSP/releases/download/model_weights/r2plus1d_34-"
WEIGHTS_34 = {
    "KINETICS400_IG65M_CLIP8": f"{_IG65M}clip8_ft_kinetics_from_ig65m-0aa0550b.pth",
    "KINETICS400_IG65M_CLIP32": f"{_IG65M}clip32_ft_kinetics_from_ig65m-ade133f1.pth",
    "TSP_ACTIVITYNET": f"{_TSP}tsp_on_activitynet-max_gvf-backbone_lr_0.0001-fc_lr_0.002-epoch_5-0d2cf854.pth",
    "TSP_THUMOS14": f"{_TSP}tsp_on_thumos14-max_gvf-backbone_lr_0.0001-fc_lr_0.004-epoch_4-e6a30b2f.pth",
}


class R2Plus1D(TorchvisionVideo):
    """R(2+1)D: 512 features of 16 frames of 112×112 pixels, 15 a second, as torchvision and TSP have them.

    Weights: torchvision's layout, and that of TSP's checkpoints (Alwassel et al., 2021: `features.stem.0.weight`, and
    one or two classifiers beside the features).
    """

    def __init__(
        self,
        name: str,
        *,
        builder: Callable[[], nn.Module],
        num_frames: int = 16,
        frame_stride: int = 1,
        size: int = 112,
    ) -> None:
        super().__init__(
            name,
            builder=builder,
            classifier="fc",
            channels=512,
            num_frames=num_frames,
            frame_stride=frame_stride,
            size=size,
            fps=15.0,
        )

    def own_key(self, key: str) -> str | None:
        return None if key.startswith(("fc1.", "fc2.")) else super().own_key(key.removeprefix("features."))


class R2Plus1D34(R2Plus1D):
    """The 34 layers that TSP starts from. Weights: also the layout of the conversions of IG65M's Caffe2 checkpoints."""

    def __init__(self, name: str, *, num_frames: int = 16, frame_stride: int = 1, size: int = 112) -> None:
        super().__init__(name, builder=r2plus1d_34, num_frames=num_frames, frame_stride=frame_stride, size=size)

    def registered_state(self, name: str | None) -> Mapping[str, Tensor]:
        return state_by_name(self.name, WEIGHTS_34, name)


def r2plus1d_34() -> VideoResNet:
    """R(2+1)D-34 as in the Caffe2 checkpoints: BatchNorm's ε is 0.001, see also `_CaffeConv2Plus1D`."""
    network = VideoResNet(BasicBlock, [_CaffeConv2Plus1D] * 4, [3, 4, 6, 3], R2Plus1dStem)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = 1e-3
    return network


class _CaffeConv2Plus1D(Conv2Plus1D):  # type: ignore[misc]
    """Has as many channels between space and time as give a 3×3×3 convolution's number of weights (the paper's rule).

    torchvision counts both convolutions of a block by the first one's input, so they differ where a stage begins.
    """

    def __init__(self, in_planes: int, out_planes: int, midplanes: int, stride: int = 1, padding: int = 1) -> None:
        midplanes = (in_planes * out_planes * 3 * 3 * 3) // (in_planes * 3 * 3 + 3 * out_planes)
        super().__init__(in_planes, out_planes, midplanes, stride, padding)
