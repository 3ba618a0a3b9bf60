"""What `pipeline localize` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from pipeline.detection.options import PostConfig
from pipeline.encoding.options import SolaModuleConfig
from pipeline.training.options import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class LocalizeConfig:
    """Features and segments to a trained head, detections and metrics."""

    takes_head_options: ClassVar[bool] = True

    features: Path
    """Feature store."""
    annotations: Path
    """Annotation file, or folder of THUMOS14's or Charades-STA's text files (`pipeline.data.annotations`)."""
    annotation_format: str | None = None
    """Reader for annotations in a form that none of ours knows: `package.module:read`, or the name that an installed
    package gives it. Left out: the form is told from the file."""
    ambiguous: Literal["drop", "keep"] = "drop"
    """THUMOS14's intervals labelled "Ambiguous": `drop` them, as the ActivityNet code and ActionFormer do, or `keep`
    them as training segments without a class, as G-TAD does. No metric counts them."""
    out: Path
    """Run folder."""
    head: str = "gtad"
    """Which head: one of ours, of an installed package, or `package.module:MyHead` (`heads.base.Head`). What it can be
    told stands under its name."""
    train_subset: str = "training"
    """Subset that trains; `a|b`: a, or in files without a, b."""
    val_subset: str = "validation"
    """Subset that is detected in and scored."""
    rescale: Literal["linear", "bins", "none"] = "linear"
    """How features are brought to the T rows of a window, or to `rescale_rows`: by linear interpolation, or by the mean
    over bins of BSN and G-TAD. `none`: not at all; windows are T rows as they are, each half over the next, filled up
    with zeros (G-TAD on THUMOS14)."""
    rescale_rows: int | None = None
    """For heads that see videos whole: bring every video to this many rows, however long it is, in training and in
    prediction (ActionFormer on ActivityNet: 192). Left out: videos keep their rows."""
    row_step: int | None = 1
    """Use every n-th row of the features (G-TAD on THUMOS14's features of every frame: 5). `null`: as the lengths of
    the training segments ask for (`pipeline.detection.fitting`), which is said, and holds for prediction too."""
    unified: SolaModuleConfig | None = None
    """Put a SoLa module before the head and train both with the head's loss, without similarity matching (the paper's
    Table 4): `--unified {}`, or with an option of the module, `--unified.hidden 64`. Left out: none; what `pipeline
    sola` made needs no flag."""
    classes: bool = True
    """The head scores each class in each segment. `--classes=false`: segments alone, as in the papers; their classes
    come from `video_scores`, and `predict` calls all of them `action`."""
    video_scores: Path | None = None
    """Others' classification of whole videos, which gives the detections of this run their classes, in place of the
    head's own: UntrimmedNet's .npy for THUMOS14, or a JSON {"results": {VIDEO_ID: [scores]}, "class": [names]} as
    CUHK's for ActivityNet. The two best scores of a video must not be negative, which a logit can be. `predict` has the
    head's own classes alone."""
    fusion: Literal["top2", "top2-sqrt", "top1-share"] = "top2"
    """How `video_scores` give classes. `top2`: each segment once for each of the video's two best classes, its score
    times theirs (G-TAD and BMN on ActivityNet and THUMOS14). `top2-sqrt`: the square root of that (ActionFormer and
    TriDet on ActivityNet), which orders segments alike. `top1-share`: once for the best one, times its share in the sum
    of the two (G-TAD on HACS)."""
    post: PostConfig = field(default_factory=PostConfig)
    tiou: tuple[float, ...] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    """tIoU thresholds of the metrics."""
    min_steps: int | None = None
    """Train for more epochs than `training.epochs` where those make fewer optimiser steps than this, as with few
    videos. Left out: for `training.epochs`."""
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(lr=4e-3, num_workers=0))

    def __post_init__(self) -> None:
        if self.row_step is not None and self.row_step < 1:
            raise ValueError(f"row_step is {self.row_step}; it must be at least 1")
        if self.rescale_rows is not None and (self.rescale_rows < 1 or self.rescale == "none"):
            raise ValueError(
                f"rescale_rows is {self.rescale_rows} and rescale {self.rescale!r}: to bring videos to a number of "
                "rows takes at least 1 of them, and a rule: linear, or bins"
            )
