"""How many bytes a computation keeps for its backward pass, and how many its tensors take up at the peak."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def saved_bytes(function: Callable[[], object], *, excluded: Iterable[Tensor] = ()) -> int:
    """The most bytes that tensors saved for the backward pass take up at one time while `function` runs.

    Of a forward pass whose result `function` returns, this is what the result's graph holds. It is exact: a storage
    counts once, in whole, however many tensors see it. What a checkpoint computes again on the way back goes by these
    hooks unseen; `peak_bytes` sees it.

    Args:
        function: what to measure. It runs once.
        excluded: tensors whose storages do not count: parameters, buffers and inputs, which are there anyhow.
    """
    ledger = _Ledger({_key(tensor) for tensor in excluded})
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Saved(tensor, ledger), _Saved.unpack):
        result = function()
    del result  # the graph had to live until here
    return ledger.peak


class _Ledger:
    """Bytes of the storages that are saved at present, and the most that there have been."""

    def __init__(self, excluded: set[int]) -> None:
        self.excluded = excluded
        self.holders: Counter[int] = Counter()
        self.now = self.peak = 0

    def add(self, tensor: Tensor) -> None:
        key = _key(tensor)
        if key in self.excluded:
            return
        if not self.holders[key]:
            self.now += tensor.untyped_storage().nbytes()
            self.peak = max(self.peak, self.now)
        self.holders[key] += 1

    def remove(self, tensor: Tensor) -> None:
        key = _key(tensor)
        if key in self.excluded:
            return
        self.holders[key] -= 1
        if not self.holders[key]:
            self.now -= tensor.untyped_storage().nbytes()


class _Saved:
    """A tensor in the place where autograd would have kept it; autograd lets go of it as of the tensor itself."""

    def __init__(self, tensor: Tensor, ledger: _Ledger) -> None:
        # Detached: with its graph, it would keep alive the node that keeps it.
        self.tensor, self.ledger = tensor.detach(), ledger
        ledger.add(self.tensor)

    def unpack(self) -> Tensor:
        return self.tensor

    def __del__(self) -> None:
        self.ledger.remove(self.tensor)


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes that tensors made by `function` take up at one time, on a CPU.

    All of them count, saved or not, in the forward and the backward pass; buffers inside of an operator do not. What
    `function` returns counts as well.
    """
    with _LiveTensors() as live:
        result = function()
    del result
    peak: int = live.peak  # the base class is not typed
    return peak


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every storage from the operator that makes it to its end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: set[int] = set()
        self.now = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and _key(made) not in self.alive | given:
                self._follow(made.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        self.alive.add(key)
        self.now += num_bytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._end, key, num_bytes)

    def _end(self, key: int, num_bytes: int) -> None:
        self.alive.discard(key)
        self.now -= num_bytes


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key
