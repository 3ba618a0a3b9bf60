"""Temporal action localization from Python: when each action starts and ends in a video, and what it is.

    import pipeline
    run = pipeline.load("run")
    for video in run.predict("match.mp4"):
        video.detections.at_least(0.5).of("serve").to_csv("serves.csv")

Every command of the command line is a function here, its flags keywords. What is listed below is imported when it is
first used, so that `import pipeline` is quick; the files beside this one are told in CONTRIBUTING.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

FUNCTIONS = (
    "analyze",
    "bsp_synth",
    "demo",
    "describe",
    "evaluate",
    "extract",
    "import_features",
    "localize",
    "lofi_train",
    "merge_features",
    "predict",
    "pretrain",
    "sola",
)

HOMES = {
    "load": "pipeline.door.functions",
    # What they return.
    "Analysis": "pipeline.commands.analyze.command",
    "DemoRun": "pipeline.commands.demo.command",
    "Description": "pipeline.commands.describe.command",
    "Detection": "pipeline.data.detections",
    "DetectionMetrics": "pipeline.measures.detection_metrics",
    "Detections": "pipeline.data.detections",
    "EncoderRun": "pipeline.training.encoder_run",
    "Failure": "pipeline.terminal.outcome",
    "Outcome": "pipeline.terminal.outcome",
    "Predicted": "pipeline.commands.predict.command",
    "Prediction": "pipeline.detection.prediction",
    "Predictions": "pipeline.detection.run",
    "ProposalMetrics": "pipeline.measures.detection_metrics",
    "Run": "pipeline.detection.run",
    "SolaRun": "pipeline.commands.sola.command",
    "Store": "pipeline.data.features.outcome",
    # Options that stand within others.
    "ActionFormerOptions": "heads.options",
    "BMNOptions": "heads.options",
    "GTADOptions": "heads.options",
    "LinearEvaluationConfig": "pipeline.commands.analyze.options",
    "PostConfig": "pipeline.detection.options",
    "SamplingConfig": "pipeline.commands.extract.options",
    "SolaModuleConfig": "pipeline.encoding.options",
    "SynthesisConfig": "pipeline.commands.bsp_synth.options",
    "TemporalMaxerOptions": "heads.options",
    "TrainingConfig": "pipeline.training.options",
    "TriDetOptions": "heads.options",
}
"""Where every other public name is at home."""

__all__ = [*FUNCTIONS, *HOMES]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}; its names are {', '.join(__all__)}")
    from pipeline.options.packaged import check_not_hidden

    check_not_hidden()
    if name in FUNCTIONS:
        value = import_module("pipeline.door.functions").function_named(name)
    else:
        value = getattr(import_module(HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
