"""The command line: the first word is the command, the rest fills that command's dataclass (`pipeline.config`).

    pipeline COMMAND [--config NAME_OR_PATH] [--flag value ...]

A stage, and with it torch, is imported only when its command runs, so that help and mistyped flags answer at once.
Exit codes: 0 all that was asked was done; 1 something failed, and what was finished stays; 2 the call was wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import config as options


class Command(NamedTuple):
    """What a word on the command line stands for."""

    options: type
    module: str  # its `run(options) -> exit code`
    positional: str | None = None


COMMANDS = {
    "demo": Command(options.DemoConfig, "pipeline.demo"),
    "extract": Command(options.ExtractConfig, "pipeline.extract"),
    "pretrain": Command(options.PretrainConfig, "pipeline.pretrain"),
    "localize": Command(options.LocalizeConfig, "pipeline.localize"),
    "predict": Command(options.PredictConfig, "pipeline.predict", positional="video"),
    "evaluate": Command(options.EvaluateConfig, "pipeline.evaluate"),
    "describe": Command(options.DescribeConfig, "pipeline.describe", positional="path"),
    "import-features": Command(options.ImportFeaturesConfig, "pipeline.import_features"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the console script `pipeline`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("tal-pipeline"))
        return 0
    if words[0] not in COMMANDS:
        return _fail(f"there is no command {words[0]!r}; the commands are {', '.join(COMMANDS)}", code=2)
    try:
        parsed = parse(words[0], words[1:])
    except (argparse.ArgumentError, ValueError, OSError) as error:
        return _fail(f"{_one_line(error)}\n(pipeline {words[0]} --help lists the flags)", code=2)
    return _run(COMMANDS[words[0]], parsed)


def parse(name: str, argv: Sequence[str]) -> Any:
    """Flags of one command to its dataclass.

    Flags override the config file, which overrides the defaults. `--ground-truth` and `--ground_truth` are the same;
    a list is written with commas.

    Raises:
        ValueError: an unknown key, a wrong type or a missing flag; for what stands in a config file, with its name.
    """
    command = COMMANDS[name]
    config_path, argv = _take_config(list(argv))
    argv = _spell_like_fields(argv, command.options)
    parser = _build_parser(name, command)
    try:
        if config_path is None:
            namespace = parser.parse_args(argv)
        else:
            _check_keys(config_path, command.options)
            namespace = parser.parse_args([f"--config={config_path}", *argv])
    except argparse.ArgumentError as error:
        raise ValueError(_name_config(_say_plainly(str(error), command), config_path, argv)) from error
    parsed = vars(parser.instantiate(namespace))
    parsed.pop("config", None)
    if command.positional == "video":
        parsed["video"] = tuple(parsed["video"])
    return command.options(**parsed)


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


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {_first_line(command.options)}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: pipeline COMMAND [--config NAME_OR_PATH] [--flag value ...]",
            "",
            "From raw video to localized actions.",
            "",
            *lines,
            "",
            "pipeline COMMAND --help lists a command's flags. PIPELINE_DEBUG=1 shows the traceback of an error.",
        ]
    )


def _first_line(options_class: type) -> str:
    return (options_class.__doc__ or "").splitlines()[0]


def _build_parser(name: str, command: Command) -> Any:
    from jsonargparse import ArgumentParser, set_parsing_settings

    class Parser(ArgumentParser):
        def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
            # Fields are spelt with underscores, flags with hyphens; both are of the same length, so columns stay.
            text = re.sub(r"--[\w.]+", lambda match: match[0].replace("_", "-"), super().format_help(formatter))
            return re.sub(r"<class\s+'(\w+)'>", r"\1", text)

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = Parser(
        prog=f"pipeline {name}", description=_first_line(command.options), exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--config", action="config", help="A YAML file, or the name of a packaged one.")
    skip = set()
    if command.positional == "video":
        parser.add_argument("video", nargs="+", type=Path, help="Video files, or folders of them.")
    elif command.positional is not None:
        parser.add_argument(command.positional, type=Path)
    if command.positional is not None:
        skip.add(command.positional)
    parser.add_class_arguments(command.options, skip=skip)
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


def _spell_like_fields(argv: list[str], options_class: type) -> list[str]:
    """`--ground-truth` to `--ground_truth`, `--all` to `--all=true`, and `0.3,0.5` to `[0.3,0.5]` for a tuple."""
    kinds = dict(_leaves(options_class))
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


def _leaves(options_class: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of each field that is no dataclass itself."""
    for name, kind in typing.get_type_hints(options_class).items():
        if dataclasses.is_dataclass(kind):
            yield from _leaves(typing.cast(type, kind), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def _check_keys(path: Path, options_class: type) -> None:
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {_one_line(error)}") from error
    if tree is None:
        return
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected `key: value` lines at the top, found {type(tree).__name__}")
    _check_tree(path, tree, options_class, "")


def _check_tree(path: Path, tree: dict[str, Any], options_class: type, prefix: str) -> None:
    fields = typing.get_type_hints(options_class)
    for key, value in tree.items():
        if key not in fields:
            raise ValueError(f"{path}: unknown key {prefix}{key}; the keys there are {', '.join(sorted(fields))}")
        if dataclasses.is_dataclass(fields[key]) and isinstance(value, dict):
            _check_tree(path, value, typing.cast(type, fields[key]), f"{prefix}{key}.")


def _say_plainly(message: str, command: Command) -> str:
    """jsonargparse's wording in ours: the missing flags as they are typed, and no Python class names."""
    required = re.fullmatch(r"the following arguments are required: (.*)", message)
    if required is not None:
        keys = required[1].split(", ")
        flags = (key.upper() if key == command.positional else f"--{key.replace('_', '-')}" for key in keys)
        return "required: " + ", ".join(flags)
    return re.sub(r"<class '(\w+)'>", r"\1", message)


def _name_config(message: str, path: Path | None, argv: list[str]) -> str:
    """Say which file a bad value stands in, unless a flag gave it."""
    found = re.search(r'[Kk]ey "([^"]+)"', message)
    if path is None or found is None or any(word.split("=")[0] == f"--{found[1]}" for word in argv):
        return message
    return f"{path}: {message}"


def _run(command: Command, parsed: Any) -> int:
    try:
        return int(importlib.import_module(command.module).run(parsed))
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished stays, and the same command goes on from there", code=130)
    except BrokenPipeError:  # `pipeline describe … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError) as error:
        if os.environ.get("PIPELINE_DEBUG"):
            raise
        return _fail(str(error), code=1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _fail(message: str, *, code: int) -> int:
    print(f"pipeline: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
