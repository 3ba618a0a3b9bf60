"""What a stage remarks on stderr about many things at once."""

from __future__ import annotations

import sys
from collections.abc import Collection


def print_note(what: str, names: Collection[str]) -> None:
    """One line with the number of `names` and the first of them; nothing if there are none."""
    if names:
        print(f"note: {len(names)} {what} ({some(names)})", file=sys.stderr)


def some(names: Collection[str], most: int = 3) -> str:
    """The first few names."""
    return ", ".join(list(names)[:most]) + (", …" if len(names) > most else "") or "none"
