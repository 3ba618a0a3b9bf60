"""How similar the rows of a video's features are to each other: its temporal self-similarity matrix (TSM).

Similarity is the cosine, from -1 to 1. A row of zeros is similar to nothing: its cosines are 0.

Shapes: T rows (snippets) of a video, C channels, S rows of a subsequence.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def self_similarity(features_TC: NDArray[np.floating]) -> FloatArray:
    """The TSM of a video, (T, T)."""
    unit_TC = _unit_rows(features_TC)
    return np.asarray(unit_TC @ unit_TC.T)


def similarity_std(features_TC: NDArray[np.floating]) -> float:
    """Standard deviation of all T² entries of the TSM: how temporally sensitive the features are (SoLa, Fig. 5).

    The TSM itself is not needed, so that T may be large: the mean of its entries is |Σ u_t|² / T² for unit rows u, and
    the mean of their squares is that of UUᵀ, which has the same sum as that of the (C, C) matrix UᵀU.
    """
    unit_TC = _unit_rows(features_TC)
    num_rows, channels = unit_TC.shape
    gram = unit_TC @ unit_TC.T if num_rows < channels else unit_TC.T @ unit_TC
    mean = float((unit_TC.sum(axis=0) ** 2).sum()) / num_rows**2
    mean_square = float((gram**2).sum()) / num_rows**2
    return math.sqrt(max(0.0, mean_square - mean**2))


def subsequence_length(size: int, step: int) -> int:
    """Rows that a subsequence of `size` rows, `step` apart, spans."""
    return (size - 1) * step + 1


def average_tsm(features_TC: NDArray[np.floating], size: int, step: int) -> FloatArray:
    """Mean TSM, (S, S), of all subsequences of a video: rows t, t + step, ..., t + (size - 1)·step, for every t.

    It is what drawing one subsequence at random gives on average (SoLa, Fig. 3). For size 3, step 2 and T = 7::

        row            0 1 2 3 4 5 6
        subsequence 0  x   x   x
        subsequence 1    x   x   x
        subsequence 2      x   x   x
    """
    unit_TC = _unit_rows(features_TC)
    num_starts = len(unit_TC) - subsequence_length(size, step) + 1
    assert num_starts > 0, "the video is shorter than a subsequence"
    tsm_SS = np.empty((size, size))
    for interval in range(size):
        rows = interval * step
        cosine_T = np.einsum("tc,tc->t", unit_TC[: len(unit_TC) - rows], unit_TC[rows:])
        for i in range(size - interval):
            mean = cosine_T[i * step : i * step + num_starts].mean()
            tsm_SS[i, i + interval] = tsm_SS[i + interval, i] = mean
    return tsm_SS


def by_interval(tsm_SS: FloatArray) -> FloatArray:
    """Mean similarity of two rows of a subsequence against how many steps they are apart, 0 to S - 1: (S,)."""
    return np.array([np.diagonal(tsm_SS, interval).mean() for interval in range(len(tsm_SS))])


def _unit_rows(features_TC: NDArray[np.floating]) -> FloatArray:
    rows_TC = np.asarray(features_TC, np.float64)
    norms_T1 = np.linalg.norm(rows_TC, axis=1, keepdims=True)
    return rows_TC / np.where(norms_T1 > 0, norms_T1, 1.0)
