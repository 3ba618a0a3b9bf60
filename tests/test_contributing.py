"""CONTRIBUTING's table of folders, and its "Where do I put …", held to the tree.

A head, an encoder and an annotation reader are added from outside by `test_plugins`; a command and a metric are added
here, to a copy of the tree, by edits to the files that are listed and no others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGES = ("pipeline", "encoders", "heads", "synth", "configs")
PLACES = {
    name: re.findall(r"^- `([^`]+)`", body, re.MULTILINE)
    for name, body in re.findall(r"^… ([^:\n]+): \d+ files\.\n\n((?:- .*\n)+)", TEXT, re.MULTILINE)
}


def test_every_folder_is_in_the_table() -> None:
    listed = set(re.findall(r"^\| `([^`]+)/` \|", TEXT, re.MULTILINE))
    there = {
        str(file.parent.relative_to(ROOT).as_posix())
        for package in PACKAGES[:-1]
        for file in (ROOT / package).rglob("__init__.py")
    }
    rooms = {folder for folder in there if not folder.startswith("pipeline/commands/")}
    assert listed == rooms | {"configs"}


def test_five_cases_each_with_as_many_files_as_it_says() -> None:
    assert list(PLACES) == ["a head", "an encoder", "a dataset's annotations", "a command", "a metric"]
    assert [int(number) for number in re.findall(r": (\d+) files\.$", TEXT, re.MULTILINE)] == [
        len(files) for files in PLACES.values()
    ]


@pytest.mark.parametrize("case", PLACES)
def test_files_that_are_to_be_changed_are_there_and_new_ones_have_a_place(case: str) -> None:
    for file in PLACES[case]:
        where = ROOT / file
        if "NAME" not in file:
            assert where.is_file(), file
        else:
            folders = [folder for folder in where.parents if "NAME" not in folder.name]
            assert folders[0].is_dir(), file


# --- A command and a metric, in a copy of the tree --------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(tree: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def edit(file: Path, after: str, line: str) -> None:
    """Put a line behind the first place where `after` stands."""
    text = file.read_text(encoding="utf-8")
    assert after in text, f"{file} has no {after!r}"
    file.write_text(text.replace(after, after + line, 1), encoding="utf-8")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def touched(tree: Path) -> set[str]:
    """Files of the copy that differ from ours, or that we lack."""
    return {
        file.relative_to(tree).as_posix()
        for folder in (*PACKAGES, "tests")
        for file in (tree / folder).rglob("*")
        if file.is_file()
        and not ((ours := ROOT / file.relative_to(tree)).is_file() and ours.read_bytes() == file.read_bytes())
    }


def as_listed(case: str, name: str) -> set[str]:
    return {file.replace("NAME", name) for file in PLACES[case]}


def test_a_command_takes_the_files_that_are_listed(tree: Path) -> None:
    commands = tree / "pipeline" / "commands"
    write(commands / "count" / "__init__.py", '"""`pipeline count`."""\n')
    write(
        commands / "count" / "options.py",
        '"""What `pipeline count` can be told."""\n\n'
        "from dataclasses import dataclass\nfrom pathlib import Path\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass CountConfig:\n"
        '    """How many files a folder holds."""\n\n'
        '    folder: Path\n    """The folder."""\n',
    )
    write(
        commands / "count" / "command.py",
        '"""`pipeline count`."""\n\n'
        "from dataclasses import dataclass\n\n"
        "from pipeline.commands.count.options import CountConfig\n"
        "from pipeline.terminal.notes import say\nfrom pipeline.terminal.outcome import Outcome\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Count(Outcome):\n"
        '    """A number."""\n\n    number: int\n\n\n'
        "def run(config: CountConfig) -> Count:\n"
        "    number = len(list(config.folder.iterdir()))\n    say(number)\n    return Count(number=number)\n",
    )
    table = commands / "table.py"
    edit(table, "COMMANDS = {\n", '    "count": Command("count", CountConfig),\n')
    edit(table, "AnalyzeConfig\n", "from pipeline.commands.count.options import CountConfig\n")
    edit(tree / "pipeline" / "__init__.py", "FUNCTIONS = (\n", '    "count",\n')
    edit(tree / "pipeline" / "__init__.py", "HOMES = {\n", '    "Count": "pipeline.commands.count.command",\n')
    run(tree, "-m", "pipeline.door.stub")
    write(tree / "tests/pipeline/commands/count/test_count.py", "import pipeline\n")
    assert touched(tree) == as_listed("a command", "count")
    assert run(tree, "-m", "pipeline.cli", "count", "--folder", "configs").strip().isdigit()
    assert "How many files a folder holds." in run(tree, "-m", "pipeline.cli", "--help")
    told = run(tree, "-c", "import pipeline; print(pipeline.count(folder='configs').number > 3)")
    assert told == "True\n"
    stub = (tree / "pipeline" / "__init__.pyi").read_text(encoding="utf-8")
    assert "import Count as Count" in stub
    assert ") -> Count:" in stub


def test_a_metric_takes_the_files_that_are_listed(tree: Path) -> None:
    write(
        tree / "pipeline" / "measures" / "number.py",
        '"""How many detections there are."""\n\n'
        "from dataclasses import dataclass\n\nfrom pipeline.terminal.outcome import Outcome\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass NumberMetrics(Outcome):\n"
        '    """A number."""\n\n    number: float\n\n'
        "    @classmethod\n    def from_dict(cls, metrics):\n        return cls(number=metrics['number'])\n\n\n"
        "def number_metrics(truth, detections, tiou):\n    return {'number': float(len(detections))}\n",
    )
    evaluate = tree / "pipeline" / "commands" / "evaluate"
    edit(evaluate / "options.py", 'task: Literal["detection", "proposal"', ', "number"')
    edit(evaluate / "command.py", "TASKS = {\n", '    "number": Task(number_metrics, NumberMetrics),\n')
    edit(evaluate / "command.py", "Metrics = DetectionMetrics | ProposalMetrics", " | NumberMetrics")
    imported = "from pipeline.measures.number import NumberMetrics, number_metrics\n"
    edit(evaluate / "command.py", "from pipeline.data.files import write_json\n", imported)
    edit(tree / "pipeline" / "__init__.py", "HOMES = {\n", '    "NumberMetrics": "pipeline.measures.number",\n')
    run(tree, "-m", "pipeline.door.stub")
    write(tree / "tests/pipeline/measures/test_number.py", "import pipeline\n")
    assert touched(tree) == as_listed("a metric", "number")
    write(tree / "truth.csv", "video,start,end,label,subset\na,0,1,x,validation\n")
    write(tree / "found.json", '{"results": {"a": [{"segment": [0, 1], "label": "x", "score": 1}]}}')
    words = ["--ground-truth", "truth.csv", "--predictions", "found.json", "--task", "number", "--json", "out.json"]
    assert "NUMBER" in run(tree, "-m", "pipeline.cli", "evaluate", *words)
    assert json.loads((tree / "out.json").read_text()) == {"number": 1.0}
    code = "import pipeline as p; print(p.evaluate(ground_truth='truth.csv', predictions='found.json', task='number'))"
    assert "NumberMetrics(failed=(), " in run(tree, "-c", code)
