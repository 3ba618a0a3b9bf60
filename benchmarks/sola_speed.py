"""How fast and in how much memory SoLa trains, against a straightforward version and against the convolutions' FLOPs.

    python benchmarks/sola_speed.py [--videos 300] [--rows 200] [--channels 2048] [--batch 256] [--hidden 1024]

ours      `subsequences` of the command and `SoLa.at_centers`: one indexing of the array on disk a batch, and
          convolutions at the gathered rows alone
loops     crops cut video by video in a Python loop, the module on all rows of each crop, the gathered rows afterwards
floor     the multiplications that ours needs, forward and backward, at the rate of a large matrix product here

The three run in turns, each in a process of its own, on the same features; the median step of each is printed, and how
much the resident memory grew. The default is the paper's setting (Table 4a) on 3 % of ActivityNet.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.command_line import script_parser
from encoders.similarity import similarity_bce, target_tsm
from encoders.sola import Projector, SoLa
from pipeline.commands.sola.subsequences import Gathering, Subsequences

GATHERING = Gathering(8, 8)
PROJECTOR_HIDDEN = 512


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--channels", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.npy"
        shape = (options.videos * options.rows, options.channels)
        np.save(path, np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            for way in ("ours", "loops"):
                seconds, grown = pool.apply(measure, (way, path, options))
                print(f"{way:6} {seconds:7.3f} s a step, {grown / 2**20:6.0f} MiB more than before the first step")
            seconds = pool.apply(floor_seconds, (options,))
            print(f"{'floor':6} {seconds:7.3f} s a step")


def measure(way: str, path: Path, options: argparse.Namespace) -> tuple[float, int]:
    """Median seconds of a step, and how much the peak of resident memory grew."""
    torch.manual_seed(0)
    sola, projector = SoLa(options.channels, hidden=options.hidden), Projector(options.channels, PROJECTOR_HIDDEN)
    optimizer = torch.optim.AdamW([*sola.parameters(), *projector.parameters()], lr=1e-4)
    source = Subsequences(
        path,
        np.arange(options.videos) * options.rows,
        np.full(options.videos, options.rows),
        GATHERING,
        sola.kernel_size,
        per_video=-(-options.batch // options.videos),
        seed=0,
    )
    target_SS = target_tsm(GATHERING.size, 16.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = []
    for step in range(options.steps):
        started = time.perf_counter()
        rows_BSC = WAYS[way](sola, source, options.batch, step)
        loss = similarity_bce(rows_BSC.detach(), projector(rows_BSC), target_SS)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def _ours(sola: SoLa, source: Subsequences, batch: int, epoch: int) -> Tensor:
    near = source[[(epoch, index) for index in range(batch)]]
    rows_BSC: Tensor = sola.at_centers(torch.from_numpy(near.features))
    return rows_BSC


def _loops(sola: SoLa, source: Subsequences, batch: int, epoch: int) -> Tensor:
    features_NC = np.load(source.path, mmap_mode="r")
    crops = []
    for start in source.starts(epoch)[:batch]:
        crops.append(torch.from_numpy(np.array(features_NC[start : start + GATHERING.length])).T)
    refined_BCT = sola(torch.stack(crops))
    gathered: Tensor = refined_BCT[:, :, torch.from_numpy(GATHERING.offsets)].mT
    return gathered


WAYS: dict[str, Callable[[SoLa, Subsequences, int, int], Tensor]] = {"ours": _ours, "loops": _loops}


def floor_seconds(options: argparse.Namespace) -> float:
    """Seconds of a step that did nothing but its matrix products, at the rate of a large one on this machine."""
    kernel_size, channels, hidden = 5, options.channels, options.hidden
    module = kernel_size * channels * hidden + hidden * hidden + hidden * channels
    projector = 2 * channels * PROJECTOR_HIDDEN
    # Forward, and backward for weights and inputs; the first layer's inputs need no gradient.
    products = 3 * (module + projector) - kernel_size * channels * hidden
    return float(2 * options.batch * GATHERING.size * products / matmul_rate())


def matmul_rate(size: int = 3072, runs: int = 5) -> float:
    """Floating-point operations a second of a square matrix product."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return float(2 * size**3 / statistics.median(seconds))


if __name__ == "__main__":
    main()
