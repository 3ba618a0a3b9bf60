"""The command line: forms that scripts rely on, configs by name, and errors that name their cause."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from heads import HEADS
from heads.options import BMNOptions, GTADOptions
from pipeline import cli
from pipeline.commands.table import COMMANDS
from pipeline.options import flags
from pipeline.options.packaged import find_config
from pipeline.options.parser import leaves

FIXED_FORMS = {
    "demo": "--out DIR --seed 3 --all",
    "extract": "--videos DIR --out STORE --encoder tsm_r18 --weights w.pth",
    "pretrain": "--clips clips.csv --out RUN --encoder tsm_r18",
    "bsp-synth": "--clips clips.csv --out RUN --encoder tsm_r18 --write 8",
    "lofi-train": "--videos DIR --annotations GT.json --out RUN --encoder tsm_r18 --weights ACP --schedule short",
    "sola": "--features STORE --out RUN",
    "localize": "--features STORE --annotations GT.json --out RUN --head gtad",
    "predict": "a.mp4 b.mp4 --run RUN --out D.json",
    "evaluate": "--ground-truth GT.json --predictions D.json --subset validation --task proposal --json O.json",
    "analyze": "--features STORE,REFINED --out DIR --annotations GT.json --run RUN",
    "describe": "GT.json",
    "import-features": "--features DIR --out STORE --annotations GT.json",
    "merge-features": "STORE_A STORE_B --out STORE",
}


def parse(name: str, words: list[str]) -> Any:
    command = COMMANDS[name]
    return flags.parse(name, command.options, words, positional=command.positional)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_fixed_form_of_each_command_parses(name: str) -> None:
    parsed = parse(name, FIXED_FORMS[name].split())
    assert isinstance(parsed, COMMANDS[name].options)


def test_flags_are_spelt_with_hyphens_or_underscores_and_lists_with_commas() -> None:
    words = ["--ground-truth", "a", "--predictions=b"]
    parsed = parse("evaluate", [*words, "--tiou", "0.3,0.4"])
    assert parsed.tiou == (0.3, 0.4)
    assert parse("evaluate", ["--ground_truth", "a", "--predictions=b", "--tiou=.3"]).tiou == (0.3,)


def test_positional_videos_may_stand_beside_flags() -> None:
    parsed = parse("predict", ["--run", "RUN", "--out", "D.json", "a.mp4", "b.mp4"])
    assert parsed.video == (Path("a.mp4"), Path("b.mp4"))


def test_flags_override_the_config_file_which_overrides_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("gtad: {num_snippets: 64, hidden: 32}\ntiou: [0.3, 0.5]\n")
    words = ["--features", "a", "--annotations", "b", "--out", "c", "--gtad.hidden", "16", "--config"]
    parsed = parse("localize", [*words, str(file)])
    assert (parsed.gtad.num_snippets, parsed.gtad.hidden, parsed.tiou) == (64, 16, (0.3, 0.5))
    assert parsed.gtad.class_weight == GTADOptions().class_weight


def test_a_config_file_may_speak_to_several_heads(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("head: actionformer\nactionformer: {hidden: 64}\ngtad: {hidden: 32}\nout: 2026-01-02\n")
    words = ["--features", "a", "--annotations", "b", "--config", str(file)]
    parsed = parse("localize", words)
    assert (parsed.head, parsed.actionformer.hidden, parsed.out) == ("actionformer", 64, Path("2026-01-02"))
    assert parse("localize", [*words, "--head", "gtad"]).gtad.hidden == 32
    assert parse("localize", [*words, "--head", "bmn"]).bmn == BMNOptions()
    file.write_text("head: actionformer\ngtad: {hiden: 32}\n")
    with pytest.raises(ValueError, match=r"c\.yaml: unknown key gtad\.hiden"):
        parse("localize", words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gtad: {num_snippet: 64}", "unknown key gtad.num_snippet"),
        ("gtda: {num_snippets: 64}", "unknown key gtda"),
        ("gtad: {num_snippets: many}", "gtad.num_snippets"),
        ("head: gated", "head"),
        ("- 3", "key: value"),
        ("a: [", "not a YAML file"),
    ],
)
def test_a_mistake_in_a_config_names_the_file_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml: ") as error:
        parse("localize", ["--features", "a", "--annotations", "b", "--out", "c", "--config", str(file)])
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "--ground-truth", "a"], "required: --predictions"),
        (["predict", "--run", "a", "--out", "b"], "required: VIDEO"),
        (["evaluate", "--ground-truth", "a", "--predictions", "b", "--tiou", "0.3,x"], "tiou"),
        (["localize", "--feature", "a"], "--feature"),
        (["extrakt"], "extract"),
        (["localize", "--config"], "--config needs"),
        (["localize", "--config", "no/such"], "demo/localize"),
    ],
)
def test_a_wrong_call_says_what_is_wrong_and_exits_with_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", str(tmp_path / "absent.json")]) == 1
    assert "absent.json" in capsys.readouterr().err


def _packaged_configs() -> list[str]:
    root = Path(cli.__file__).parents[1] / "configs"
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))


@pytest.mark.parametrize("name", _packaged_configs())
def test_every_packaged_config_fits_its_command(name: str) -> None:
    command = name.rpartition("/")[2].partition("_")[0]  # demo/localize, activitynet/localize_gtad
    given = yaml.safe_load(find_config(name).read_text())
    form = FIXED_FORMS[command].split()
    pairs = zip(form[::2], form[1::2], strict=True)
    parse(
        command, [word for flag, value in pairs if flag[2:] not in given for word in (flag, value)] + ["--config", name]
    )


def test_the_help_of_localize_lists_the_heads_and_explains_the_chosen_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["localize", "--help", "--head", "bmn"])
    shown = capsys.readouterr().out
    assert f"heads: {', '.join(HEADS)}" in shown
    assert "--bmn.num-samples" in shown
    assert "--gtad." not in shown


def test_help_answers_without_torch() -> None:
    code = "import sys; from pipeline.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_explains_every_flag_without_torch(name: str) -> None:
    code = f"""
import sys
from pipeline.cli import main
try:
    main([{name!r}, '--help'])
finally:
    assert 'torch' not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for key, _ in leaves(COMMANDS[name].options):
        assert key.replace("_", "-") in done.stdout.replace("_", "-")
