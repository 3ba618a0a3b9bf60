"""Which folder may import which: one way, without circles, and nothing below imports the pipeline."""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import encoders
import heads
import pipeline
import synth

# Commands that call other commands, and why.
CALLERS = {
    "demo": "it makes every row of its table by the commands that a user would run",
    "localize": "it ends by scoring what it has found, as `pipeline evaluate` would",
}


def _imports(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.level == 0, f"{file}: a relative import, which this test does not follow"
                yield from ((file, f"{node.module}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)


def _folder(package: object) -> Path:
    return Path(str(package.__file__)).parent  # type: ignore[attr-defined]


def folder_graph(root: Path) -> dict[str, set[str]]:
    """What each folder of a package imports of its other folders: `pipeline.data.video` to `{"pipeline.data"}`."""
    parent = root.parent
    graph: dict[str, set[str]] = defaultdict(set)
    for file, name in _imports(root):
        own = ".".join(file.parent.relative_to(parent).parts)
        parts = name.split(".")
        while parts and not (parent.joinpath(*parts) / "__init__.py").exists():
            parts.pop()  # names in modules and modules in folders
        imported = ".".join(parts)
        if parts and parts[0] == root.name and imported != own:
            graph[own].add(imported)
    return graph


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The folders of a circle, if there is one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", [encoders, heads, synth])
def test_the_lower_packages_never_import_the_pipeline(package: object) -> None:
    upward = [(file.name, name) for file, name in _imports(_folder(package)) if name.split(".")[0] == "pipeline"]
    assert upward == []


def test_heads_import_torch_alone() -> None:
    allowed = {"torch", "heads", *sys.stdlib_module_names}
    found = {name.split(".")[0] for _, name in _imports(_folder(heads))}
    assert found <= allowed


def test_no_two_folders_import_each_other_not_even_through_others() -> None:
    graph = folder_graph(_folder(pipeline))
    assert len(graph) > 20
    assert circle(graph) == []


def test_an_import_turned_round_makes_a_circle(tmp_path: Path) -> None:
    for folder in ("", "low", "low/lower", "high"):
        (tmp_path / "house" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "house" / folder / "__init__.py").touch()
    (tmp_path / "house/high/a.py").write_text("from house.low import b\n")
    (tmp_path / "house/low/b.py").write_text("from house.low.lower.c import thing\n")
    (tmp_path / "house/low/lower/c.py").write_text("thing = 1\n")
    graph = folder_graph(tmp_path / "house")
    assert graph == {"house.high": {"house.low"}, "house.low": {"house.low.lower"}}
    assert circle(graph) == []
    (tmp_path / "house/low/lower/c.py").write_text("def f():\n    import house.high.a\n")
    assert set(circle(folder_graph(tmp_path / "house"))) == {"house.high", "house.low", "house.low.lower"}


def test_commands_that_call_others_are_few() -> None:
    command = "pipeline.commands."
    graph = folder_graph(_folder(pipeline))
    callers = {
        folder.removeprefix(command)
        for folder, imported in graph.items()
        if folder.startswith(command) and any(name.startswith(command) for name in imported)
    }
    assert callers == CALLERS.keys()
    wings = [folder for folder in graph if not folder.startswith((command, "pipeline.door")) and folder != "pipeline"]
    assert {folder for folder in wings if any(name.startswith(command) for name in graph[folder])} <= {command[:-1]}
