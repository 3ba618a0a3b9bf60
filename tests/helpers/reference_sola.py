"""SoLa's targets and losses as the paper and its supplement write them: float64, one pair of snippets at a time.

Shapes: B subsequences, S gathered positions of each, C channels. `rows_BSC` are the features z_i as SoLa gives them,
`columns_BSC` the z_j that the projector has seen as well; entry (i, j) of a matrix compares row i with column j of the
same subsequence. An interval d is counted in gathered positions, |i - j|.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
# subsequence's S positions: λ is defined within a subsequence alone. The sum runs over k in I without i and j. A pair
# is of two positions, i ≠ j.


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


def nt_xent_in(rows_BSC: Array, columns_BSC: Array, target_SS: Array, temperature: float = 1.0) -> float:
    """Eq. 2 with sim = cos / temperature (the supplement names none): the mean over the B · S · (S - 1) pairs i ≠ j."""
    return _mean_over_pairs(soft_in_pair, rows_BSC, columns_BSC, target_SS, temperature)


def nt_xent_out(rows_BSC: Array, columns_BSC: Array, target_SS: Array, temperature: float = 1.0) -> float:
    """Eq. 3, likewise."""
    return _mean_over_pairs(soft_out_pair, rows_BSC, columns_BSC, target_SS, temperature)


def _mean_over_pairs(
    pair_loss: Callable[..., float], rows_BSC: Array, columns_BSC: Array, target_SS: Array, temperature: float
) -> float:
    losses = []
    for sim_SS in cosines(rows_BSC, columns_BSC) / temperature:
        for i in range(len(target_SS)):
            for j in others(len(target_SS), i, i):
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
    rows_BSC: Array, columns_BSC: Array, positive_SS: Array, temperature: float = 1.0
) -> tuple[float, float]:
    """What `nt_xent_in` and `nt_xent_out` are for a λ of zeros and ones, one 1 in each row, written without λ; S ≥ 4.

    Each positive pair adds eq. 1, to both. A negative pair has nothing to align, and the log of its sum stays: under
    eq. 3 over the other negatives; under eq. 2 each pair that λ or 1 - λ switches off counts exp(0) = 1 there instead.
    """
    loss_in, loss_out, pairs = 0.0, 0.0, 0
    for sim_SS in cosines(rows_BSC, columns_BSC) / temperature:
        for i, positive_S in enumerate(positive_SS):
            for j in others(len(positive_SS), i, i):
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
    """Eq. 4, first line: eq. 3 where I holds nothing but the pair. With S = 2 every pair of a batch is such a one."""
    return soft_out_pair(np.array([math.nan, sim]), np.array([math.nan, positiveness]), 0, 1)


def single_pair_out_as_bce(sim: float, positiveness: float) -> float:
    """Eq. 4, last line, its constant log λ written out: -(1 - λ) log(1 - p) with p = 1 - exp(-sim), for sim > 0."""
    p = 1 - math.exp(-sim)
    return -(1 - positiveness) * math.log(1 - p) + math.log(positiveness)


def similarity_matching_from_single_pair(sim: float, positiveness: float) -> float:
    """Eq. 5 by its derivation: eq. 4 without its constant, and the symmetric term -λ log p; equals `bce(p, λ)`."""
    p = 1 - math.exp(-sim)
    return single_pair_out(sim, positiveness) - math.log(positiveness) - positiveness * math.log(p)


# --- Measurements -----------------------------------------------------------------------------------------------------


def self_similarity(features_TC: Array) -> Array:
    """All pairwise cosines of a video's rows, (T, T); those of a row of zeros are 0."""
    tsm_TT = np.zeros((len(features_TC), len(features_TC)))
    for i, row_C in enumerate(features_TC):
        for j, other_C in enumerate(features_TC):
            if np.any(row_C) and np.any(other_C):
                tsm_TT[i, j] = cosine(row_C, other_C)
    return tsm_TT


def average_tsm(features_TC: Array, size: int, step: int) -> Array:
    """Mean over every subsequence of a video of its TSM, (S, S)."""
    tsms = []
    for start in range(len(features_TC)):
        rows = [start + i * step for i in range(size)]
        if rows[-1] < len(features_TC):
            tsms.append(self_similarity(features_TC[rows]))
    return sum(tsms) / len(tsms)


def linear_evaluation(
    train_NC: Array,
    labels_N: list[int],
    test_MC: Array,
    test_labels_M: list[int],
    *,
    weight_2C: Array,
    bias_2: Array,
    orders: list[list[int]],
    batch_size: int,
    lr: float,
    momentum: float,
) -> list[float]:
    """Test accuracy (%) after each epoch of softmax regression on unit rows, by SGD with momentum; gradients by hand.

    `orders` holds the order of the training rows in each epoch.
    """
    train_NC = np.stack([row_C / math.sqrt((row_C**2).sum()) for row_C in train_NC])
    test_MC = np.stack([row_C / math.sqrt((row_C**2).sum()) for row_C in test_MC])
    weight_2C, bias_2 = weight_2C.copy(), bias_2.copy()
    velocity_2C, velocity_2 = np.zeros_like(weight_2C), np.zeros_like(bias_2)
    accuracies = []
    for order in orders:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            gradient_2C, gradient_2 = np.zeros_like(weight_2C), np.zeros_like(bias_2)
            for n in batch:
                logits_2 = weight_2C @ train_NC[n] + bias_2
                error_2 = np.exp(logits_2) / np.exp(logits_2).sum()
                error_2[labels_N[n]] -= 1
                gradient_2C += np.outer(error_2, train_NC[n]) / len(batch)
                gradient_2 += error_2 / len(batch)
            velocity_2C, velocity_2 = momentum * velocity_2C + gradient_2C, momentum * velocity_2 + gradient_2
            weight_2C, bias_2 = weight_2C - lr * velocity_2C, bias_2 - lr * velocity_2
        right = sum(
            int(np.argmax(weight_2C @ row_C + bias_2)) == label
            for row_C, label in zip(test_MC, test_labels_M, strict=True)
        )
        accuracies.append(100 * right / len(test_labels_M))
    return accuracies
