"""ActionFormer: localizing moments of actions with transformers (Zhang et al., ECCV 2022).

A sequence of features (B, C, T) of any length becomes a pyramid: convolutions embed it, transformer blocks with
attention to the rows near by refine it, and further ones halve its rows, level by level. Two convolutional heads,
shared by all levels, look at every point of the pyramid: which classes is it inside of, and how far away are the start
and the end? A point is thus a segment with K scores.

Positions are in rows: row i spans [i, i+1], and the point at column j of level l stands at the middle of row j·2ˡ,
at j·2ˡ + ½. The published code counts from the middle of row 0, so that its position x, of which it makes
(x·stride + ½·window)/fps seconds, is x + ½ here: the same second, the same points, the same offsets.

What differs from the published code, so that a video's result depends neither on its padding nor on its neighbours in a
batch: convolutions see zeros behind a sequence's end as before its start (there, what the normalisation makes of
padding), pooling ignores padding (there, it is 0), and lengths are not rounded up. Only rows at the end of a sequence
can tell. Segments are cut to their sequence, and no segment is too long for the last level (there, 10,000 rows).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heads.assignment import assign_segments
from heads.attention import global_attention, local_attention
from heads.base import ScoredSegments
from heads.checks import check_pyramid, require
from heads.masked import ChannelNorm, MaskedConv1d, MaskedConvs, MaskedMaxPool
from heads.options import ActionFormerOptions
from heads.point_decoding import PointOutput, decode_points
from heads.point_head import PointHead, reset_biases
from heads.point_losses import count_positives, diou_loss, focal_loss, smooth_labels
from heads.point_targets import PaddedSegments, pad_segments
from heads.points import pyramid_points
from heads.positions import PositionEmbedding
from heads.stochastic_depth import ScaledDropPath

STEM_BLOCKS = 2
MLP_RATIO = 4


class Attention(nn.Module):
    """Multi-head attention (B, C, T) -> (B, C, ceil(T/stride)) whose projections see three rows each.

    Queries, keys and values each have a depthwise convolution, with the stride, before normalisation and projection.
    """

    def __init__(self, channels: int, *, num_heads: int, window: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.convolutions = nn.ModuleList(
            MaskedConv1d(channels, channels, 3, stride=stride, groups=channels, bias=False) for _ in range(3)
        )
        self.projections = nn.ModuleList(
            nn.Sequential(ChannelNorm(channels), nn.Conv1d(channels, channels, 1)) for _ in range(3)
        )
        self.out = nn.Sequential(nn.Conv1d(channels, channels, 1), nn.Dropout(dropout))

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> Tensor:
        rows, strided_BT = [], valid_BT
        for convolution, projection in zip(self.convolutions, self.projections, strict=True):
            convolved_BCT, strided_BT = convolution(feats_BCT, valid_BT)
            # (B, C, T) -> (B, H, T, E), H * E = C
            rows.append(projection(convolved_BCT).unflatten(1, (self.num_heads, -1)).mT)
        query, key, value = rows
        if self.window:
            attended_BHTE = local_attention(query, key, value, strided_BT, self.window)
        else:
            attended_BHTE = global_attention(query, key, value, strided_BT)
        # (B, H, T, E) -> (B, C, T)
        out_BCT: Tensor = self.out(attended_BHTE.mT.flatten(1, 2))
        return out_BCT


class TransformerBlock(nn.Module):
    """Attention and an MLP on each row, both as branches, (B, C, T) -> (B, C, T), or ceil(T/2) rows with `halve`."""

    def __init__(
        self, channels: int, *, num_heads: int, window: int, halve: bool, dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.pool = MaskedMaxPool() if halve else None
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.attention = Attention(
            channels, num_heads=num_heads, window=window, stride=2 if halve else 1, dropout=dropout
        )
        self.mlp = nn.Sequential(
            nn.Conv1d(channels, MLP_RATIO * channels, 1),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv1d(MLP_RATIO * channels, channels, 1),
            nn.Dropout(dropout),
        )
        self.drop1, self.drop2 = ScaledDropPath(channels, drop_path), ScaledDropPath(channels, drop_path)

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        attended_BCT = self.attention(self.norm1(feats_BCT), valid_BT)
        if self.pool is not None:
            feats_BCT, valid_BT = self.pool(feats_BCT, valid_BT)
        feats_BCT = feats_BCT + self.drop1(attended_BCT)
        return feats_BCT + self.drop2(self.mlp(self.norm2(feats_BCT))), valid_BT


class ActionFormer(nn.Module):
    """ActionFormer on whole sequences.

    Args:
        in_channels: channels of the features.
        num_classes: K, action classes; 0 gives class-agnostic segments, with one score each.
        crop_rows: rows of a video that training sees at most.
        hidden: channels of all levels; a multiple of `num_heads`.
        num_heads: heads of the attention.
        num_levels: levels of the pyramid, the finest included.
        window: rows of its level that a row attends to, odd; 0: all.
        last_window: the same on the last level; `window` when left out.
        position_rows: entries of the table of positions; 0: no positions.
        dropout: dropout inside the blocks.
        drop_path: probability that a branch of a block is left out, for a sequence in training.
        range_ratio: see `heads.points.pyramid_points`.
        label_smoothing: see `heads.point_losses.smooth_labels`.
        reg_weight: weight of the regression loss.
        initial_positives: first value of the running number of positive points.
        most_per_level, min_score, min_length: see `heads.point_decoding.decode_points`.
    """

    Options = ActionFormerOptions
    num_snippets = None  # it sees videos whole

    def __init__(
        self,
        in_channels: int,
        *,
        num_classes: int = 0,
        crop_rows: int = 2304,
        hidden: int = 512,
        num_heads: int = 4,
        num_levels: int = 6,
        window: int = 19,
        last_window: int | None = None,
        position_rows: int = 0,
        dropout: float = 0.0,
        drop_path: float = 0.1,
        range_ratio: float = 2.0,
        label_smoothing: float = 0.0,
        reg_weight: float = 1.0,
        initial_positives: float = 100.0,
        most_per_level: int = 2000,
        min_score: float = 0.001,
        min_length: float = 0.05,
    ) -> None:
        super().__init__()
        self.crop_rows = crop_rows
        last_window = window if last_window is None else last_window
        check_pyramid(
            "actionformer",
            crop_rows=crop_rows,
            num_levels=num_levels,
            range_ratio=range_ratio,
            initial_positives=initial_positives,
            most_per_level=most_per_level,
        )
        require(0 <= drop_path < 1, "actionformer", "drop_path", drop_path, "at least 0 and below 1")
        require(position_rows >= 0, "actionformer", "position_rows", position_rows, "0, for none, or above")
        _check_attention(hidden, num_heads, window, last_window)
        self.num_classes, self.num_levels, self.range_ratio = num_classes, num_levels, range_ratio
        self.label_smoothing, self.reg_weight = label_smoothing, reg_weight
        self.most_per_level, self.min_score, self.min_length = most_per_level, min_score, min_length

        def block(window: int, *, halve: bool) -> TransformerBlock:
            return TransformerBlock(
                hidden, num_heads=num_heads, window=window, halve=halve, dropout=dropout, drop_path=drop_path
            )

        windows = [window] * (num_levels - 1) + [last_window]
        self.embedding = MaskedConvs(in_channels, hidden, hidden)
        self.positions = PositionEmbedding(hidden, position_rows) if position_rows else None
        self.stem = nn.ModuleList(block(windows[0], halve=False) for _ in range(STEM_BLOCKS))
        self.branch = nn.ModuleList(block(window, halve=True) for window in windows[1:])
        self.neck = nn.ModuleList(ChannelNorm(hidden) for _ in windows)
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
        logits, offsets, valids = [], [], []
        levels = self._pyramid(feats_BCT, valid_BT)
        for norm, scale, (level_BCT, level_BT) in zip(self.neck, self.level_scale, levels, strict=True):
            normed_BCT = norm(level_BCT)
            # (B, C, T of the level) -> (B, T of the level, K) and (B, T of the level, 2)
            logits.append(self.classify(normed_BCT, level_BT).mT.float())
            offsets.append((scale * self.regress(normed_BCT, level_BT)).relu().mT.float())
            valids.append(level_BT)
        points = pyramid_points(
            feats_BCT.shape[2], self.num_levels, range_ratio=self.range_ratio, device=feats_BCT.device
        )
        return PointOutput(torch.cat(logits, dim=1), torch.cat(offsets, dim=1), torch.cat(valids, dim=1), points)

    def _pyramid(self, feats_BCT: Tensor, valid_BT: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Features and mask of each level."""
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

    def loss(self, output: PointOutput, targets: PaddedSegments) -> dict[str, Tensor]:
        """`loss`, the weighted sum, and its parts unweighted.

        Both parts are sums over the points of the batch, over the running number of positive ones; in training, the
        batch is counted first. Points of a segment without class train its ends, and no class.
        """
        segments_BN2 = targets.cut(output.valid[:, : output.points.sizes[0]].sum(dim=1))
        positive_BP, classes_BPK, offsets_BP2 = assign_segments(
            output.points, output.valid, segments_BN2, targets.labels, output.logits.shape[2]
        )
        divisor = count_positives(self.num_positives, positive_BP.sum(), training=self.training)
        known_BP = output.valid & (~positive_BP | classes_BPK.any(dim=2))
        wanted = smooth_labels(classes_BPK[known_BP].float(), self.label_smoothing)
        cls = focal_loss(output.logits[known_BP], wanted).sum() / divisor
        reg = diou_loss(output.offsets[positive_BP], offsets_BP2[positive_BP]).sum() / divisor
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


def _check_attention(hidden: int, num_heads: int, window: int, last_window: int) -> None:
    if num_heads < 1 or hidden < 1 or hidden % num_heads:
        raise ValueError(
            f"actionformer: hidden is {hidden}, num_heads {num_heads}; hidden must be a multiple of num_heads"
        )
    for name, rows in (("window", window), ("last_window", last_window)):
        fine = rows == 0 or (rows > 0 and rows % 2 == 1)
        require(fine, "actionformer", name, rows, "odd, such as 9 or 19, or 0 for all rows")
