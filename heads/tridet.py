"""TriDet: temporal action detection with relative boundary modeling (Shi et al., CVPR 2023).

ActionFormer's pyramid, points, classes and training (`heads.actionformer`) with three things in place of its own:

- convolutional blocks for the transformer's (`heads.sgp`);
- the Trident head, which finds the ends of a segment by what starts and ends around them (`heads.trident`), for each
  class by itself. Its branches for starts and ends learn from the finished features, which they do not shape;
- a loss on the classes that counts a positive for more, the better its segment already fits.

What differs from the public code, besides what `heads.actionformer` says, so that a video's result does not depend on
its padding: means over rows, in the group normalisation and in SGP's instant level, are over the video's own rows, and
no convolution sees what the blocks make of padding (`padded_statistics`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from heads.assignment import assign_segments
from heads.base import ScoredSegments
from heads.checks import check_pyramid, require
from heads.masked import ChannelNorm, MaskedConvs, filled_up
from heads.options import TriDetOptions
from heads.point_decoding import best_of_levels, most_of_level, segments_of
from heads.point_head import PointHead, reset_biases
from heads.point_losses import EPSILON, count_positives, diou_loss, focal_loss, iou, smooth_labels
from heads.point_targets import PaddedSegments, pad_segments
from heads.points import Points, pyramid_points
from heads.positions import PositionEmbedding
from heads.sgp import NORM_GROUPS, SGPBlock
from heads.trident import trident_offsets

STEM_BLOCKS = 2
STEM_SIZE = 1


class TriDetOutput(NamedTuple):
    logits: Tensor  # (B, P, K)
    starts: Tensor  # (B, P, K) logits
    ends: Tensor  # (B, P, K) logits
    centres: Tensor  # (B, P, 2, D) of the places back from the point, the furthest first, and on from it, not below 0
    valid: Tensor  # (B, P) bool: the point is no padding
    points: Points


class TriDet(nn.Module):
    """TriDet on whole sequences.

    Args:
        in_channels: channels of the features.
        num_classes: K, action classes; 0 gives class-agnostic segments, with one score each.
        crop_rows: rows of a video that training sees at most.
        hidden: channels of all levels; a multiple of 16.
        mlp_hidden: channels inside the blocks' MLP.
        head_hidden: channels inside of what looks at the points.
        num_levels: levels of the pyramid, the finest included.
        kernel: rows of its level that the narrow convolution of a block sees, odd; in the first two blocks it is 1.
        kernel_ratio: how many times as many the wide one sees (`heads.sgp.wide_size`).
        depthwise_init: standard deviation of the blocks' first depthwise weights.
        head_kernel: size of the convolutions that look at the points, odd;
        boundary_kernel: of those for starts and ends.
        num_bins: B, the strides that an end of a segment is away from its point at most.
        iou_power: of the IoU that a positive's loss on its class is multiplied with.
        input_noise: standard deviation of noise on the features, in training.
        position_rows: entries of the table of positions; 0: no positions.
        drop_path: probability that a branch of a block is left out, for a sequence in training.
        padded_statistics: the blocks also count padding, of zeros up to `crop_rows` rows.
        range_ratio: see `heads.points.pyramid_points`.
        label_smoothing: see `heads.point_losses.smooth_labels`.
        reg_weight: weight of the regression loss.
        initial_positives: first value of the running number of positive points.
        most_per_level, min_score, min_length: see `heads.point_decoding.decode_points`.
    """

    Options = TriDetOptions
    num_snippets = None  # it sees videos whole

    def __init__(
        self,
        in_channels: int,
        *,
        num_classes: int = 0,
        crop_rows: int = 2304,
        hidden: int = 512,
        mlp_hidden: int = 768,
        head_hidden: int = 512,
        num_levels: int = 6,
        kernel: int = 1,
        kernel_ratio: float = 5.0,
        depthwise_init: float = 0.0,
        head_kernel: int = 3,
        boundary_kernel: int = 3,
        num_bins: int = 16,
        iou_power: float = 0.2,
        input_noise: float = 5e-4,
        position_rows: int = 0,
        drop_path: float = 0.1,
        padded_statistics: bool = False,
        range_ratio: float = 2.0,
        label_smoothing: float = 0.0,
        reg_weight: float = 1.0,
        initial_positives: float = 100.0,
        most_per_level: int = 2000,
        min_score: float = 0.001,
        min_length: float = 0.05,
    ) -> None:
        super().__init__()
        check_pyramid(
            "tridet",
            crop_rows=crop_rows,
            num_levels=num_levels,
            range_ratio=range_ratio,
            initial_positives=initial_positives,
            most_per_level=most_per_level,
        )
        for name, size in (("kernel", kernel), ("head_kernel", head_kernel), ("boundary_kernel", boundary_kernel)):
            require(size >= 1 and size % 2 == 1, "tridet", name, size, "odd, such as 1 or 3")
        for name, least in (("depthwise_init", depthwise_init), ("iou_power", iou_power), ("input_noise", input_noise)):
            require(least >= 0, "tridet", name, least, "0 or above")
        fine = hidden >= 1 and hidden % NORM_GROUPS == 0
        require(fine, "tridet", "hidden", hidden, f"a multiple of {NORM_GROUPS}, the groups of channels")
        require(kernel_ratio > 0, "tridet", "kernel_ratio", kernel_ratio, "above 0, such as 1.5")
        require(num_bins >= 1, "tridet", "num_bins", num_bins, "at least 1")
        require(0 <= drop_path < 1, "tridet", "drop_path", drop_path, "at least 0 and below 1")
        require(position_rows >= 0, "tridet", "position_rows", position_rows, "0, for none, or above")
        self.crop_rows, self.padded_statistics, self.input_noise = crop_rows, padded_statistics, input_noise
        self.num_classes, self.num_levels, self.range_ratio = num_classes, num_levels, range_ratio
        self.label_smoothing, self.reg_weight, self.iou_power = label_smoothing, reg_weight, iou_power
        self.most_per_level, self.min_score, self.min_length = most_per_level, min_score, min_length

        def block(size: int, *, halve: bool) -> SGPBlock:
            return SGPBlock(
                hidden,
                size=size,
                wide_ratio=kernel_ratio,
                deviation=depthwise_init,
                hidden=mlp_hidden,
                halve=halve,
                drop_path=drop_path if halve else None,
                over_padding=padded_statistics,
            )

        num_outputs = max(1, num_classes)
        self.embedding = MaskedConvs(in_channels, hidden, hidden)
        self.positions = PositionEmbedding(hidden, position_rows) if position_rows else None
        self.stem = nn.ModuleList(block(STEM_SIZE, halve=False) for _ in range(STEM_BLOCKS))
        self.branch = nn.ModuleList(block(kernel, halve=True) for _ in range(num_levels - 1))
        self.neck = nn.ModuleList(ChannelNorm(hidden) for _ in range(num_levels))
        self.classify = PointHead(hidden, num_outputs, hidden=head_hidden, size=head_kernel)
        self.start = PointHead(hidden, num_outputs, hidden=head_hidden, size=boundary_kernel)
        self.end = PointHead(hidden, num_outputs, hidden=head_hidden, size=boundary_kernel)
        self.centre = PointHead(hidden, 2 * (num_bins + 1), hidden=head_hidden, size=head_kernel)
        self.level_scale = nn.Parameter(torch.ones(num_levels))
        self.register_buffer("num_positives", torch.tensor(float(initial_positives)))
        self.num_positives: Tensor
        reset_biases(self, self.classify, self.start, self.end)

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor | None = None) -> TriDetOutput:
        """Features (B, C, T) to what all branches say of all points of the pyramid.

        Args:
            feats_BCT: sequences of features, those shorter than T padded at their end, with anything.
            valid_BT: which rows are no padding; all, when left out.
        """
        if valid_BT is None:
            valid_BT = feats_BCT.new_ones(len(feats_BCT), feats_BCT.shape[2], dtype=torch.bool)
        points = pyramid_points(
            feats_BCT.shape[2], self.num_levels, range_ratio=self.range_ratio, device=feats_BCT.device
        )
        logits, starts, ends, centres, valids = [], [], [], [], []
        levels = zip(points.sizes, self.neck, self.level_scale, self._pyramid(feats_BCT, valid_BT), strict=True)
        for size, norm, scale, (level_BCT, level_BT) in levels:
            # Without what was filled up.
            normed_BCT, real_BT = norm(level_BCT)[..., :size], level_BT[:, :size]
            # (B, hidden, T of the level) -> (B, T of the level, K)
            logits.append(self.classify(normed_BCT, real_BT).mT.float())
            starts.append(self.start(normed_BCT.detach(), real_BT).mT.float())
            ends.append(self.end(normed_BCT.detach(), real_BT).mT.float())
            # (B, hidden, T of the level) -> (B, T of the level, 2, D)
            centre_BTE = (scale * self.centre(normed_BCT, real_BT)).relu().mT.float()
            centres.append(torch.unflatten(centre_BTE, 2, (2, -1)))
            valids.append(real_BT)
        return TriDetOutput(
            torch.cat(logits, dim=1),
            torch.cat(starts, dim=1),
            torch.cat(ends, dim=1),
            torch.cat(centres, dim=1),
            torch.cat(valids, dim=1),
            points,
        )

    def _pyramid(self, feats_BCT: Tensor, valid_BT: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Features and mask of each level."""
        if self.padded_statistics:
            feats_BCT, valid_BT = filled_up(
                feats_BCT, valid_BT, least=self.crop_rows, multiple=2 ** (self.num_levels - 1)
            )
        if self.training and self.input_noise:
            feats_BCT = feats_BCT + self.input_noise * torch.randn_like(feats_BCT)
        # (B, C, T) -> (B, hidden, T)
        feats_BCT = self.embedding(feats_BCT, valid_BT)
        if self.positions is not None:
            feats_BCT = self.positions(feats_BCT, valid_BT)
        for block in self.stem:
            feats_BCT, valid_BT = block(feats_BCT, valid_BT)
        levels = [(feats_BCT, valid_BT)]
        for block in self.branch:
            # (B, hidden, T) -> (B, hidden, ceil(T / 2))
            levels.append(block(*levels[-1]))
        return levels

    def targets(self, segments: Sequence[Tensor], labels: Sequence[Tensor]) -> PaddedSegments:
        """Of each sequence the segments (N, 2) in rows and class indices (N,), -1 for no class."""
        return pad_segments(segments, labels, classes=self.num_classes > 0, device=self.num_positives.device)

    def loss(self, output: TriDetOutput, targets: PaddedSegments) -> dict[str, Tensor]:
        """`loss`, the weighted sum, and its parts unweighted.

        Both parts are sums over the points of the batch, over the running number of positive ones; in training, the
        batch is counted first. A point of several classes has a segment to learn for each of them. As segments are of a
        class, those without class teach nothing: their points are no positives, and no negatives either.
        """
        segments_BN2 = targets.cut(output.valid[:, : output.points.sizes[0]].sum(dim=1))
        positive_BP, classes_BPK, offsets_BP2 = assign_segments(
            output.points, output.valid, segments_BN2, targets.labels, output.logits.shape[2]
        )
        divisor = count_positives(self.num_positives, classes_BPK.any(dim=2).sum(), training=self.training)
        video_M, point_M, label_M = classes_BPK.nonzero(as_tuple=True)
        found_M2 = _offsets(output, video_M, point_M, label_M)
        wanted_M2 = offsets_BP2[video_M, point_M]

        known_BP = output.valid & (~positive_BP | classes_BPK.any(dim=2))
        # Not detached: the better a segment, the more its class costs. Where nothing overlaps, no root of 0 is derived.
        fit_M = iou(found_M2, wanted_M2).clamp(min=EPSILON) ** self.iou_power
        weight_BPK = torch.ones_like(output.logits).index_put((video_M, point_M, label_M), fit_M)
        wanted = smooth_labels(classes_BPK[known_BP].float(), self.label_smoothing)
        cls = (weight_BPK[known_BP] * focal_loss(output.logits[known_BP], wanted)).sum() / divisor
        reg = diou_loss(found_M2, wanted_M2).sum() / divisor
        return {"loss": cls + self.reg_weight * reg, "cls": cls, "reg": reg}

    def decode(self, output: TriDetOutput) -> ScoredSegments:
        """The best (point, class) pairs of each level as segments (B, N, 2) in rows with scores (B, N) and classes.

        As `heads.point_decoding.decode_points`, but that each class of a point has a segment of its own.
        """
        most = most_of_level(output.points, self.crop_rows, self.most_per_level)
        scores_BPK = output.logits.sigmoid() * output.valid[..., None]
        pairs = best_of_levels(scores_BPK, output.points.sizes, most=most)
        video_B1 = torch.arange(len(scores_BPK), device=scores_BPK.device)[:, None]
        offsets_BN2 = _offsets(output, video_B1, pairs.points, pairs.labels)
        return segments_of(pairs, offsets_BN2, output.points, min_score=self.min_score, min_length=self.min_length)


def _offsets(output: TriDetOutput, video: Tensor, point: Tensor, label: Tensor) -> Tensor:
    return trident_offsets(
        output.starts, output.ends, output.centres, output.points.sizes, video=video, point=point, label=label
    )
