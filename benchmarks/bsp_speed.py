"""Whether making boundary clips keeps up with training on them.

    python benchmarks/bsp_speed.py [--encoder tsm_tiny] [--clips CSV_OR_DIR] [--batches 6] [--batch 32] [--workers 1 2]

Two tables, of one run. The first is CPU time a boundary clip, which means something on a machine that has other things
to do as well: reading the packet tables of its sources (which a data worker keeps for the next time), decoding
(seeking, and scaling and converting the frames that show), everything else (mixing, cropping), and the training step,
on one thread. The second is wall-clock clips a second with that many data workers: the loader alone, training alone (on
batches that are there), and training on what the loader makes; its last line, with all frames of all clips in memory,
where they fit, as in training.

Clips: those of --clips, or 16 made ones of Kinetics' size, 10 s of 340×256 pixels at 30 frames a second.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.command_line import script_parser
from benchmarks.results import results_table
from benchmarks.videos import write_video
from encoders import build_encoder
from pipeline.clips import batches as clip_batches
from pipeline.clips.batches import ClipForm, decode_clips, fits_in_memory
from pipeline.clips.reading import Clip, read_clips
from pipeline.commands.bsp_synth.boundary_clips import BoundaryBatches
from pipeline.data.video import probe_video, read_clip
from pipeline.training.batches import load_batches
from synth.boundaries import KINDS, Synthesis

Result = TypeVar("Result")


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--encoder", default="tsm_tiny")
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        clips = _make_clips(Path(name)) if options.clips is None else read_clips(options.clips).in_subset("training")
        encoder = build_encoder(options.encoder, weights="random")
        form = ClipForm(encoder.num_frames, encoder.frame_stride, encoder.resize, encoder.size)
        batches = BoundaryBatches(
            clips, form, Synthesis(encoder.num_frames // 2), seed=0, size=options.batches * options.batch
        )
        step = _training_step(encoder)
        _print_cpu_time(batches, step, options.batch)
        _print_rates(batches, step, options)


def _make_clips(folder: Path) -> list[Clip]:
    files = [write_video(folder / f"{seed}.mp4", seconds=10, width=340, height=256, seed=seed) for seed in range(16)]
    return [Clip(file, f"class {place % 4}", None, None, "training") for place, file in enumerate(files)]


def _training_step(encoder: Any) -> Callable[[Tensor, Tensor], None]:
    model = nn.ModuleDict({"encoder": encoder, "linear": nn.Linear(encoder.channels, len(KINDS))}).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(clips: Tensor, kinds: Tensor) -> None:
        loss = F.cross_entropy(model["linear"](model["encoder"](clips)), kinds)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


# --- CPU time ---------------------------------------------------------------------------------------------------------


def _print_cpu_time(batches: BoundaryBatches, step: Callable[[Tensor, Tensor], None], batch_size: int) -> None:
    seconds: Counter[str] = Counter()
    timed = (("_packet_table", probe_video, "packet tables"), ("read_clip", read_clip, "decoding"))
    for name, function, title in timed:
        setattr(clip_batches, name, _timed(function, title, seconds))
    make = _timed(batches.__getitem__, "all", seconds)
    batch = make([(0, index) for index in range(batch_size)])
    step(batch.clips, batch.kinds)
    seconds.clear()
    number = 0
    for epoch in (1, 2):
        batch = make([(epoch, index) for index in range(batch_size)])
        number += len(batch.clips)
        _timed(step, "training step", seconds)(batch.clips, batch.kinds)
    seconds["mixing, cropping"] = seconds.pop("all") - seconds["packet tables"] - seconds["decoding"]
    names = ("packet tables", "decoding", "mixing, cropping", "training step")
    table = results_table(f"CPU time (ms a boundary clip, mean of {number})", *names)
    table.add_row(*(f"{1000 * seconds[name] / number:.2f}" for name in names))
    Console(width=100).print(table)


def _timed(function: Callable[..., Result], name: str, seconds: Counter[str]) -> Callable[..., Result]:
    def timed(*values: Any, **options: Any) -> Result:
        started = time.process_time()
        try:
            return function(*values, **options)
        finally:
            seconds[name] += time.process_time() - started  # type: ignore[assignment]

    return timed


# --- Clips a second ---------------------------------------------------------------------------------------------------


def _print_rates(batches: BoundaryBatches, step: Callable[[Tensor, Tensor], None], options: argparse.Namespace) -> None:
    columns = ("data workers", "loader alone", "training alone", "training on the loader")
    table = results_table("clips a second (wall clock)", *columns)
    for workers in options.workers:
        loader = load_batches(batches, options.batch, num_workers=workers)
        table.add_row(str(workers), *_rates(loader, step))
    resize = batches.form.resize
    if fits_in_memory(batches.clips, resize):
        decoded = decode_clips(batches.clips, resize, num_workers=max(options.workers))
        batches.frames = [clip.frames for clip in decoded if clip.frames is not None]
        table.add_row("none, all frames in memory", *_rates(load_batches(batches, options.batch), step))
    Console(width=100).print(table)


def _rates(loader: DataLoader[Any], step: Callable[[Tensor, Tensor], None]) -> tuple[str, ...]:
    made = list(loader)  # the workers start, and their files come into the system's cache
    alone = _rate(iter(loader), lambda clips, kinds: None)
    return tuple(f"{rate:.1f}" for rate in (alone, _rate(iter(made), step), _rate(iter(loader), step)))


def _rate(batches: Iterator[Sequence[Any]], step: Callable[[Tensor, Tensor], None]) -> float:
    """Clips a second after the first batch."""
    first = next(batches)
    step(first[0], first[1])
    started, number = time.perf_counter(), 0
    for batch in batches:
        step(batch[0], batch[1])
        number += len(batch[0])
    return number / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
