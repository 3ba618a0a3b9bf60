"""Flags and YAML files to a command's dataclass, by jsonargparse, in the forms that we promise."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

Options = TypeVar("Options")


def parse(name: str, options: type[Options], argv: Sequence[str], *, positional: str | None = None) -> Options:
    """Flags of the command `name` to its dataclass.

    Flags override the config file, which overrides the defaults. `--ground-truth` and `--ground_truth` are the same;
    a list is written with commas. `positional` is the field that is given without a flag; a tuple takes several words.

    Raises:
        ValueError: an unknown key, a wrong type or a missing flag; for what stands in a config file, with its name.
    """
    config_path, words = _take_config(list(argv))
    words = _spell_like_fields(words, options)
    parser = _build_parser(name, options, positional)
    try:
        if config_path is None:
            namespace = parser.parse_args(words)
        else:
            _check_keys(config_path, options)
            namespace = parser.parse_args([f"--config={config_path}", *words])
    except argparse.ArgumentError as error:
        raise ValueError(_name_config(_say_plainly(str(error), positional), config_path, words)) from error
    parsed = vars(parser.instantiate(namespace))
    parsed.pop("config", None)
    if positional is not None and isinstance(parsed[positional], list):
        parsed[positional] = tuple(parsed[positional])
    return options(**parsed)


def find_config(name_or_path: str) -> Path:
    """A YAML file by its path, or by the name of one that comes with the package, such as `thumos14/localize_gtad`."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    root = Path(str(files("configs")))
    packaged = root / f"{name_or_path}.yaml"
    if packaged.is_file():
        return packaged
    names = sorted(str(p.relative_to(root).with_suffix("")) for p in root.rglob("*.yaml"))
    raise ValueError(
        f"--config {name_or_path}: no such file, and no config of that name; the names are {', '.join(names)}"
    )


def first_line(options: type) -> str:
    """What a command does, in one line: the first of its dataclass's docstring."""
    return (options.__doc__ or "").splitlines()[0]


def _build_parser(name: str, options: type, positional: str | None) -> Any:
    from jsonargparse import ArgumentParser, set_parsing_settings

    class Parser(ArgumentParser):
        def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
            # Fields are spelt with underscores, flags with hyphens; both are of the same length, so columns stay.
            text = re.sub(r"--[\w.]+", lambda match: match[0].replace("_", "-"), super().format_help(formatter))
            return re.sub(r"<class\s+'(\w+)'>", r"\1", text)

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = Parser(prog=f"pipeline {name}", description=first_line(options), exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="A YAML file, or the name of a packaged one.")
    if positional is not None:
        several = "tuple" in str(typing.get_type_hints(options)[positional])
        parser.add_argument(positional, type=Path, nargs="+" if several else None)
    parser.add_class_arguments(options, skip={positional} - {None})
    return parser


def _take_config(argv: list[str]) -> tuple[Path | None, list[str]]:
    """Split off `--config X`, wherever it stands, so that flags override it regardless of their order."""
    for position, word in enumerate(argv):
        if word == "--config":
            if position + 1 == len(argv):
                raise ValueError("--config needs the name of a config or the path of a YAML file")
            return find_config(argv[position + 1]), argv[:position] + argv[position + 2 :]
        if word.startswith("--config="):
            return find_config(word.partition("=")[2]), argv[:position] + argv[position + 1 :]
    return None, argv


def _spell_like_fields(argv: list[str], options: type) -> list[str]:
    """`--ground-truth` to `--ground_truth`, `--all` to `--all=true`, and `0.3,0.5` to `[0.3,0.5]` for a tuple."""
    kinds = dict(_leaves(options))
    lists = {key for key, kind in kinds.items() if "tuple" in str(kind)}
    spelt: list[str] = []
    for word in argv:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            key = flag[2:].replace("-", "_")
            if kinds.get(key) is bool and not equals:
                spelt.append(f"--{key}=true")
            else:
                spelt.append(f"--{key}" + equals + (_bracket(value) if key in lists and equals else value))
        elif spelt and spelt[-1].startswith("--") and spelt[-1][2:] in lists:
            spelt.append(_bracket(word))
        else:
            spelt.append(word)
    return spelt


def _bracket(value: str) -> str:
    return value if value.startswith("[") or value in ("null", "None") else f"[{value}]"


def _leaves(options: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of each field that is no dataclass itself."""
    for name, kind in typing.get_type_hints(options).items():
        if dataclasses.is_dataclass(kind):
            yield from _leaves(typing.cast(type, kind), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def _check_keys(path: Path, options: type) -> None:
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if tree is None:
        return
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected `key: value` lines at the top, found {type(tree).__name__}")
    _check_tree(path, tree, options, "")


def _check_tree(path: Path, tree: dict[str, Any], options: type, prefix: str) -> None:
    fields = typing.get_type_hints(options)
    for key, value in tree.items():
        if key not in fields:
            raise ValueError(f"{path}: unknown key {prefix}{key}; the keys there are {', '.join(sorted(fields))}")
        if dataclasses.is_dataclass(fields[key]) and isinstance(value, dict):
            _check_tree(path, value, typing.cast(type, fields[key]), f"{prefix}{key}.")


def _say_plainly(message: str, positional: str | None) -> str:
    """jsonargparse's wording in ours: the missing flags as they are typed, and no Python class names."""
    required = re.fullmatch(r"the following arguments are required: (.*)", message)
    if required is not None:
        keys = required[1].split(", ")
        flags = (key.upper() if key == positional else f"--{key.replace('_', '-')}" for key in keys)
        return "required: " + ", ".join(flags)
    return re.sub(r"<class '(\w+)'>", r"\1", message)


def _name_config(message: str, path: Path | None, argv: list[str]) -> str:
    """Say which file a bad value stands in, unless a flag gave it."""
    found = re.search(r'[Kk]ey "([^"]+)"', message)
    if path is None or found is None or any(word.split("=")[0] == f"--{found[1]}" for word in argv):
        return message
    return f"{path}: {message}"
