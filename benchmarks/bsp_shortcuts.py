"""How well the kinds of boundary clips are told apart without seeing what happens in them.

    python benchmarks/bsp_shortcuts.py OUT [--size demo] [--data-seed 0] [--seeds 5] [--clips CSV_OR_DIR]

A logistic regression sees low-level statistics of a clip alone: the mean colour of each frame and how much it changes
from one to the next (colour), and the mean absolute difference of neighbouring frames (energy). It learns on boundary
clips of the training clips and is scored on boundary clips of the validation clips, for each pair of kinds, with the
blend for diff-class alone (the paper), for both kinds of two sources, and for neither. 50 % is chance.

High numbers are expected where a pair differs in what the statistics say: a cut shows in both. What is to be low is
diff-class against same-class: these differ by their classes, and whatever else tells them apart is a shortcut.

Data: the procedural clips in OUT/data, which are made, or those of --clips. OUT/bsp_shortcuts.json has every number.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from benchmarks.command_line import script_parser
from benchmarks.drawn_data import DrawnData
from benchmarks.results import format_interval, results_table, write_results
from pipeline.clips.batches import ClipForm, FrameArray, decode_clips
from pipeline.clips.reading import Clip, ClipList, read_clips
from pipeline.commands.bsp_synth.boundary_clips import BoundaryBatches
from synth.boundaries import KINDS, PAIRS, Kind, Synthesis
from synth.scenes import SIZES

FORM = ClipForm(num_frames=8, frame_stride=2, resize=64, size=64)  # of tsm_tiny
BLENDS: dict[str, tuple[Kind, ...]] = {"neither": (), "diff-class (paper)": ("diff-class",), "both": PAIRS}
WEIGHT_DECAY = 1e-3
_BATCH = 100


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=Path, help="instead of procedural ones")
    parser.add_argument("--size", choices=[*SIZES], default="demo")
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5, help="of the boundary clips")
    parser.add_argument("--train", type=int, default=1600, help="boundary clips to learn from, all kinds together")
    parser.add_argument("--test", type=int, default=800)
    options = parser.parse_args()
    sets = [_decode(clips) for clips in _read_subsets(options)]
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, blend in BLENDS.items():
        for seed in range(options.seeds):
            train, test = (
                statistics_of(clips, frames, blend, seed=2 * seed + place, count=count)
                for place, ((clips, frames), count) in enumerate(zip(sets, (options.train, options.test), strict=True))
            )
            for seen, columns in SEEN.items():
                for pair, accuracy in score_pairs(train, test, columns).items():
                    results.setdefault(seen, {}).setdefault(pair, {}).setdefault(name, []).append(accuracy)
    write_results(options.out / "bsp_shortcuts.json", results)
    _print_tables(results)


def _read_subsets(options: argparse.Namespace) -> tuple[Sequence[Clip], Sequence[Clip]]:
    path = options.clips
    if path is None:
        data = DrawnData(options.out, options.data_seed)
        data.draw(options.size)
        path = data.clips
    found: ClipList = read_clips(path)
    return found.in_subset("training"), found.in_subset("validation")


def _decode(clips: Sequence[Clip]) -> tuple[list[Clip], list[FrameArray]]:
    """The clips that decode, with their frames."""
    decoded = list(zip(clips, decode_clips(clips, FORM.resize, num_workers=2), strict=True))
    good = [(clip, result.frames) for clip, result in decoded if result.frames is not None]
    return [clip for clip, _ in good], [frames for _, frames in good]


# --- Statistics -------------------------------------------------------------------------------------------------------


def statistics_of(
    clips: Sequence[Clip], frames: Sequence[FrameArray], blend: tuple[Kind, ...], *, seed: int, count: int
) -> tuple[Tensor, Tensor]:
    """Statistics (N, 52) and kinds (N,) of `count` boundary clips."""
    batches = BoundaryBatches(clips, FORM, Synthesis(blend=blend), seed=seed, size=count, frames=frames)
    parts = []
    for first in range(0, count, _BATCH):
        batch = batches[[(0, index) for index in range(first, min(first + _BATCH, count))]]
        parts.append((low_level(batch.clips), batch.kinds))
    return torch.cat([values for values, _ in parts]), torch.cat([kinds for _, kinds in parts])


def low_level(clips_B3LHW: Tensor) -> Tensor:
    """(B, 52) for L = 8: mean colour of each frame (24), its change from frame to frame (21), difference energy (7)."""
    pixels = clips_B3LHW.float() / 255
    colour_B3L = pixels.mean(dim=(3, 4))
    change_B3L = colour_B3L.diff(dim=2).abs()
    energy_BL = pixels.diff(dim=2).abs().mean(dim=(1, 3, 4))
    return torch.cat([colour_B3L.flatten(1), change_B3L.flatten(1), energy_BL], dim=1)


SEEN = {"colour and energy": slice(None), "colour": slice(0, 45), "energy": slice(45, 52)}


# --- The classifier ---------------------------------------------------------------------------------------------------


def score_pairs(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], columns: slice) -> dict[str, float]:
    """Accuracy in percent for each pair of kinds, and for all four."""
    groups = {f"{KINDS[one]} / {KINDS[other]}": [one, other] for one, other in combinations(range(len(KINDS)), 2)}
    groups["all four (chance 25)"] = list(range(len(KINDS)))
    return {
        name: _accuracy(*_only(train, kinds, columns), *_only(test, kinds, columns)) for name, kinds in groups.items()
    }


def _only(data: tuple[Tensor, Tensor], kinds: list[int], columns: slice) -> tuple[Tensor, Tensor]:
    values, kinds_N = data
    chosen = torch.isin(kinds_N, torch.tensor(kinds))
    classes_N = torch.searchsorted(torch.tensor(kinds), kinds_N[chosen])
    return values[chosen][:, columns], classes_N


def _accuracy(train_NC: Tensor, kinds_N: Tensor, test_MC: Tensor, kinds_M: Tensor) -> float:
    """Of a logistic regression on standardised columns, trained to convergence."""
    mean, std = train_NC.mean(dim=0), train_NC.std(dim=0) + 1e-6
    inputs, tests = (train_NC - mean) / std, (test_MC - mean) / std
    num_classes = int(kinds_N.max()) + 1
    weights = torch.zeros(inputs.shape[1], num_classes, requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(inputs @ weights + bias, kinds_N) + WEIGHT_DECAY * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = (tests @ weights + bias).argmax(dim=1)
    return 100 * (found == kinds_M).float().mean().item()


def _print_tables(results: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    for seen, pairs in results.items():
        columns = ("kinds", *(f"blend: {name}" for name in BLENDS))
        table = results_table(f"accuracy (%) from {seen}: mean over seeds, half-width of its 95 % interval", *columns)
        for pair, by_blend in pairs.items():
            table.add_row(pair, *(format_interval(np.array(by_blend[name])) for name in BLENDS))
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
