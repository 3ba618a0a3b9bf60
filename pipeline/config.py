"""What each command can be told: one typed dataclass a stage.

This module imports neither torch nor any stage, so that `pipeline COMMAND --help` is quick. A field's docstring line is
its help text; a field without a default must be given. Times are seconds unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Which frames make a snippet, and where the snippets of a video stand (`pipeline.data.snippets`)."""

    num_frames: int | None = None
    """Frames in a snippet (L). Left out: the encoder's own."""
    frame_stride: int | None = None
    """Frames from one frame of a snippet to the next. Left out: the encoder's own."""
    step: int | None = None
    """Frames from one snippet's first frame to the next one's. Left out: half of what a snippet spans."""
    num_snippets: int | None = None
    """Instead of `step`: this many snippets, uniform over the video (LoFi's setting: 100)."""
    fps: float | None = None
    """Sample on a clock of this rate. Left out: that of the encoder's weights; if it has none, the video's own."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Videos to a feature store: one vector a snippet."""

    videos: Path
    """Folder of videos, searched with its subfolders; the id of a video is its file name without the suffix."""
    out: Path
    """The feature store to write or to go on with."""
    encoder: str
    """Name of the encoder, such as tsm_r50."""
    weights: str | None = None
    """A weight file, a run folder, a registered name, or `random`. Left out: the encoder's registered weights."""
    allow_missing: bool = False
    """Load a weight file although keys are missing or unexpected."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    size: int | None = None
    """Side of the square crop in pixels. Left out: the encoder's own."""
    annotations: Path | None = None
    """Extract only the videos that this annotation file names."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored features."""
    batch_size: int = 16
    """Snippets (or frames, for encoders that see one frame at a time) encoded at a time."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the encoder runs."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the hardware has it, float32 elsewhere."""
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """Which library decodes."""
    time_limit: float = 60.0
    """Seconds without a new frame after which a video counts as failed."""
    flow_cache: Path | None = None
    """Folder in which optical flow, which takes seconds a frame, is kept for the next time. It may be deleted."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training stage shares (`pipeline.training`)."""

    epochs: int = 10
    """Passes over the training data."""
    batch_size: int = 16
    """Samples in a batch; an optimiser step sees `accumulate` · `devices` batches."""
    accumulate: int = 1
    """Batches whose gradients are added up for an optimiser step."""
    devices: int = 1
    """GPUs, each with batches of its own (DDP); where training runs on the CPU, processes."""
    lr: float = 1e-3
    """Learning rate."""
    weight_decay: float = 1e-4
    """Weight decay."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimiser."""
    momentum: float = 0.9
    """Momentum of SGD."""
    lr_schedule: Literal["constant", "step", "cosine"] = "step"
    """`step`: times `lr_gamma` after each epoch of `lr_steps`."""
    lr_steps: tuple[int, ...] = (5,)
    """Epochs after which the learning rate is multiplied, for `lr_schedule: step`."""
    lr_gamma: float = 0.1
    """What it is multiplied with."""
    warmup_epochs: float = 0.0
    """Linear warm-up."""
    clip_grad_norm: float | None = None
    """Largest gradient norm."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, which is then what is evaluated and saved."""
    seed: int = 0
    """Fixes initial weights, data order and augmentation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where training runs."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Lightning's precision."""
    num_workers: int = 1
    """Processes that prepare data; 0 prepares it in the training process."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights are kept: the best on the validation data, or the last (G-TAD on THUMOS14, whose
    validation videos are the test set)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def step_size(self) -> int:
        """Samples in an optimiser step."""
        return self.batch_size * self.accumulate * self.devices


@dataclass(frozen=True, kw_only=True)
class ClipTrainingConfig:
    """What the stages share that train an encoder on trimmed clips (`pipeline.clip_training`)."""

    clips: Path
    """A csv in the Kinetics layout, a tree of class_name/clip.mp4, or an annotation JSON whose segments, cut out of the
    videos, are the clips (LoFi's ACP+)."""
    out: Path
    """Run folder."""
    encoder: str
    """Name of the encoder."""
    weights: str | None = "random"
    """What the encoder starts from: `random`, a weight file, a run folder, a registered name."""
    videos: Path | None = None
    """Folder of what a csv or JSON names. Left out: that of the csv or JSON."""
    num_frames: int | None = None
    """Frames in a snippet. Left out: the encoder's own."""
    frame_stride: int | None = None
    """Frames from one frame of a snippet to the next. Left out: the encoder's own."""
    size: int | None = None
    """Side of the square crop. Left out: the encoder's own."""
    dropout: float = 0.5
    """Dropout before the classifier."""
    mirror: bool = True
    """Mirror half of the training clips; switch it off where classes differ by direction alone."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            optimizer="sgd", lr=0.02, epochs=50, batch_size=64, lr_steps=(20, 40), clip_grad_norm=20.0, num_workers=2
        )
    )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(ClipTrainingConfig):
    """Trimmed clips to encoder weights by action classification (the papers' ACP), or by a task without labels."""

    task: Literal["classification", "arrow-of-time", "playback-speed"] = "classification"
    """`classification`: which action. `arrow-of-time`: forward or backward. `playback-speed`: which of `speeds`. The
    last two need no labels (`pipeline.pretext`)."""
    speeds: tuple[int, ...] = (1, 2)
    """How many times as fast a clip is played in each class of `playback-speed`, with commas (SpeedNet: 1,2)."""

    def __post_init__(self) -> None:
        if len(set(self.speeds)) != len(self.speeds) or len(self.speeds) < 2 or min(self.speeds) < 1:
            raise ValueError(f"speeds are {self.speeds}; expected two or more, all different, none below 1")


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """How BSP's boundary clips are made (`synth.boundaries`); the paper gives none of these numbers."""

    tau: int | None = None
    """Half of the frames of a boundary clip. Left out: half of what the encoder sees."""
    epsilon: int = 2
    """A blend of two clips takes 2 · epsilon frames; 0 is a hard cut."""
    blend: Literal["diff-class", "both", "none"] = "diff-class"
    """Which of diff-class and same-class are blended; the paper's blend diff-class alone."""
    rates: tuple[float, ...] = (0.5, 2.0)
    """Rates that the speed changes to, with commas; above 1 is faster. The slowest makes all clips take their frames at
    least 1/rate frames apart, so that none is repeated."""
    change_points: tuple[int, int] | None = None
    """The first and the last frame after which the speed may change. Left out: 2 (or epsilon) frames from the ends."""


BoundaryKind = Literal["diff-class", "same-class", "diff-speed", "same-speed"]


@dataclass(frozen=True, kw_only=True)
class BspConfig(ClipTrainingConfig):
    """Trimmed clips to boundary clips, and to the weights of an encoder that feels boundaries (BSP)."""

    task: Literal["classification", "regression", "none"] = "classification"
    """What is learnt of boundary clips: their kind, or, frame by frame, how near the change point is. `none`: nothing;
    the clips of `write` are all that is made."""
    kinds: tuple[BoundaryKind, ...] = ("diff-class", "same-class", "diff-speed", "same-speed")
    """Kinds that are made, with commas, equally many of each; same-speed is no boundary. The paper also tries
    each other one against same-speed, and regression on each one alone."""
    samples: int | None = None
    """Boundary clips in an epoch. Left out: as many as there are training clips."""
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    write: int | None = None
    """Also write this many boundary clips to RUN/boundary_clips, with a table and pictures to look at."""
    integration: Literal["none", "two-head", "distillation"] = "none"
    """Let the one encoder learn actions too: `two-head` classifies real clips by action beside boundary clips by kind;
    `distillation` classifies real clips while its features are to tell those of two trained encoders. A batch then has
    `batch_size` clips of either sort. (The paper's two-stream needs no training: `pipeline merge-features`.)"""
    action_teacher: Path | None = None
    """For distillation: run folder of an encoder that was trained to classify actions."""
    boundary_teacher: Path | None = None
    """For distillation: run folder of an encoder that was trained on boundaries."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            optimizer="sgd", lr=0.02, epochs=50, batch_size=128, lr_steps=(20, 40), clip_grad_norm=20.0, num_workers=2
        )
    )

    def __post_init__(self) -> None:
        kinds = ",".join(self.kinds)
        if self.task == "regression" and (not self.kinds or "same-speed" in self.kinds):
            raise ValueError(f"kinds are {kinds}; regression needs kinds with a change point, so not same-speed")
        if self.task == "classification" and len(set(self.kinds)) < 2:
            raise ValueError(f"kinds are {kinds}; to classify takes two different ones or more")
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds are {kinds}; expected each of them once")
        if self.task == "none" and self.write is None:
            raise ValueError("task none makes nothing but the clips of write: give --write N, or leave task out")
        if self.integration != "none" and self.task != "classification":
            raise ValueError(f"integration {self.integration} classifies kinds: leave task out")
        teachers = sum(teacher is not None for teacher in (self.action_teacher, self.boundary_teacher))
        if teachers != (2 if self.integration == "distillation" else 0):
            raise ValueError(
                "distillation takes both teachers, and nothing else takes any: give --integration distillation, "
                "--action-teacher RUN and --boundary-teacher RUN together"
            )
        if any(number is not None and number < 1 for number in (self.samples, self.write)):
            raise ValueError(f"samples is {self.samples}, write {self.write}; expected at least 1 where they are given")


@dataclass(frozen=True, kw_only=True)
class SolaModuleConfig:
    """The SoLa module (`encoders.sola`)."""

    form: Literal["adapter", "direct"] = "adapter"
    """`adapter`: residual and gated. `direct`: the convolutions alone."""
    kernel_size: Literal[1, 3, 5, 7] = 5
    """Rows that the first convolution sees."""
    hidden: int = 1024
    """Channels between the convolutions."""


@dataclass(frozen=True, kw_only=True)
class SolaConfig:
    """A feature store to a SoLa module, trained on it without labels, and the refined store RUN/features."""

    features: Path
    """Feature store, with rows a few frames apart: not one of a fixed number of rows a video."""
    out: Path
    """Run folder."""
    weights: Path | None = None
    """Run folder of an earlier `pipeline sola`: refine with its module, without training."""
    annotations: Path | None = None
    """Train on the videos of `train_subset` of this file alone; its segments are not looked at. Left out: on all."""
    train_subset: str = "training"
    """Which subset that is."""
    module: SolaModuleConfig = field(default_factory=SolaModuleConfig)
    loss: Literal["similarity", "nt-xent-in", "nt-xent-out"] = "similarity"
    """Similarity matching, or one of the softened NT-Xent losses of the paper's supplement."""
    projector: Literal["asymmetric", "symmetric"] = "asymmetric"
    """`asymmetric`: two layers on one side of each pair, no gradient through the other. `symmetric`: no projector."""
    projector_hidden: int = 512
    """Channels between the projector's layers."""
    k: float = 16.0
    """K of the target similarity sigmoid(K / d²); a larger one makes more neighbours alike."""
    step: int = 8
    """s: rows from one gathered row of a subsequence to the next."""
    tsm_size: int = 8
    """S: gathered rows. A subsequence has (S - 1) · s + 9 rows; shorter videos are not trained on."""
    per_video: int = 1
    """Subsequences drawn from each video in an epoch."""
    choose: Literal["last", "linear-evaluation"] = "last"
    """Which epoch's module is kept: the last, or the one on whose features a linear classifier best tells foreground
    from background in `val_subset`. This uses the labels of both subsets of `annotations`."""
    val_subset: str = "validation"
    """Which subset that is."""
    steps: int | None = None
    """Train for this many optimiser steps, rounded up to whole epochs, instead of `training.epochs`."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            optimizer="adamw",
            lr=1e-4,
            weight_decay=0.01,
            epochs=500,
            batch_size=256,
            lr_schedule="constant",
            num_workers=2,
        )
    )

    def __post_init__(self) -> None:
        if self.k <= 0:
            raise ValueError(f"k is {self.k:g}; expected more than 0")
        if self.per_video < 1 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"per_video is {self.per_video} and steps {self.steps}; expected at least 1")
        if self.tsm_size < 2 or self.step < 1:
            raise ValueError(f"tsm_size is {self.tsm_size} and step {self.step}; expected at least 2 and at least 1")
        if self.training.ema_decay is not None:
            raise ValueError("training.ema_decay would also average the similarities kept for figures; leave it out")


@dataclass(frozen=True, kw_only=True)
class GTADConfig:
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
class LofiTrainConfig:
    """Untrimmed videos and segments to encoder weights, trained end to end with a G-TAD head at low fidelity."""

    videos: Path
    """Folder of videos, searched with its subfolders."""
    annotations: Path
    """Annotation file, or folder of text files (`pipeline.data.annotations`)."""
    out: Path
    """Run folder; other commands take it as `--weights`."""
    encoder: str
    """Name of the encoder."""
    weights: str | None = None
    """What it starts from: a run folder, a weight file, a registered name. Left out: its registered weights."""
    schedule: Literal["long", "short", "spatial", "temporal", "spatiotemporal", "full"] = "long"
    """`long`, `short`: spatial, temporal and spatiotemporal in turn, by epochs or by batches. `full`: no reduction."""
    reduction: float = 4.0
    """How many times fewer pixels of a video are seen: in space, in time, or half in each."""
    cycle_epochs: int = 1
    """Epochs that the long cycle stays at a fidelity (c_l)."""
    cycle_batches: int = 16
    """Batches, or steps of `training.accumulate` batches, that the short cycle stays at a fidelity (c_s)."""
    num_frames: int | None = None
    """Frames in a snippet. Left out: the encoder's own."""
    frame_stride: int | None = None
    """Frames from one frame of a snippet to the next. Left out: the encoder's own."""
    size: int | None = None
    """Side of the square crop at full fidelity. Left out: the encoder's own."""
    train_subset: str = "training"
    """Subset that trains; `a|b`: a, or in files without a, b."""
    classes: bool = True
    """The head scores each class in each segment. `--classes=false`: segments alone, as in the paper."""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """`frozen`: the encoder's batch normalisation keeps the statistics that it starts with. `train`: it uses those of
    each batch and goes on averaging them."""
    encoder_lr: float | None = None
    """The encoder's learning rate. Left out: `training.lr`, which then is that of encoder and head."""
    recompute: int | None = None
    """Keep the activations of this many snippets at a time, and compute them again for the backward pass: the same
    gradients in far less memory, for about a third more time. Left out: keep all."""
    memory: str | None = None
    """Such as 8GB: choose the highest fidelity that fits, how many videos go through together, and `recompute`, in
    place of `schedule`. `training.batch_size` stays the number of videos in a step."""
    mirror: bool = True
    """Mirror half of the videos; switch it off where classes differ by direction alone."""
    cache: Path | None = None
    """Folder in which decoded frames are kept from epoch to epoch. It may be deleted."""
    cache_gb: float = 100.0
    """Gigabytes that it may hold; videos that find no room are decoded every time."""
    gtad: GTADConfig = field(default_factory=GTADConfig)
    """The head; `num_snippets` is that of the full fidelity."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            optimizer="sgd", lr=0.1, momentum=0.0, epochs=15, lr_steps=(5, 10), lr_gamma=0.5, num_workers=4
        )
    )

    def __post_init__(self) -> None:
        if self.recompute is not None and (self.recompute < 1 or self.batch_norm != "frozen"):
            raise ValueError(
                f"recompute is {self.recompute} and batch_norm {self.batch_norm!r}: to compute activations again takes "
                "at least 1 snippet at a time, and batch normalisation that does not look at batches (frozen)"
            )


@dataclass(frozen=True, kw_only=True)
class PostConfig:
    """From scored cells to detections."""

    nms: Literal["gaussian", "bmn", "none"] = "gaussian"
    """Soft-NMS, per class."""
    sigma: float = 0.8
    """Width of the Gaussian (G-TAD on ActivityNet: 0.8; LoFi: 0.84); alpha of the BMN variant (0.4)."""
    max_detections: int = 100
    """Detections kept for a video (THUMOS14: 200); times the classes that `fusion` gives each of them."""
    max_per_window: int | None = None
    """Soft-NMS also within each window, first, and this many go on (G-TAD on THUMOS14: 200). Left out: all."""
    min_score: float = 1e-4
    """Detections below are dropped."""
    window: float = 300.0
    """Seconds that one pass sees at most; longer videos are cut into windows that overlap by half. Without meaning for
    `rescale: none`."""


@dataclass(frozen=True, kw_only=True)
class LocalizeConfig:
    """Features and segments to a trained head, detections and metrics."""

    features: Path
    """Feature store."""
    annotations: Path
    """Annotation file, or folder of THUMOS14's or Charades-STA's text files (`pipeline.data.annotations`)."""
    ambiguous: Literal["drop", "keep"] = "drop"
    """THUMOS14's intervals labelled "Ambiguous": `drop` them, as the ActivityNet code and ActionFormer do, or `keep`
    them as training segments without a class, as G-TAD does. No metric counts them."""
    out: Path
    """Run folder."""
    head: Literal["gtad"] = "gtad"
    """Which head."""
    train_subset: str = "training"
    """Subset that trains; `a|b`: a, or in files without a, b."""
    val_subset: str = "validation"
    """Subset that is detected in and scored."""
    rescale: Literal["linear", "bins", "none"] = "linear"
    """How features are brought to T rows: linear interpolation, or the mean over bins of BSN and G-TAD. `none`: not at
    all; windows are T rows as they are, each half over the next, filled up with zeros (G-TAD on THUMOS14)."""
    row_step: int = 1
    """Use every n-th row of the features (G-TAD on THUMOS14's features of every frame: 5)."""
    unified: SolaModuleConfig | None = None
    """Put a SoLa module before the head and train both with the head's loss, without similarity matching (the paper's
    Table 4). Left out: none; what `pipeline sola` made needs no flag."""
    classes: bool = True
    """The head scores each class in each segment. `--classes=false`: segments alone, as in the papers; their classes
    come from `video_scores`, and `predict` calls all of them `action`."""
    video_scores: Path | None = None
    """Others' classification of whole videos, which gives the detections of this run their classes, in place of the
    head's own: UntrimmedNet's .npy for THUMOS14, or a JSON {"results": {VIDEO_ID: [scores]}, "class": [names]} as
    CUHK's for ActivityNet. The two best scores of a video must not be negative, which a logit can be. `predict` has the
    head's own classes alone."""
    fusion: Literal["top2", "top1-share"] = "top2"
    """How: each segment once for each of the video's two best classes, its score times theirs (ActivityNet, THUMOS14);
    or for the best one, times its share in the sum of the two (HACS)."""
    gtad: GTADConfig = field(default_factory=GTADConfig)
    post: PostConfig = field(default_factory=PostConfig)
    tiou: tuple[float, ...] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    """tIoU thresholds of the metrics."""
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(lr=4e-3, num_workers=0))

    def __post_init__(self) -> None:
        if self.row_step < 1:
            raise ValueError(f"row_step is {self.row_step}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Raw videos and a localize run to detections, a csv and subtitles."""

    video: tuple[Path, ...]
    """Video files, or folders of them."""
    run: Path
    """Run folder of `pipeline localize`."""
    out: Path
    """Detections JSON; DETECTIONS.csv and one VIDEO.vtt for each video are written beside it."""
    report: bool = False
    """Also write a page with the videos and their segments."""
    min_score: float = 0.0
    """Leave detections below out of all outputs."""
    subtitle_score: float = 0.3
    """Leave detections below this share of a video's best score out of the subtitles."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run."""
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    """Which library decodes."""
    batch_size: int = 16
    """Snippets encoded at a time."""
    time_limit: float = 60.0
    """Seconds without a new frame after which a video counts as failed."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Ground truth and detections to metrics."""

    ground_truth: Path
    """Annotation file or folder with the true segments."""
    predictions: Path
    """Detections JSON."""
    subset: str = "validation"
    """Subset of the ground truth."""
    task: Literal["detection", "proposal"] = "detection"
    """`detection`: mAP. `proposal`: AR@AN and AUC."""
    tiou: tuple[float, ...] | None = None
    """tIoU thresholds, with commas. Left out: 0.5:0.05:0.95."""
    json: Path | None = None
    """Write the metrics here."""


@dataclass(frozen=True, kw_only=True)
class LinearEvaluationConfig:
    """Linear evaluation (`pipeline.linear_evaluation`) at the settings of SoLa's supplement."""

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


@dataclass(frozen=True, kw_only=True)
class DescribeConfig:
    """What is in an annotation file, clip list or feature store, and what is wrong with it."""

    path: Path
    """The file or folder."""


@dataclass(frozen=True, kw_only=True)
class ImportFeaturesConfig:
    """Others' features to a feature store: .npy, .npz, .csv, HDF5, .pkl, .pt."""

    features: Path
    """Folder of files that hold one video each, searched with its subfolders; or one file that holds many videos."""
    out: Path
    """Feature store to write or to add to."""
    annotations: Path
    """Annotation file: which videos, and how long they are."""

    # Which array is whose, and how it lies.
    pattern: str | None = None
    """How files, or the arrays in one file, are named, {video} standing for the id: {video}_rgb, v_{video}/features.
    Left out: by the id."""
    key: str | None = None
    """The array to take from each file, where files of one video hold several."""
    axes: Literal["tc", "ct"] | None = None
    """`tc`: arrays are (T, C), rows first; `ct`: (C, T). Left out: told from shapes and durations, or asked for."""

    # Which seconds its rows stand for. Without a stride they share the video's duration equally.
    stride_frames: float | None = None
    """Frames from row to row, at `fps`."""
    window_frames: float | None = None
    """Frames that a row covers. Left out: `stride_frames`."""
    fps: float | None = None
    """Rate of the frames that features were made from. Left out: each video's, from `video_info`."""
    video_info: Path | None = None
    """csv or JSON with video,fps,duration,frames, or some of these; ActivityNet's video_info_new.csv is one."""
    stride: float | None = None
    """Instead of frames: seconds from row to row. With neither, rows share the video's duration equally."""
    length: float | None = None
    """Seconds that a row covers. Left out: the stride."""
    offset: float = 0.0
    """Second at which row 0 starts."""
    max_mismatch: float = 0.1
    """Refuse a video whose rows end further from its own end than this share of its duration and one row. ActivityNet's
    own features stay below but for 2 of 19,228 videos; 25 taken for 30 frames a second makes 0.17."""


@dataclass(frozen=True, kw_only=True)
class MergeFeaturesConfig:
    """Feature stores of the same videos to one with the channels of all, such as RGB and flow."""

    stores: tuple[Path, ...]
    """The feature stores, in the order of their channels."""
    out: Path
    """Feature store to write."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The method on procedural videos: no download, ends with a table and a page."""

    out: Path
    """Folder for everything that the demo makes."""
    seed: int = 0
    """Seed of the data and of the training."""
    all: bool = False
    """Every row of the table, also those that take longer."""
