"""What LoFi saves: the activations that an encoder keeps for a video's backward pass, and the time of a training step.

    python benchmarks/lofi_memory.py [--encoder tsm_r18] [--snippets 100] [--size 224] [--measured 8] [--chunk 4]

full        every snippet at full size, activations kept
S, T, ST    LoFi's low fidelities, activations kept
recomputing full fidelity, activations computed again chunk by chunk in the backward pass (`encoders.recompute`)

A video at full fidelity does not fit into most memories. So `--measured` snippets of each size are measured and scaled
to the video: bytes are linear in snippets, which is checked, and so is the work. Bytes are those of the tensors that
autograd saves, each storage once, without weights and frames; recomputing, they are what the first pass keeps and the
activations of a chunk. Seconds are the CPU's, which others on the machine hardly change, of the encoder forward and
backward in one thread; the ways are timed in turns, and the medians of each and of its ratio to full fidelity in the
same turn are printed. Batch normalisation is frozen.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.command_line import script_parser
from benchmarks.results import results_table
from encoders import Encoder, build_encoder
from encoders.activations import saved_bytes
from encoders.recompute import encode_recomputing
from pipeline.commands.lofi_train.fidelity import Fidelity, low_fidelities

TARGETS = {"S": (0.27, None), "T": (0.27, None), "ST": (0.27, None), "recomputing": (0.30, 1.5)}
"""The largest shares of full fidelity's bytes and seconds."""


@dataclass(frozen=True)
class Way:
    """A way to train on a video, and a chunk size if activations are computed again."""

    name: str
    fidelity: Fidelity
    chunk: int | None = None


def main() -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--encoder", default="tsm_r18")
    parser.add_argument("--snippets", type=int, default=100)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--measured", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = build_encoder(options.encoder, weights="random", size=options.size).eval()
    ways = make_ways(Fidelity(options.snippets, options.size, encoder.resize), options.chunk)
    num_bytes = {way.name: bytes_of_video(encoder, way, options.measured) for way in ways}
    seconds = seconds_of_video(encoder, ways, options.measured, options.repeats)
    return report(ways, num_bytes, seconds)


def make_ways(full: Fidelity, chunk: int) -> list[Way]:
    low = low_fidelities(full)
    return [
        Way("full", full),
        Way("S", low["spatial"]),
        Way("T", low["temporal"]),
        Way("ST", low["spatiotemporal"]),
        Way("recomputing", full, chunk),
    ]


def draw_clips(encoder: Encoder, size: int, number: int) -> Tensor:
    shape = number, 3, encoder.num_frames, size, size
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# --- Bytes ------------------------------------------------------------------------------------------------------------


def bytes_of_video(encoder: Encoder, way: Way, measured: int) -> float:
    """Bytes that are saved at one time for a video of T snippets."""
    clips = draw_clips(encoder, way.fidelity.size, measured)
    if way.chunk is None:
        return bytes_for(encoder, lambda part: encoder(part), clips) * way.fidelity.num_snippets / measured
    chunk = way.chunk
    kept = bytes_for(encoder, lambda part: encode_recomputing(encoder, part, chunk), clips)
    one_chunk = bytes_for(encoder, lambda part: encoder(part), clips[:chunk])
    return kept * way.fidelity.num_snippets / measured + one_chunk


def bytes_for(encoder: Encoder, encode: Callable[[Tensor], Tensor], clips: Tensor) -> int:
    excluded = [*encoder.parameters(), *encoder.buffers(), clips]
    whole, half = (saved_bytes(lambda part=part: encode(part), excluded=excluded) for part in (clips, clips[::2]))  # type: ignore[misc]
    if abs(whole - 2 * half) > 0.01 * whole:
        print(f"warning: {len(clips)} clips save {whole} bytes, half of them {half}: that is not linear")
    return whole


# --- Seconds ----------------------------------------------------------------------------------------------------------


def seconds_of_video(encoder: Encoder, ways: list[Way], measured: int, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each repeat, scaled to a video."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            clips = draw_clips(encoder, way.fidelity.size, measured)
            started = time.process_time()
            features_NC = encoder(clips) if way.chunk is None else encode_recomputing(encoder, clips, way.chunk)
            features_NC.square().sum().backward()
            spent = time.process_time() - started
            seconds[way.name].append(spent * way.fidelity.num_snippets / measured)
    return seconds


def report(ways: list[Way], num_bytes: dict[str, float], seconds: dict[str, list[float]]) -> int:
    """Print the table. Returns 1 if a target is missed."""
    columns = ("", "a video", "GiB saved", "of full", "seconds", "of full")
    table = results_table("The encoder, for one video", *columns)
    missed = []
    for way in ways:
        share = num_bytes[way.name] / num_bytes["full"]
        ratio = statistics.median(own / full for own, full in zip(seconds[way.name], seconds["full"], strict=True))
        median = statistics.median(seconds[way.name])
        name = way.name if way.chunk is None else f"{way.name}, chunks of {way.chunk}"
        table.add_row(
            name,
            str(way.fidelity),
            f"{num_bytes[way.name] / 2**30:.2f}",
            f"{share:.3f}",
            f"{median:.1f}",
            f"{ratio:.2f}",
        )
        most_bytes, most_seconds = TARGETS.get(way.name, (None, None))
        if (most_bytes and share > most_bytes) or (most_seconds and ratio > most_seconds):
            missed.append(f"{way.name}: {share:.3f} of the bytes, {ratio:.2f} of the time")
    Console().print(table)
    print("missed: " + "; ".join(missed) if missed else "all shares are below their targets")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
