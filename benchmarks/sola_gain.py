"""What SoLa gains: the same head on features before and after it, paired, over SoLa's seeds and the head's.

    python benchmarks/sola_gain.py OUT procedural [--size ablation] [--seed 0]
    python benchmarks/sola_gain.py OUT gtea --data FOLDER [--splits 1 2 3 4]
        [--sola-seeds 5] [--head-seeds 3] [--workers 2] [--sola-flags "--step 2"]

procedural  the demo's data, encoder and configs (`benchmarks/headroom.py`); SoLa as in configs/demo/sola.yaml
gtea        real features and the official splits (`benchmarks/gtea.py`); SoLa as in configs/gtea/sola.yaml

SoLa is trained on the training videos alone, without their labels. The gain of a SoLa seed is the mean, over splits and
head seeds, of the difference between heads of the same seed; the interval is over SoLa's seeds. Heads are trained side
by side, each on one thread. What is in OUT already is not made again; OUT/sola_gain.json holds every metric.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as pipeline.cli does, before torch is loaded

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from benchmarks import gtea, headroom  # noqa: E402
from pipeline import sola  # noqa: E402
from pipeline.config import SolaConfig  # noqa: E402
from pipeline.flags import parse  # noqa: E402
from synth.scenes import SIZES, write_dataset  # noqa: E402

TrainHead = Callable[[Path, Path, Path, int], dict[str, Any]]


CONFIGS: dict[str, tuple[str, TrainHead]] = {
    "procedural": ("demo/sola", headroom.train_head),
    "gtea": ("gtea/sola", gtea.train_head),
}


class Part(NamedTuple):
    """A data set, or one split of it: features before SoLa, and what they are scored by."""

    folder: Path
    store: Path
    annotations: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("data_set", choices=["procedural", "gtea"])
    parser.add_argument("--size", choices=[*SIZES], default="ablation")
    parser.add_argument("--seed", type=int, default=0, help="of the procedural data and of its encoder's training")
    parser.add_argument("--data", type=Path, help="folder of GTEA's features")
    parser.add_argument("--splits", nargs="+", type=int, choices=gtea.SPLITS, default=[*gtea.SPLITS])
    parser.add_argument("--sola-seeds", type=int, default=5)
    parser.add_argument("--head-seeds", type=int, default=3)
    parser.add_argument("--sola-flags", default="", help="override SoLa's config")
    parser.add_argument("--workers", type=int, default=2, help="heads trained side by side")
    options = parser.parse_args()
    config, train = CONFIGS[options.data_set]
    if options.data_set == "gtea":
        parts = [_gtea_part(options.data, split, options.out / f"split{split}") for split in options.splits]
    else:
        parts = [_procedural_part(options.out, options.size, options.seed)]
    words = ["--config", config, *shlex.split(options.sola_flags)]
    rows = [_refined(part, words, options.sola_seeds) for part in parts]
    runs = _train_heads(parts, rows, range(options.head_seeds), train, options.workers)
    (options.out / "sola_gain.json").write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
    print_gains(runs)


def _gtea_part(data: Path, split: int, folder: Path) -> Part:
    return Part(folder, *gtea.make_split(data, split, folder))


def _procedural_part(out: Path, size: str, seed: int) -> Part:
    setting = headroom.Setting(out, seed, clip_epochs=30, frame_epochs=0)
    if not setting.annotations.exists():
        write_dataset(out / "data", size=size, seed=seed)
    return Part(out, headroom.classification(setting, out / "classification"), setting.annotations)


def _refined(part: Part, words: Sequence[str], seeds: int) -> dict[str, Path]:
    """The part's stores by the name of their row: `before`, and one for each SoLa seed."""
    stores = {"before": part.store}
    for seed in range(seeds):
        out = part.folder / f"sola{seed}"
        inputs = ["--features", str(part.store), "--annotations", str(part.annotations), "--out", str(out)]
        sola.run(parse("sola", SolaConfig, [*words, *inputs, "--training.seed", str(seed)]))
        stores[f"sola{seed}"] = out / sola.FEATURES
    return stores


def _train_heads(
    parts: Sequence[Part], rows: Sequence[dict[str, Path]], head_seeds: Sequence[int], train: TrainHead, workers: int
) -> list[dict[str, Any]]:
    """Metrics of each head, with its part, row and seed."""
    places = [
        (place, row, seed) for place, stores in enumerate(rows) for seed in head_seeds for row in stores
    ]  # so that what is there after an interruption is paired
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        jobs = [
            pool.submit(
                train, rows[place][row], parts[place].annotations, parts[place].folder / "heads" / f"{row}_{seed}", seed
            )
            for place, row, seed in places
        ]
        return [
            {"part": place, "row": row, "head_seed": seed, **job.result()}
            for (place, row, seed), job in zip(places, jobs, strict=True)
        ]


# --- Gains ------------------------------------------------------------------------------------------------------------


def gains_of(runs: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> NDArray[np.float64]:
    """The gain of each SoLa seed: the mean difference to the head of the same part and seed on features before SoLa."""
    by_place = {(run["part"], run["head_seed"], run["row"]): value(run) for run in runs}
    rows = sorted({run["row"] for run in runs} - {"before"})
    pairs = [
        [by_place[part, seed, row] - by_place[part, seed, "before"] for part, seed, other in by_place if other == row]
        for row in rows
    ]
    gains: NDArray[np.float64] = np.array(pairs).mean(axis=1)
    return gains


def print_gains(runs: Sequence[dict[str, Any]]) -> None:
    table = Table(title="mAP (%), and the half-width of the gain's 95 % interval over SoLa's seeds")
    for column in ("tIoU", "before", "after SoLa", "gain", "gain of each SoLa seed"):
        table.add_column(column, justify="right")
    values: dict[str, Callable[[dict[str, Any]], float]] = {"average": lambda run: float(run["average_map"])}
    for place, tiou in enumerate(runs[0]["tiou"]):
        values[f"{tiou:g}"] = lambda run, place=place: float(run["map"][place])  # type: ignore[misc]
    for name, value in values.items():
        before = np.mean([value(run) for run in runs if run["row"] == "before"])
        after = np.mean([value(run) for run in runs if run["row"] != "before"])
        gains = gains_of(runs, value)
        each = ", ".join(f"{gain:+.1f}" for gain in gains)
        table.add_row(name, f"{before:.1f}", f"{after:.1f}", headroom.format_interval(gains), each)
    Console().print(table)


if __name__ == "__main__":
    main()
