"""SoLa's targets and losses as the paper and its supplement write them: float64, one pair of snippets at a time.

Shapes: B subsequences, S gathered positions of each, C channels. `rows_BSC` are the features z_i as SoLa gives them,
`columns_BSC` the z_j that the projector has seen as well; entry (i, j) of a matrix compares row i with column j of the
same subsequence. An interval d is counted in gathered positions, |i - j|.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CLAMP = 1e-5


# --- Targets and predictions ------------------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def target_tsm(size: int, constant: float) -> Array:
    """Main paper, eq. 1: λ(d) = σ(K / d²) for d ≠ 0, (S, S). The paper leaves d = 0 open; here it is 1."""
    target_SS = np.ones((size, size))
    for i in range(size):
        for j in range(size):
            if i != j:
                target_SS[i, j] = sigmoid(constant / (i - j) ** 2)
    return target_SS


def cosine(row_C: Array, column_C: Array) -> float:
    dot = sum(float(a) * float(b) for a, b in zip(row_C, column_C, strict=True))
    return dot / (math.sqrt(sum(float(a) ** 2 for a in row_C)) * math.sqrt(sum(float(b) ** 2 for b in column_C)))


def cosines(rows_BSC: Array, columns_BSC: Array) -> Array:
    """Cosine of row i and column j of each subsequence, (B, S, S)."""
    batch, size, _ = rows_BSC.shape
    cosines_BSS = np.zeros((batch, size, size))
    for b in range(batch):
        for i in range(size):
            for j in range(size):
                cosines_BSS[b, i, j] = cosine(rows_BSC[b, i], columns_BSC[b, j])
    return cosines_BSS


def predicted_tsm(rows_BSC: Array, columns_BSC: Array) -> Array:
    """Main paper, eq. 2: p̂ = (1 + cos) / 2, (B, S, S)."""
    return (cosines(rows_BSC, columns_BSC) + 1) / 2


def similarity_bce(predicted_BSS: Array, target_SS: Array) -> float:
    """Main paper, eq. 3, with p̂ kept 1e-5 away from 0 and 1: the mean over all entries, the diagonal among them."""
    losses = []
    for predicted_SS in predicted_BSS:
        for p, target in zip(predicted_SS.flat, target_SS.flat, strict=True):
            losses.append(bce(min(max(float(p), CLAMP), 1 - CLAMP), float(target)))
    return sum(losses) / len(losses)


def bce(p: float, target: float) -> float:
    """Main paper, eq. 3; supplement, eq. 5: one entry."""
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


# --- Contrastive losses of one pair (supplement, section B) -----------------------------------------------------------
#
# `sim_S` holds sim(z_i, z_k) of row i with every column k, `positiveness_S` holds λ(z_i, z_k). The index set I is the
# subsequence's S positions: λ is defined within a subsequence alone. The sum runs over k in I without i and j. For the
# pair of a position with itself, i = j, that is all others.


def others(size: int, i: int, j: int) -> list[int]:
    return [k for k in range(size) if k not in (i, j)]


def nt_xent_pair(sim_S: Array, i: int, j: int) -> float:
    """Eq. 1 for the positive pair (i, j)."""
    negatives = sum(math.exp(sim_S[k]) for k in others(len(sim_S), i, j))
    return -sim_S[j] + math.log(math.exp(sim_S[j]) + negatives)


def soft_in_pair(sim_S: Array, positiveness_S: Array, i: int, j: int) -> float:
    """Eq. 2: λ inside of the exponentials."""
    weighted = positiveness_S[j] * sim_S[j]
    negatives = sum(math.exp((1 - positiveness_S[k]) * sim_S[k]) for k in others(len(sim_S), i, j))
    return -weighted + math.log(math.exp(weighted) + negatives)


def soft_out_pair(sim_S: Array, positiveness_S: Array, i: int, j: int) -> float:
    """Eq. 3: λ in front of the exponentials."""
    negatives = sum((1 - positiveness_S[k]) * math.exp(sim_S[k]) for k in others(len(sim_S), i, j))
    return -positiveness_S[j] * sim_S[j] + math.log(positiveness_S[j] * math.exp(sim_S[j]) + negatives)


# --- Contrastive losses of a batch ------------------------------------------------------------------------------------


def nt_xent_in(rows_BSC: Array, columns_BSC: Array, target_SS: Array, temperature: float) -> float:
    """Eq. 2 with sim = cos / temperature: the mean over the B · S · S pairs, those with i = j among them."""
    return _mean_over_pairs(soft_in_pair, rows_BSC, columns_BSC, target_SS, temperature)


def nt_xent_out(rows_BSC: Array, columns_BSC: Array, target_SS: Array, temperature: float) -> float:
    """Eq. 3, likewise."""
    return _mean_over_pairs(soft_out_pair, rows_BSC, columns_BSC, target_SS, temperature)


def _mean_over_pairs(pair_loss, rows_BSC: Array, columns_BSC: Array, target_SS: Array, temperature: float) -> float:
    losses = []
    for sim_SS in cosines(rows_BSC, columns_BSC) / temperature:
        for i in range(len(target_SS)):
            for j in range(len(target_SS)):
                losses.append(pair_loss(sim_SS[i], target_SS[i], i, j))
    return sum(losses) / len(losses)


# --- What the supplement derives --------------------------------------------------------------------------------------


def one_positive_a_row(size: int) -> Array:
    """A discrete λ, (S, S), under which eq. 2 and eq. 3 are eq. 1: in row i only column i + 1 (cyclic) is positive."""
    positive_SS = np.zeros((size, size))
    for i in range(size):
        positive_SS[i, (i + 1) % size] = 1
    return positive_SS


def nt_xent_of_discrete(
    rows_BSC: Array, columns_BSC: Array, positive_SS: Array, temperature: float
) -> tuple[float, float]:
    """What `nt_xent_in` and `nt_xent_out` are for a λ of zeros and ones, one 1 in each row, written without λ; S ≥ 4.

    Each positive pair adds eq. 1, to both. A negative pair has nothing to align, and the log of its sum stays: under
    eq. 3 over the other negatives; under eq. 2 each pair that λ or 1 - λ switches off counts exp(0) = 1 there instead.
    """
    loss_in, loss_out, pairs = 0.0, 0.0, 0
    for sim_SS in cosines(rows_BSC, columns_BSC) / temperature:
        for i, positive_S in enumerate(positive_SS):
            for j in range(len(positive_SS)):
                pairs += 1
                if positive_S[j]:
                    loss_in += nt_xent_pair(sim_SS[i], i, j)
                    loss_out += nt_xent_pair(sim_SS[i], i, j)
                    continue
                rest = others(len(positive_SS), i, j)
                negatives = sum(math.exp(sim_SS[i, k]) for k in rest if not positive_S[k])
                loss_in += math.log(1 + negatives + sum(1 for k in rest if positive_S[k]))
                loss_out += math.log(negatives)
    return loss_in / pairs, loss_out / pairs


def single_pair_out(sim: float, positiveness: float) -> float:
    """Eq. 4, first line: eq. 3 where I holds nothing but the pair. It is the batch loss for S = 1."""
    return soft_out_pair(np.array([sim]), np.array([positiveness]), 0, 0)


def single_pair_out_as_bce(sim: float, positiveness: float) -> float:
    """Eq. 4, last line, its constant log λ written out: -(1 - λ) log(1 - p) with p = 1 - exp(-sim), for sim > 0."""
    p = 1 - math.exp(-sim)
    return -(1 - positiveness) * math.log(1 - p) + math.log(positiveness)
