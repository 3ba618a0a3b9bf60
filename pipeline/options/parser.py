"""The parser of a command's dataclass, by jsonargparse: types, defaults and help come from the dataclass alone."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from heads import HEADS
from pipeline.options.heads import with_head
from pipeline.options.plugins import Kind, installed

Options = TypeVar("Options")

_NAMED_IN: dict[Kind, str] = {"encoders": "encoder", "heads": "head", "annotations": "annotation_format"}


def build_parser(name: str, options: type, positional: str | None) -> Any:
    """The parser of the command `name`; `positional` is the field that is given without a flag."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    class Parser(ArgumentParser):
        def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
            # Fields are spelt with underscores, flags with hyphens; both are of the same length, so columns stay.
            text = re.sub(r"--[\w.]+", lambda match: match[0].replace("_", "-"), super().format_help(formatter))
            return re.sub(r"<class\s+'(\w+)'>", r"\1", text)

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = Parser(
        prog=f"pipeline {name}",
        description=first_line(options),
        epilog=_names(options),
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="A YAML file, or the name of a packaged one.")
    if positional is not None:
        parser.add_argument(positional, type=Path, nargs="+" if takes_several(options, positional) else None)
    parser.add_class_arguments(options, skip={positional} - {None})
    return parser


def complete(options: type[Options], head: Callable[[], str | None]) -> type[Options]:
    """A command's dataclass with the options of the chosen head, where it takes a head's options at all.

    Args:
        options: the dataclass.
        head: the name that flags, file or keywords give; None if they give none.
    """
    if not getattr(options, "takes_head_options", False):
        return options
    plain: Any = options
    made: type[Options] = with_head(plain, head() or plain.head)
    return made


def instantiate(parser: Any, namespace: Any, options: type[Options]) -> Options:
    """The dataclass of what was parsed."""
    parsed = vars(parser.instantiate(namespace))
    parsed.pop("config", None)
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in parsed.items()})


def first_line(options: type) -> str:
    """What a command does, in one line: the first of its dataclass's docstring."""
    return (options.__doc__ or "").splitlines()[0]


def takes_several(options: type, name: str) -> bool:
    """Whether a field is a tuple."""
    return "tuple" in str(typing.get_type_hints(options)[name])


def leaves(options: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of each field that is no dataclass itself."""
    for name, kind in field_types(options).items():
        if dataclasses.is_dataclass(kind):
            yield from leaves(typing.cast(type, kind), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def field_types(options: type) -> dict[str, Any]:
    """Each field's type."""
    hints = typing.get_type_hints(options)
    return {field.name: hints[field.name] for field in dataclasses.fields(typing.cast(Any, options))}


def short_for(options: type, name: str) -> str:
    """The dotted name of a field, where `name` may be short for one: `seed` for `training.seed`."""
    fields = field_types(options)
    return "training.seed" if name == "seed" and "seed" not in fields and "training" in fields else name


def say_plainly(message: str, spell: Callable[[str], str]) -> str:
    """jsonargparse's wording in ours: the missing options as `spell` spells them, and no Python class names."""
    required = re.fullmatch(r"the following arguments are required: (.*)", message)
    if required is not None:
        return "required: " + ", ".join(map(spell, required[1].split(", ")))
    return re.sub(r"<class '(\w+)'>", r"\1", message)


def _names(options: type) -> str | None:
    """The names that options take, where they can be told without importing what they name."""
    ours = [f"heads: {', '.join(HEADS)}"] if getattr(options, "takes_head_options", False) else []
    lines = ours + [
        f"{kind} of installed packages: {', '.join(names)}"
        for kind, field in _NAMED_IN.items()
        if field in field_types(options) and (names := installed(kind))
    ]
    return "; ".join(lines) or None
