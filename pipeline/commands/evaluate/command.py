"""`pipeline evaluate`: ground truth and detections to metrics (`pipeline.measures.detection_metrics`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.commands.evaluate.options import EvaluateConfig
from pipeline.data.annotations import read_annotations
from pipeline.data.detections import Detections
from pipeline.data.files import write_json
from pipeline.measures.detection_metrics import (
    ACTIVITYNET_TIOU,
    DetectionMetrics,
    GroundTruth,
    ProposalMetrics,
    detection_metrics,
    mismatches,
    proposal_metrics,
)
from pipeline.terminal.notes import print_counts, say

Metrics = DetectionMetrics | ProposalMetrics


class Task(NamedTuple):
    """What is measured, in percent by name, and what becomes of it in Python."""

    measure: Callable[[GroundTruth, Detections, Sequence[float]], dict[str, Any]]
    outcome: type[Metrics]


TASKS = {
    "detection": Task(detection_metrics, DetectionMetrics),
    "proposal": Task(proposal_metrics, ProposalMetrics),
}


def run(config: EvaluateConfig) -> Metrics:
    """`pipeline evaluate`: print the metrics, and write them if asked."""
    metrics, notes = evaluate(config)
    print_counts(notes)
    say(format_metrics(metrics))
    if config.json is not None:
        write_json(config.json, metrics)
    return TASKS[config.task].outcome.from_dict(metrics)


def evaluate(config: EvaluateConfig) -> tuple[dict[str, Any], dict[str, int]]:
    """The metrics of two files in percent, as `--json` writes them, and counts of what was odd in the files."""
    annotations = read_annotations(config.ground_truth, form=config.annotation_format, as_written=True)
    try:
        truth = GroundTruth.of(annotations.in_subset(config.subset))
    except ValueError as error:
        raise ValueError(f"{config.ground_truth}, subset {config.subset!r}: {error}") from error
    detections = Detections.from_json(config.predictions)
    notes = {**annotations.blemishes, **mismatches(truth, detections, config.task)}
    return TASKS[config.task].measure(truth, detections, config.tiou or ACTIVITYNET_TIOU), notes


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """The metrics of one task, or of both, as lines for the terminal."""
    rows = []
    if "map" in metrics:
        rows = [(f"mAP@{tiou:.2f}", value) for tiou, value in zip(metrics["tiou"], metrics["map"], strict=True)]
        rows.append(("average mAP", metrics["average_map"]))
    rows += [(name.upper(), value) for name, value in metrics.items() if name not in ("tiou", "map", "average_map")]
    return "\n".join(f"{name:<12} {value:6.2f} %" for name, value in rows)
