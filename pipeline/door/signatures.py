"""What a command's function takes, told from its dataclass: for `help()`, for type checkers and for the manual."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from heads import HEADS
from pipeline.commands.table import Command
from pipeline.options.parser import field_types, first_line

PATH = "str | os.PathLike[str]"


class Argument(NamedTuple):
    """An argument of a command's function.

    Attributes:
        name: as it is given.
        annotation: its type, as Python source.
        default: as Python source; None: it must be given.
        help: what it is, one paragraph.
    """

    name: str
    annotation: str
    default: str | None
    help: str


def arguments(command: Command) -> Iterator[Argument]:
    """Those that are given by name, in the order of the fields; the positional ones are `positional`'s."""
    for argument in fields_of(command.options):
        if argument.name != command.positional:
            yield argument
    if getattr(command.options, "takes_head_options", False):
        for name, entry in HEADS.items():
            yield Argument(name, _nested(entry.options), "{}", first_line(entry.options))
    if _has_short_seed(command.options):
        yield Argument("seed", "int", "0", 'Short for `training={"seed": ...}`.')
    yield Argument("config", f"{PATH} | None", "None", "A YAML file, or the name of a packaged one.")
    yield Argument("progress", "bool", "False", "Show bars and remarks on stderr.")


def positional(command: Command) -> Argument | None:
    """The argument that is given without a name, such as the videos to predict in."""
    found = [argument for argument in fields_of(command.options) if argument.name == command.positional]
    return found[0] if found else None


def fields_of(options: type) -> Iterator[Argument]:
    """The fields of a dataclass as arguments."""
    helps, kinds = field_helps(options), field_types(options)
    for field in dataclasses.fields(typing.cast(Any, options)):
        kind = annotation(kinds[field.name])
        if field.name == "weights" and PATH not in kind:  # a name, or the run that a command returned
            kind = kind.replace("str", PATH)
        nested = dataclasses.is_dataclass(kinds[field.name])
        told = first_line(kinds[field.name]) if nested else helps.get(field.name, "")
        yield Argument(field.name, kind, _default(field), told)


def field_helps(options: type) -> dict[str, str]:
    """The docstring below each field, those of inherited fields included, as one paragraph each."""
    from docstring_parser import parse_from_object

    helps: dict[str, str] = {}
    for cls in reversed(options.__mro__):
        if dataclasses.is_dataclass(cls):
            for parameter in parse_from_object(cls).params:
                helps[parameter.arg_name] = " ".join((parameter.description or "").split())
    return helps


def annotation(kind: Any) -> str:
    """A field's type as what may be given for it: text for a path, a mapping for nested options, any sequence."""
    if dataclasses.is_dataclass(kind):
        return _nested(typing.cast(type, kind))
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys(annotation(part) for part in parts))
    if origin is tuple:
        inner = dict.fromkeys(annotation(part) for part in parts if part is not Ellipsis)
        return f"Sequence[{' | '.join(inner)}]"
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, parts))}]".replace("'", '"')
    if kind is Path:
        return PATH
    if kind is type(None):
        return "None"
    return str(kind.__name__)


def _nested(kind: type) -> str:
    return f"{kind.__name__} | Mapping[str, Any]"


def _default(field: dataclasses.Field[Any]) -> str | None:
    if field.default is not dataclasses.MISSING:
        return re.sub(r"'", '"', repr(field.default))
    return None if field.default_factory is dataclasses.MISSING else "{}"


def _has_short_seed(options: type) -> bool:
    kinds = field_types(options)
    return "training" in kinds and "seed" not in kinds
