"""How long things take that take turns, so that what else the machine does falls on all of them; and how much memory.

Shapes: none.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

PRODUCT = 2048


def take_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, after one run of each that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def peak_bytes(run: Callable[[], object]) -> int:
    """What torch's CPU allocator held at most beyond what it held before, by its own records."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    held = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


class Product:
    """A square matrix product that takes its turn: the rate that nothing made of products can exceed by much."""

    def __init__(self) -> None:
        self.left, self.right = torch.randn(PRODUCT, PRODUCT), torch.randn(PRODUCT, PRODUCT)

    def __call__(self) -> object:
        return self.left @ self.right

    def limit(self, flops: int, seconds: float) -> float:
        """Seconds that so many operations would take at the rate of a product of so many `seconds`."""
        return flops / (2 * PRODUCT**3) * seconds


def count_flops(run: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions in it, those of local attention left out."""
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward_flops}
    )
    with counter:
        run()
    return counter.get_total_flops()


def _convolution_backward_flops(
    grad_shape: list[int], feats_shape: list[int], weight_shape: list[int], *others: Any, **kwargs: Any
) -> int:
    """As many for each gradient as forward. (Torch's own count takes a convolution in groups for a full one.)"""
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, wanted = others
    return sum(wanted[:2]) * conv_flop_count(feats_shape, weight_shape, grad_shape, transposed)
