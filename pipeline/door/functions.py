"""Every command as a function: its flags as keywords, its outcome as a value, its errors as exceptions.

Nothing about an option is said here: types, defaults, help and errors come from the command's dataclass.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.table import COMMANDS, Command
from pipeline.door.signatures import PATH, Argument, arguments, positional
from pipeline.options.keywords import from_keywords
from pipeline.options.parser import first_line, takes_several
from pipeline.terminal.notes import listen
from pipeline.terminal.outcome import Outcome

if TYPE_CHECKING:
    from pipeline.detection.run import Run


def function_named(name: str) -> Callable[..., Outcome]:
    """The function of a command, called as its folder below `pipeline/commands/` is."""
    return function_of(next(command for command in COMMANDS.values() if command.folder == name))


def function_of(command: Command) -> Callable[..., Outcome]:
    """The command as a function."""

    def call(
        *given: Any, config: str | os.PathLike[str] | None = None, progress: bool = False, **keywords: Any
    ) -> Outcome:
        options = from_keywords(
            command.folder, command.options, {**_by_name(command, given), **keywords}, config=config
        )
        with listen(progress=progress) as heard:
            made = command.run(options)
        return dataclasses.replace(made, notes=tuple(heard.notes))

    call.__name__ = call.__qualname__ = command.folder
    call.__module__ = "pipeline"
    call.__doc__ = _docstring(command)
    call.__signature__ = _signature(command)  # type: ignore[attr-defined]
    return call


def load(path: str | os.PathLike[str], *, encoder: str | tuple[str, ...] = (), head: str | None = None) -> Run:
    """A run folder of `localize`, ready to predict.

    Args:
        path: the folder; it may have been made on another machine.
        encoder: names of encoders that it was made with, if they are others' own (`package.module:build`) and no part
            of an installed package: a run imports nothing that is not named here or installed.
        head: likewise its head, `package.module:MyHead`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no finished run, its files do not fit each other, or it needs a name that is not given.
    """
    from pipeline.detection.run import Run

    named = (encoder,) if isinstance(encoder, str) else tuple(encoder)
    return Run.load(Path(path), named=named if head is None else (*named, head))


def _by_name(command: Command, given: tuple[Any, ...]) -> dict[str, Any]:
    """What was given without a name, under the name of the field that it is for."""
    if not given:
        return {}
    if command.positional is None:
        raise TypeError(f"{command.folder}() takes its options by name, such as {command.folder}(out=...)")
    if takes_several(command.options, command.positional):
        return {command.positional: list(given)}
    if len(given) > 1:
        raise TypeError(f"{command.folder}() takes one {command.positional}, {len(given)} were given")
    return {command.positional: given[0]}


def _docstring(command: Command) -> str:
    first = positional(command)
    named = [*([first] if first else []), *arguments(command)]
    lines = [textwrap.fill(f"{name}: {text}", 110, subsequent_indent="    ") for name, _, _, text in named]
    raises = [
        "FileNotFoundError: something that was named is not there.",
        "ValueError: an option or a file cannot be used; the message says what was found and what to do.",
    ]
    return "\n".join(
        [
            first_line(command.options),
            "",
            "Args:",
            *(textwrap.indent(line, "    ") for line in lines),
            "",
            "Raises:",
            *(f"    {line}" for line in raises),
        ]
    )


def _signature(command: Command) -> inspect.Signature:
    first = positional(command)
    several = first is not None and takes_several(command.options, first.name)
    kind = inspect.Parameter.VAR_POSITIONAL if several else inspect.Parameter.POSITIONAL_ONLY
    parameters = [] if first is None else [inspect.Parameter(first.name, kind, annotation=_Source(PATH))]
    parameters += [_keyword(argument) for argument in arguments(command)]
    return inspect.Signature(parameters)


def _keyword(argument: Argument) -> inspect.Parameter:
    default = inspect.Parameter.empty if argument.default is None else _Source(argument.default)
    return inspect.Parameter(
        argument.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_Source(argument.annotation)
    )


class _Source(str):
    """A default or a type that is shown as it would be written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
