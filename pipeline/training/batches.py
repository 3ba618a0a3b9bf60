"""Batches for training: which samples make them, in an order that (seed, epoch) alone decides.

No data worker imports Lightning, so this module does not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from pipeline.training.places import Places
from pipeline.training.workers import WORKERS


class BatchSource(Protocol):
    """A data set that makes whole batches, so that slicing arrays costs one call and not one a sample."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: Places, /) -> Any:
        """The batch of these (epoch, index) pairs. Anything random in it follows from the pair."""


class EpochBatches(Sampler[Places]):
    """Batches of (epoch, index), in an order that (seed, epoch) alone decides.

    Processes that train together share what is then a larger batch:

        order      a b c d e f g h i        9 samples, 2 a batch, 2 processes
        process 0  a b|    e f|    i
        process 1      c d|    g h|  (i)

    A process for which nothing is left gets a sample again, which does not count, because all must go on together.
    """

    def __init__(self, num_samples: int, batch_size: int, *, seed: int | None) -> None:
        """
        Args:
            num_samples: how many there are.
            batch_size: how many make a batch; the last one may be smaller.
            seed: of the shuffling; None keeps the order.
        """
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.epoch = 0
        self.process, self.num_processes = 0, 1

    def share(self, process: int, num_processes: int) -> None:
        """Be the batches of one of several processes that train together."""
        self.process, self.num_processes = process, num_processes

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self._shared_size)

    def __iter__(self) -> Iterator[Places]:
        order = np.arange(self.num_samples)
        if self.seed is not None:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        for batch, first in enumerate(range(0, self.num_samples, self._shared_size)):
            shared = order[first : first + self._shared_size]
            own = np.array_split(shared, self.num_processes)[self.process]
            chosen = own if len(own) else shared[:1]
            yield Places(((self.epoch, index) for index in chosen.tolist()), batch=batch)

    @property
    def _shared_size(self) -> int:
        return self.batch_size * self.num_processes

    def num_counted(self, batch: int) -> int:
        """How many samples of the batch with this number count; 0 if it only repeats another process's sample."""
        shared = min(self._shared_size, self.num_samples - batch * self._shared_size)
        return shared // self.num_processes + (self.process < shared % self.num_processes)

    def weight(self, batch: int, accumulate: int) -> float:
        """Factor on a batch's mean loss that makes a mean over batches and processes one over a step's samples."""
        first = batch // accumulate * accumulate * self._shared_size
        in_step = min(accumulate * self._shared_size, self.num_samples - first)
        return self.num_counted(batch) * accumulate * self.num_processes / in_step


def load_batches(
    source: BatchSource, batch_size: int, *, shuffle_seed: int | None = None, num_workers: int = 0
) -> DataLoader[Any]:
    """A loader whose order follows from the seed and the epoch; without a seed, the source's own order.

    There are at most as many workers as cores: more would only get in each other's way.
    """
    num_workers = min(num_workers, _num_cores())
    return DataLoader(
        source,  # type: ignore[arg-type]  # indexed by lists of places, which torch allows and does not type
        sampler=EpochBatches(len(source), batch_size, seed=shuffle_seed),
        batch_size=None,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        # Else each new iterator draws a number from torch's own random state, which then depends on resuming.
        generator=torch.Generator(),
        # fork copies the locks of decoders and of torch's threads in whatever state they are.
        multiprocessing_context=WORKERS if num_workers > 0 else None,
    )


def _num_cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
