"""Writes `pipeline/__init__.pyi`, which tells type checkers and editors what the functions take:

    python -m pipeline.door.stub

A test holds the file to what this makes of the dataclasses.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from pipeline.commands.table import COMMANDS, Command
from pipeline.door.signatures import Argument, arguments, positional
from pipeline.options.parser import first_line, takes_several

RUNTIME: Any = import_module("pipeline")  # type checkers know it by the file that this writes
FILE = Path(RUNTIME.__file__).with_suffix(".pyi")


def stub() -> str:
    """The text of the file."""
    homes: dict[str, list[str]] = {}
    for name, module in RUNTIME.HOMES.items():
        homes.setdefault(module, []).append(f"{name} as {name}")
    imports = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(homes.items())]
    functions = [_function(command) for command in COMMANDS.values()]
    names = ", ".join(f'"{name}"' for name in sorted(RUNTIME.__all__))
    head = [
        "# Written by `python -m pipeline.door.stub`; do not edit.",
        "import os",
        "from collections.abc import Mapping, Sequence",
        "from typing import Any, Literal",
        "",
        *imports,
        "",
        f"__all__ = [{names}]",
        "",
    ]
    return "\n".join([*head, *functions]) + "\n"


def _function(command: Command) -> str:
    returned = " | ".join(part.__name__ for part in _results(command))
    lines = ",\n    ".join(_parameters(command))
    return f'def {command.folder}(\n    {lines},\n) -> {returned}:\n    """{first_line(command.options)}"""\n'


def _results(command: Command) -> tuple[type, ...]:
    kind = get_type_hints(command.run)["return"]
    return tuple(getattr(kind, "__args__", (kind,)))


def _parameters(command: Command) -> Iterator[str]:
    first = positional(command)
    if first is not None and takes_several(command.options, first.name):
        yield f"*{first.name}: str | os.PathLike[str]"
    elif first is not None:
        yield f"{first.name}: {first.annotation}"
        yield "/"
    if first is None or not takes_several(command.options, first.name):
        yield "*"
    # With a config, whatever it gives may be left out.
    yield from map(_parameter, arguments(command))
    if getattr(command.options, "takes_head_options", False):
        yield "**head_options: Any"


def _parameter(argument: Argument) -> str:
    return f"{argument.name}: {argument.annotation} = ..."


if __name__ == "__main__":
    FILE.write_text(stub(), encoding="utf-8")
