"""Beside other packages: ours hidden by others of their names, configs found whatever else is called so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline.options import packaged

ROOT = Path(packaged.__file__).parents[2]
WORDS = ["localize", "--config", "own/localize", "--features", "absent", "--annotations", "a", "--out", "o"]


def call(words: list[str], *, cwd: Path, first_on_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line, as `python -m pipeline.cli` from a folder, which is then first on the path."""
    path = [str(first_on_path)] if first_on_path else []
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", packaged.SIBLINGS)
@pytest.mark.parametrize("words", [["--help"], WORDS])
def test_a_foreign_package_of_our_name_is_said_at_once(tmp_path: Path, name: str, words: list[str]) -> None:
    foreign = tmp_path / "foreign" / name / "__init__.py"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("raise AssertionError('imported')\n")
    done = call(words, cwd=tmp_path, first_on_path=tmp_path / "foreign")
    assert done.returncode == 2
    assert f"{foreign} hides {ROOT / name / '__init__.py'}" in done.stderr
    assert "PYTHONSAFEPATH=1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", packaged.SIBLINGS)
def test_a_module_beside_the_users_script_hides_ours_and_python_says_so_too(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("")
    code = "import pipeline\ntry:\n    pipeline.describe('a')\nexcept ValueError as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{name}.py hides {ROOT / name / '__init__.py'}" in done.stdout


def test_folders_of_our_names_where_the_user_works_change_nothing(tmp_path: Path) -> None:
    for name in (*packaged.SIBLINGS, "configs", "pipeline_data"):
        (tmp_path / name / "own").mkdir(parents=True)
    (tmp_path / "configs" / "own" / "localize.yaml").write_text("no: config\n")
    done = call(WORDS, cwd=tmp_path)
    assert done.returncode == 1
    assert "absent: no such feature store" in done.stderr


def test_a_foreign_package_called_configs_changes_nothing(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign" / "configs" / "__init__.py"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("raise AssertionError('imported')\n")
    done = call(WORDS, cwd=tmp_path, first_on_path=tmp_path / "foreign")
    assert "absent: no such feature store" in done.stderr


def test_configs_that_another_package_took_along_are_missed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packaged, "CONFIGS", tmp_path / "configs")
    with pytest.raises(ValueError, match=r"the installation is damaged.*--force-reinstall"):
        packaged.find_config("own/localize")


def test_a_package_of_ours_that_is_gone_is_missed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packaged, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=r"encoders/__init__\.py is missing: the installation is damaged"):
        packaged.check_not_hidden()


def test_a_package_that_was_imported_before_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "heads", pipeline)
    with pytest.raises(ValueError, match=r"pipeline/__init__\.py hides .*heads/__init__\.py"):
        packaged.check_not_hidden()
