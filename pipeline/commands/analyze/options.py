"""What `pipeline analyze` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class LinearEvaluationConfig:
    """Linear evaluation (`pipeline.measures.linear_evaluation`) at the settings of SoLa's supplement."""

    epochs: int = 100
    """Passes over the training rows."""
    last_epochs: int = 10
    """The mean accuracy of this many last epochs is the result."""
    batch_size: int = 256
    """Rows in an optimiser step."""
    lr: float = 0.01
    """Learning rate of SGD."""
    momentum: float = 0.9
    """Momentum of SGD."""
    seeds: tuple[int, ...] = (0,)
    """A classifier is trained with each of these seeds."""
    max_rows: int = 200_000
    """Of more rows in a subset, so many are drawn at random."""

    def __post_init__(self) -> None:
        if not 1 <= self.last_epochs <= self.epochs:
            raise ValueError(f"linear.last_epochs is {self.last_epochs}, expected 1 to linear.epochs ({self.epochs})")
        if self.batch_size < 1 or self.max_rows < 1 or not self.seeds:
            raise ValueError("linear.batch_size and linear.max_rows must be at least 1, and linear.seeds not empty")


@dataclass(frozen=True, kw_only=True)
class AnalyzeConfig:
    """Feature stores to similarity matrices, linear evaluation and differences at boundaries: figures and JSON."""

    features: tuple[Path, ...]
    """Feature stores to compare, with commas; the figures show them side by side."""
    out: Path
    """Folder for the figures and analysis.json."""
    names: tuple[str, ...] | None = None
    """What the stores are called, with commas. Left out: what tells their paths apart."""
    annotations: Path | None = None
    """ActivityNet JSON or csv: adds linear evaluation and differences at boundaries, and looks at the videos of
    `val_subset` alone."""
    annotation_format: str | None = None
    """Reader for annotations in a form that none of ours knows: `package.module:read`, or the name that an installed
    package gives it. Left out: the form is told from the file."""
    train_subset: str = "training"
    """Subset that the linear classifier trains on."""
    val_subset: str = "validation"
    """Subset that it is tested on, and whose similarities and differences are measured."""
    run: Path | None = None
    """Run folder of `pipeline sola`: adds snapshots of its training."""
    videos: tuple[str, ...] | None = None
    """Ids of the videos whose similarity matrices are drawn, with commas. Left out: the first three."""
    tsm_size: int = 8
    """S: rows of a subsequence for the average similarity matrix."""
    step: int = 8
    """s: rows of the store from one of them to the next."""
    k: float = 16.0
    """K of the target similarity sigmoid(K / d²) drawn beside it."""
    linear: LinearEvaluationConfig = field(default_factory=LinearEvaluationConfig)

    def __post_init__(self) -> None:
        if self.tsm_size < 2 or self.step < 1:
            raise ValueError(f"tsm_size is {self.tsm_size} and step {self.step}; expected at least 2 and at least 1")
