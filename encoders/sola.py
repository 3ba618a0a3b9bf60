"""SoLa: a light module that makes cached features of a frozen encoder sensitive to time (Kang et al., CVPR 2023).

    features (B,C,T) ──conv k──ReLU──conv 1──ReLU──conv 1──× tanh(α)──(+)── features (B,C,T)
           └──────────────────────────────────────────────────────────┘

It is trained by similarity matching (`encoders.similarity`), without labels and without the encoder.

Shapes: B batch, C channels, H hidden channels, T snippets of a video, k kernel size, S gathered snippets.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Form = Literal["adapter", "direct"]


class SoLa(nn.Module):
    """The module: Conv–ReLU–Conv–ReLU–Conv over time, kernels {k, 1, 1} (SoLa, supplement D and Table 4a).

    Args:
        channels: C, of what goes in and comes out.
        hidden: channels between the convolutions.
        kernel_size: k, of the first convolution; odd.
        form: `adapter` adds the convolutions' output, times a gate, to the input (supplement A.2); `direct` has
            neither residual nor gate.

    The gate is tanh(α) with α starting at 0, as the authors' code has it: the first step is the identity.

    Raises:
        ValueError: a kernel size that is even or below 1.
    """

    def __init__(self, channels: int, *, hidden: int = 1024, kernel_size: int = 5, form: Form = "adapter") -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"sola: kernel_size is {kernel_size}; it must be odd, such as 5")
        self.channels, self.hidden, self.kernel_size, self.form = channels, hidden, kernel_size, form
        self.radius = kernel_size // 2
        self.local = nn.Conv1d(channels, hidden, kernel_size)
        self.middle = nn.Conv1d(hidden, hidden, 1)
        self.last = nn.Conv1d(hidden, channels, 1)
        self.alpha = nn.Parameter(torch.zeros(())) if form == "adapter" else None

    @property
    def build_args(self) -> dict[str, Any]:
        """What `SoLa(**build_args)` needs to build this architecture again; fit for JSON."""
        return {
            "channels": self.channels,
            "hidden": self.hidden,
            "kernel_size": self.kernel_size,
            "form": self.form,
        }

    @property
    def gate(self) -> Tensor | None:
        """How far the convolutions' path is open, in (-1, 1); None in the direct form, which has no gate."""
        return None if self.alpha is None else self.alpha.tanh()

    def forward(self, feats_BCT: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Features (B,C,T) to features (B,C,T); beyond both ends of a video there are zeros.

        Args:
            feats_BCT: features; what stands in padded rows does not matter.
            mask_BT: True where a row belongs to the video. With it, a video's output does not depend on how far it is
                padded. Padded rows come out as zeros.
        """
        if mask_BT is not None:
            feats_BCT = feats_BCT.where(mask_BT[:, None, :], 0.0)  # NaN times 0 would stay
        hidden_BHT = self.local(F.pad(feats_BCT, (self.radius, self.radius)))
        refined_BCT = self._gated(feats_BCT, self.last(self.middle(hidden_BHT.relu()).relu()))
        return refined_BCT if mask_BT is None else refined_BCT * mask_BT[:, None, :]

    def at_centers(self, near_BSkC: Tensor) -> Tensor:
        """What `forward` gives at the middle of S neighbourhoods of k rows each, (B,S,k,C): features (B,S,C).

        In training only every s-th row is looked at; this spares the convolutions at all others.
        """
        hidden_BSH = F.linear(near_BSkC.flatten(-2), self.local.weight.mT.flatten(1), self.local.bias)
        for pointwise in (self.middle, self.last):
            hidden_BSH = F.linear(hidden_BSH.relu(), pointwise.weight.squeeze(-1), pointwise.bias)
        return self._gated(near_BSkC[..., self.radius, :], hidden_BSH)

    def _gated(self, feats: Tensor, change: Tensor) -> Tensor:
        return change if self.gate is None else feats + self.gate * change


class Projector(nn.Module):
    """Two fully connected layers on L2-normalised features (..., C), which similarity matching puts on one side (3.3).

    Hidden width and normalisation are those of the authors' code; there is no batch norm.
    """

    def __init__(self, channels: int, hidden: int = 512) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, feats_C: Tensor) -> Tensor:
        projected_C: Tensor = self.layers(F.normalize(feats_C, dim=-1))
        return projected_C


@torch.inference_mode()
def refine_video(sola: SoLa, features_TC: Tensor, *, chunk: int = 4096) -> Tensor:
    """A whole video's features (T,C), refined: as `sola` in one pass gives them.

    Only `chunk` rows at a time are on the module's device; the result is where the features are. Chunks overlap by the
    reach of the convolutions, so that none of them sees an edge that the video does not have.
    """
    num_rows, reach, device = len(features_TC), sola.radius, sola.local.weight.device
    refined_TC = torch.empty_like(features_TC)
    for start in range(0, num_rows, chunk):
        end = min(start + chunk, num_rows)
        first, last = max(start - reach, 0), min(end + reach, num_rows)
        seen_CT = features_TC[first:last].to(device).T
        refined_TC[start:end] = sola(seen_CT[None])[0].T[start - first : end - first]
    return refined_TC
