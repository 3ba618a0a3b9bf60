"""A memory budget to a plan: how much of a video an encoder can be trained on end to end, and in what portions.

What training holds is counted in bytes, and almost all of it can be known beforehand:

    weights, gradients, optimiser state       once
    a snippet's activations, saved for the    measured, for one snippet of the size in question: they are linear in
      backward pass                           snippets
    a head's activations for a video          measured by whoever builds the head
    frames, and features with their gradient  from their shapes

Activations may instead be computed again in the backward pass (`encoders.recompute`); then only those of a chunk of
snippets are held, for about a third more time. Beside what is saved, gradients are on their way through the layers, and
operators use buffers of their own: `WORKING_SHARE` of the saved activations is set aside for them. (The gradients were
3 to 13 % of what TSM-R18, TSM-R50, R(2+1)D-18 and the tiny TSM save. CUDA's own half a gigabyte is not counted.)
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from encoders import Encoder
from encoders.activations import saved_bytes
from pipeline.commands.lofi_train.fidelity import Fidelity
from pipeline.data.files import read_json, write_json
from pipeline.terminal.notes import say

WORKING_SHARE = 0.2
LEAST_SNIPPETS, LEAST_SIZE = 8, 32  # below, there is little left to localize in and to see
EFFICIENT_CHUNK = 8  # snippets that keep a device busy; smaller chunks only where nothing else fits

_FLOAT = 4
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMG]I?|)B?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """What a budget allows.

    Attributes:
        fidelity: what is read of each video.
        micro_batch: videos that go through encoder and head together.
        accumulate: micro-batches in an optimiser step.
        chunk: snippets whose activations are held at a time, and computed twice; None: all are held, and none is.
        num_bytes: what that takes.
    """

    fidelity: Fidelity
    micro_batch: int
    accumulate: int
    chunk: int | None
    num_bytes: int

    def __str__(self) -> str:
        kept = "kept" if self.chunk is None else f"computed twice, in chunks of {self.chunk} snippets"
        return (
            f"{self.fidelity}, micro-batch {self.micro_batch} × {self.accumulate}, activations {kept}: "
            f"{format_size(self.num_bytes)}"
        )


@dataclass(frozen=True)
class Costs:
    """What training holds, in bytes.

    Attributes:
        fixed: once, whatever is trained on.
        chunks: once more if activations are computed chunk by chunk: gradients of the weights, before they are added.
        snippet: the activations that the encoder saves for one snippet of a size in pixels.
        head: those that the head and its loss save for one video of T snippets.
        frames: bytes of one snippet's frames for a size.
        features: bytes of one snippet's features and of their gradient.
    """

    fixed: int
    chunks: int
    snippet: Callable[[int], int]
    head: Callable[[int], int]
    frames: Callable[[int], int]
    features: int

    def of(self, fidelity: Fidelity, videos: int, chunk: int | None) -> int:
        """All bytes of a step over so many videos."""
        size, snippets = fidelity.size, videos * fidelity.num_snippets
        held = self.fixed + snippets * (self.frames(size) + self.features)
        head = videos * self.head(fidelity.num_snippets)
        if chunk is None:
            saved = snippets * self.snippet(size) + head
        else:
            held += self.chunks
            # The head's activations are gone before those of a chunk are computed again.
            saved = max(min(chunk, snippets) * self.snippet(size), head)
        return round(held + saved * (1 + WORKING_SHARE))


def measure_costs(encoder: Encoder, head: Callable[[int], int], *, num_head_parameters: int, states: int) -> Costs:
    """The costs of training this encoder where it stands, in float32 or under the autocast that is on.

    Args:
        encoder: in the mode that it is trained in, on the device that it is trained on. Snippets of zeros go through it
            for each size that is asked for.
        head: T to the bytes that the head and its loss save for one video (`encoders.activations.saved_bytes`).
        num_head_parameters: weights of the head.
        states: numbers that the optimiser keeps for each weight: 0 for SGD, 1 with momentum, 2 for Adam.
    """
    measured: dict[int, int] = {}

    def snippet(size: int) -> int:
        if size not in measured:
            measured[size] = snippet_bytes(encoder, size)
        return measured[size]

    weights = [_FLOAT * parameter.numel() for parameter in encoder.parameters()]
    return Costs(
        # The gradient of one weight is there twice more for a moment, when it is added to what there is. What autocast
        # has converted of the encoder's weights is there once, whatever the number of snippets.
        fixed=(2 + states) * (sum(weights) + _FLOAT * num_head_parameters)
        + 2 * max(weights)
        + shared_bytes(encoder, encoder.size),
        chunks=sum(weights),
        snippet=snippet,
        head=head,
        frames=lambda size: 3 * encoder.num_frames * size**2,
        features=2 * _FLOAT * encoder.channels,
    )


def snippet_bytes(encoder: Encoder, size: int) -> int:
    """The activations that `encoder` saves for each snippet of size×size pixels."""
    return _saved_for(encoder, size, 2) - _saved_for(encoder, size, 1)


def shared_bytes(encoder: Encoder, size: int) -> int:
    """What `encoder` saves beside that, once for all snippets: its weights, where autocast has converted them."""
    return 2 * _saved_for(encoder, size, 1) - _saved_for(encoder, size, 2)


def _saved_for(encoder: Encoder, size: int, num_snippets: int) -> int:
    device = encoder.mean.device
    clips = torch.zeros(num_snippets, 3, encoder.num_frames, size, size, dtype=torch.uint8, device=device)
    excluded: list[Tensor] = [*encoder.parameters(), *encoder.buffers(), clips]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return saved_bytes(lambda: encoder(clips), excluded=excluded)


def choose(
    costs: Costs,
    fidelities: Iterable[Fidelity],
    *,
    batch_size: int,
    budget: int,
    may_recompute: bool = True,
) -> Plan:
    """The first of `fidelities` that the budget allows, in the portions that take the least time.

    Fidelity comes first: activations are computed twice before snippets or pixels are given up, unless `may_recompute`
    forbids it. Then time: they are kept if even one video at a time allows it; else as many videos at a time as leave
    room for chunks of `EFFICIENT_CHUNK` snippets.

    Args:
        costs: see `measure_costs`.
        fidelities: the best one first; `ladder` makes them.
        batch_size: videos in an optimiser step; portions divide it.
        budget: bytes.

    Raises:
        ValueError: not even the last one fits; says what it would take.
    """
    divisors = [videos for videos in range(batch_size, 0, -1) if batch_size % videos == 0]
    plan = None
    for fidelity in fidelities:
        for videos, chunk in _portions(fidelity.num_snippets, divisors, may_recompute):
            num_bytes = costs.of(fidelity, videos, chunk)
            plan = Plan(fidelity, videos, batch_size // videos, chunk, num_bytes)
            if num_bytes <= budget:
                return plan if chunk is None else _with_largest_chunk(costs, plan, budget)
    assert plan is not None, "no fidelity was given"
    raise ValueError(f"{format_size(budget)} of memory are too few: the least that is tried is {plan}")


def _portions(num_snippets: int, divisors: Sequence[int], may_recompute: bool) -> Iterator[tuple[int, int | None]]:
    """Videos at a time, and chunk, the fastest way first."""
    for videos in divisors:
        yield videos, None
    if may_recompute:
        for videos in divisors:
            yield videos, min(EFFICIENT_CHUNK, num_snippets)
        yield 1, 1


def _with_largest_chunk(costs: Costs, plan: Plan, budget: int) -> Plan:
    def with_chunk(chunk: int) -> Plan:
        num_bytes = costs.of(plan.fidelity, plan.micro_batch, chunk)
        return dataclasses.replace(plan, chunk=chunk, num_bytes=num_bytes)

    assert plan.chunk is not None
    fitting = (with_chunk(chunk) for chunk in range(plan.micro_batch * plan.fidelity.num_snippets, plan.chunk, -1))
    return next((larger for larger in fitting if larger.num_bytes <= budget), plan)


def plan_of_run(path: Path, make: Callable[[], Plan]) -> Plan:
    """The plan that an earlier start of the run left in `path`; else the one that `make` makes, left there. Prints it.

    What is measured may change with torch's version and with the device: a run that goes on goes on as it began.
    """
    if path.exists():
        kept = read_json(path)
        plan = Plan(**{**kept, "fidelity": Fidelity(**kept["fidelity"])})
    else:
        plan = make()
        write_json(path, dataclasses.asdict(plan))
    say(plan)
    return plan


def ladder(full: Fidelity) -> list[Fidelity]:
    """From full fidelity down: 1, 1/2, 1/4, ... of its pixels.

    Each reduction is shared between time and space as in ST-LoFi: r_t = r and r_s = √r, so that r = 2, the third step,
    is the paper's 50 snippets of 158×158 pixels.
    """
    most = min(full.num_snippets / LEAST_SNIPPETS, (full.size / LEAST_SIZE) ** 2)
    reductions = (2 ** (number / 2) for number in range(1, 1 + math.floor(2 * math.log2(max(1, most)))))
    return [full, *(full.lowered(space=math.sqrt(reduction), time=reduction) for reduction in reductions)]


def parse_size(text: str) -> int:
    """Bytes of `8GB` (10⁹), `6GiB` (2³⁰), `500 MB`. ValueError for anything else, and for nothing."""
    found = _SIZE.fullmatch(text)
    num_bytes = round(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if num_bytes < 1:
        raise ValueError(f"{text!r} is no amount of memory: expected one such as 8GB, 6GiB or 500MB")
    return num_bytes


def format_size(num_bytes: int) -> str:
    """`7.3 GB`, in powers of ten like the `GB` of `parse_size`."""
    unit = next((unit for unit in ("G", "M", "K") if num_bytes >= _UNITS[unit]), "")
    amount = num_bytes / _UNITS[unit]
    return f"{amount:.0f} {unit}B" if amount >= 100 else f"{amount:.3g} {unit}B"
