"""An encoder and a head as one network: raw videos to what the head says of them, at several numbers of snippets.

Shapes: B videos, T snippets of a video, N = B·T, L frames of a snippet, C channels, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from encoders import Encoder
from encoders.recompute import encode_recomputing
from heads.gtad import GTAD
from heads.options import GTADOptions


class EndToEnd(nn.Module):
    """Raw videos (B,T,3,L,H,W) to what the head says of them.

    Args:
        encoder: clips (N,3,L,H,W) to features (N,C).
        heads: by T, such as `build_heads` makes them.
        batch_norm_frozen: the encoder's batch normalisation stays in evaluation mode.
        chunk: snippets whose activations are kept at a time, and computed again for the backward pass; None keeps all.
    """

    def __init__(
        self,
        encoder: Encoder,
        heads: Mapping[int, nn.Module],
        *,
        batch_norm_frozen: bool,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({str(num_snippets): head for num_snippets, head in heads.items()})
        self.batch_norm_frozen = batch_norm_frozen
        self.chunk = chunk
        self.train()  # Lightning leaves modules in the mode that they are in

    def train(self, mode: bool = True) -> EndToEnd:
        super().train(mode)
        if self.batch_norm_frozen:
            freeze_batch_norm(self.encoder)
        return self

    def head_for(self, num_snippets: int) -> Any:
        """The head for T."""
        return self.heads[str(num_snippets)]

    def forward(self, clips_BT3LHW: Tensor) -> Any:
        batch, num_snippets = clips_BT3LHW.shape[:2]
        # (B, T, 3, L, H, W) -> (N, C) -> (B, C, T)
        features_NC = self._encode(clips_BT3LHW.flatten(0, 1))
        return self.head_for(num_snippets)(features_NC.view(batch, num_snippets, -1).mT)

    def _encode(self, clips_N3LHW: Tensor) -> Tensor:
        if self.chunk is not None and self.training:
            return encode_recomputing(self.encoder, clips_N3LHW, self.chunk)
        features_NC: Tensor = self.encoder(clips_N3LHW)
        return features_NC


def freeze_batch_norm(module: nn.Module) -> None:
    """Put batch normalisation into evaluation mode: it uses the statistics that it has. Its weights go on learning."""
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.eval()


def build_heads(options: GTADOptions, in_channels: int, num_classes: int, lengths: Iterable[int]) -> dict[int, GTAD]:
    """An untrained G-TAD for each of `lengths` (T). All have the same parameters, not copies: none depends on T."""
    heads = {length: build_head(options, in_channels, num_classes, length) for length in lengths}
    first, *others = heads.values()
    for other in others:
        share_parameters(first, other)
    return heads


def build_head(options: GTADOptions, in_channels: int, num_classes: int, num_snippets: int) -> GTAD:
    """G-TAD for T snippets. Its anchors are all pairs of these; if the longest is limited, it stays as long in time."""
    arguments = asdict(options)
    share = num_snippets / options.num_snippets
    for name in ("max_duration", "longest_proposal"):
        if arguments[name] is not None:
            arguments[name] = math.ceil(arguments[name] * share)
    arguments["num_snippets"] = num_snippets
    return GTAD(in_channels, num_classes=num_classes, **arguments)


def share_parameters(owner: nn.Module, other: nn.Module) -> None:
    """Give `other` the parameters of `owner`, which have the same names: the same tensors from then on."""
    for name, parameter in owner.named_parameters():
        module, _, attribute = name.rpartition(".")
        setattr(other.get_submodule(module), attribute, parameter)
