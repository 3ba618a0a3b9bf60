"""Which head, and what it can be told: its options stand under its name, whether it is one of ours or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from functools import cache
from typing import Any

from heads import HEADS
from pipeline.options import plugins


def find_head(name: str, *, named: Collection[str]) -> Any:
    """The class of a head (`heads.base.Head`), which this imports.

    Args:
        name: one of `heads.HEADS`, of an installed package, or `package.module:MyHead`.
        named: the names that the user has given on this call.

    Raises:
        ValueError: there is no such head, it lacks what a head has, or a file names it and the user has not.
    """
    if name in HEADS:
        return HEADS[name].load()
    head: Any = plugins.find("heads", name, ours=HEADS, named=named)
    absent = [part for part in ("Options", "forward", "targets", "loss", "decode") if not hasattr(head, part)]
    if absent:
        raise ValueError(f"{name!r} is no head: it lacks {', '.join(absent)} (heads.base.Head says what a head has)")
    _check_options(name, head.Options)
    return head


def option_key(name: str) -> str:
    """Under which key a head's options stand: its name; for `package.module:MyHead`, `MyHead`."""
    return name.rpartition(":")[2].replace("-", "_").rpartition(".")[2]


def head_options(config: Any) -> Any:
    """The options of the head that `config.head` names."""
    return getattr(config, option_key(config.head))


@cache
def with_head(options: type[Any], name: str) -> type[Any]:
    """A command's dataclass with one more field: the options of the head called `name`, under its key.

    Raises:
        ValueError: as `find_head`, or the command has an option of that name already.
    """
    key = option_key(name)
    if key in {field.name for field in dataclasses.fields(options)}:
        raise ValueError(f"head {name!r}: there is an option {key} already; give the class another name")
    own = HEADS[name].options if name in HEADS else find_head(name, named=[name]).Options
    made = dataclasses.make_dataclass(
        options.__name__,
        [(key, own, dataclasses.field(default_factory=own))],
        bases=(options,),
        frozen=True,
        kw_only=True,
    )
    made.__module__, made.__doc__ = options.__module__, options.__doc__
    return made


def _check_options(name: str, options: Any) -> None:
    if not dataclasses.is_dataclass(options):
        raise ValueError(f"{name!r}: its Options are {options!r:.60}, expected a dataclass")
    bare = [
        field.name
        for field in dataclasses.fields(options)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if bare:
        raise ValueError(f"{name!r}: its Options have no default for {', '.join(bare)}; give each field one")
