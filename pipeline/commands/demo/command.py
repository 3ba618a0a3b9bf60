"""The whole way on procedural videos: each row of the table is made by the commands that a user would run.

    OUT/data/       trimmed clips and untrimmed videos (`synth.scenes`)
    OUT/acp/        the encoder, trained to classify the clips
    OUT/bsp/        an encoder trained on boundary clips made of them
    OUT/lofi/       the classification encoder, trained on end to end on the untrimmed videos
    OUT/rows/NAME/  a row's feature store and localize run
    OUT/metrics.json, OUT/report.html

Like every command, the demo goes on where it stopped when it is run again.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from pipeline.commands.bsp_synth import command as bsp
from pipeline.commands.bsp_synth.options import BspConfig
from pipeline.commands.demo.options import DemoConfig
from pipeline.commands.extract import command as extract
from pipeline.commands.extract.options import ExtractConfig
from pipeline.commands.localize import command as localize
from pipeline.commands.localize.options import LocalizeConfig
from pipeline.commands.lofi_train import command as lofi
from pipeline.commands.lofi_train.options import LofiTrainConfig
from pipeline.commands.merge_features import command as merge_features
from pipeline.commands.merge_features.options import MergeFeaturesConfig
from pipeline.commands.pretrain import command as pretrain
from pipeline.commands.pretrain.options import PretrainConfig
from pipeline.commands.sola import command as sola
from pipeline.commands.sola.options import SolaConfig
from pipeline.data.annotations import Annotations, read_annotations
from pipeline.data.detections import Detections
from pipeline.data.files import find_videos
from pipeline.options.flags import parse
from pipeline.show.report import MetricRow, MetricTable, ReportVideo, write_report
from pipeline.terminal.notes import progress_console, results_console, say
from pipeline.terminal.outcome import Outcome
from pipeline.training.workers import WORKERS
from synth.scenes import write_dataset

SIZE = "demo"


@dataclass(frozen=True, kw_only=True)
class DemoRun(Outcome):
    """What the demo made.

    Attributes:
        path: its folder.
        rows: of the table, as in metrics.json.
        page: what to open in a browser.
    """

    path: Path
    rows: list[dict[str, Any]]
    page: Path


def run(config: DemoConfig) -> DemoRun:
    """Draw the data, make every row, print the table and write the page."""
    started = time.monotonic()
    config.out.mkdir(parents=True, exist_ok=True)
    demo = Demo(config.out, config.seed)
    demo.draw_data()
    rows = [row for row in ROWS if row.quick or config.all]
    metrics = []
    for row in rows:
        progress_console().rule(row.name)
        metrics.append({"name": row.name, **row.make(demo)})
    (config.out / "metrics.json").write_text(json.dumps({"rows": metrics}, indent=2) + "\n", encoding="utf-8")
    page = _write_page(demo, rows[-1], metrics)
    _print_table(metrics)
    say(f"The page: {page}  ({time.monotonic() - started:.0f} s)")
    return DemoRun(path=config.out, rows=metrics, page=page)


@dataclass(frozen=True)
class Demo:
    """The folder of a demo and the stages that its rows share. `seed` fixes the data and all training."""

    out: Path
    seed: int

    @property
    def clips(self) -> Path:
        return self.out / "data" / "trimmed" / "clips.csv"

    @property
    def videos(self) -> Path:
        return self.out / "data" / "untrimmed" / "videos"

    @property
    def annotations(self) -> Path:
        return self.out / "data" / "untrimmed" / "annotations.json"

    def draw_data(self) -> None:
        """Draw the videos, unless an earlier run has finished them with the same seed."""
        done = self.out / "data" / "seed"
        if done.is_file() and done.read_text() == str(self.seed):
            return
        with progress_console().status("drawing the videos"):
            write_dataset(self.out / "data", size=SIZE, seed=self.seed, context=WORKERS)
        done.write_text(str(self.seed))

    def pretrain(self) -> Path:
        """The encoder, trained to classify the trimmed clips (the papers' ACP): its run folder."""
        out = self.out / "acp"
        self.call("pretrain", clips=self.clips, out=out, **{"training.seed": self.seed})
        return out

    def train_on_boundaries(self) -> Path:
        """The classification encoder, trained on to tell boundary clips apart: its run folder."""
        out = self.out / "bsp"
        self.call("bsp-synth", clips=self.clips, out=out, weights=self.pretrain(), **{"training.seed": self.seed})
        return out

    def train_end_to_end(self) -> Path:
        """The classification encoder, trained on with a head and the training videos' segments: its run folder."""
        out = self.out / "lofi"
        flags = {"annotations": self.annotations, "weights": self.pretrain(), "training.seed": self.seed}
        self.call("lofi-train", videos=self.videos, out=out, **flags)
        return out

    def extract(self, row: str, weights: str | Path) -> Path:
        """The feature store of a row, made with these weights."""
        store = self.row_folder(row) / "features"
        self.call("extract", videos=self.videos, out=store, weights=weights)
        return store

    def merge(self, row: str, *stores: Path) -> Path:
        """A store with the channels of all these."""
        out = self.row_folder(row) / "two_stream"
        self.call("merge-features", *stores, out=out)
        return out

    def refine(self, row: str, store: Path) -> Path:
        """The store, refined by a SoLa module that is trained on the training videos without their labels."""
        out = self.row_folder(row) / "sola"
        flags = {"annotations": self.annotations, "training.seed": self.seed}
        self.call("sola", features=store, out=out, **flags)
        return out / "features"

    def localize(self, row: str, store: Path) -> dict[str, Any]:
        """Train the head on a store, detect: the metrics of the row."""
        out = self.row_folder(row) / "localize"
        self.call("localize", features=store, annotations=self.annotations, out=out, **{"training.seed": self.seed})
        metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
        return {key: metrics[key] for key in ("tiou", "map", "average_map")}

    def row_folder(self, row: str) -> Path:
        return self.out / "rows" / row

    def call(self, command: str, *paths: Path, **flags: object) -> None:
        """Run a command with the demo's config for it, and show the line that would do the same by hand."""
        stage = STAGES[command]
        words = [] if stage.positional else ["--config", f"demo/{command}"]
        words += map(str, paths)
        for name, value in flags.items():
            words += [f"--{name}", str(value)]
        line = f"$ pipeline {command} {shlex.join(words)}"
        progress_console().print(line, style="bold", highlight=False, markup=False)
        made = stage.run(parse(command, stage.options, words, positional=stage.positional))
        if made.failed:
            raise ValueError(f"the demo stops: pipeline {command} could not do all: {'; '.join(map(str, made.failed))}")


class Stage(NamedTuple):
    """A command; one that is given paths without flags has nothing to configure."""

    options: Any
    run: Callable[[Any], Outcome]
    positional: str | None = None


STAGES: dict[str, Stage] = {
    "pretrain": Stage(PretrainConfig, pretrain.run),
    "bsp-synth": Stage(BspConfig, bsp.run),
    "lofi-train": Stage(LofiTrainConfig, lofi.run),
    "extract": Stage(ExtractConfig, extract.run),
    "merge-features": Stage(MergeFeaturesConfig, merge_features.run, positional="stores"),
    "sola": Stage(SolaConfig, sola.run),
    "localize": Stage(LocalizeConfig, localize.run),
}


@dataclass(frozen=True)
class Row:
    """A row of the table: how it is made, and whether the demo makes it without `--all`."""

    name: str
    folder: str
    make: Callable[[Demo], dict[str, Any]]
    quick: bool = True


def _untrained(demo: Demo) -> dict[str, Any]:
    return demo.localize("untrained", demo.extract("untrained", "random"))


def _classification(demo: Demo) -> dict[str, Any]:
    return demo.localize("acp", demo.extract("acp", demo.pretrain()))


def _sola(demo: Demo) -> dict[str, Any]:
    return demo.localize("sola", demo.refine("sola", demo.extract("acp", demo.pretrain())))


def _bsp(demo: Demo) -> dict[str, Any]:
    actions = demo.extract("acp", demo.pretrain())
    boundaries = demo.extract("bsp", demo.train_on_boundaries())
    return demo.localize("bsp", demo.merge("bsp", actions, boundaries))


def _lofi(demo: Demo) -> dict[str, Any]:
    return demo.localize("lofi", demo.extract("lofi", demo.train_end_to_end()))


def _lofi_and_sola(demo: Demo) -> dict[str, Any]:
    store = demo.extract("lofi", demo.train_end_to_end())
    return demo.localize("lofi_sola", demo.refine("lofi_sola", store))


# A new method joins the demo as a line here.
ROWS = (
    Row("G-TAD on an untrained encoder", "untrained", _untrained, quick=False),
    Row("G-TAD on classification features", "acp", _classification),
    Row("+ BSP (two-stream)", "bsp", _bsp, quick=False),
    Row("+ SoLa", "sola", _sola),
    Row("+ LoFi", "lofi", _lofi, quick=False),
    Row("+ LoFi + SoLa", "lofi_sola", _lofi_and_sola, quick=False),
)


def _write_page(demo: Demo, last: Row, metrics: list[dict[str, Any]]) -> Path:
    """The table, and every validation video with what the last row found in it."""
    page = demo.out / "report.html"
    annotations = read_annotations(demo.annotations)
    found = Detections.from_json(demo.row_folder(last.folder) / "localize" / "detections.json").by_video()
    write_report(
        page,
        title="Temporal action localization on procedural videos",
        description=(
            "The videos are drawn by the program. An action is a motion; the actor stays in view before and after it, "
            f"so its look does not tell when the action starts. Predictions: {last.name}."
        ),
        tables=[_metric_table(metrics)],
        videos=_report_videos(annotations, find_videos(demo.videos), found),
    )
    return page


def _metric_table(metrics: list[dict[str, Any]]) -> MetricTable:
    rows = tuple(MetricRow(row["name"], tuple(row["map"]), row["average_map"]) for row in metrics)
    return MetricTable("Validation videos", tuple(metrics[0]["tiou"]), rows)


def _report_videos(annotations: Annotations, files: dict[str, Path], found: dict[str, Detections]) -> list[ReportVideo]:
    return [
        ReportVideo(video.id, files[video.id], video.duration or 0.0, found.get(video.id, ()), video.segments)
        for video in annotations.in_subset("validation").values()
    ]


def _print_table(metrics: list[dict[str, Any]]) -> None:
    table = Table(title="mAP (%) on the validation videos")
    table.add_column("tIoU")
    for tiou in metrics[0]["tiou"]:
        table.add_column(f"{tiou:g}", justify="right")
    table.add_column("average", justify="right")
    for row in metrics:
        table.add_row(row["name"], *(f"{value:.1f}" for value in row["map"]), f"{row['average_map']:.1f}")
    results_console().print(table)
