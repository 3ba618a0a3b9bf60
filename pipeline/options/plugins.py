"""Names that stand for code: of ours, of installed packages, and `package.module:name` of the user's own.

    tsm_r50                      one of ours
    acme_r50                     declared by an installed package, by an entry point of the group
                                 `tal_pipeline.encoders`, `tal_pipeline.heads` or `tal_pipeline.annotations`
    my_package.my_module:build   anything that can be imported

A name of the last form is imported only where the user has given it on this very call. One that was read from a file (a
store, a run, weights) is not: a file must not cause an import that the user neither named nor installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

Kind = Literal["encoders", "heads", "annotations"]

_FLAGS: dict[Kind, str] = {"encoders": "--encoder", "heads": "--head", "annotations": "--annotation-format"}
_ONE: dict[Kind, str] = {"encoders": "encoder", "heads": "head", "annotations": "annotation format"}


def installed(kind: Kind) -> dict[str, EntryPoint]:
    """What installed packages declare, by name."""
    return {entry.name: entry for entry in entry_points(group=f"tal_pipeline.{kind}")}


def find(kind: Kind, name: str, *, ours: Iterable[str], named: Collection[str]) -> Callable[..., Any]:
    """The callable that `name` stands for, which is none of ours.

    Args:
        kind: what it is to be.
        name: the name.
        ours: the names of ours, for the error.
        named: the names that the user has given on this call.

    Raises:
        ValueError: there is no such thing, or a file names it and the user has not.
    """
    entry = installed(kind).get(name)
    if entry is not None:
        return _checked(name, _load(name, entry.load))
    if ":" not in name:
        known = ", ".join([*ours, *installed(kind)])
        choices = f"choose one of {known}, or give " if known else "give "
        raise ValueError(f"there is no {_ONE[kind]} {name!r}: {choices}your own as package.module:name")
    if name not in named:
        raise ValueError(
            f"{name!r} is the {_ONE[kind]} that made this, and it is no part of an installed package; "
            f"if you trust it, name it on this call as well: {_FLAGS[kind]} {name}, from Python "
            f"pipeline.load(…, {_FLAGS[kind].strip('-').replace('-', '_')}={name!r})"
        )
    module, _, attribute = name.partition(":")
    return _checked(name, _load(name, lambda: _attribute(importlib.import_module(module), attribute)))


def _attribute(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part)
    return module


def _load(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{name!r} cannot be imported ({type(error).__name__}: {error}); expected package.module:name, with the "
            "package installed or its folder on PYTHONPATH"
        ) from error


def _checked(name: str, found: Any) -> Callable[..., Any]:
    if not callable(found):
        raise ValueError(f"{name!r} is {type(found).__name__}, which cannot be called; name a function or a class")
    return found  # type: ignore[no-any-return]
