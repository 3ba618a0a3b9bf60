"""TemporalMaxer: maximize temporal context with only max pooling (Tang, Kim & Sohn, 2023).

ActionFormer's pyramid and heads (`heads.actionformer`) without its transformer: convolutions embed the features
(B, C, T), and each further level is the greatest of three rows at every second one of the level before. That loses
little, since neighbouring rows of features are much alike; it has no parameters, and is quick.

Points, their classes and the loss on these are ActionFormer's. What a point regresses to is, of all segments around it,
the one that costs it least by both losses, whichever one gives it its class (`cheapest_offsets`). The authors' code has
SimOTA for this, with numbers that leave nothing else of it: every candidate is kept, and all weigh alike.

What differs from that code, besides what `heads.actionformer` says, so that a video's result does not depend on its
padding: the statistics of the levels' normalisation are those of the video's own rows (`padded_statistics`). One
normalisation serves all levels, there as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.assignment import assign_segments
from heads.base import ScoredSegments
from heads.checks import check_pyramid, require
from heads.masked import ChannelNorm, MaskedConvs, MaskedGroupNorm, MaskedMaxPool, filled_up
from heads.options import TemporalMaxerOptions
from heads.point_decoding import PointOutput, decode_points
from heads.point_head import PointHead, reset_biases
from heads.point_losses import count_positives, diou_loss, focal_loss, smooth_labels
from heads.point_targets import PaddedSegments, pad_segments
from heads.points import pyramid_points

NORM_GROUPS = 4
# Of the regression loss in what a point's segments cost it.
COST_OF_OFFSETS = 2.0


class TemporalMaxer(nn.Module):
    """TemporalMaxer on whole sequences.

    Args:
        in_channels: channels of the features.
        num_classes: K, action classes; 0 gives class-agnostic segments, with one score each.
        crop_rows: rows of a video that training sees at most.
        hidden: channels of all levels; with `level_norm="group"` a multiple of 4.
        num_levels: levels of the pyramid, the finest included.
        num_convolutions: those that embed the features.
        level_norm: normalisation of every level, over all its rows in four groups of channels, or of each row.
        padded_statistics: that over all rows also counts zeros up to `crop_rows` rows.
        range_ratio: see `heads.points.pyramid_points`.
        label_smoothing: see `heads.point_losses.smooth_labels`.
        reg_weight: weight of the regression loss.
        initial_positives: first value of the running number of positive points.
        most_per_level, min_score, min_length: see `heads.point_decoding.decode_points`.
    """

    Options = TemporalMaxerOptions
    num_snippets = None  # it sees videos whole

    def __init__(
        self,
        in_channels: int,
        *,
        num_classes: int = 0,
        crop_rows: int = 2304,
        hidden: int = 512,
        num_levels: int = 6,
        num_convolutions: int = 2,
        level_norm: Literal["group", "layer"] = "group",
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
            "temporalmaxer",
            crop_rows=crop_rows,
            num_levels=num_levels,
            range_ratio=range_ratio,
            initial_positives=initial_positives,
            most_per_level=most_per_level,
        )
        fine = hidden >= 1 and (level_norm == "layer" or hidden % NORM_GROUPS == 0)
        require(fine, "temporalmaxer", "hidden", hidden, f"a multiple of {NORM_GROUPS}, the groups of channels")
        require(num_convolutions >= 1, "temporalmaxer", "num_convolutions", num_convolutions, "at least 1")
        self.crop_rows, self.padded_statistics = crop_rows, padded_statistics
        self.num_classes, self.num_levels, self.range_ratio = num_classes, num_levels, range_ratio
        self.label_smoothing, self.reg_weight = label_smoothing, reg_weight
        self.most_per_level, self.min_score, self.min_length = most_per_level, min_score, min_length

        self.embedding = MaskedConvs(in_channels, *[hidden] * num_convolutions)
        self.pool = MaskedMaxPool()
        self.norm: MaskedGroupNorm | ChannelNorm = (
            MaskedGroupNorm(NORM_GROUPS, hidden, affine=False) if level_norm == "group" else ChannelNorm(hidden)
        )
        self.classify = PointHead(hidden, max(1, num_classes))
        self.regress = PointHead(hidden, 2)
        self.level_scale = nn.Parameter(torch.ones(num_levels))
        self.register_buffer("num_positives", torch.tensor(float(initial_positives)))
        self.num_positives: Tensor
        reset_biases(self, self.classify)

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor | None = None) -> PointOutput:
        """Features (B, C, T) to scores and offsets at all points of the pyramid.

        Args:
            feats_BCT: sequences of features, those shorter than T padded at their end, with anything.
            valid_BT: which rows are no padding; all, when left out.
        """
        if valid_BT is None:
            valid_BT = feats_BCT.new_ones(len(feats_BCT), feats_BCT.shape[2], dtype=torch.bool)
        points = pyramid_points(
            feats_BCT.shape[2], self.num_levels, range_ratio=self.range_ratio, device=feats_BCT.device
        )
        if self.padded_statistics:
            feats_BCT, valid_BT = filled_up(
                feats_BCT, valid_BT, least=self.crop_rows, multiple=2 ** (self.num_levels - 1)
            )
        # (B, C, T) -> (B, hidden, T)
        level_BCT, level_BT = self.embedding(feats_BCT, valid_BT), valid_BT
        logits, offsets, valids = [], [], []
        for level, (size, scale) in enumerate(zip(points.sizes, self.level_scale, strict=True)):
            if level:
                # (B, hidden, T) -> (B, hidden, ceil(T / 2))
                level_BCT, level_BT = self.pool(level_BCT, level_BT)
            # Without what was filled up.
            normed_BCT, real_BT = self._normed(level_BCT, level_BT)[..., :size], level_BT[:, :size]
            # (B, hidden, T of the level) -> (B, T of the level, K) and (B, T of the level, 2)
            logits.append(self.classify(normed_BCT, real_BT).mT.float())
            offsets.append((scale * self.regress(normed_BCT, real_BT)).relu().mT.float())
            valids.append(real_BT)
        return PointOutput(torch.cat(logits, dim=1), torch.cat(offsets, dim=1), torch.cat(valids, dim=1), points)

    def _normed(self, level_BCT: Tensor, level_BT: Tensor) -> Tensor:
        normed_BCT: Tensor
        if isinstance(self.norm, ChannelNorm):
            normed_BCT = self.norm(level_BCT)
        else:
            # Padding is zeros here.
            normed_BCT = self.norm(level_BCT, torch.ones_like(level_BT) if self.padded_statistics else level_BT)
        return normed_BCT

    def targets(self, segments: Sequence[Tensor], labels: Sequence[Tensor]) -> PaddedSegments:
        """Of each sequence the segments (N, 2) in rows and class indices (N,), -1 for no class."""
        return pad_segments(segments, labels, classes=self.num_classes > 0, device=self.num_positives.device)

    def loss(self, output: PointOutput, targets: PaddedSegments) -> dict[str, Tensor]:
        """`loss`, the weighted sum, and its parts unweighted.

        Both parts are sums over the points of the batch, over the running number of positive ones; in training, the
        batch is counted first. Points of a segment without class train its ends, and no class.
        """
        segments_BN2 = targets.cut(output.valid[:, : output.points.sizes[0]].sum(dim=1))
        positive_BP, classes_BPK, _ = assign_segments(
            output.points, output.valid, segments_BN2, targets.labels, output.logits.shape[2]
        )
        divisor = count_positives(self.num_positives, positive_BP.sum(), training=self.training)
        known_BP = output.valid & (~positive_BP | classes_BPK.any(dim=2))
        wanted = smooth_labels(classes_BPK[known_BP].float(), self.label_smoothing)
        cls = focal_loss(output.logits[known_BP], wanted).sum() / divisor
        offsets_M2 = cheapest_offsets(output, positive_BP, segments_BN2, targets.labels)
        reg = diou_loss(output.offsets[positive_BP], offsets_M2).sum() / divisor
        return {"loss": cls + self.reg_weight * reg, "cls": cls, "reg": reg}

    def decode(self, output: PointOutput) -> ScoredSegments:
        """See `heads.point_decoding.decode_points`."""
        return decode_points(
            output,
            crop_rows=self.crop_rows,
            most_per_level=self.most_per_level,
            min_score=self.min_score,
            min_length=self.min_length,
        )


@torch.no_grad()
def cheapest_offsets(output: PointOutput, positive_BP: Tensor, segments_BN2: Tensor, labels_BN: Tensor) -> Tensor:
    """What each of the M positive points is to regress to, (M, 2) strides back to a start and on to an end.

    Of all segments that the point lies in, ends included, however long these are and however far off their middles, it
    is the one of least cost: the focal loss of its class, summed over all K, and twice the DIoU loss of its ends.
    """
    # One more segment, without length, so that there is one.
    segments_BN2, labels_BN = F.pad(segments_BN2, (0, 0, 0, 1)), F.pad(labels_BN, (0, 1), value=-1)
    video_M, point_M = positive_BP.nonzero(as_tuple=True)
    time_M1, stride_M11 = output.points.time[point_M][:, None], output.points.stride[point_M][:, None, None]
    start_MN, end_MN = segments_BN2[video_M].unbind(dim=2)
    offsets_MN2 = torch.stack([time_M1 - start_MN, end_MN - time_M1], dim=2) / stride_M11
    inside_MN = (offsets_MN2 >= 0).all(dim=2) & (end_MN > start_MN)

    logits_MK, label_MN = output.logits[video_M, point_M], labels_BN[video_M]
    # Against the loss of no class at all, which is the same for all segments of a point: one class differs.
    differs_MK = focal_loss(logits_MK, torch.ones_like(logits_MK)) - focal_loss(logits_MK, torch.zeros_like(logits_MK))
    cost_MN = differs_MK.gather(1, label_MN.clamp(min=0)) * (label_MN >= 0)
    predicted_MN2 = output.offsets[video_M, point_M][:, None].expand_as(offsets_MN2)
    cost_MN += COST_OF_OFFSETS * diou_loss(predicted_MN2, offsets_MN2)
    cheapest_M = cost_MN.masked_fill(~inside_MN, torch.inf).argmin(dim=1)
    return offsets_MN2[torch.arange(len(cheapest_M), device=cheapest_M.device), cheapest_M]
