"""What SoLa gains: the same head on features before and after it, paired, over SoLa's seeds and the head's.

    python benchmarks/sola_gain.py OUT procedural [--size ablation] [--seed 0]
    python benchmarks/sola_gain.py OUT gtea --data FOLDER [--splits 1 2 3 4]
        [--sola-seeds 5] [--head-seeds 3] [--workers 2] [--sola-flags "--step 2"]

procedural  the demo's data, encoder and configs (`benchmarks/drawn_data.py`); SoLa as in configs/demo/sola.yaml
gtea        real features and the official splits (`benchmarks/gtea.py`); SoLa as in configs/gtea/sola.yaml

SoLa is trained on the training videos alone, without their labels. The gain of a SoLa seed is the mean, over splits and
head seeds, of the difference between heads of the same seed; the interval is over SoLa's seeds. Heads are trained side
by side, each on one thread. What is in OUT already is not made again; OUT/sola_gain.json holds every metric.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import gtea
from benchmarks.command_line import run_command, script_parser
from benchmarks.drawn_data import HEAD_CONFIG, DrawnData, add_data_flags
from benchmarks.gains import Comparison, Part, add_gain_flags, measure_gains

SOLA_CONFIGS = {"procedural": "demo/sola", "gtea": "gtea/sola"}


def main() -> None:
    parser = script_parser(__doc__)
    add_data_flags(parser)
    parser.add_argument("data_set", choices=[*SOLA_CONFIGS])
    parser.add_argument("--data", type=Path, help="folder of GTEA's features")
    parser.add_argument("--splits", nargs="+", type=int, choices=gtea.SPLITS, default=[*gtea.SPLITS])
    add_gain_flags(parser, "SoLa")
    options = parser.parse_args()
    if options.data_set == "gtea":
        parts = [_gtea_part(options.data, split, options.out / f"split{split}") for split in options.splits]
    else:
        parts = [_procedural_part(DrawnData(options.out, options.seed), options.size)]
    refined = [_refined(part, options) for part in parts]
    comparison = Comparison("SoLa", [(f"sola{seed}", "before") for seed in range(options.sola_seeds)])
    measure_gains(options.out / "sola_gain.json", refined, [comparison], options)


def _gtea_part(data: Path, split: int, folder: Path) -> Part:
    store, annotations = gtea.make_split(data, split, folder)
    return Part(folder, annotations, gtea.HEAD_CONFIG, {"before": store})


def _procedural_part(data: DrawnData, size: str) -> Part:
    data.draw(size)
    return Part(data.out, data.annotations, HEAD_CONFIG, {"before": data.classification_features()})


def _refined(part: Part, options: argparse.Namespace) -> Part:
    """The part with a further store for each SoLa seed."""
    stores = dict(part.stores)
    for seed in range(options.sola_seeds):
        refined = run_command(
            "sola",
            options.sola_flags,
            config=SOLA_CONFIGS[options.data_set],
            features=part.stores["before"],
            annotations=part.annotations,
            out=part.folder / f"sola{seed}",
            seed=seed,
        )
        stores[f"sola{seed}"] = refined.features.path
    return part._replace(stores=stores)


if __name__ == "__main__":
    main()
