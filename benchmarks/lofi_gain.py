"""What LoFi gains: the same head on features of a classification encoder, and of that encoder trained on, paired.

    python benchmarks/lofi_gain.py OUT [--size ablation] [--seed 0] [--lofi-seeds 5] [--acp-plus-seeds 5]
        [--head-seeds 3] [--workers 2] [--schedules long spatial] [--lofi-flags "--training.epochs 9"]

acp        features of an encoder that classifies the trimmed clips (`benchmarks/drawn_data.py`)
SCHEDULEN  of that encoder, trained on end to end with a head and the training videos' segments, at low fidelity
           (configs/demo/lofi-train.yaml); long is the paper's default
acp+N      of that encoder, trained on to classify the training videos' segments (configs/demo/pretrain_segments.yaml)

All heads are trained from scratch on frozen features. The gain of a LoFi seed is the mean, over head seeds, of the
difference between heads of the same seed; intervals are over LoFi's seeds and over the head's. Beside it stand the gain
of ACP+, and what LoFi gains over that. What is in OUT already is not made again; OUT/lofi_gain.json holds every metric.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pipeline
from benchmarks.command_line import run_command, script_parser
from benchmarks.drawn_data import HEAD_CONFIG, DrawnData, add_data_flags
from benchmarks.gains import Comparison, Part, add_gain_flags, measure_gains

SCHEDULES = ("long", "short", "spatial", "temporal", "spatiotemporal", "full")


def main() -> None:
    parser = script_parser(__doc__)
    add_data_flags(parser)
    add_gain_flags(parser, "LoFi")
    parser.add_argument("--acp-plus-seeds", type=int, default=5)
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=["long"])
    options = parser.parse_args()
    data = DrawnData(options.out, options.seed)
    data.draw(options.size)
    part = Part(options.out, data.annotations, HEAD_CONFIG, _stores(data, options))
    measure_gains(options.out / "lofi_gain.json", [part], _comparisons(options), options)


def _comparisons(options: argparse.Namespace) -> Iterator[Comparison]:
    seeds, plus_seeds = range(options.lofi_seeds), range(options.acp_plus_seeds)
    for row in options.schedules:
        yield Comparison(f"LoFi ({row}) over ACP", [(f"{row}{seed}", "acp") for seed in seeds])
    yield Comparison("ACP+ over ACP", [(f"acp+{seed}", "acp") for seed in plus_seeds])
    for row in options.schedules:
        both = range(min(len(seeds), len(plus_seeds)))
        yield Comparison(f"LoFi ({row}) over ACP+", [(f"{row}{seed}", f"acp+{seed}") for seed in both])


def _stores(data: DrawnData, options: argparse.Namespace) -> dict[str, Path]:
    """Each row's features."""
    stores = {"acp": data.classification_features()}
    for seed in range(options.lofi_seeds):
        for schedule in options.schedules:
            row = data.out / f"{schedule}{seed}"
            _train_end_to_end(data, schedule, row / "encoder", seed, options.lofi_flags)
            stores[row.name] = data.extract_features(row, row / "encoder")
    for seed in range(options.acp_plus_seeds):
        row = data.out / f"acp+{seed}"
        _train_on_segments(data, row / "encoder", seed)
        stores[row.name] = data.extract_features(row, row / "encoder")
    return stores


def _train_end_to_end(data: DrawnData, schedule: str, out: Path, seed: int, flags: str) -> None:
    run_command(
        "lofi-train",
        flags,
        config="demo/lofi-train",
        schedule=schedule,
        videos=data.videos,
        annotations=data.annotations,
        weights=data.classification_encoder(),
        out=out,
        seed=seed,
    )


def _train_on_segments(data: DrawnData, out: Path, seed: int) -> None:
    pipeline.pretrain(
        config="demo/pretrain_segments",
        clips=data.annotations,
        videos=data.videos,
        weights=data.classification_encoder(),
        out=out,
        seed=seed,
        progress=True,
    )


if __name__ == "__main__":
    main()
