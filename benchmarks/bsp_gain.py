"""What BSP gains: the same head on features of a classification encoder, and on these beside a BSP encoder's, paired.

    python benchmarks/bsp_gain.py OUT [--size ablation] [--seed 0] [--bsp-seeds 5] [--acp-seeds 5]
        [--head-seeds 3] [--workers 2] [--bsp-flags "--training.epochs 30"]

vanilla  features of an encoder that classifies the trimmed clips (`benchmarks/headroom.py`)
bspN     these and the features of that encoder trained on to feel boundaries, side by side (two-stream);
         configs/demo/bsp-synth.yaml
acpN     these and the features of a second classification encoder: as wide as two-stream, without BSP

The gain of a BSP seed is the mean, over head seeds, of the difference between heads of the same seed; the interval is
over BSP's seeds. Beside it stand the gain of a second classification encoder, and what BSP gains over that. What is in
OUT already is not made again; OUT/bsp_gain.json holds every metric.
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
from pipeline.commands.bsp_synth import command as bsp  # noqa: E402
from pipeline.commands.bsp_synth.options import BspConfig  # noqa: E402
from pipeline.commands.merge_features import command as merge_features  # noqa: E402
from pipeline.commands.merge_features.options import MergeFeaturesConfig  # noqa: E402
from pipeline.options.flags import parse  # noqa: E402
from synth.scenes import SIZES, write_dataset  # noqa: E402

SECOND_ENCODERS = 1000
"""Added to the seed of the first classification encoder for that of the others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=[*SIZES], default="ablation")
    parser.add_argument("--seed", type=int, default=0, help="of the data and of the classification encoder's training")
    parser.add_argument("--bsp-seeds", type=int, default=5)
    parser.add_argument("--acp-seeds", type=int, default=5)
    parser.add_argument("--head-seeds", type=int, default=3)
    parser.add_argument("--bsp-flags", default="", help="override BSP's config")
    parser.add_argument("--workers", type=int, default=2, help="heads trained side by side")
    options = parser.parse_args()
    setting = Setting(options.out, options.seed, clip_epochs=30, frame_epochs=0)
    if not setting.annotations.exists():
        write_dataset(options.out / "data", size=options.size, seed=options.seed)
    flags = shlex.split(options.bsp_flags)
    part = Part(options.out, setting.annotations, _stores(setting, options.bsp_seeds, options.acp_seeds, flags))
    runs = train_heads([part], range(options.head_seeds), headroom.train_head, options.workers)
    (options.out / "bsp_gain.json").write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
    for comparison in _comparisons(options.bsp_seeds, options.acp_seeds):
        print_gains(runs, comparison)


def _comparisons(bsp_seeds: int, acp_seeds: int) -> Iterator[Comparison]:
    one, two = "one classification encoder", "two classification encoders"
    yield Comparison(f"Two-stream with BSP over {one}", [(f"bsp{seed}", "vanilla") for seed in range(bsp_seeds)])
    yield Comparison(f"{two.capitalize()} over one", [(f"acp{seed}", "vanilla") for seed in range(acp_seeds)])
    both = range(min(bsp_seeds, acp_seeds))
    yield Comparison(f"Two-stream with BSP over {two}", [(f"bsp{seed}", f"acp{seed}") for seed in both])


def _stores(setting: Setting, bsp_seeds: int, acp_seeds: int, flags: Sequence[str]) -> dict[str, Path]:
    vanilla = headroom.classification(setting, setting.out / "classification")
    stores = {"vanilla": vanilla}
    for seed in range(bsp_seeds):
        boundary = _train_on_boundaries(setting, setting.out / f"bsp{seed}" / "encoder", seed, flags)
        stores[f"bsp{seed}"] = _two_stream(setting, setting.out / f"bsp{seed}", vanilla, boundary)
    for seed in range(acp_seeds):
        out = setting.out / f"acp{seed}" / "encoder"
        second = headroom.train_on_clips(setting, out, setting.seed + SECOND_ENCODERS + seed)
        stores[f"acp{seed}"] = _two_stream(setting, setting.out / f"acp{seed}", vanilla, second)
    return stores


def _train_on_boundaries(setting: Setting, out: Path, seed: int, flags: Sequence[str]) -> Path:
    words = ["--config", "demo/bsp-synth", "--clips", str(setting.clips), "--out", str(out)]
    words += ["--weights", str(setting.out / "classification" / "encoder"), "--training.seed", str(seed)]
    bsp.run(parse("bsp-synth", BspConfig, [*words, *flags]))
    return out


def _two_stream(setting: Setting, folder: Path, first: Path, encoder: Path) -> Path:
    """The first store beside that of another encoder."""
    second = headroom.extract_features(setting, folder, encoder)
    merge_features.run(MergeFeaturesConfig(stores=(first, second), out=folder / "two_stream"))
    return folder / "two_stream"


if __name__ == "__main__":
    main()
