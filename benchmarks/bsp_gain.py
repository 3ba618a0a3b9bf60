"""What BSP gains: the same head on features of a classification encoder, and on these beside a BSP encoder's, paired.

    python benchmarks/bsp_gain.py OUT [--size ablation] [--seed 0] [--bsp-seeds 5] [--acp-seeds 5]
        [--head-seeds 3] [--workers 2] [--bsp-flags "--training.epochs 30"]

vanilla  features of an encoder that classifies the trimmed clips (`benchmarks/drawn_data.py`)
bspN     these and the features of that encoder trained on to feel boundaries, side by side (two-stream);
         configs/demo/bsp-synth.yaml
acpN     these and the features of a second classification encoder: as wide as two-stream, without BSP

The gain of a BSP seed is the mean, over head seeds, of the difference between heads of the same seed; the interval is
over BSP's seeds. Beside it stand the gain of a second classification encoder, and what BSP gains over that. What is in
OUT already is not made again; OUT/bsp_gain.json holds every metric.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pipeline
from benchmarks.command_line import run_command, script_parser
from benchmarks.drawn_data import HEAD_CONFIG, DrawnData, add_data_flags
from benchmarks.gains import Comparison, Part, add_gain_flags, measure_gains

SECOND_ENCODERS = 1000
"""Added to the seed of the first classification encoder for that of the others."""


def main() -> None:
    parser = script_parser(__doc__)
    add_data_flags(parser)
    add_gain_flags(parser, "BSP")
    parser.add_argument("--acp-seeds", type=int, default=5)
    options = parser.parse_args()
    data = DrawnData(options.out, options.seed)
    data.draw(options.size)
    part = Part(options.out, data.annotations, HEAD_CONFIG, _stores(data, options))
    comparisons = _comparisons(options.bsp_seeds, options.acp_seeds)
    measure_gains(options.out / "bsp_gain.json", [part], comparisons, options)


def _comparisons(bsp_seeds: int, acp_seeds: int) -> Iterator[Comparison]:
    one, two = "one classification encoder", "two classification encoders"
    yield Comparison(f"Two-stream with BSP over {one}", [(f"bsp{seed}", "vanilla") for seed in range(bsp_seeds)])
    yield Comparison(f"{two.capitalize()} over one", [(f"acp{seed}", "vanilla") for seed in range(acp_seeds)])
    both = range(min(bsp_seeds, acp_seeds))
    yield Comparison(f"Two-stream with BSP over {two}", [(f"bsp{seed}", f"acp{seed}") for seed in both])


def _stores(data: DrawnData, options: argparse.Namespace) -> dict[str, Path]:
    """Each row's features."""
    vanilla = data.classification_features()
    stores = {"vanilla": vanilla}
    for seed in range(options.bsp_seeds):
        row = data.out / f"bsp{seed}"
        _train_on_boundaries(data, row / "encoder", seed, options.bsp_flags)
        stores[row.name] = _two_stream(data, row, vanilla, row / "encoder")
    for seed in range(options.acp_seeds):
        row = data.out / f"acp{seed}"
        data.train_on_clips(row / "encoder", data.seed + SECOND_ENCODERS + seed)
        stores[row.name] = _two_stream(data, row, vanilla, row / "encoder")
    return stores


def _train_on_boundaries(data: DrawnData, out: Path, seed: int, flags: str) -> None:
    start = data.classification_encoder()
    run_command("bsp-synth", flags, config="demo/bsp-synth", clips=data.clips, weights=start, out=out, seed=seed)


def _two_stream(data: DrawnData, folder: Path, first: Path, encoder: Path) -> Path:
    """The first store beside that of another encoder."""
    second = data.extract_features(folder, encoder)
    return pipeline.merge_features(first, second, out=folder / "two_stream", progress=True).path


if __name__ == "__main__":
    main()
