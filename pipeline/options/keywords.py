"""Keywords of Python to a command's dataclass: the flags of the command line under the names of its fields."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from pipeline.options.packaged import find_config
from pipeline.options.parser import build_parser, complete, field_types, instantiate, say_plainly, short_for
from pipeline.options.yaml_file import check_keys, read_yaml, without_other_heads

Options = TypeVar("Options")


def from_keywords(
    name: str, options: type[Options], keywords: Mapping[str, Any], *, config: str | os.PathLike[str] | None = None
) -> Options:
    """Keywords of the command `name` to its dataclass; they override the config file, which overrides the defaults.

    Nested options are given as in YAML, `training={"epochs": 5}`, or as their dataclass; paths as text, as `Path`, or
    as anything that is one (a store or a run that a command returned); lists as lists or tuples. `seed` is short for
    `training={"seed": ...}`.

    Raises:
        ValueError: an unknown keyword, a wrong type, or a missing one; for what stands in a config file, with its name.
    """
    config_path = None if config is None else find_config(os.fspath(config))
    tree = {} if config_path is None else read_yaml(config_path)
    given = {key: _plain(value) for key, value in keywords.items()}
    chosen = given.get("head") or tree.get("head")
    options = complete(options, lambda: None if chosen is None else str(chosen))
    if config_path is not None:
        tree = without_other_heads(config_path, tree, options)
        check_keys(config_path, tree, options)
    for key, value in given.items():
        _put(tree, short_for(options, key).split("."), value)
    _check_keywords(name, tree, options)
    parser = build_parser(name, options, positional=None)
    try:
        return instantiate(parser, parser.parse_object(tree), options)
    except argparse.ArgumentError as error:
        said = say_plainly(str(error), lambda key: f"{key}=")
        raise ValueError(f"{name}: {said}" if config_path is None else f"{name} ({config_path}): {said}") from error


def _plain(value: Any) -> Any:
    """What a YAML file could say as well."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not isinstance(value, os.PathLike):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _put(tree: dict[str, Any], place: list[str], value: Any) -> None:
    """Set what stands at a place of the tree; a mapping there is added to, as the file's other keys stay."""
    *parents, last = place
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    there = tree.get(last)
    if isinstance(there, dict) and isinstance(value, dict):
        for key, item in value.items():
            _put(there, [key], item)
    else:
        tree[last] = value


def _check_keywords(name: str, tree: Mapping[str, Any], options: type) -> None:
    """Numbers where text is meant, and the like, are jsonargparse's to find; unknown keys are named here."""
    check_keys(f"{name}()", tree, options)
    for key, kind in field_types(options).items():
        if "tuple" in str(kind) and isinstance(tree.get(key), str):
            raise ValueError(f"{name}(): {key}={tree[key]!r}: expected a list, such as {key}=[{tree[key]!r}]")
