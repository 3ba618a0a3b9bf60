"""The house's floors: what may import what."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import encoders
import heads
import pipeline
import synth

FLOORS = (
    ("cli",),
    ("demo", "predict"),
    (
        "pretrain",
        "bsp",
        "lofi",
        "extract",
        "sola",
        "localize",
        "import_features",
        "merge_features",
        "analyze",
        "describe",
    ),
    ("clip_training", "detector", "end_to_end", "figures", "label_choice", "memory_budget"),
    ("boundary_files", "boundary_scores", "joint_batches"),
    ("boundary_clips", "linear_evaluation"),
    (
        "boundary_differences",
        "clip_batches",
        "contact_sheet",
        "encoding",
        "evaluate",
        "fidelity",
        "lofi_batches",
        "places",
        "pretext",
        "refinement",
        "report",
        "run_folder",
        "self_similarity",
        "subsequences",
        "subtitles",
        "training",
        "video_scores",
        "windows",
    ),
    ("data", "config", "flags", "notes"),
)


def _imports(folder: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield from ((file, f"{node.module}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)


def _folder(package: object) -> Path:
    return Path(str(package.__file__)).parent  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", [encoders, heads, synth])
def test_the_lower_packages_never_import_the_pipeline(package: object) -> None:
    upward = [(file.name, name) for file, name in _imports(_folder(package)) if name.split(".")[0] == "pipeline"]
    assert upward == []


def test_heads_import_torch_alone() -> None:
    allowed = {"torch", "heads", *sys.stdlib_module_names}
    found = {name.split(".")[0] for _, name in _imports(_folder(heads))}
    assert found <= allowed


def test_no_stage_imports_one_above_it() -> None:
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    upward = []
    for file, name in _imports(_folder(pipeline)):
        parts = name.split(".")
        if parts[0] == "pipeline" and len(parts) > 1:
            own = "data" if file.parent.name == "data" else file.stem
            if own != "__init__" and floor[parts[1]] < floor[own]:
                upward.append((file.name, name))
    assert upward == []
