"""Time and memory of SGAlign with the convolution after it: folded (`heads.sgalign`) against direct.

    python benchmarks/sgalign.py [--repeats 5] [--threads 2]

Both forms get the same features and weights, T = D = 100, 256 channels in, 512 out, batch 4, and must agree. The direct
form (`tests/reference_gtad.py`) aligns by a dense matrix product, so nearly all of its time is the convolution over the
9,216 x 100 x 100 map. Peaks are what torch's CPU allocator held beyond what it held before, by its own records.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from reference_gtad import DirectSGAlign, convolution_weight  # noqa: E402

from heads.sgalign import SGAlign, valid_cells  # noqa: E402

SIZE, CHANNELS, OUTPUTS, BATCH = 100, 256, 512, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    module = SGAlign(CHANNELS, OUTPUTS, num_snippets=SIZE, max_duration=SIZE)
    feats_BCT, context_BCT = (torch.randn(BATCH, CHANNELS, SIZE, requires_grad=True) for _ in range(2))
    forms = {
        "direct": direct_form(module, feats_BCT, context_BCT),
        "folded": lambda: module(feats_BCT.mT, context_BCT.mT),
    }
    check_agreement(forms)
    measured = {name: measure(form, arguments.repeats) for name, form in forms.items()}
    print_table(measured)


def direct_form(module: SGAlign, feats_BCT: Tensor, context_BCT: Tensor) -> Callable[[], Tensor]:
    align = DirectSGAlign(SIZE, SIZE)
    weight = convolution_weight(module.inner.weight, module.context.weight).detach().requires_grad_()
    bias = module.bias.detach().clone().requires_grad_()
    return lambda: align(feats_BCT, context_BCT, weight, bias)


def check_agreement(forms: dict[str, Callable[[], Tensor]]) -> None:
    start_N, duration_N = valid_cells(SIZE, SIZE)
    with torch.no_grad():
        direct = forms["direct"]()[:, :, duration_N, start_N].mT
        error = (forms["folded"]() - direct).norm() / direct.norm()
    print(f"relative difference of the two forms on the valid cells: {error:.1e}")
    assert error < 1e-5


def measure(form: Callable[[], Tensor], repeats: int) -> dict[str, float]:
    """Median seconds of forward and backward; MiB at the peak of a step and between forward and backward."""
    forward, backward = [], []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        output = form()
        middle = time.perf_counter()
        output.backward(torch.ones_like(output))
        forward.append(middle - begin)
        backward.append(time.perf_counter() - middle)
        del output
    peak, kept = memory(form)
    return {
        "forward s": statistics.median(forward[1:]),
        "backward s": statistics.median(backward[1:]),
        "peak MiB": peak / 2**20,
        "kept MiB": kept / 2**20,
    }


def memory(form: Callable[[], Tensor]) -> tuple[int, int]:
    """Bytes allocated at the peak of forward and backward, and held after forward, from the profiler's records."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        output = form()
        with torch.profiler.record_function("between"):
            pass
        output.backward(torch.ones_like(output))
        del output
    held = peak = kept = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
        elif event.name() == "between":
            kept = held
    return peak, kept


def print_table(measured: dict[str, dict[str, float]]) -> None:
    names = list(next(iter(measured.values())))
    print(f"T = D = {SIZE}, {CHANNELS} -> {OUTPUTS} channels, batch {BATCH}, {torch.get_num_threads()} threads")
    print(f"{'':12}" + "".join(f"{name:>12}" for name in names))
    for form, row in measured.items():
        print(f"{form:12}" + "".join(f"{row[name]:12.3f}" for name in names))
    print(f"{'ratio':12}" + "".join(f"{measured['direct'][name] / measured['folded'][name]:12.1f}" for name in names))


if __name__ == "__main__":
    main()
