"""What a command returns: what it made, what it could not do, and what it remarked on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.terminal.notes import remark


@dataclass(frozen=True)
class Failure:
    """Something that could not be used, such as a video by its id, and why; `reason` names the file."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What every command returns.

    Attributes:
        failed: what could not be done; all else was.
        notes: what the command remarked on, a sentence each. Empty where it ran on the command line, which shows them.
    """

    failed: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()


def list_failures(headline: str, lines: Iterable[object]) -> None:
    """The list at the end of a command, below its headline; nothing if nothing failed."""
    listed = [f"  {line}" for line in lines]
    if listed:
        remark("\n".join([headline, *listed]))
