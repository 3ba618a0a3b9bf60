"""How near `pipeline extract` comes to what the machine can do, and how much memory a long video takes.

    python benchmarks/extract.py [--encoder tsm_tiny] [--runs 5] [--seconds 60] [--hours 3] [--skip speed|memory]

Speed. Each run measures, on the same files and cores: decoding alone, encoding alone (of as many batches), and both
together through `iterate_features`. The two alone use their cores as they please, so what they allow together is not
the slower one of them: it is

    bound = max(decoding alone, encoding alone, (CPU time of decoding + CPU time of encoding) / cores)

where CPU time is that of the work itself: of encoding, what it takes on a single thread, without the waiting that more
threads add. Efficiency = bound / both together; the median over the runs is printed, and of each of the times. The
last line, CPU time alone / together, says how much of the work in extraction is not overhead; unlike the efficiency, it
means something on a machine that has other things to do.

Memory. The peak of this process and its children while a video of so many hours, looped from a clip's packets, goes
through; "beside the model" is what came on top of the memory held once the encoder has run its first batch.
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.command_line import script_parser
from benchmarks.videos import loop_packets, write_video
from encoders import Encoder, build_encoder
from pipeline.commands.extract.command import resolve_sampling
from pipeline.commands.extract.options import SamplingConfig
from pipeline.data.snippets import Sampling, SnippetAssembler, sample_snippets
from pipeline.data.video.decoder_process import DecoderProcess
from pipeline.encoding.video_features import EncoderPool, VideoFeatures, iterate_features

BATCH_SIZE = 16
CORES = len(os.sched_getaffinity(0))


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--encoder", default="tsm_tiny")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="length of each of the three videos of the speed")
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument("--skip", choices=["speed", "memory"])
    options = parser.parse_args()
    encoder = build_encoder(options.encoder, weights="random")
    sampling = resolve_sampling(encoder, SamplingConfig())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = [write_video(folder / f"clip{seed}.mp4", seconds=10, seed=seed) for seed in range(3)]
        if options.skip != "speed":
            videos = {
                clip.stem: loop_packets(clip, folder / f"looped_{clip.name}", seconds=options.seconds) for clip in clips
            }
            report_speed(videos, encoder, sampling, options.runs)
        if options.skip != "memory":
            long_video = loop_packets(clips[0], folder / "long.mp4", seconds=3600 * options.hours)
            report_memory(long_video, encoder, sampling)


# --- Speed ------------------------------------------------------------------------------------------------------------


class Spent(NamedTuple):
    """Seconds by the clock, and of CPU in this process and its children that have ended."""

    wall: float
    cpu: float


def report_speed(videos: Mapping[str, Path], encoder: Encoder, sampling: Sampling, runs: int) -> None:
    measured = [measure(videos, encoder, sampling) for _ in range(runs)]
    for what in measured[0]:
        values = [times[what] for times in measured]
        print(f"{what:28} {statistics.median(values):8.3f}   of {', '.join(f'{value:.3f}' for value in values)}")


def measure(videos: Mapping[str, Path], encoder: Encoder, sampling: Sampling) -> dict[str, float]:
    """One run: seconds, and the efficiency."""
    num_items = 0

    def decode() -> None:
        nonlocal num_items
        num_items = sum(decode_alone(videos, encoder, sampling))

    decoding = spent(decode)
    encoding = spent(lambda: encode_alone(encoder, num_items))
    single = on_one_thread(lambda: spent(lambda: encode_alone(encoder, num_items)))
    both = spent(lambda: extract(videos, encoder, sampling))
    bound = max(decoding.wall, encoding.wall, (decoding.cpu + single.cpu) / CORES)
    return {
        "decoding alone (s)": decoding.wall,
        "  its CPU time (s)": decoding.cpu,
        "encoding alone (s)": encoding.wall,
        "  CPU time on one thread (s)": single.cpu,
        "bound (s)": bound,
        "both together (s)": both.wall,
        "  their CPU time (s)": both.cpu,
        "efficiency": bound / both.wall,
        "CPU time alone / together": (decoding.cpu + single.cpu) / both.cpu,
    }


def decode_alone(videos: Mapping[str, Path], encoder: Encoder, sampling: Sampling) -> Iterator[int]:
    """Decode what extraction would; yields how many items an encoder would be given of each video."""
    with DecoderProcess() as process:
        for path in videos.values():
            info = process.probe(path)
            indices_TL, _ = sample_snippets(info.timestamps, info.duration, sampling)
            frames = SnippetAssembler[object](indices_TL).frames
            for _ in process.frames(path, frames, resize=encoder.resize, crop=encoder.size):
                pass
            yield len(frames) if encoder.frame_wise else len(indices_TL)


def encode_alone(encoder: Encoder, num_items: int) -> None:
    frame = np.zeros((encoder.size, encoder.size, 3), np.uint8)
    item = [frame] * (1 if encoder.frame_wise else encoder.num_frames)
    with EncoderPool(encoder, BATCH_SIZE, torch.device("cpu"), "auto") as pool:
        passes = [pool.submit([item] * pool.items_per_pass) for _ in range(-(-num_items // pool.items_per_pass))]
        for vectors in passes:
            vectors.result()


def extract(videos: Mapping[str, Path], encoder: Encoder, sampling: Sampling) -> None:
    for result in iterate_features(videos, encoder, sampling, batch_size=BATCH_SIZE):
        assert isinstance(result, VideoFeatures), result


def spent(work: Callable[[], None]) -> Spent:
    started, cpu = time.perf_counter(), cpu_seconds()
    work()
    return Spent(time.perf_counter() - started, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def on_one_thread(work: Callable[[], Spent]) -> Spent:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work()
    finally:
        torch.set_num_threads(num_threads)


# --- Memory -----------------------------------------------------------------------------------------------------------


def report_memory(video: Path, encoder: Encoder, sampling: Sampling) -> None:
    encode_alone(encoder, 1)
    model = resident_bytes()
    started = time.perf_counter()
    with sampled_peak() as peak:
        [result] = iterate_features({"long": video}, encoder, sampling, batch_size=BATCH_SIZE)
    assert isinstance(result, VideoFeatures), result
    print(f"a video of {result.duration / 3600:.2f} hours, {len(result.features_TC)} rows, ", end="")
    print(f"in {time.perf_counter() - started:.0f} s: peak {peak[0] / 2**20:.0f} MiB, ", end="")
    print(f"of which {(peak[0] - model) / 2**20:.0f} MiB beside the model")


@contextmanager
def sampled_peak() -> Iterator[list[int]]:
    """The largest `resident_bytes` seen while the body runs, looked at ten times a second, as the list's only item."""
    peak = [resident_bytes()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], resident_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def resident_bytes() -> int:
    """Resident memory of this process and its children; pages that they share count for each (Linux)."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for task in Path("/proc/self/task").iterdir():
        children += (task / "children").read_text().split()
    total = 0
    for pid in {str(os.getpid()), *children}:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


if __name__ == "__main__":
    main()
