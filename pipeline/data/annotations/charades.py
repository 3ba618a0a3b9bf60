"""Charades-STA: moments of Charades' videos, each described by a sentence, which here is the segment's label.

    charades_sta_train.txt     AO8RW 0.0 6.9##a person is putting a book on a shelf.      times in seconds
    Charades_v1_train.csv      Charades' own table; its columns `id` and `length` (seconds) give the durations

The same for `test`. Layouts: the readme files of TALL (Gao et al., ICCV 2017, jiyanggao/TALL) and of Charades.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.data.annotations.entries import Entry, Part, join_parts, read_moments
from pipeline.data.tables import read_table

_TEXT = re.compile(r"charades_sta_(train|test)\.txt", re.IGNORECASE)
_TABLE = "Charades_v1_*.csv"


def find_charades_sta(folder: Path) -> list[Path]:
    """The text files in a folder, not below it."""
    return sorted(file for file in folder.glob("*.txt") if _TEXT.fullmatch(file.name))


def read_charades_sta(files: Sequence[Path]) -> dict[str, Entry]:
    """The videos of some text files; durations come from the csv files beside them or one folder below.

    Raises:
        ValueError: A malformed line, or a video in both subsets; names the file.
    """
    parts = [Part(file, _subset(file), read_moments(file)) for file in files]
    folder = files[0].parent
    return join_parts(parts, _read_durations([*folder.glob(_TABLE), *folder.glob(f"*/{_TABLE}")]))


def _subset(file: Path) -> str | None:
    match = _TEXT.fullmatch(file.name)
    return match and match[1].lower()


def _read_durations(tables: Iterable[Path]) -> dict[str, float]:
    durations = {}
    for table in tables:
        for line, row in read_table(table, ("id", "length")):
            try:
                durations[row["id"]] = float(row["length"])
            except ValueError as error:
                raise ValueError(
                    f"{table}, line {line}: the length {row['length']!r} is no number of seconds"
                ) from error
    return durations
