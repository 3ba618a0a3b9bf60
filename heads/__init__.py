"""Networks on feature sequences (B, C, T), chosen by name; each brings its targets, its loss and its decoding.

What a head is, `heads.base` says; what each can be told, `heads.options`, which does without torch, as this module
does: a head is imported when it is built.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from heads.options import ActionFormerOptions, BMNOptions, GTADOptions, TemporalMaxerOptions, TriDetOptions


class HeadEntry(NamedTuple):
    """A head of this package."""

    options: type[Any]
    module: str
    name: str

    def load(self) -> Any:
        """The class (`heads.base.Head`)."""
        return getattr(importlib.import_module(self.module), self.name)


# A new head is a file here, its options in `heads.options`, and a line below.
HEADS = {
    "gtad": HeadEntry(GTADOptions, "heads.gtad", "GTAD"),
    "bmn": HeadEntry(BMNOptions, "heads.bmn", "BMN"),
    "actionformer": HeadEntry(ActionFormerOptions, "heads.actionformer", "ActionFormer"),
    "temporalmaxer": HeadEntry(TemporalMaxerOptions, "heads.temporalmaxer", "TemporalMaxer"),
    "tridet": HeadEntry(TriDetOptions, "heads.tridet", "TriDet"),
}
