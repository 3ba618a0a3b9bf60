"""What a script leaves: a JSON file of every number, and tables of means with their 95 % intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

# 97.5 % quantiles of Student's t, by degrees of freedom.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def write_results(path: Path, results: object) -> None:
    """An indented JSON file, in a folder that is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def results_table(title: str, *columns: str) -> Table:
    """An empty table: names in its first column, numbers in the others."""
    table = Table(title=title)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table


def format_interval(values_S: NDArray[np.float64]) -> str:
    """Mean ± half-width of the 95 % interval of the mean."""
    if len(values_S) == 1:
        return f"{values_S[0]:.1f}"
    return f"{values_S.mean():.1f} ± {half_width(values_S):.1f}"


def half_width(values_S: NDArray[np.float64]) -> float:
    """Of the 95 % interval of the mean of two or more values."""
    count = len(values_S)
    return float(student(count - 1) * values_S.std(ddof=1) / np.sqrt(count))


def half_width_within(values_GS: NDArray[np.float64]) -> float:
    """Of the 95 % interval of the mean of G groups of S values each, if the groups are all that there are.

    Only what varies within groups counts: its variance is pooled, with G·(S-1) degrees of freedom.
    """
    groups, size = values_GS.shape
    variance = values_GS.var(axis=1, ddof=1).mean()
    return float(student(groups * (size - 1)) * np.sqrt(variance / (groups * size)))


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; above nine degrees of freedom that of nine, which is a little too wide."""
    return STUDENT[min(freedom, len(STUDENT)) - 1]
