"""Paired gains: heads trained on features with and without a method, with the same seeds, and the interval of the gain.

Heads are trained side by side, each on one thread. A head that is in its folder already is not trained again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import pipeline
from benchmarks.results import format_interval, half_width, results_table, write_results


class Part(NamedTuple):
    """A data set, or one split of it: its stores by the name of their row, and what heads are trained and scored by."""

    folder: Path
    annotations: Path
    head_config: str
    stores: Mapping[str, Path]


class Comparison(NamedTuple):
    """Rows that are held against others, one pair for each seed of the method; `title` heads its table."""

    title: str
    pairs: Sequence[tuple[str, str]]  # (with, without)


def add_gain_flags(parser: argparse.ArgumentParser, method: str) -> None:
    """For BSP `--bsp-seeds` and `--bsp-flags`, and for all methods `--head-seeds` and `--workers`."""
    parser.add_argument(f"--{method.lower()}-seeds", type=int, default=5)
    parser.add_argument(f"--{method.lower()}-flags", default="", help=f"override {method}'s config")
    parser.add_argument("--head-seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="heads trained side by side")


def measure_gains(
    results: Path, parts: Sequence[Part], comparisons: Iterable[Comparison], options: argparse.Namespace
) -> None:
    """Train the heads that `options` asks for, write the metrics of each to `results`, and print the gains."""
    runs = _train_heads(parts, range(options.head_seeds), options.workers)
    write_results(results, runs)
    for comparison in comparisons:
        _print_gains(runs, comparison)


# --- Heads ------------------------------------------------------------------------------------------------------------


def train_head(config: str, store: Path, annotations: Path, out: Path, seed: int, **overrides: Any) -> dict[str, Any]:
    """A head's mAP, the proposals' AUC at the same tIoU thresholds, and the seconds of its training.

    The AUC tells how well segments are placed, whatever their class. `overrides` stand in place of the config's.
    """
    pipeline.localize(
        config=config, features=store, annotations=annotations, out=out, seed=seed, progress=True, **overrides
    )
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    proposals = pipeline.evaluate(
        ground_truth=annotations, predictions=out / "detections.json", task="proposal", tiou=metrics["tiou"]
    )
    epochs = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert isinstance(proposals, pipeline.ProposalMetrics)
    return {**metrics, "auc": proposals.auc, "seconds": sum(epoch["seconds"] for epoch in epochs)}


def _train_heads(parts: Sequence[Part], head_seeds: Sequence[int], workers: int) -> list[dict[str, Any]]:
    """Metrics of each head, with its part, row and seed."""
    places = [
        (place, row, seed) for place, part in enumerate(parts) for seed in head_seeds for row in part.stores
    ]  # so that what is there after an interruption is paired
    with ProcessPoolExecutor(workers, get_context("spawn"), _use_one_thread) as pool:
        jobs = [pool.submit(_train_in_part, parts[place], row, seed) for place, row, seed in places]
        return [
            {"part": place, "row": row, "head_seed": seed, **job.result()}
            for (place, row, seed), job in zip(places, jobs, strict=True)
        ]


def _train_in_part(part: Part, row: str, seed: int) -> dict[str, Any]:
    out = part.folder / "heads" / f"{row}_{seed}"
    return train_head(part.head_config, part.stores[row], part.annotations, out, seed)


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


# --- What they gain ---------------------------------------------------------------------------------------------------


def _print_gains(runs: Sequence[dict[str, Any]], comparison: Comparison) -> None:
    """A table: for mAP (average, and at each tIoU) and the proposals' AUC both sides, the gain, and that of each seed.

    Two intervals: over the method's seeds, and over the head's. The first leaves out the chance in the heads without
    the method, where these are the same for all its seeds; the second holds it.
    """
    columns = ("mAP at", "without", "with", "gain ± over its seeds", "± over head seeds", "gain of each seed")
    table = results_table(f"{comparison.title}: %, and half-widths of the gain's 95 % interval", *columns)
    sides = [{pair[side] for pair in comparison.pairs} for side in (1, 0)]
    for name, value in _values(runs).items():
        means = [np.mean([value(run) for run in runs if run["row"] in side]) for side in sides]
        gains_RPS = _gains(runs, comparison, value)
        over_seeds, over_heads = gains_RPS.mean(axis=(1, 2)), gains_RPS.mean(axis=(0, 1))
        each = ", ".join(f"{gain:+.1f}" for gain in over_seeds)
        head_width = f"{half_width(over_heads):.1f}" if len(over_heads) > 1 else ""
        table.add_row(name, *(f"{mean:.1f}" for mean in means), format_interval(over_seeds), head_width, each)
    Console().print(table)


def _gains(
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


def _values(runs: Sequence[dict[str, Any]]) -> dict[str, Callable[[dict[str, Any]], float]]:
    values: dict[str, Callable[[dict[str, Any]], float]] = {"average": lambda run: float(run["average_map"])}
    for place, tiou in enumerate(runs[0]["tiou"]):
        values[f"{tiou:g}"] = lambda run, place=place: float(run["map"][place])  # type: ignore[misc]
    values["proposals' AUC"] = lambda run: float(run["auc"])
    return values
