"""What every head is: a network on windows of features that brings its targets, its loss and its decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor


class Proposals(NamedTuple):
    """Scored segments of each window."""

    segments: Tensor  # (B, N, 2) rows
    scores: Tensor  # (B, N, K); K = 1 without classes


class ScoredSegments(NamedTuple):
    """Segments of each sequence, each with one class; those that are none have score 0."""

    segments: Tensor  # (B, N, 2) rows
    scores: Tensor  # (B, N)
    labels: Tensor  # (B, N) long


class Head(Protocol):
    """The signature of a head, an `nn.Module` besides, whether it is one of ours or comes from elsewhere.

    It is built as `MyHead(in_channels, num_classes=K, **options)`, with the fields of its `Options` as keywords; K = 0
    asks for segments without classes. Positions are in rows: a window of T rows spans [0, T].

    Attributes:
        Options: a frozen dataclass whose fields all have defaults: what a user may choose, under the head's name in
            YAML and as `--NAME.field`. The docstrings of the fields are their help. Those with a method
            `fitted(longest)` return themselves as training segments of at most so many rows ask for.
        num_snippets: T, the rows of the windows that it sees; None: it sees videos whole, of whatever length.
        crop_rows: of a head that sees videos whole, how many rows of one it sees at most in training.
    """

    Options: ClassVar[type[Any]]
    num_snippets: int | None
    crop_rows: int

    def __call__(self, feats_BCT: Tensor, valid_BT: Tensor) -> Any:
        """Features (B, C, T) to whatever `loss` and `decode` take.

        A head that sees videos whole is also told which rows are no padding; one that sees windows takes the features
        alone.
        """

    def targets(self, segments: Sequence[Tensor], labels: Sequence[Tensor]) -> Any:
        """Targets of a batch of windows, each with segments (N, 2) in rows and class indices (N,), -1 for no class."""

    def loss(self, output: Any, targets: Any) -> dict[str, Tensor]:
        """`loss`, the scalar that is minimised, and whatever else is to be logged."""

    def decode(self, output: Any) -> Proposals | ScoredSegments:
        """Scored segments, those that are none with score 0: each with a score for every class, or with one class."""
