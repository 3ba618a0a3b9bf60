"""What LoFi gains: the same head on features of a classification encoder, and of that encoder trained on, paired.

    python benchmarks/lofi_gain.py OUT [--size ablation] [--seed 0] [--lofi-seeds 5] [--acp-plus-seeds 5]
        [--head-seeds 3] [--workers 2] [--schedules long spatial] [--lofi-flags "--training.epochs 9"]

acp        features of an encoder that classifies the trimmed clips (`benchmarks/headroom.py`)
SCHEDULEN  of that encoder, trained on end to end with a head and the training videos' segments, at low fidelity
           (configs/demo/lofi-train.yaml); long is the paper's default
acp+N      of that encoder, trained on to classify the training videos' segments (configs/demo/pretrain_segments.yaml)

All heads are trained from scratch on frozen features. The gain of a LoFi seed is the mean, over head seeds, of the
difference between heads of the same seed; intervals are over LoFi's seeds and over the head's. Beside it stand the gain
of ACP+, and what LoFi gains over that. What is in OUT already is not made again; OUT/lofi_gain.json holds every metric.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as pipeline.cli does, before torch is loaded

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from benchmarks import headroom  # noqa: E402
from benchmarks.gains import Comparison, Part, print_gains, train_heads  # noqa: E402
from benchmarks.headroom import Setting  # noqa: E402
from pipeline.commands.lofi_train import command as lofi  # noqa: E402
from pipeline.commands.lofi_train.options import LofiTrainConfig  # noqa: E402
from pipeline.commands.pretrain import command as pretrain  # noqa: E402
from pipeline.commands.pretrain.options import PretrainConfig  # noqa: E402
from pipeline.options.flags import parse  # noqa: E402
from synth.scenes import SIZES, write_dataset  # noqa: E402

SCHEDULES = ("long", "short", "spatial", "temporal", "spatiotemporal", "full")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=[*SIZES], default="ablation")
    parser.add_argument("--seed", type=int, default=0, help="of the data and of the classification encoder's training")
    parser.add_argument("--lofi-seeds", type=int, default=5)
    parser.add_argument("--acp-plus-seeds", type=int, default=5)
    parser.add_argument("--head-seeds", type=int, default=3)
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=["long"])
    parser.add_argument("--lofi-flags", default="", help="override LoFi's config")
    parser.add_argument("--workers", type=int, default=2, help="heads trained side by side")
    options = parser.parse_args()
    setting = Setting(options.out, options.seed, clip_epochs=30, frame_epochs=0)
    if not setting.annotations.exists():
        write_dataset(options.out / "data", size=options.size, seed=options.seed)
    part = Part(options.out, setting.annotations, _stores(setting, options))
    runs = train_heads([part], range(options.head_seeds), headroom.train_head, options.workers)
    (options.out / "lofi_gain.json").write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
    for comparison in _comparisons(options):
        print_gains(runs, comparison)


def _comparisons(options: argparse.Namespace) -> Iterator[Comparison]:
    seeds, plus_seeds = range(options.lofi_seeds), range(options.acp_plus_seeds)
    for row in options.schedules:
        yield Comparison(f"LoFi ({row}) over ACP", [(f"{row}{seed}", "acp") for seed in seeds])
    yield Comparison("ACP+ over ACP", [(f"acp+{seed}", "acp") for seed in plus_seeds])
    for row in options.schedules:
        both = range(min(len(seeds), len(plus_seeds)))
        yield Comparison(f"LoFi ({row}) over ACP+", [(f"{row}{seed}", f"acp+{seed}") for seed in both])


def _stores(setting: Setting, options: argparse.Namespace) -> dict[str, Path]:
    """Each row's features."""
    stores = {"acp": headroom.classification(setting, setting.out / "classification")}
    start = setting.out / "classification" / "encoder"
    for seed in range(options.lofi_seeds):
        for schedule in options.schedules:
            row = setting.out / f"{schedule}{seed}"
            flags = ["--schedule", schedule, *shlex.split(options.lofi_flags)]
            _train_end_to_end(setting, start, row / "encoder", seed, flags)
            stores[row.name] = headroom.extract_features(setting, row, row / "encoder")
    for seed in range(options.acp_plus_seeds):
        row = setting.out / f"acp+{seed}"
        _train_on_segments(setting, start, row / "encoder", seed)
        stores[row.name] = headroom.extract_features(setting, row, row / "encoder")
    return stores


def _train_end_to_end(setting: Setting, start: Path, out: Path, seed: int, flags: Sequence[str]) -> None:
    words = ["--config", "demo/lofi-train", *_inputs(start, out, seed), "--annotations", str(setting.annotations)]
    lofi.run(parse("lofi-train", LofiTrainConfig, [*words, "--videos", str(setting.videos), *flags]))


def _train_on_segments(setting: Setting, start: Path, out: Path, seed: int) -> None:
    words = ["--config", "demo/pretrain_segments", *_inputs(start, out, seed), "--clips", str(setting.annotations)]
    pretrain.run(parse("pretrain", PretrainConfig, [*words, "--videos", str(setting.videos)]))


def _inputs(start: Path, out: Path, seed: int) -> list[str]:
    return ["--weights", str(start), "--out", str(out), "--training.seed", str(seed)]


if __name__ == "__main__":
    main()
