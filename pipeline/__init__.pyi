# Written by `python -m pipeline.door.stub`; do not edit.
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from heads.options import ActionFormerOptions as ActionFormerOptions, BMNOptions as BMNOptions, GTADOptions as GTADOptions, TemporalMaxerOptions as TemporalMaxerOptions, TriDetOptions as TriDetOptions
from pipeline.commands.analyze.command import Analysis as Analysis
from pipeline.commands.analyze.options import LinearEvaluationConfig as LinearEvaluationConfig
from pipeline.commands.bsp_synth.options import SynthesisConfig as SynthesisConfig
from pipeline.commands.demo.command import DemoRun as DemoRun
from pipeline.commands.describe.command import Description as Description
from pipeline.commands.extract.options import SamplingConfig as SamplingConfig
from pipeline.commands.predict.command import Predicted as Predicted
from pipeline.commands.sola.command import SolaRun as SolaRun
from pipeline.data.detections import Detection as Detection, Detections as Detections
from pipeline.data.features.outcome import Store as Store
from pipeline.detection.options import PostConfig as PostConfig
from pipeline.detection.prediction import Prediction as Prediction
from pipeline.detection.run import Predictions as Predictions, Run as Run
from pipeline.door.functions import load as load
from pipeline.encoding.options import SolaModuleConfig as SolaModuleConfig
from pipeline.measures.detection_metrics import DetectionMetrics as DetectionMetrics, ProposalMetrics as ProposalMetrics
from pipeline.terminal.outcome import Failure as Failure, Outcome as Outcome
from pipeline.training.encoder_run import EncoderRun as EncoderRun
from pipeline.training.options import TrainingConfig as TrainingConfig

__all__ = ["ActionFormerOptions", "Analysis", "BMNOptions", "DemoRun", "Description", "Detection", "DetectionMetrics", "Detections", "EncoderRun", "Failure", "GTADOptions", "LinearEvaluationConfig", "Outcome", "PostConfig", "Predicted", "Prediction", "Predictions", "ProposalMetrics", "Run", "SamplingConfig", "SolaModuleConfig", "SolaRun", "Store", "SynthesisConfig", "TemporalMaxerOptions", "TrainingConfig", "TriDetOptions", "analyze", "bsp_synth", "demo", "describe", "evaluate", "extract", "import_features", "load", "localize", "lofi_train", "merge_features", "predict", "pretrain", "sola"]

def demo(
    *,
    out: str | os.PathLike[str] = ...,
    seed: int = ...,
    all: bool = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> DemoRun:
    """The method on procedural videos: no download, ends with a table and a page."""

def extract(
    *,
    videos: str | os.PathLike[str] = ...,
    out: str | os.PathLike[str] = ...,
    encoder: str = ...,
    weights: str | os.PathLike[str] | None = ...,
    allow_missing: bool = ...,
    sampling: SamplingConfig | Mapping[str, Any] = ...,
    size: int | None = ...,
    annotations: str | os.PathLike[str] | None = ...,
    annotation_format: str | None = ...,
    dtype: Literal["float32", "float16"] = ...,
    batch_size: int = ...,
    device: Literal["auto", "cpu", "cuda"] = ...,
    precision: Literal["auto", "float32", "bfloat16"] = ...,
    decoder: Literal["auto", "decord", "pyav"] = ...,
    time_limit: float = ...,
    flow_cache: str | os.PathLike[str] | None = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> Store:
    """Videos to a feature store: one vector a snippet."""

def pretrain(
    *,
    clips: str | os.PathLike[str] = ...,
    annotation_format: str | None = ...,
    out: str | os.PathLike[str] = ...,
    encoder: str = ...,
    weights: str | os.PathLike[str] | None = ...,
    videos: str | os.PathLike[str] | None = ...,
    num_frames: int | None = ...,
    frame_stride: int | None = ...,
    size: int | None = ...,
    dropout: float = ...,
    mirror: bool = ...,
    training: TrainingConfig | Mapping[str, Any] = ...,
    task: Literal["classification", "arrow-of-time", "playback-speed"] = ...,
    speeds: Sequence[int] = ...,
    seed: int = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> EncoderRun:
    """Trimmed clips to encoder weights by action classification (the papers' ACP), or by a task without labels."""

def bsp_synth(
    *,
    clips: str | os.PathLike[str] = ...,
    annotation_format: str | None = ...,
    out: str | os.PathLike[str] = ...,
    encoder: str = ...,
    weights: str | os.PathLike[str] | None = ...,
    videos: str | os.PathLike[str] | None = ...,
    num_frames: int | None = ...,
    frame_stride: int | None = ...,
    size: int | None = ...,
    dropout: float = ...,
    mirror: bool = ...,
    training: TrainingConfig | Mapping[str, Any] = ...,
    task: Literal["classification", "regression", "none"] = ...,
    kinds: Sequence[Literal["diff-class", "same-class", "diff-speed", "same-speed"]] = ...,
    samples: int | None = ...,
    synthesis: SynthesisConfig | Mapping[str, Any] = ...,
    write: int | None = ...,
    integration: Literal["none", "two-head", "distillation"] = ...,
    action_teacher: str | os.PathLike[str] | None = ...,
    boundary_teacher: str | os.PathLike[str] | None = ...,
    seed: int = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> EncoderRun:
    """Trimmed clips to boundary clips, and to the weights of an encoder that feels boundaries (BSP)."""

def lofi_train(
    *,
    videos: str | os.PathLike[str] = ...,
    annotations: str | os.PathLike[str] = ...,
    annotation_format: str | None = ...,
    out: str | os.PathLike[str] = ...,
    encoder: str = ...,
    weights: str | os.PathLike[str] | None = ...,
    schedule: Literal["long", "short", "spatial", "temporal", "spatiotemporal", "full"] = ...,
    reduction: float = ...,
    cycle_epochs: int = ...,
    cycle_batches: int = ...,
    num_frames: int | None = ...,
    frame_stride: int | None = ...,
    size: int | None = ...,
    train_subset: str = ...,
    classes: bool = ...,
    batch_norm: Literal["frozen", "train"] = ...,
    encoder_lr: float | None = ...,
    recompute: int | None = ...,
    memory: str | None = ...,
    mirror: bool = ...,
    cache: str | os.PathLike[str] | None = ...,
    cache_gb: float = ...,
    gtad: GTADOptions | Mapping[str, Any] = ...,
    training: TrainingConfig | Mapping[str, Any] = ...,
    seed: int = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> EncoderRun:
    """Untrimmed videos and segments to encoder weights, trained end to end with a G-TAD head at low fidelity."""

def sola(
    *,
    features: str | os.PathLike[str] = ...,
    out: str | os.PathLike[str] = ...,
    weights: str | os.PathLike[str] | None = ...,
    annotations: str | os.PathLike[str] | None = ...,
    annotation_format: str | None = ...,
    train_subset: str = ...,
    module: SolaModuleConfig | Mapping[str, Any] = ...,
    loss: Literal["similarity", "nt-xent-in", "nt-xent-out"] = ...,
    projector: Literal["asymmetric", "symmetric"] = ...,
    projector_hidden: int = ...,
    k: float = ...,
    step: int = ...,
    tsm_size: int = ...,
    per_video: int = ...,
    choose: Literal["last", "linear-evaluation"] = ...,
    val_subset: str = ...,
    steps: int | None = ...,
    training: TrainingConfig | Mapping[str, Any] = ...,
    seed: int = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> SolaRun:
    """A feature store to a SoLa module, trained on it without labels, and the refined store RUN/features."""

def localize(
    *,
    features: str | os.PathLike[str] = ...,
    annotations: str | os.PathLike[str] = ...,
    annotation_format: str | None = ...,
    ambiguous: Literal["drop", "keep"] = ...,
    out: str | os.PathLike[str] = ...,
    head: str = ...,
    train_subset: str = ...,
    val_subset: str = ...,
    rescale: Literal["linear", "bins", "none"] = ...,
    rescale_rows: int | None = ...,
    row_step: int | None = ...,
    unified: SolaModuleConfig | Mapping[str, Any] | None = ...,
    classes: bool = ...,
    video_scores: str | os.PathLike[str] | None = ...,
    fusion: Literal["top2", "top2-sqrt", "top1-share"] = ...,
    post: PostConfig | Mapping[str, Any] = ...,
    tiou: Sequence[float] = ...,
    min_steps: int | None = ...,
    training: TrainingConfig | Mapping[str, Any] = ...,
    gtad: GTADOptions | Mapping[str, Any] = ...,
    bmn: BMNOptions | Mapping[str, Any] = ...,
    actionformer: ActionFormerOptions | Mapping[str, Any] = ...,
    temporalmaxer: TemporalMaxerOptions | Mapping[str, Any] = ...,
    tridet: TriDetOptions | Mapping[str, Any] = ...,
    seed: int = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
    **head_options: Any,
) -> Run:
    """Features and segments to a trained head, detections and metrics."""

def predict(
    *video: str | os.PathLike[str],
    run: str | os.PathLike[str] = ...,
    encoder: Sequence[str] = ...,
    head: str | None = ...,
    out: str | os.PathLike[str] = ...,
    report: bool = ...,
    min_score: float = ...,
    subtitle_score: float = ...,
    device: Literal["auto", "cpu", "cuda"] = ...,
    decoder: Literal["auto", "decord", "pyav"] = ...,
    batch_size: int = ...,
    time_limit: float = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> Predicted:
    """Raw videos and a localize run to detections, a csv and subtitles."""

def evaluate(
    *,
    ground_truth: str | os.PathLike[str] = ...,
    annotation_format: str | None = ...,
    predictions: str | os.PathLike[str] = ...,
    subset: str = ...,
    task: Literal["detection", "proposal"] = ...,
    tiou: Sequence[float] | None = ...,
    json: str | os.PathLike[str] | None = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> DetectionMetrics | ProposalMetrics:
    """Ground truth and detections to metrics."""

def analyze(
    *,
    features: Sequence[str | os.PathLike[str]] = ...,
    out: str | os.PathLike[str] = ...,
    names: Sequence[str] | None = ...,
    annotations: str | os.PathLike[str] | None = ...,
    annotation_format: str | None = ...,
    train_subset: str = ...,
    val_subset: str = ...,
    run: str | os.PathLike[str] | None = ...,
    videos: Sequence[str] | None = ...,
    tsm_size: int = ...,
    step: int = ...,
    k: float = ...,
    linear: LinearEvaluationConfig | Mapping[str, Any] = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> Analysis:
    """Feature stores to similarity matrices, linear evaluation and differences at boundaries: figures and JSON."""

def describe(
    path: str | os.PathLike[str],
    /,
    *,
    annotation_format: str | None = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> Description:
    """What is in an annotation file, clip list or feature store, and what is wrong with it."""

def import_features(
    *,
    features: str | os.PathLike[str] = ...,
    out: str | os.PathLike[str] = ...,
    annotations: str | os.PathLike[str] = ...,
    annotation_format: str | None = ...,
    pattern: str | None = ...,
    key: str | None = ...,
    axes: Literal["tc", "ct"] | None = ...,
    stride_frames: float | None = ...,
    window_frames: float | None = ...,
    fps: float | None = ...,
    video_info: str | os.PathLike[str] | None = ...,
    stride: float | None = ...,
    length: float | None = ...,
    offset: float = ...,
    max_mismatch: float = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> Store:
    """Others' features to a feature store: .npy, .npz, .csv, HDF5, .pkl, .pt."""

def merge_features(
    *stores: str | os.PathLike[str],
    out: str | os.PathLike[str] = ...,
    config: str | os.PathLike[str] | None = ...,
    progress: bool = ...,
) -> Store:
    """Feature stores of the same videos to one with the channels of all, such as RGB and flow."""

