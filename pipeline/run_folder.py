"""The folder that a training stage writes.

    config.yaml    what was asked for, written first: a rerun with other options is refused
    log.jsonl      losses, learning rate and seconds, a line an epoch
    last.ckpt      the end of the last whole epoch, to resume from; best.ckpt: the best one so far
    *.safetensors  weights, each beside a .json that says how to build what they belong to
    metrics.json   written last: a run that has it is finished

Nothing in it is an absolute path that a reader needs, so a run may be moved.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CONFIG = "config.yaml"
METRICS = "metrics.json"

# A finished run is the same wherever it stands and whatever it was computed on.
_FREE_TO_CHANGE = ("out", "training.device", "training.num_workers")


def begin_run(run: Path, config: Any) -> None:
    """Make the run folder, or check that the one there was begun with the same options.

    Args:
        run: the folder.
        config: the stage's options, a dataclass of `pipeline.config`.

    Raises:
        ValueError: the folder holds a run with other options, or other files.
    """
    asked = _plain(dataclasses.asdict(config))
    path = run / CONFIG
    if path.exists():
        _refuse_other_options(run, read_yaml(path), asked)
        return
    if run.exists() and any(run.iterdir()):
        raise ValueError(f"{run} is not empty and holds no {CONFIG}, so it is no run to go on with; give another --out")
    run.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(asked, sort_keys=False))


def is_finished(run: Path) -> bool:
    """Whether the stage ran to its end there."""
    return (run / METRICS).exists()


def finish_run(run: Path, metrics: Mapping[str, Any]) -> None:
    """Write the metrics, and with them that the run is finished."""
    write_json(run / METRICS, metrics)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: there is no such file in the run folder, or it is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} is no finished run: it has no {path.name}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """The options that a run was begun with."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected `key: value` lines, found {type(content).__name__}; give another --out")
    return content


def _refuse_other_options(run: Path, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    old, new = dict(_leaves(there)), dict(_leaves(asked))
    changed = [key for key in {**old, **new} if key not in _FREE_TO_CHANGE and old.get(key) != new.get(key)]
    if changed:
        lines = "\n".join(f"  {key}: {old.get(key)} there, {new.get(key)} now" for key in changed)
        raise ValueError(
            f"{run} holds a run with other options:\n{lines}\ngive another --out, the same options, or delete it"
        )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _plain(value: Any) -> Any:
    """What YAML knows: paths as text, tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
