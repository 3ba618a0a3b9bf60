"""What the manual says of the code is made of the code: MkDocs calls this for every page.

A line `<!-- made: NAME WORDS -->` in a page becomes what `MAKERS[NAME](*WORDS)` returns: flags from the dataclasses of
the commands, functions from `pipeline.door`, configs from their files, and the rooms from the packages' docstrings and
imports. Nothing here imports MkDocs, so that the tests can do without it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the code beside the manual, whatever else is installed

from encoders import ENCODERS, build_encoder  # noqa: E402
from heads import HEADS  # noqa: E402
from pipeline.commands.table import COMMANDS, Command  # noqa: E402
from pipeline.door.functions import function_named  # noqa: E402
from pipeline.door.signatures import arguments, field_helps  # noqa: E402
from pipeline.options.parser import field_types, first_line, short_for, takes_several  # noqa: E402

PACKAGES = ("pipeline", "encoders", "heads", "synth", "configs")
PLACE = re.compile(r"^<!-- made: (?P<words>[^>]+?) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page's text with everything in it that is made. ValueError if it asks for what nothing makes."""
    return PLACE.sub(lambda match: _make(*match["words"].split()), markdown)


def _make(name: str, *words: str) -> str:
    if name not in MAKERS:
        raise ValueError(f"<!-- made: {name} -->: nothing makes that; there are {', '.join(MAKERS)}")
    return MAKERS[name](*words)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table whose cells are Markdown."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def prose(text: str) -> str:
    """A docstring's paragraph as Markdown: what is no code must not look like HTML."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*") for part in parts)


def code(text: str) -> str:
    return f"`{text}`"


# --- Commands ---------------------------------------------------------------------------------------------------------


class Flag(NamedTuple):
    """A flag as it is typed, such as `--training.epochs`; what is given without a flag has a name in capitals."""

    name: str
    kind: str
    default: str | None  # None: it must be given
    help: str


class FlagGroup(NamedTuple):
    """The flags of a dataclass: those of the command itself, or those that share a prefix."""

    prefix: str  # such as `--training`; empty for the command's own
    about: str
    flags: list[Flag]


def flag_groups(command: Command) -> Iterator[FlagGroup]:
    """Every flag of a command: its own first, then those of each dataclass within, then those of each head."""
    own, nested = _split(command.options, prefix="", defaults=None, positional=command.positional)
    own += [
        Flag(f"--{argument.name}", "text or path", "", argument.help)
        for argument in arguments(command)
        if argument.name == "config"
    ]
    if (seed := short_for(command.options, "seed")) != "seed":
        own.append(Flag("--seed", "whole number", "", f"Short for `--{seed}`."))
    yield FlagGroup("", first_line(command.options), own)
    yield from nested
    if getattr(command.options, "takes_head_options", False):
        for name, entry in HEADS.items():
            flags, _ = _split(entry.options, prefix=f"{name}.", defaults=entry.options())
            yield FlagGroup(f"--{name}", first_line(entry.options), flags)


def _split(
    options: type, *, prefix: str, defaults: Any, positional: str | None = None
) -> tuple[list[Flag], list[FlagGroup]]:
    """The fields of a dataclass: those that are flags, and the groups of those that are dataclasses.

    Args:
        options: the dataclass.
        prefix: what stands before the names of its fields, such as `training.`.
        defaults: an instance whose values are the defaults; None: those of the fields.
        positional: the field that is given without a flag.
    """
    flags: list[Flag] = []
    groups: list[FlagGroup] = []
    helps, kinds = field_helps(options), field_types(options)
    for field in dataclasses.fields(options):
        key, kind = f"{prefix}{field.name}", kinds[field.name]
        default = _default(field) if defaults is None else getattr(defaults, field.name)
        inner = _dataclass_in(kind)
        if inner is None:
            name = field.name.upper() if field.name == positional else f"--{key.replace('_', '-')}"
            flags.append(Flag(name, kind_of_flag(kind), _spelt(default), helps.get(field.name, "")))
            continue
        start = default if dataclasses.is_dataclass(default) else inner()
        within, deeper = _split(inner, prefix=f"{key}.", defaults=start)
        about = helps.get(field.name) or first_line(inner)
        groups += [FlagGroup(f"--{key.replace('_', '-')}", about, within), *deeper]
    return flags, groups


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _dataclass_in(kind: Any) -> type | None:
    """The dataclass that a field holds, if it holds one, be it optional."""
    found = [part for part in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(part)]
    return typing.cast(type, found[0]) if found else None


def kind_of_flag(kind: Any) -> str:
    """A type as one types it."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return kind_of_flag(next(part for part in parts if part is not type(None)))
    if origin is tuple:
        several = Ellipsis in parts or len(parts) > 1
        return kind_of_flag(parts[0]) + (", several with commas" if several else "")
    if origin is Literal:
        return ", ".join(code(str(part)) for part in parts)
    return {Path: "path", bool: "`true`, `false`", int: "whole number", float: "number", str: "text"}[kind]


def _spelt(default: Any) -> str | None:
    """A default as one would type it; nothing where leaving it out is a choice of its own, which the help tells."""
    if default is dataclasses.MISSING:
        return None
    if default is None or default == ():
        return ""
    if isinstance(default, tuple):
        return f"<code>{',<wbr>'.join(map(str, default))}</code>"  # a long one goes on in the next line
    return code(str(default).lower() if isinstance(default, bool) else str(default))


def call(word: str, command: Command) -> str:
    """The call of a command with what it cannot do without."""
    own = next(flag_groups(command)).flags
    words = ["pipeline", word]
    for flag in own:
        if flag.default is None:
            several = takes_several(command.options, flag.name.lower()) if not flag.name.startswith("--") else False
            value = flag.name.lstrip("-").replace("-", "_").upper()
            words.append(value + ("..." if several else "") if flag.name == value else f"{flag.name} {value}")
    return " ".join([*words, "[--flag value ...]"])


def anchor(word: str) -> str:
    """Where the reference of a command stands."""
    return f"command-{word}"


def link(word: str, text: str | None = None) -> str:
    """A link to the reference of a command."""
    return f"[`{text or word}`][{anchor(word)}]"


def make_commands() -> str:
    """Every command: what it does, its call, its flags."""
    return "\n".join(map("\n".join, (_command(word, command) for word, command in COMMANDS.items())))


def _command(word: str, command: Command) -> Iterator[str]:
    yield f"## pipeline {word} {{#{anchor(word)}}}\n"
    yield f"{prose(first_line(command.options))}\n"
    yield f"```text\n{call(word, command)}\n```\n"
    yield f"From Python: [`pipeline.{command.folder}`][pipeline.{command.folder}].\n"
    for group in flag_groups(command):
        if group.prefix:
            yield f"### {code(group.prefix + '.*')} {{#{anchor(word)}{group.prefix[1:].replace('.', '-')}}}\n"
            yield f"{prose(group.about)}\n"
        yield table(("flag", "type", "default", "help"), map(_row_of_flag, group.flags))
    if names := _config_names(word):
        yield f"Packaged configs: {', '.join(map(code, names))}.\n"


def _row_of_flag(flag: Flag) -> list[str]:
    return [code(flag.name), flag.kind, "**required**" if flag.default is None else flag.default, prose(flag.help)]


def make_command_list() -> str:
    """A line for each command."""
    rows = ([link(word, f"pipeline {word}"), prose(first_line(command.options))] for word, command in COMMANDS.items())
    return table(("command", "what it does"), rows)


# --- Configs ----------------------------------------------------------------------------------------------------------


def _configs() -> dict[str, Path]:
    folder = ROOT / "configs"
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}


def command_of(config: str) -> str:
    """The command that a config is for, which its name begins with."""
    stem = config.rpartition("/")[2]
    return next(word for word in COMMANDS if stem == word or stem.startswith(f"{word}_"))


def _config_names(word: str) -> list[str]:
    return [name for name in _configs() if command_of(name) == word]


def make_configs(folder: str) -> str:
    """The configs of a folder below `configs/`, each with what its first comment says."""
    rows = [
        [code(name), link(command_of(name)), prose(_first_comment(file))]
        for name, file in _configs().items()
        if name.startswith(f"{folder}/")
    ]
    return table(("config", "of", "what it says of itself"), rows)


def _first_comment(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    return " ".join(line.lstrip("# ") for line in comment)


# --- Encoders ---------------------------------------------------------------------------------------------------------


def make_encoders() -> str:
    """Every encoder with its snippet, as it knows itself."""
    rows = []
    for name in ENCODERS:
        encoder = build_encoder(name, weights="random")
        rate = "the video's own" if encoder.fps is None else f"{encoder.fps:g}"
        numbers = (encoder.num_frames, encoder.frame_stride, encoder.size, encoder.channels)
        rows.append([code(name), encoder.modality, *map(str, numbers), rate])
    header = ("encoder", "sees", "frames", "frame stride", "size", "channels", "frames a second")
    return table(header, rows)


# --- Python -----------------------------------------------------------------------------------------------------------


def make_functions() -> str:
    """Every command as a function: signature, arguments, result."""
    return "\n".join(map("\n".join, (_function(word, command) for word, command in COMMANDS.items())))


def _function(word: str, command: Command) -> Iterator[str]:
    from docstring_parser import parse

    function = function_named(command.folder)
    said = parse(function.__doc__ or "")
    results = list(_results(command))
    shown = " | ".join(result.__name__ for result in results)
    yield f"### pipeline.{command.folder} {{#pipeline.{command.folder}}}\n"
    yield f"{prose(said.short_description or '')}\n"
    yield f"```python\n{_signature(command.folder, inspect.signature(function), shown)}\n```\n"
    links = " or ".join(f"[`{result.__name__}`][{result.__module__}.{result.__qualname__}]" for result in results)
    yield f"Returns {links}. As a command: {link(word)}.\n"
    yield "Raises:\n"
    yield (
        "\n".join(f"- {code(error.type_name or '')}: {prose(error.description or '')}" for error in said.raises) + "\n"
    )
    yield '\n??? abstract "Arguments"\n'
    rows = ([code(argument.arg_name), prose(argument.description or "")] for argument in said.params)
    yield _indented(table(("argument", "what it is"), rows))


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _signature(name: str, signature: inspect.Signature, returned: str) -> str:
    """As Python would have it, a line for each argument."""
    lines: list[str] = []
    for parameter in signature.parameters.values():
        shown = f"{parameter.name}: {parameter.annotation}"
        if parameter.kind is parameter.VAR_POSITIONAL:
            shown = f"*{shown}"
        elif parameter.kind is parameter.KEYWORD_ONLY and "*" not in "".join(lines):
            lines.append("*,")
        if parameter.default is not parameter.empty:
            shown += f" = {parameter.default}"
        lines.append(f"{shown},")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            lines.append("/,")
    body = "\n".join(f"    {line}" for line in lines)
    return f"pipeline.{name}(\n{body}\n) -> {returned}"


def _results(command: Command) -> Iterator[type]:
    kind = typing.get_type_hints(command.run)["return"]
    yield from typing.get_args(kind) or (kind,)


def make_classes(which: str) -> str:
    """mkdocstrings' places for the public classes: the `options` that stand within others, or the `results`."""
    runtime: Any = import_module("pipeline")  # type checkers know it by its stub
    homes = {name: home for name, home in runtime.HOMES.items() if name[0].isupper()}
    chosen = [name for name, home in homes.items() if (home.endswith(".options")) == (which == "options")]
    return "\n\n".join(f"::: {homes[name]}.{name}" for name in chosen) + "\n"


# --- Rooms ------------------------------------------------------------------------------------------------------------


def make_rooms() -> str:
    """The folders below `pipeline/` but for the commands': what lives in each, and which others it imports."""
    rows = []
    for folder in _folders("pipeline"):
        if folder.parent.name == "commands" or folder == ROOT / "pipeline":
            continue
        rows.append([code(_room(folder)), prose(_docstring(folder / "__init__.py")), _listed(folder)])
    return table(("folder", "what lives there", "imports"), rows)


def make_command_rooms() -> str:
    """The folders of the commands, and which others each imports."""
    folders = [folder for folder in _folders("pipeline") if folder.parent.name == "commands"]
    return table(("folder", "imports"), ([code(_room(folder)), _listed(folder)] for folder in folders))


def make_packages() -> str:
    """The folders at the top: what lives in each, and what it imports of ours and of others."""
    rows = []
    for package in PACKAGES:
        files = list((ROOT / package).rglob("*.py"))
        names = {name.split(".")[0] for file in files for name in _imported_names(ast.parse(file.read_text("utf-8")))}
        names -= {package, "__future__", *sys.stdlib_module_names}
        said = _docstring(ROOT / package / "__init__.py")
        rows.append([code(f"{package}/"), prose(said), ", ".join(map(code, sorted(names)))])
    return table(("folder", "what lives there", "imports"), rows)


def _listed(folder: Path) -> str:
    """The folders that a folder imports; the many below `commands/` as one."""
    rooms = {re.sub(r"^(commands/).*", r"\1", room) for room in _imports(folder)}
    return ", ".join(map(code, sorted(rooms - {_room(folder)})))


def make_places() -> str:
    """What CONTRIBUTING says of where things are put."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.partition("## Where do I put …\n")[2].partition("\n## ")[0]


def make_files(package: str) -> str:
    """The files of a package, folder by folder, each with the first line of its docstring."""
    lines = []
    for folder in _folders(package):
        files = [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
        if files:
            lines += [f"### `{_room(folder)}`\n", table(("file", "what it is"), map(_row_of_file, files))]
    return "\n".join(lines)


def _row_of_file(file: Path) -> list[str]:
    return [code(file.name), prose(_docstring(file))]


def _folders(package: str) -> Iterator[Path]:
    """Those that are packages, the outer one first."""
    for file in sorted((ROOT / package).rglob("__init__.py")):
        yield file.parent


def _room(folder: Path) -> str:
    """A folder below `pipeline/` without that, another one whole."""
    room = f"{folder.relative_to(ROOT).as_posix()}/"
    return room.removeprefix("pipeline/") or room


def _docstring(file: Path) -> str:
    """The first paragraph of a module's docstring."""
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return said.split("\n\n")[0]


def _imports(folder: Path) -> set[str]:
    """The other folders of ours that the files of a folder import, as paths."""
    found = set()
    for file in folder.glob("*.py"):
        for name in _imported_names(ast.parse(file.read_text(encoding="utf-8"))):
            parts = name.split(".")
            while parts and not (ROOT.joinpath(*parts) / "__init__.py").exists():
                parts.pop()  # names in modules and modules in folders
            if parts and parts[0] in PACKAGES and ROOT.joinpath(*parts) != folder:
                found.add(_room(ROOT.joinpath(*parts)))
    return found


def _imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


MAKERS: dict[str, Callable[..., str]] = {
    "command-list": make_command_list,
    "commands": make_commands,
    "configs": make_configs,
    "encoders": make_encoders,
    "functions": make_functions,
    "classes": make_classes,
    "packages": make_packages,
    "rooms": make_rooms,
    "command-rooms": make_command_rooms,
    "places": make_places,
    "files": make_files,
}
