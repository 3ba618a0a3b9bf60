"""What a command says: its results on stdout, its remarks and progress on stderr; or, called from Python, nothing.

Whoever calls a command from Python `listen`s to it: nothing is printed then, but for the progress if it is asked for,
and the remarks are kept, for the result.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


@dataclass
class Heard:
    """What was said to a listener: `notes`, in order. `progress`: whether bars and notes are also shown."""

    progress: bool
    notes: list[str] = field(default_factory=list)


_LISTENER: ContextVar[Heard | None] = ContextVar("listener", default=None)


@contextmanager
def listen(*, progress: bool = False) -> Iterator[Heard]:
    """Keep what is said in here from stdout, and from stderr unless `progress`."""
    heard = Heard(progress)
    token = _LISTENER.set(heard)
    try:
        yield heard
    finally:
        _LISTENER.reset(token)


def shows_progress() -> bool:
    """Whether bars, and remarks on the way, go to stderr."""
    listener = _LISTENER.get()
    return listener is None or listener.progress


def say(text: object) -> None:
    """A result, on stdout; who listens gets it as a value."""
    if _LISTENER.get() is None:
        print(text)


def remark(text: str) -> None:
    """Something to know that is no result, on stderr."""
    listener = _LISTENER.get()
    if listener is not None:
        listener.notes.append(text)
    if shows_progress():
        print(text, file=sys.stderr)


def print_note(what: str, names: Collection[str]) -> None:
    """Remark on `names`: their number and the first of them; nothing if there are none."""
    if names:
        remark(f"note: {len(names)} {what} ({some(names)})")


def print_counts(counts: Mapping[str, int]) -> None:
    """Remark on what was counted, in one line; nothing if there is nothing to tell."""
    if line := format_counts(counts):
        remark(f"note: {line}")


def format_counts(counts: Mapping[str, int]) -> str:
    """What was counted and how often, in one line; empty when there is nothing to tell."""
    return "; ".join(f"{what}: {count}" for what, count in counts.items() if count)


def some(names: Collection[str], most: int = 3) -> str:
    """The first few names."""
    return ", ".join(list(names)[:most]) + (", …" if len(names) > most else "") or "none"


def progress_console() -> Console:
    """Where bars are drawn: stderr, or nowhere."""
    return Console(stderr=True, soft_wrap=True, quiet=not shows_progress())


def results_console() -> Console:
    """Where a table of results is drawn: stdout, or nowhere, for who listens gets it as a value."""
    return Console(quiet=_LISTENER.get() is not None)


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a bar on stderr that says how many of them are done."""
    console = progress_console()
    yield from track(items, what, total=total, console=console, disable=console.quiet)
