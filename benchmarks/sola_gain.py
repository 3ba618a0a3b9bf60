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
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as pipeline.cli does, before torch is loaded

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from benchmarks import gtea, headroom  # noqa: E402
from benchmarks.gains import Comparison, Part, TrainHead, print_gains, train_heads  # noqa: E402
from pipeline.commands.sola import command as sola  # noqa: E402
from pipeline.commands.sola.options import SolaConfig  # noqa: E402
from pipeline.options.flags import parse  # noqa: E402
from synth.scenes import SIZES, write_dataset  # noqa: E402

CONFIGS: dict[str, tuple[str, TrainHead]] = {
    "procedural": ("demo/sola", headroom.train_head),
    "gtea": ("gtea/sola", gtea.train_head),
}


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
    refined = [_refined(part, words, options.sola_seeds) for part in parts]
    runs = train_heads(refined, range(options.head_seeds), train, options.workers)
    (options.out / "sola_gain.json").write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
    print_gains(runs, Comparison("SoLa", [(f"sola{seed}", "before") for seed in range(options.sola_seeds)]))


def _gtea_part(data: Path, split: int, folder: Path) -> Part:
    store, annotations = gtea.make_split(data, split, folder)
    return Part(folder, annotations, {"before": store})


def _procedural_part(out: Path, size: str, seed: int) -> Part:
    setting = headroom.Setting(out, seed, clip_epochs=30, frame_epochs=0)
    if not setting.annotations.exists():
        write_dataset(out / "data", size=size, seed=seed)
    store = headroom.classification(setting, out / "classification")
    return Part(out, setting.annotations, {"before": store})


def _refined(part: Part, words: Sequence[str], seeds: int) -> Part:
    """The part with a further store for each SoLa seed."""
    stores = dict(part.stores)
    for seed in range(seeds):
        out = part.folder / f"sola{seed}"
        inputs = ["--features", str(part.stores["before"]), "--annotations", str(part.annotations), "--out", str(out)]
        sola.run(parse("sola", SolaConfig, [*words, *inputs, "--training.seed", str(seed)]))
        stores[f"sola{seed}"] = out / sola.FEATURES
    return part._replace(stores=stores)


if __name__ == "__main__":
    main()
