"""ResNets as feature extractors: torchvision's with their registered weights, and a tiny one."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import resnet18, resnet34, resnet50
from torchvision.models.resnet import BasicBlock, ResNet

RESNETS = {"r18": resnet18, "r34": resnet34, "r50": resnet50}
RESNET_CHANNELS = {"r18": 512, "r34": 512, "r50": 2048}


def resnet_without_classifier(depth: str) -> ResNet:
    """An untrained ResNet (`r18`, `r34` or `r50`): pictures (N,3,H,W) to features (N,C) after global pooling."""
    network: ResNet = RESNETS[depth](weights=None)
    network.fc = nn.Identity()
    return network


class TinyResNet(nn.Module):
    """Pictures (N,3,H,W) to features (N,128), in 4.4 million multiplications for 64×64 pixels.

    Like ResNet-18 with one block a stage and an eighth to a quarter of its channels. A strided block takes the place of
    the max-pooling, so that its first convolution still sees half the resolution. Layers are named as torchvision's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _halving_stage(16, 16)
        self.layer2 = _halving_stage(16, 32)
        self.layer3 = _halving_stage(32, 64)
        self.layer4 = _halving_stage(64, 128)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(frames_NCHW)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        features_NC: Tensor = x.mean(dim=(2, 3))
        return features_NC


def _halving_stage(channels_in: int, channels_out: int) -> nn.Sequential:
    shortcut = nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=1, stride=2, bias=False), nn.BatchNorm2d(channels_out)
    )
    return nn.Sequential(BasicBlock(channels_in, channels_out, stride=2, downsample=shortcut))
