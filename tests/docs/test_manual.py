"""The manual is held true: its code and commands run, or are parsed where they need data that nobody has here.

Pages in `RUN` are run from top to bottom, in an empty folder with a few drawn videos: every command, and every block of
Python, those with a title being files. On the other pages every command is parsed by its own parser, so that a wrong
flag, value or config name fails.
"""

from __future__ import annotations

import csv
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torchvision.models import mobilenet_v3_small

from encoders import ENCODERS
from heads import HEADS
from pipeline import cli
from pipeline.commands.table import COMMANDS
from pipeline.options.flags import parse
from pipeline.options.heads import with_head
from pipeline.options.parser import leaves
from pipeline.options.yaml_file import check_keys, read_yaml
from synth.scenes import write_dataset

PIPELINE: Any = importlib.import_module("pipeline")  # type checkers know it by its stub
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {file.relative_to(DOCS).as_posix(): file for file in sorted(DOCS.rglob("*.md"))}
RUN = ("tutorial.md", "extending.md", "rows.md", "reference/python.md")

# The one thing in which what is run differs from what is read: fewer epochs. The results are worth nothing so.
SMALLER = {
    "pipeline localize": "pipeline localize --training.epochs 2 --min-steps 1",
    'config="own/localize"': 'config="own/localize", min_steps=1, training={"epochs": 2}',
}

# The tutorial's videos, and the drawn ones that stand for them.
VIDEOS = {
    "monday": "training-000",
    "tuesday": "training-001",
    "wednesday": "training-003",
    "thursday": "validation-000",
    "friday": "validation-001",
}
NEW = "validation-002"
LABELS = {"spin": "serve", "bounce": "rally", "grow": "serve", "blink": "rally"}


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines that call the pipeline."""
        whole = self.text.replace("\\\n", " ")
        return [line for line in whole.splitlines() if line.startswith("pipeline ")] if self.language == "sh" else []


FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w+)(?P<rest>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S)


def blocks(page: str) -> Iterator[Block]:
    text = PAGES[page].read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', match["rest"])
        body = textwrap.dedent(match["text"])
        yield Block(page, text.count("\n", 0, match.start()) + 1, match["language"], title and title[1], body)


def smaller(text: str) -> str:
    for shown, run in SMALLER.items():
        text = text.replace(shown, run)
    return text


def words_of(command: str) -> list[str]:
    return shlex.split(command, comments=True)[1:]


# --- Pages that are run -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_dataset(folder, size="tiny", seed=0, workers=1)
    return folder / "untrimmed"


@pytest.fixture
def desk(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a reader would be, with what the pages suppose to be there."""
    database = json.loads((drawn / "annotations.json").read_text(encoding="utf-8"))["database"]
    (tmp_path / "my_videos").mkdir()
    rows = [
        (video, *segment["segment"], LABELS[segment["label"]], database[source]["subset"])
        for video, source in VIDEOS.items()
        for segment in database[source]["annotations"]
    ]
    for video, source in VIDEOS.items():
        shutil.copy(drawn / "videos" / f"{source}.mp4", tmp_path / "my_videos" / f"{video}.mp4")
    shutil.copy(drawn / "videos" / f"{NEW}.mp4", tmp_path / "new.mp4")
    with (tmp_path / "my.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("video", "start", "end", "label", "subset"), *rows])
    lines = [f"{video} | {start} - {end} | {label}" for video, start, end, label, _ in rows]
    (tmp_path / "labels.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    torch.save(mobilenet_v3_small(weights=None).state_dict(), tmp_path / "mobilenet_v3_small.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def modules(desk: Path) -> Iterator[None]:
    """What pages import from the folder is forgotten afterwards."""
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(desk)):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_from_top_to_bottom(page: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page == "rows.md":  # which looks into a store
        assert (
            cli.main(words_of("pipeline extract --videos my_videos --out store --encoder tsn_efficientnet_lite0")) == 0
        )
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if "export PYTHONPATH=." in block.text:
            monkeypatch.syspath_prepend(desk)
        for command in block.commands:
            assert cli.main(words_of(smaller(command))) == 0, f"{block}: {command}"
        if block.language == "python" and block.title:
            (desk / block.title).write_text(block.text, encoding="utf-8")
            importlib.invalidate_caches()
        elif block.language == "python":
            exec(compile(smaller(block.text), str(block), "exec"), namespace)
        elif block.language == "toml":
            install(desk, block.text)
    if page == "tutorial.md":
        check_that_the_files_of_the_table_are_there(desk)


def check_that_the_files_of_the_table_are_there(desk: Path) -> None:
    """Those under "Predict"."""
    text = PAGES["tutorial.md"].read_text(encoding="utf-8")
    rows = text[text.index("| file | what for |") :].partition("\n\n")[0]
    named = set(re.findall(r"^\| `([^`]+)` \|", rows, re.MULTILINE))
    assert named == {file.name for file in desk.iterdir() if file.stem in ("found", "new")} - {"new.mp4"}


def install(folder: Path, pyproject: str) -> None:
    """What pip leaves of a package's entry points, in a folder on Python's path."""
    groups = re.sub(r'\[project\.entry-points\."([^"]+)"\]', r"[\1]", pyproject)
    meta = folder / "acme-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n", encoding="utf-8")
    (meta / "entry_points.txt").write_text(re.sub(r'= "(.+)"', r"= \1", groups), encoding="utf-8")
    importlib.invalidate_caches()


def test_the_csv_of_the_tutorial_is_described_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {block.language: block.text for block in list(blocks("tutorial.md"))[:3]}
    (tmp_path / "my.csv").write_text(shown["csv"], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert cli.main(words_of(shown["sh"])) == 0
    assert capsys.readouterr().out == shown["text"]


def test_the_numbers_that_the_tutorial_tells_are_those_of_its_config() -> None:
    words = ["--features", "store", "--annotations", "my.csv", "--out", "run", "--config", "own/localize"]
    config: Any = parse("localize", COMMANDS["localize"].options, words)
    text = " ".join(PAGES["tutorial.md"].read_text(encoding="utf-8").split())
    assert f"goes through all of them {config.training.epochs} times" in text
    most = f"at least {config.post.max_detections} segments a video and {config.post.per_minute:.0f} a minute"
    assert most in text
    assert (config.head, config.training.keep) == ("actionformer", "last")


# --- Pages that are parsed --------------------------------------------------------------------------------------------

PARSED = [(block, command) for page in PAGES if page not in RUN for block in blocks(page) for command in block.commands]


@pytest.mark.parametrize(("block", "command"), PARSED, ids=[f"{block}: {command}" for block, command in PARSED])
def test_a_command_that_cannot_be_run_here_is_parsed(block: Block, command: str) -> None:
    word, *flags = words_of(command)
    options: Any = parse(word, COMMANDS[word].options, flags, positional=COMMANDS[word].positional)
    assert getattr(options, "encoder", None) in {None, (), *ENCODERS}


def test_python_stands_only_on_pages_that_are_run() -> None:
    elsewhere = [
        str(block) for page in PAGES if page not in RUN for block in blocks(page) if block.language == "python"
    ]
    assert elsewhere == []
    assert all(any(block.language == "python" for block in blocks(page)) for page in RUN)


def test_yaml_has_keys_that_there_are(tmp_path: Path) -> None:
    found = [block for page in PAGES for block in blocks(page) if block.language == "yaml"]
    for block in found:
        (tmp_path / "a.yaml").write_text(block.text, encoding="utf-8")
        check_keys(block, read_yaml(tmp_path / "a.yaml"), COMMANDS["localize"].options)
    assert found


def test_every_fence_is_of_a_language_that_is_looked_at() -> None:
    for page, file in PAGES.items():
        fences = len(re.findall(r"^ *```", file.read_text(encoding="utf-8"), re.MULTILINE))
        assert fences == 2 * len(list(blocks(page))), page
        assert {block.language for block in blocks(page)} <= {"sh", "python", "text", "csv", "yaml", "toml"}, page


def test_every_packaged_config_of_a_data_set_is_used_in_a_how_to() -> None:
    text = " ".join(command for block, command in PARSED)
    used = set(re.findall(r"--config ([\w/-]+)", text))
    folders = ("activitynet", "hacs", "thumos14", "charades", "gtea", "kinetics")
    there = {
        file.relative_to(ROOT / "configs").with_suffix("").as_posix()
        for folder in folders
        for file in (ROOT / "configs" / folder).glob("*.yaml")
    }
    assert used <= there
    assert there - used == {  # told in a table; used like the one that stands beside them
        "activitynet/extract_i3d",
        "activitynet/extract_i3d_flow",
        "activitynet/extract_tsm_r50",
        "activitynet/localize_gtad_i3d",
        "kinetics/bsp-synth_tsm_r18",
        "thumos14/localize_temporalmaxer_tsp",
        "thumos14/localize_tridet_tsp",
    }


# --- What is made of the code -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = spec_from_file_location("manual_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where typing looks for its names
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(hooks: ModuleType) -> dict[str, str]:
    """The pages as MkDocs gets them."""
    return {page: hooks.on_page_markdown(file.read_text(encoding="utf-8")) for page, file in PAGES.items()}


@pytest.mark.parametrize("word", COMMANDS)
def test_every_flag_of_every_command_is_in_the_reference(word: str, made: dict[str, str]) -> None:
    command: Any = COMMANDS[word]
    [section] = re.findall(
        rf"^## pipeline {word} \{{.*?(?=^## |\Z)", made["reference/commands.md"], re.MULTILINE | re.DOTALL
    )
    takes_head = getattr(command.options, "takes_head_options", False)
    options = [with_head(command.options, head) for head in HEADS] if takes_head else [command.options]
    keys = {key for kind in options for key, _ in leaves(kind)} - {command.positional}
    listed = set(re.findall(r"^\| `--([\w.-]+)` \|", section, re.MULTILINE))
    assert {key.replace("_", "-") for key in keys} - listed <= {"unified"}  # whose own options are listed
    unknown = {name for name in listed if name.replace("-", "_") not in keys and not name.startswith("unified.")}
    assert unknown <= {"config", "seed"}
    assert command.positional is None or f"| `{command.positional.upper()}` |" in section
    assert (command.options.__doc__ or "").splitlines()[0].split("`")[0] in section


def test_every_option_has_its_help_in_the_reference(hooks: ModuleType) -> None:
    without = [
        f"{word} {flag.name}"
        for word, command in COMMANDS.items()
        for group in hooks.flag_groups(command)
        for flag in group.flags
        if not flag.help
    ]
    assert without == []


def test_every_call_in_the_reference_is_one_that_the_command_takes(hooks: ModuleType) -> None:
    """What is left out of it may be left out."""
    for word, command in COMMANDS.items():
        call = hooks.call(word, command).partition(" [--flag")[0].replace("...", "")
        _, *words = words_of(call)
        assert parse(word, command.options, words, positional=command.positional), call


@pytest.mark.parametrize("name", PIPELINE.__all__)
def test_every_public_name_is_in_the_reference(name: str, made: dict[str, str]) -> None:
    page = made["reference/python.md"]
    if name in PIPELINE.FUNCTIONS:
        assert f"### pipeline.{name} {{#pipeline.{name}}}" in page
        assert f"pipeline.{name}(\n" in page
    else:
        assert re.search(rf"^::: {re.escape(PIPELINE.HOMES[name])}\.{name}$", page, re.MULTILINE)


def test_every_folder_of_the_code_is_among_the_rooms(made: dict[str, str]) -> None:
    for package in ("pipeline", "encoders", "heads", "synth", "configs"):
        assert f"| `{package}/` |" in made["rooms.md"]
    for file in (ROOT / "pipeline").glob("*/**/__init__.py"):
        assert f"| `{file.parent.relative_to(ROOT / 'pipeline').as_posix()}/` |" in made["rooms.md"]


def test_nothing_is_left_to_be_made(made: dict[str, str], hooks: ModuleType) -> None:
    assert [page for page, text in made.items() if "<!-- made" in text] == []
    with pytest.raises(ValueError, match="nothing makes that; there are command-list, commands"):
        hooks.on_page_markdown("<!-- made: nonsense -->")


def test_links_between_pages_lead_somewhere() -> None:
    for page, file in PAGES.items():
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (file.parent / target).is_file(), f"{page}: {target}"


# --- The site ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_needs_no_network(tmp_path: Path) -> None:
    absent = [name for name in ("mkdocs", "material", "mkdocstrings_handlers") if find_spec(name) is None]
    if absent:
        pytest.skip(f"the manual's tools are not installed: {', '.join(absent)}")
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES:
        html = (tmp_path / page).with_suffix(".html").read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="?(?:https?:)?//', html)
        loaded += re.findall(r'<link[^>]* rel="?(?:stylesheet|preconnect|icon)[^>]* href="?(?:https?:)?//', html)
        assert loaded == [], page
    python = (tmp_path / "reference" / "python.html").read_text(encoding="utf-8")
    for name in PIPELINE.__all__:
        anchor = f"pipeline.{name}" if name in PIPELINE.FUNCTIONS else f"{PIPELINE.HOMES[name]}.{name}"
        assert f'id="{anchor}"' in python, name
    assert not (tmp_path / "hooks.py").exists()
