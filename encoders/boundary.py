"""What boundary-sensitive pre-training puts on an encoder, and its losses (BSP; Xu et al., ICCV 2021, 3.3 and 3.4).

    change point   clips ─encoder─ a vector for each frame (B,L,C) ─linear─ heatmap (B,L)
    two-head       real and synthetic clips ─one encoder─┬─linear─ actions, of the real ones
                                                         └─linear─ kind of boundary, of the synthetic ones
    distillation   all clips ─encoder─┬─h1─ as near as can be to the features of an encoder that knows actions
                                      ├─h2─ as near as can be to those of one that knows boundaries
                                      └─linear─ actions, of the real ones

All that stays of a training is the encoder. Shapes: B clips, L frames of a clip, C channels, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.base import Encoder, FrameEncoder

# --- Change points ----------------------------------------------------------------------------------------------------


def heatmap(change_points_B: Tensor, num_frames: int, tau: float) -> Tensor:
    """exp(-(t - μ)² / 2τ) at each frame t = 1 … L, for change points after μ frames: (B,L)."""
    frames_L = torch.arange(1, num_frames + 1, dtype=change_points_B.dtype, device=change_points_B.device)
    return torch.exp(-((frames_L - change_points_B[:, None]) ** 2) / (2 * tau))


def heatmap_loss(predicted_BL: Tensor, change_points_B: Tensor, tau: float) -> Tensor:
    """Smooth L1 norm of the difference between the heatmap and its prediction, the mean over clips and frames."""
    return F.smooth_l1_loss(predicted_BL, heatmap(change_points_B, predicted_BL.shape[1], tau))


class ChangePointRegressor(nn.Module):
    """Clips (B,3,L,H,W) to a heatmap (B,L), by a linear layer on each frame's features before their mean is taken.

    Raises:
        ValueError: an encoder that has no features of single frames.
    """

    def __init__(self, encoder: Encoder, *, dropout: float) -> None:
        super().__init__()
        if not isinstance(encoder, FrameEncoder):
            raise ValueError(
                f"{encoder.name} gives one vector for all frames of a clip, and change points are regressed from a "
                "vector for each: choose a TSM or TSN encoder, or learn by classification"
            )
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(encoder.channels, 1)

    def forward(self, clips: Tensor) -> Tensor:
        heatmap_BL1: Tensor = self.linear(self.dropout(self.encoder.frame_features(clips)))
        return heatmap_BL1.squeeze(-1)


# --- Together with actions --------------------------------------------------------------------------------------------


class TwoHeads(nn.Module):
    """One encoder under two linear layers: all are shared but these (Fig. 3b).

    Args:
        encoder: to be trained.
        num_actions: classes of the real clips.
        num_kinds: kinds of the synthetic ones.
        dropout: before both layers.
    """

    def __init__(self, encoder: Encoder, num_actions: int, num_kinds: int, *, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.actions = nn.Linear(encoder.channels, num_actions)
        self.kinds = nn.Linear(encoder.channels, num_kinds)

    def forward(self, clips: Tensor, num_real: int) -> tuple[Tensor, Tensor]:
        """Action logits of the first `num_real` clips, kind logits of the others.

        All go through the encoder at once, so that its batch norms see both in training, as they will afterwards.
        """
        features_BC = self.dropout(self.encoder(clips))
        return self.actions(features_BC[:num_real]), self.kinds(features_BC[num_real:])


class Matching(NamedTuple):
    """The losses of `Distillation`, and the action logits of the real clips."""

    action_features: Tensor  # scalar
    boundary_features: Tensor  # scalar
    logits: Tensor  # (B,K)


class Distillation(nn.Module):
    """One encoder that is to hold what two others know (Fig. 3c).

    Args:
        encoder: the student.
        action_teacher: f_v, trained to classify actions.
        boundary_teacher: f_b, trained on boundaries. Both stay as they are, batch norms included.
        num_actions: classes of the real clips.
        dropout: before the layer that classifies them.

    Raises:
        ValueError: a teacher that wants other clips than the student.
    """

    def __init__(
        self, encoder: Encoder, action_teacher: Encoder, boundary_teacher: Encoder, num_actions: int, *, dropout: float
    ) -> None:
        super().__init__()
        for teacher in (action_teacher, boundary_teacher):
            _check_same_clips(encoder, teacher)
        self.encoder = encoder
        self.action_teacher = _Frozen(action_teacher)
        self.boundary_teacher = _Frozen(boundary_teacher)
        self.h1 = nn.Linear(encoder.channels, action_teacher.channels)
        self.h2 = nn.Linear(encoder.channels, boundary_teacher.channels)
        self.dropout = nn.Dropout(dropout)
        self.actions = nn.Linear(encoder.channels, num_actions)

    def forward(self, clips: Tensor, num_real: int) -> Matching:
        """Both teachers are matched on all clips; the first `num_real` are real ones, which have an action."""
        features_BC = self.encoder(clips)
        return Matching(
            matching_loss(self.h1(features_BC), self.action_teacher(clips)),
            matching_loss(self.h2(features_BC), self.boundary_teacher(clips)),
            self.actions(self.dropout(features_BC[:num_real])),
        )


def matching_loss(projected_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """‖teacher - projected‖² / C, the mean over clips.

    The paper does not divide. But the largest eigenvalue of h's quadratic loss is then twice the squared length of the
    student's features, hundreds where C is 512, and plain descent at the learning rate of 0.02 leaps out of it.
    """
    return (teacher_BC - projected_BC).square().mean(dim=1).mean()


class _Frozen(nn.Module):
    """An encoder that no training changes, neither its weights nor the statistics of its batch norms."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> _Frozen:
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        features_BC: Tensor = self.encoder(clips)
        return features_BC


def _check_same_clips(student: Encoder, teacher: Encoder) -> None:
    wanted, given = (
        (encoder.modality, encoder.num_frames, encoder.frame_stride, encoder.resize, encoder.size)
        for encoder in (student, teacher)
    )
    if wanted != given:
        raise ValueError(
            f"the teacher {teacher.name} wants other clips (modality, frames, stride, short side, crop: {given}) than "
            f"the student {student.name} ({wanted}); all three encoders are shown the same clips"
        )
