"""Options that a head cannot have are refused, with what they should be."""

from __future__ import annotations


def require(fine: bool, head: str, name: str, value: float, wanted: str) -> None:
    """Raises ValueError unless `fine`: the head's option has this value, and must be as wanted."""
    if not fine:
        raise ValueError(f"{head}: {name} is {value}; it must be {wanted}")


def check_pyramid(
    head: str,
    *,
    crop_rows: int,
    num_levels: int,
    range_ratio: float,
    initial_positives: float,
    most_per_level: int,
) -> None:
    """Raises ValueError for what no head on a pyramid of points can have."""
    require(crop_rows >= 1, head, "crop_rows", crop_rows, "at least 1")
    require(num_levels >= 1, head, "num_levels", num_levels, "at least 1")
    require(range_ratio > 1, head, "range_ratio", range_ratio, "above 1, such as 2")
    require(initial_positives > 0, head, "initial_positives", initial_positives, "above 0, such as 100")
    require(most_per_level >= 1, head, "most_per_level", most_per_level, "at least 1")
