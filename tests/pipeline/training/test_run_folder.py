"""Run folders: what may be gone on with, and what may not."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.commands.localize.options import LocalizeConfig
from pipeline.options.flags import parse
from pipeline.options.heads import with_head
from pipeline.training.options import TrainingConfig
from pipeline.training.run_folder import CONFIG, LAST_CHECKPOINT, METRICS, begin_run, is_finished, read_run_json


def options(run: Path) -> LocalizeConfig:
    return with_head(LocalizeConfig, "gtad")(features=Path("store"), annotations=Path("gt.json"), out=run)


def test_the_written_config_gives_the_same_options_back(tmp_path: Path) -> None:
    config = replace(options(tmp_path / "run"), tiou=(0.3, 0.7), training=TrainingConfig(lr=0.5, lr_steps=(1, 2)))
    begin_run(tmp_path / "run", config)
    assert parse("localize", LocalizeConfig, ["--config", str(tmp_path / "run" / CONFIG)]) == config


@pytest.mark.parametrize("begun_by", [LAST_CHECKPOINT, METRICS])
def test_other_options_are_refused_once_there_is_something_to_lose(tmp_path: Path, begun_by: str) -> None:
    config = options(tmp_path)
    begin_run(tmp_path, config)
    (tmp_path / begun_by).touch()
    assert not begin_run(tmp_path, config)
    other = replace(config, training=replace(config.training, epochs=99))
    with pytest.raises(ValueError, match=r"training.epochs: 10 there, 99 now\ngive another --out"):
        begin_run(tmp_path, other)
    assert yaml.safe_load((tmp_path / CONFIG).read_text())["training"]["epochs"] == 10


def test_a_run_without_a_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    assert begin_run(tmp_path, options(tmp_path))
    assert not begin_run(tmp_path, options(tmp_path))
    assert begin_run(tmp_path, replace(options(tmp_path), train_subset="train"))
    assert yaml.safe_load((tmp_path / CONFIG).read_text())["train_subset"] == "train"


def test_what_does_not_change_the_result_may_differ(tmp_path: Path) -> None:
    config = options(tmp_path)
    begin_run(tmp_path, config)
    (tmp_path / METRICS).touch()
    elsewhere = replace(config.training, device="cpu", num_workers=7)
    begin_run(tmp_path, replace(config, out=tmp_path / "x" / "..", training=elsewhere))


def test_an_option_that_an_older_run_lacks_differs(tmp_path: Path) -> None:
    begin_run(tmp_path, options(tmp_path))
    (tmp_path / LAST_CHECKPOINT).touch()
    older = yaml.safe_load((tmp_path / CONFIG).read_text())
    del older["rescale"]
    (tmp_path / CONFIG).write_text(yaml.safe_dump(older))
    with pytest.raises(ValueError, match="rescale: None there, linear now"):
        begin_run(tmp_path, options(tmp_path))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match="something else than a run"):
        begin_run(tmp_path, options(tmp_path))
    with pytest.raises(ValueError, match="something else than a run"):
        begin_run(tmp_path / "thesis.tex", options(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_finished_means_metrics(tmp_path: Path) -> None:
    begin_run(tmp_path, options(tmp_path))
    assert not is_finished(tmp_path)
    (tmp_path / METRICS).touch()
    assert is_finished(tmp_path)


def test_reading_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no such run folder; `pipeline x` makes one"):
        read_run_json(tmp_path / "absent" / "a.json", made_by="pipeline x")
    with pytest.raises(ValueError, match=r"has no a.json, so it is no finished run of `pipeline x`"):
        read_run_json(tmp_path / "a.json", made_by="pipeline x")
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"a.json: expected a JSON object, found list"):
        read_run_json(tmp_path / "a.json", made_by="pipeline x")
    (tmp_path / "a.json").write_text('{"b": 1}')
    assert read_run_json(tmp_path / "a.json", made_by="pipeline x") == {"b": 1}
