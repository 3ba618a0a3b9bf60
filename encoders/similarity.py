"""Similarity matching: features of a video's snippets made alike when near in time, apart when far (SoLa, section 3.3).

Everything here looks at S rows gathered from one subsequence. A temporal self-similarity matrix (TSM) holds the
similarity of each pair; its rows are not projected, its columns are.

Shapes: B subsequences, S gathered rows of each, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CLAMP = 1e-5
"""Predicted similarities stay this far from 0 and 1, so that their logarithms stay finite; as in the authors' code."""


def target_tsm(size: int, k: float) -> Tensor:
    """λ(d) = sigmoid(K / d²) for rows d apart (eq. 1), in steps of gathered rows; 1 on the diagonal. (S,S)."""
    place_S = torch.arange(size, dtype=torch.float64)
    distance_SS = (place_S[:, None] - place_S[None, :]).abs()
    return torch.sigmoid(k / distance_SS.square()).float()  # d = 0: sigmoid of infinity, which is the diagonal's 1


def predicted_tsm(rows_BSC: Tensor, columns_BSC: Tensor) -> Tensor:
    """Cosine similarity, rescaled from [-1, 1] to [0, 1] (eq. 2): (B,S,S)."""
    return (_cosine(rows_BSC, columns_BSC) + 1) / 2


def _cosine(rows_BSC: Tensor, columns_BSC: Tensor) -> Tensor:
    return F.normalize(rows_BSC, dim=-1) @ F.normalize(columns_BSC, dim=-1).mT


def similarity_bce(rows_BSC: Tensor, columns_BSC: Tensor, target_SS: Tensor) -> Tensor:
    """L^SM (eq. 3): binary cross entropy of predicted against target TSM, mean over all entries."""
    predicted_BSS = predicted_tsm(rows_BSC, columns_BSC).clamp(CLAMP, 1 - CLAMP)
    return F.binary_cross_entropy(predicted_BSS, target_SS.expand_as(predicted_BSS))


def nt_xent_in(rows_BSC: Tensor, columns_BSC: Tensor, target_SS: Tensor) -> Tensor:
    """Softened NT-Xent with λ inside the exponent (supplement, eq. 2), mean over all pairs i ≠ j."""
    sim_BSS = _cosine(rows_BSC, columns_BSC)
    near_BSS = (target_SS * sim_BSS).exp()
    far_BSS = ((1 - target_SS) * sim_BSS).exp()
    return _soft_nt_xent(target_SS * sim_BSS, near_BSS, far_BSS)


def nt_xent_out(rows_BSC: Tensor, columns_BSC: Tensor, target_SS: Tensor) -> Tensor:
    """Softened NT-Xent with λ before the exponential (supplement, eq. 3), mean over all pairs i ≠ j."""
    sim_BSS = _cosine(rows_BSC, columns_BSC)
    return _soft_nt_xent(target_SS * sim_BSS, target_SS * sim_BSS.exp(), (1 - target_SS) * sim_BSS.exp())


def _soft_nt_xent(alignment_BSS: Tensor, near_BSS: Tensor, far_BSS: Tensor) -> Tensor:
    """-alignment(i,j) + log(near(i,j) + Σ far(i,k) over k other than i and j).

    The pairs are those within a subsequence: λ is not defined between videos (section 3.3).
    """
    apart_SS = ~torch.eye(near_BSS.shape[-1], dtype=torch.bool, device=near_BSS.device)
    far_BSS = far_BSS * apart_SS
    others_BSS = far_BSS.sum(dim=-1, keepdim=True) - far_BSS
    losses_BSS = (near_BSS + others_BSS).log() - alignment_BSS
    return losses_BSS[:, apart_SS].mean()


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "similarity": similarity_bce,
    "nt-xent-in": nt_xent_in,
    "nt-xent-out": nt_xent_out,
}
