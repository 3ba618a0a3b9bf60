"""Heads, encoders and annotation readers from outside: by their place, by entry points, and never unasked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import outside
import pytest

import pipeline
from heads import HEADS
from pipeline import cli
from pipeline.data.annotations import read_annotations
from pipeline.data.features import FeatureStore
from pipeline.data.files import find_videos
from synth.scenes import write_dataset

HEAD, ENCODER, READER = "outside:Rows", "outside:build", "outside:read"
NAMED = ["--head", HEAD, "--encoder", ENCODER]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny videos, and their segments in a form that only the outside reader knows."""
    folder = tmp_path_factory.mktemp("outside")
    write_dataset(folder / "data", size="tiny", seed=0)
    truth = read_annotations(folder / "data" / "untrimmed" / "annotations.json")
    lines = [
        f"{video.id}|{segment.start}|{segment.end}|{segment.label}|{video.subset}"
        for video in truth.videos.values()
        for segment in video.segments
    ]
    (folder / "labels.txt").write_text("\n".join(lines), encoding="utf-8")
    shutil.copytree(folder / "data" / "untrimmed" / "videos", folder / "videos")
    return folder


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    """A run that was made by the command line with all three."""
    store, labels, out = data / "store", data / "labels.txt", data / "run"
    words = ["extract", "--videos", str(data / "videos"), "--out", str(store), "--encoder", ENCODER]
    assert cli.main([*words, "--weights", "random"]) == 0
    words = ["localize", "--features", str(store), "--annotations", str(labels), "--annotation-format", READER]
    words += ["--out", str(out), "--head", HEAD, "--Rows.longest", "3", "--training.epochs", "2"]
    assert cli.main([*words, "--training.device", "cpu"]) == 0
    return out


def test_the_names_are_recorded(data: Path, run: Path) -> None:
    header = FeatureStore.open(data / "store").header
    assert header.encoder is not None
    assert header.encoder["name"] == ENCODER
    described = json.loads((run / "head.json").read_text())
    assert (described["head"], described["arguments"]["longest"]) == (HEAD, 3)
    assert "\nRows:\n  num_snippets: 16\n  longest: 3\n" in (run / "config.yaml").read_text()


def test_predict_finds_what_localize_found_once_the_names_are_given(data: Path, run: Path, tmp_path: Path) -> None:
    assert (
        cli.main(["predict", str(data / "videos"), "--run", str(run), "--out", str(tmp_path / "a.json"), *NAMED]) == 0
    )
    expected = pipeline.Detections.from_json(run / "detections.json").by_video()
    found = pipeline.Detections.from_json(tmp_path / "a.json").by_video()
    assert len(expected) == 4
    for video_id, detections in expected.items():
        assert found[video_id].scores_N.tolist() == pytest.approx(detections.scores_N.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("named", "lacking"), [([], HEAD), (["--head", HEAD], ENCODER), (["--encoder", ENCODER], HEAD)]
)
def test_what_a_run_names_is_not_imported_unless_the_user_names_it(
    data: Path, run: Path, tmp_path: Path, named: list[str], lacking: str
) -> None:
    code = (
        "import sys; from pipeline.cli import main; code = main(sys.argv[1:]); "
        "print('imported' if 'outside' in sys.modules else 'not imported', code)"
    )
    words = ["predict", str(data / "videos"), "--run", str(run), "--out", str(tmp_path / "a.json"), *named]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={"PYTHONPATH": str(Path(outside.__file__).parent), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{'imported' if named == ['--head', HEAD] else 'not imported'} 1" in done.stdout
    kind = "head" if lacking == HEAD else "encoder"
    assert f"name it on this call as well: --{kind} {lacking}" in done.stderr


def test_the_same_from_python(data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = pipeline.extract(videos=data / "videos", out=tmp_path / "store", encoder=ENCODER, weights="random")
    trained = pipeline.localize(
        features=store,
        annotations=data / "labels.txt",
        annotation_format=READER,
        out=tmp_path / "run",
        head=HEAD,
        Rows={"longest": 3},
        training={"epochs": 2, "device": "cpu"},
    )
    assert trained.detections == pipeline.Detections.from_json(run / "detections.json")
    video = next(iter(find_videos(data / "videos").values()))
    with pytest.raises(ValueError, match=f"--encoder {ENCODER}"):
        trained.predict(video)  # the call that made this run named the head, and a store named the encoder
    with pytest.raises(ValueError, match=f"--head {HEAD}"):
        pipeline.load(tmp_path / "run")
    [found] = pipeline.load(tmp_path / "run", head=HEAD, encoder=ENCODER).predict(video)
    assert (
        found.detections
        == pipeline.predict(video, run=trained, out=tmp_path / "found.json", head=HEAD, encoder=[ENCODER]).detections
    )
    assert capsys.readouterr() == ("", "")


# --- Names of installed packages --------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that declares all three."""
    info = tmp_path / "site" / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[tal_pipeline.encoders]\nacme_colour = {ENCODER}\n"
        f"[tal_pipeline.heads]\nacme-rows = {HEAD}\n"
        f"[tal_pipeline.annotations]\nacme_lines = {READER}\n"
    )
    monkeypatch.syspath_prepend(str(info.parent))


@pytest.mark.usefixtures("installed")
def test_names_of_installed_packages_are_listed_and_found_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, listed in [("extract", "acme_colour"), ("localize", "acme-rows"), ("evaluate", "acme_lines")]:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert listed in capsys.readouterr().out
    store = pipeline.extract(videos=data / "videos", out=tmp_path / "store", encoder="acme_colour", weights="random")
    run = pipeline.localize(
        features=store,
        annotations=data / "labels.txt",
        annotation_format="acme_lines",
        out=tmp_path / "run",
        head="acme-rows",
        acme_rows=outside.RowOptions(longest=2),
        training={"epochs": 1, "device": "cpu"},
    )
    video = next(iter(find_videos(data / "videos").values()))
    found = pipeline.predict(video, run=run, out=tmp_path / "found.json")
    assert not found.failed
    [prediction] = pipeline.load(tmp_path / "run").predict(video)
    assert prediction.detections == found.detections


# --- What is no head, encoder or reader -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ("tsm_r19", "there is no encoder 'tsm_r19': choose one of tsn_r18, .*package.module:name"),
        ("no.such:build", "cannot be imported .*ModuleNotFoundError"),
        ("outside:nothing", "cannot be imported .*AttributeError"),
        ("outside:NOT_CALLABLE", "is int, which cannot be called"),
        ("outside:not_an_encoder", "gave Identity; expected an encoders.Encoder"),
    ],
)
def test_an_encoder_that_is_none(data: Path, tmp_path: Path, encoder: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pipeline.extract(videos=data / "videos", out=tmp_path / "store", encoder=encoder, weights="random")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("gated", f"there is no head 'gated': choose one of {', '.join(HEADS)}"),
        ("outside:NoHead", "is no head: it lacks Options, targets, loss, decode"),
    ],
)
def test_a_head_that_is_none(head: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pipeline.localize(features="a", annotations="b", out="c", head=head)


def test_a_reader_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"gave str for .*expected the videos by their ids"):
        pipeline.describe(tmp_path / "a.txt", annotation_format="builtins:str")
