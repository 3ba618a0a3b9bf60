"""A config file in YAML, its keys held against the command's dataclass before anything is parsed."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heads import HEADS
from pipeline.options.parser import field_types


def read_yaml(path: Path) -> dict[str, Any]:
    """The tree of a config file; an empty file is an empty tree.

    Raises:
        ValueError: no YAML, or no `key: value` lines; names the file.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected `key: value` lines at the top, found {type(tree).__name__}")
    return tree


def without_other_heads(source: object, tree: Mapping[str, Any], options: type) -> dict[str, Any]:
    """The tree without what it says to heads that are not chosen, so that one file can serve several heads.

    Raises:
        ValueError: what it says to one of them is no option of that head.
    """
    others = set(HEADS) - set(field_types(options)) if getattr(options, "takes_head_options", False) else set()
    for name in others & set(tree):
        if isinstance(tree[name], dict):
            check_keys(source, tree[name], HEADS[name].options, f"{name}.")
    return {key: value for key, value in tree.items() if key not in others}


def check_keys(source: object, tree: Mapping[str, Any], options: type, prefix: str = "") -> None:
    """Raises ValueError that names `source`, the first key that the dataclass lacks, and those that it has."""
    fields = field_types(options)
    for key, value in tree.items():
        if key not in fields:
            raise ValueError(f"{source}: unknown key {prefix}{key}; the keys there are {', '.join(sorted(fields))}")
        if dataclasses.is_dataclass(fields[key]) and isinstance(value, dict):
            check_keys(source, value, typing.cast(type, fields[key]), f"{prefix}{key}.")
