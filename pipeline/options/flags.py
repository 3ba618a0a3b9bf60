"""Flags and YAML files to a command's dataclass, in the forms that we promise."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from pipeline.options.packaged import find_config
from pipeline.options.parser import build_parser, complete, instantiate, leaves, say_plainly, short_for
from pipeline.options.yaml_file import check_keys, read_yaml, without_other_heads

Options = TypeVar("Options")


def parse(name: str, options: type[Options], argv: Sequence[str], *, positional: str | None = None) -> Options:
    """Flags of the command `name` to its dataclass.

    Flags override the config file, which overrides the defaults. `--ground-truth` and `--ground_truth` are the same;
    a list is written with commas; `--seed` is short for `--training.seed`. `positional` is the field that is given
    without a flag; a tuple takes several words.

    Raises:
        ValueError: an unknown key, a wrong type or a missing flag; for what stands in a config file, with its name.
    """
    config_path, words = _take_config(list(argv))
    tree = {} if config_path is None else read_yaml(config_path)
    options = _with_chosen_head(options, words, config_path, tree.get("head"))
    words = _spell_like_fields(words, options)
    parser = build_parser(name, options, positional)
    try:
        if config_path is None:
            namespace = parser.parse_args(words)
        else:
            tree = without_other_heads(config_path, tree, options)
            check_keys(config_path, tree, options)
            namespace = parser.parse_args([f"--config={json.dumps(tree, default=str)}", *words])
    except argparse.ArgumentError as error:
        said = say_plainly(str(error), lambda key: key.upper() if key == positional else _as_flag(key))
        raise ValueError(_name_config(said, config_path, words)) from error
    return instantiate(parser, namespace, options)


def _with_chosen_head(options: type[Options], words: list[str], path: Path | None, in_file: object) -> type[Options]:
    """The dataclass with the options of the head that `--head` names, else the file, else the default."""
    given = [after for word, after in pairwise(words) if word == "--head"]
    given += [word.partition("=")[2] for word in words if word.startswith("--head=")]
    if given or in_file is None:
        return complete(options, lambda: given[-1] if given else None)
    try:
        return complete(options, lambda: str(in_file))
    except ValueError as error:
        raise ValueError(f"{path}: head: {error}") from error


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
    kinds = dict(leaves(options))
    lists = {key for key, kind in kinds.items() if "tuple" in str(kind)}
    spelt: list[str] = []
    for word in argv:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            key = short_for(options, flag[2:].replace("-", "_"))
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


def _as_flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _name_config(message: str, path: Path | None, argv: list[str]) -> str:
    """Say which file a bad value stands in, unless a flag gave it."""
    found = re.search(r'[Kk]ey "([^"]+)"', message)
    if path is None or found is None or any(word.split("=")[0] == f"--{found[1]}" for word in argv):
        return message
    return f"{path}: {message}"
