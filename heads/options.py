"""What each head can be told: dataclasses, which do without torch so that help is quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GTADOptions:
    """The G-TAD head (`heads.gtad`). Defaults are its ActivityNet variant's."""

    num_snippets: int = 100
    """T: rows of a window (THUMOS14: 256)."""
    max_duration: int | None = None
    """D: longest anchor in rows (THUMOS14: 64). Left out: T."""
    hidden: int = 256
    """Channels of the backbone."""
    dropout: float = 0.0
    """Dropout on the input features."""
    inner_bins: int = 32
    """Bins that describe a segment (THUMOS14: 16)."""
    context_bins: int = 4
    """Bins that describe its context (THUMOS14: 16)."""
    map_kernel: int = 1
    """Size of the last two hidden convolutions over the map of segments (THUMOS14: 3)."""
    peaks: bool = True
    """Propose only segments between likely boundaries; false: all (THUMOS14)."""
    longest_proposal: int | None = None
    """Longest segment that is proposed, in rows (THUMOS14: 59, less than 300 frames). Left out: D."""
    reg_weight: float = 10.0
    """Weight of the regression loss on the IoU map (THUMOS14: 1)."""
    cls_weight: float = 1.0
    """Weight of the classification loss on the IoU map (THUMOS14: 10)."""
    cls_pseudocount: int = 0
    """Added to the numbers of positive and negative cells that this loss divides by (THUMOS14: 10)."""
    class_weight: float = 1.0
    """Weight of the loss on the action classes."""


@dataclass(frozen=True, kw_only=True)
class BMNOptions:
    """The BMN head (`heads.bmn`). Defaults are those of its public PyTorch code for ActivityNet."""

    num_snippets: int = 100
    """T: rows of a window."""
    max_duration: int | None = None
    """D: longest segment in rows. Left out: T."""
    hidden: int = 256
    """Channels of the base module."""
    num_samples: int = 32
    """N: samples that describe a segment and what lies beside it."""
    reg_weight: float = 10.0
    """Weight of the regression loss on the IoU map."""
    cls_weight: float = 1.0
    """Weight of the classification loss on the IoU map."""
    class_weight: float = 1.0
    """Weight of the loss on the action classes."""
