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
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.data.files import read_json

CONFIG = "config.yaml"
METRICS = "metrics.json"
LAST_CHECKPOINT = "last.ckpt"

# A finished run is the same wherever it stands and whatever it was computed on.
_FREE_TO_CHANGE = ("out", "training.device", "training.num_workers")


def begin_run(run: Path, config: Any) -> bool:
    """Make the run folder with its config, or go on with the one there.

    A run that has not come to its first checkpoint has nothing to lose, and is begun anew with whatever options.

    Args:
        run: the folder.
        config: the stage's options, its command's dataclass.

    Returns:
        Whether nothing in the folder was made with these options.

    Raises:
        ValueError: the folder holds a run with other options, or other files.
    """
    path, options = run / CONFIG, _plain(dataclasses.asdict(config))
    if path.exists() and ((run / LAST_CHECKPOINT).exists() or is_finished(run)):
        _refuse_other_options(run, _read_yaml(path), options)
        return False
    if not path.exists() and run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise ValueError(f"{run} holds something else than a run (no {CONFIG}); give another --out")
    run.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(options, sort_keys=False)
    # Processes that are started to train along find it there: were they to write it as well, they would collide.
    is_new = not path.exists() or path.read_text(encoding="utf-8") != text
    if is_new:
        write_text(path, text)
    return is_new


def is_finished(run: Path) -> bool:
    """Whether the stage ran to its end there."""
    return (run / METRICS).exists()


def read_run_json(path: Path, *, made_by: str) -> dict[str, Any]:
    """A JSON object of a run folder.

    Args:
        path: the file.
        made_by: the command whose runs have it, for the error.

    Raises:
        FileNotFoundError: there is no such run folder.
        ValueError: the run lacks the file, or it is not a JSON object.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: there is no such run folder; `{made_by}` makes one")
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}, so it is no finished run of `{made_by}`")
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _read_yaml(path: Path) -> dict[str, Any]:
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
