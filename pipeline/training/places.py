"""Which samples make a batch, in the words that data workers understand."""

from __future__ import annotations

from collections.abc import Iterable


class Places(list[tuple[int, int]]):
    """The (epoch, index) pairs of one batch, and which batch of its epoch it is, counted from 0."""

    def __init__(self, pairs: Iterable[tuple[int, int]], *, batch: int) -> None:
        super().__init__(pairs)
        self.batch = batch
