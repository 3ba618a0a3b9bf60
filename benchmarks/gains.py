"""Paired gains: heads trained on features with and without a method, with the same seeds, and the interval of the gain.

Heads are trained side by side, each on one thread. A head that is in its folder already is not trained again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipeline.commands.evaluate.command import evaluate
from pipeline.commands.evaluate.options import EvaluateConfig

TrainHead = Callable[[Path, Path, Path, int], dict[str, Any]]
"""(store, annotations, run folder, seed) to the metrics of a head."""

# 97.5 % quantiles of Student's t, by degrees of freedom.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


class Part(NamedTuple):
    """A data set, or one split of it: its stores by the name of their row, and what they are scored by."""

    folder: Path
    annotations: Path
    stores: Mapping[str, Path]


def train_heads(
    parts: Sequence[Part], head_seeds: Sequence[int], train: TrainHead, workers: int
) -> list[dict[str, Any]]:
    """Metrics of each head, with its part, row and seed."""
    places = [
        (place, row, seed) for place, part in enumerate(parts) for seed in head_seeds for row in part.stores
    ]  # so that what is there after an interruption is paired
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        jobs = [
            pool.submit(
                train,
                parts[place].stores[row],
                parts[place].annotations,
                parts[place].folder / "heads" / f"{row}_{seed}",
                seed,
            )
            for place, row, seed in places
        ]
        return [
            {"part": place, "row": row, "head_seed": seed, **job.result()}
            for (place, row, seed), job in zip(places, jobs, strict=True)
        ]


def head_metrics(run: Path, annotations: Path) -> dict[str, Any]:
    """A head's mAP, the proposals' AUC at the same tIoU thresholds, and the seconds of its training.

    The AUC tells how well segments are placed, whatever their class.
    """
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    proposals, _ = evaluate(
        EvaluateConfig(
            ground_truth=annotations, predictions=run / "detections.json", task="proposal", tiou=tuple(metrics["tiou"])
        )
    )
    epochs = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {**metrics, "auc": proposals["auc"], "seconds": sum(epoch["seconds"] for epoch in epochs)}


class Comparison(NamedTuple):
    """Rows that are held against others, one pair for each seed of the method; `title` heads its table."""

    title: str
    pairs: Sequence[tuple[str, str]]  # (with, without)


def gains_of(
    runs: Sequence[dict[str, Any]], comparison: Comparison, value: Callable[[dict[str, Any]], float]
) -> NDArray[np.float64]:
    """The difference between heads of the same part and seed: (pairs, parts, head seeds)."""
    by_place = {(run["row"], run["part"], run["head_seed"]): value(run) for run in runs}
    parts, seeds = (sorted({run[name] for run in runs}) for name in ("part", "head_seed"))
    return np.array(
        [
            [[by_place[row, part, seed] - by_place[base, part, seed] for seed in seeds] for part in parts]
            for row, base in comparison.pairs
        ]
    )


def print_gains(runs: Sequence[dict[str, Any]], comparison: Comparison) -> None:
    """A table: for mAP (average, and at each tIoU) and the proposals' AUC both sides, the gain, and that of each seed.

    Two intervals: over the method's seeds, and over the head's. The first leaves out the chance in the heads without
    the method, where these are the same for all its seeds; the second holds it.
    """
    table = Table(title=f"{comparison.title}: %, and half-widths of the gain's 95 % interval")
    for column in ("mAP at", "without", "with", "gain ± over its seeds", "± over head seeds", "gain of each seed"):
        table.add_column(column, justify="right")
    sides = [{pair[side] for pair in comparison.pairs} for side in (1, 0)]
    for name, value in _values(runs).items():
        means = [np.mean([value(run) for run in runs if run["row"] in side]) for side in sides]
        gains_RPS = gains_of(runs, comparison, value)
        over_seeds, over_heads = gains_RPS.mean(axis=(1, 2)), gains_RPS.mean(axis=(0, 1))
        each = ", ".join(f"{gain:+.1f}" for gain in over_seeds)
        half_width = format_interval(over_heads).partition("±")[2].strip()
        table.add_row(name, *(f"{mean:.1f}" for mean in means), format_interval(over_seeds), half_width, each)
    Console().print(table)


def _values(runs: Sequence[dict[str, Any]]) -> dict[str, Callable[[dict[str, Any]], float]]:
    values: dict[str, Callable[[dict[str, Any]], float]] = {"average": lambda run: float(run["average_map"])}
    for place, tiou in enumerate(runs[0]["tiou"]):
        values[f"{tiou:g}"] = lambda run, place=place: float(run["map"][place])  # type: ignore[misc]
    values["proposals' AUC"] = lambda run: float(run["auc"])
    return values


def format_interval(values_S: NDArray[np.float64]) -> str:
    """Mean ± half-width of the 95 % interval of the mean."""
    count = len(values_S)
    if count == 1:
        return f"{values_S[0]:.1f}"
    quantile = STUDENT[min(count - 2, len(STUDENT) - 1)]
    return f"{values_S.mean():.1f} ± {quantile * values_S.std(ddof=1) / np.sqrt(count):.1f}"
