"""TSM written down slowly: loops over frames and channels, and torchvision's ResNet run block by block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.resnet import Bottleneck, ResNet


def shift_by_loop(clips_BLCHW: Tensor) -> Tensor:
    """Channel c of frame t comes from t+1 in the first eighth of the channels, from t−1 in the second; zero outside."""
    _, num_frames, num_channels = clips_BLCHW.shape[:3]
    fold = num_channels // 8
    clips = []
    for clip in clips_BLCHW:
        for t in range(num_frames):
            for c in range(num_channels):
                source = t + 1 if c < fold else t - 1 if c < 2 * fold else t
                clips.append(clip[source, c] if 0 <= source < num_frames else torch.zeros_like(clip[t, c]))
    return torch.stack(clips).view(clips_BLCHW.shape)


def tsm_features(resnet: ResNet, clips_B3LHW: Tensor) -> Tensor:
    """Features (B,C) of normalised clips; the residual branch of every block sees shifted frames, the skip does not."""
    num_clips, _, num_frames = clips_B3LHW.shape[:3]
    x = clips_B3LHW.permute(0, 2, 1, 3, 4).reshape(num_clips * num_frames, 3, *clips_B3LHW.shape[3:])
    x = resnet.maxpool(F.relu(resnet.bn1(resnet.conv1(x))))
    for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        for block in stage:
            skip = x if block.downsample is None else block.downsample(x)
            shifted = shift_by_loop(x.reshape(num_clips, num_frames, *x.shape[1:])).reshape(x.shape)
            y = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(shifted)))))
            if isinstance(block, Bottleneck):
                y = block.bn3(block.conv3(F.relu(y)))
            x = F.relu(y + skip)
    return x.mean(dim=(2, 3)).reshape(num_clips, num_frames, -1).mean(dim=1)
