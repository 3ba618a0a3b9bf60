"""What each head can be told: dataclasses, which do without torch so that help is quick."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

PYRAMID_LEVELS = 6
# Rows that the further end of a segment is away, on the finest level of a pyramid, at most.
FIRST_RANGE = 4

Pyramid = TypeVar("Pyramid", bound="PyramidOptions")


@dataclass(frozen=True, kw_only=True)
class PyramidOptions:
    """What all heads on a pyramid of points can be told."""

    num_levels: int | None = PYRAMID_LEVELS
    """Levels of the pyramid, each with half the rows of the one before (ActionFormer on Ego4D: 8; TriDet on HACS with
    I3D: 7). `null`: as many as the longest training segment needs, at least 6."""

    def fitted(self: Pyramid, longest: float) -> Pyramid:
        """These options for training segments of at most so many rows."""
        return self if self.num_levels is not None else replace(self, num_levels=fitting_levels(longest))


def fitting_levels(longest: float) -> int:
    """Levels of a pyramid, the published six at least, on whose last one a segment of so many rows is not out of range.

    From the middle of a segment, either end is half its length away; the last of L levels is for 4·2ᴸ⁻¹ rows.
    """
    return max(PYRAMID_LEVELS, 1 + math.ceil(math.log2(max(longest, 1.0) / 2 / FIRST_RANGE)))


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


@dataclass(frozen=True, kw_only=True)
class ActionFormerOptions(PyramidOptions):
    """The ActionFormer head (`heads.actionformer`). Defaults are those of its authors for THUMOS14 with I3D."""

    crop_rows: int = 2304
    """Rows of a video that training sees at most; of a longer one, so many from a place drawn anew in every epoch."""
    hidden: int = 512
    """Channels of all levels (ActivityNet: 256)."""
    num_heads: int = 4
    """Heads of the attention; they share the channels."""
    window: int = 19
    """Rows of its level that a row attends to, odd (ActivityNet: 7; EPIC-Kitchens, Ego4D: 9). 0: all."""
    last_window: int | None = None
    """The same on the last level (ActivityNet: 0). Left out: as on the others."""
    position_rows: int = 0
    """Rows of the table of positions that is added to the features, stretched over longer sequences (ActivityNet: 192;
    Ego4D: 1024). 0: none is added."""
    dropout: float = 0.0
    """Dropout inside the transformer blocks (Ego4D: 0.1)."""
    drop_path: float = 0.1
    """Probability that a branch of a block is left out, for a video in training."""
    range_ratio: float = 2.0
    """The greatest over the least distance of a segment's further end at a level; above 2 levels overlap
    (EPIC-Kitchens, Ego4D: 4)."""
    label_smoothing: float = 0.0
    """How far class targets are moved from 0 and 1 towards 1/(K+1) (ActivityNet: 0.1)."""
    reg_weight: float = 1.0
    """Weight of the regression loss (ActivityNet: 2)."""
    initial_positives: float = 100.0
    """What the running number of positive points, which the losses are divided by, begins with (ActivityNet: 200;
    EPIC-Kitchens: 250)."""
    most_per_level: int = 2000
    """Pairs of point and class that a level proposes at most, for each `crop_rows` rows begun (EPIC-Kitchens, Ego4D:
    5000)."""
    min_score: float = 0.001
    """Pairs that do not score higher are not proposed."""
    min_length: float = 0.05
    """Segments that are not longer, in rows, are not proposed (ActivityNet: 0.001)."""


@dataclass(frozen=True, kw_only=True)
class TemporalMaxerOptions(PyramidOptions):
    """The TemporalMaxer head (`heads.temporalmaxer`). Defaults are those of its authors for THUMOS14 with I3D."""

    crop_rows: int = 2304
    """Rows of a video that training sees at most; of a longer one, so many from a place drawn anew in every epoch."""
    hidden: int = 512
    """Channels of all levels."""
    num_convolutions: int = 2
    """Convolutions that embed the features (MultiTHUMOS: 3)."""
    level_norm: Literal["group", "layer"] = "group"
    """Normalisation of every level: `group`, over all its rows in four groups of channels, or `layer`, of each row by
    itself (EPIC-Kitchens' verbs, MultiTHUMOS)."""
    padded_statistics: bool = False
    """The group normalisation's mean and variance also count zeros behind the video's end, up to `crop_rows` rows, as
    in the authors' code. False: they are those of the video's rows alone."""
    range_ratio: float = 2.0
    """The greatest over the least distance of a segment's further end at a level; above 2 levels overlap
    (EPIC-Kitchens: 4)."""
    label_smoothing: float = 0.0
    """How far class targets are moved from 0 and 1 towards 1/(K+1)."""
    reg_weight: float = 1.0
    """Weight of the regression loss."""
    initial_positives: float = 100.0
    """What the running number of positive points, which the losses are divided by, begins with (EPIC-Kitchens: 250)."""
    most_per_level: int = 2000
    """Pairs of point and class that a level proposes at most, for each `crop_rows` rows begun (EPIC-Kitchens: 5000)."""
    min_score: float = 0.001
    """Pairs that do not score higher are not proposed."""
    min_length: float = 0.05
    """Segments that are not longer, in rows, are not proposed."""


@dataclass(frozen=True, kw_only=True)
class TriDetOptions(PyramidOptions):
    """The TriDet head (`heads.tridet`). Defaults are those of its authors for THUMOS14 with I3D."""

    crop_rows: int = 2304
    """Rows of a video that training sees at most; of a longer one, so many from a place drawn anew in every epoch
    (ActivityNet: 768; HACS: 960, with I3D 512)."""
    hidden: int = 512
    """Channels of all levels (ActivityNet: 256; HACS: 1024)."""
    mlp_hidden: int = 768
    """Channels inside the blocks' MLP (ActivityNet: 2048; HACS, EPIC-Kitchens: 1024)."""
    head_hidden: int = 512
    """Channels inside of what looks at the points of a level (HACS: 1024)."""
    kernel: int = 1
    """Rows of its level that the narrow convolution of a block sees, odd (ActivityNet: 15; HACS: 3, with I3D 15;
    EPIC-Kitchens' verbs: 5)."""
    kernel_ratio: float = 5.0
    """How many times as many the wide one sees, about (ActivityNet: 1.3; HACS: 1.2; EPIC-Kitchens: 2, nouns 4)."""
    depthwise_init: float = 0.0
    """Standard deviation of the blocks' first depthwise weights (ActivityNet: 0.2; HACS: 0.1). 0, as also for
    EPIC-Kitchens: these weights stay 0, as they have no gradient then, and the blocks are MLPs and pooling."""
    head_kernel: int = 3
    """Size of the convolutions that look at the points of a level, odd (HACS: 5)."""
    boundary_kernel: int = 3
    """Size of those that look for starts and ends (HACS: 1)."""
    num_bins: int = 16
    """Strides of its level that an end of a segment is away from its point at most (ActivityNet: 12; HACS: 14, with I3D
    12)."""
    iou_power: float = 0.2
    """Power of the IoU that a positive's loss on its class is multiplied with (ActivityNet, HACS: 1; EPIC-Kitchens:
    0.25)."""
    input_noise: float = 5e-4
    """Standard deviation of noise that is added to the features in training (ActivityNet: 0.5; HACS: 0.2, with I3D 0;
    EPIC-Kitchens: 0)."""
    position_rows: int = 0
    """Rows of the table of positions that is added to the features, stretched over longer sequences (ActivityNet, HACS:
    as `crop_rows`). 0: none is added."""
    drop_path: float = 0.1
    """Probability that a branch of a block is left out, for a video in training; never in the first two blocks."""
    padded_statistics: bool = False
    """Padding takes part in the blocks' means and convolutions, and every video is filled up with zeros to `crop_rows`
    rows, as in the authors' code. False: a video's own rows alone."""
    range_ratio: float = 2.0
    """The greatest over the least distance of a segment's further end at a level; above 2 levels overlap
    (EPIC-Kitchens: 4)."""
    label_smoothing: float = 0.0
    """How far class targets are moved from 0 and 1 towards 1/(K+1) (ActivityNet, HACS, EPIC-Kitchens' nouns: 0.1)."""
    reg_weight: float = 1.0
    """Weight of the regression loss."""
    initial_positives: float = 100.0
    """What the running number of positive points, which the losses are divided by, begins with (ActivityNet, HACS: 400;
    EPIC-Kitchens: 250)."""
    most_per_level: int = 2000
    """Pairs of point and class that a level proposes at most, for each `crop_rows` rows begun (EPIC-Kitchens: 5000)."""
    min_score: float = 0.001
    """Pairs that do not score higher are not proposed."""
    min_length: float = 0.05
    """Segments that are not longer, in rows, are not proposed (ActivityNet: 0.1)."""
