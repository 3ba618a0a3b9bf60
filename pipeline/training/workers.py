"""Processes that work for this one, started anew and without the main module.

Python's own import the parent's main module once more. A script that calls a command at its top level would then begin
again in each of them, and fail; and whatever a notebook or a test runner is would be loaded for nothing. Ours need none
of it: what they are given is of our own modules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType


class _Worker(SpawnProcess):
    def start(self) -> None:
        with _without_main():
            super().start()


class WorkerContext(SpawnContext):
    """`multiprocessing`'s spawn, without the main module: for data loaders and pools."""

    Process = _Worker


WORKERS = WorkerContext()


@contextmanager
def _without_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
