"""A page that shows what was found: metrics in tables, and every video with its true and predicted segments.

The page is one HTML file that needs no server and no network. Its videos stay where they are and are named relative to
the page, so the page and its videos can be moved together. The tables and the players are plain HTML; the timelines
are drawn by `report.js` from the JSON that `_timelines` embeds, each when its video is scrolled near.
"""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from urllib.parse import quote

from pipeline.data.annotations import Segment
from pipeline.data.detections import Detection


@dataclass(frozen=True)
class MetricRow:
    """One method's mAP, in percent: at each tIoU of its table, and on average."""

    name: str
    map: tuple[float, ...]
    average_map: float


@dataclass(frozen=True)
class MetricTable:
    """Rows that share their tIoU thresholds."""

    caption: str
    tiou: tuple[float, ...]
    rows: tuple[MetricRow, ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.map) != len(self.tiou):
                found = f"{len(row.map)} values for {len(self.tiou)} tIoU thresholds"
                raise ValueError(f"table {self.caption!r}, row {row.name!r}: {found}")


@dataclass(frozen=True)
class ReportVideo:
    """A video file, its duration in seconds, and the segments to draw; `truth` is empty where it is not known."""

    id: str
    path: Path
    duration: float
    predictions: Sequence[Detection]
    truth: Sequence[Segment] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration) and self.duration > 0):
            raise ValueError(f"video {self.id!r} has a duration of {self.duration} s; a timeline needs a positive one")


def write_report(
    path: Path, *, title: str, description: str, tables: Sequence[MetricTable] = (), videos: Sequence[ReportVideo] = ()
) -> None:
    """Write the page to `path`, whole or not at all. `description` is one paragraph of plain text."""
    assets = resources.files(__package__)
    page = Template(assets.joinpath("report.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        description=html.escape(description),
        style=assets.joinpath("report.css").read_text(encoding="utf-8"),
        script=assets.joinpath("report.js").read_text(encoding="utf-8"),
        tables="\n".join(_table(table) for table in tables),
        count=len(videos),
        cards="\n".join(_card(video, path.parent) for video in videos),
        data=_script_json(_timelines(videos)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    # A file name that is not UTF-8 reaches Python as lone surrogates, which UTF-8 cannot hold: as references they can.
    partial.write_text(page, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")
    partial.replace(path)


def _table(table: MetricTable) -> str:
    """An HTML table, a column for each tIoU and one for the average."""
    heads = "".join(f'<th scope="col">{tiou:g}</th>' for tiou in table.tiou)
    return (
        f'<div class="scroll" role="group" aria-label="{html.escape(table.caption)}" tabindex="0">'
        f"<table><caption>{html.escape(table.caption)}</caption>"
        f'<thead><tr><th scope="col">mAP (%) at tIoU</th>{heads}<th scope="col">average</th></tr></thead>'
        f"<tbody>{''.join(_row(row) for row in table.rows)}</tbody></table></div>"
    )


def _row(row: MetricRow) -> str:
    cells = "".join(f"<td>{_percent(value)}</td>" for value in row.map)
    return f'<tr><th scope="row">{html.escape(row.name)}</th>{cells}<td>{_percent(row.average_map)}</td></tr>'


def _percent(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "–"


def _card(video: ReportVideo, page_folder: Path) -> str:
    """A player and the empty place for its timeline. It loads nothing until the script asks or a person plays it."""
    name = html.escape(video.id)
    return (
        f'<article class="card"><h2>{name}</h2>'
        f'<video src="{html.escape(relative_url(video.path, page_folder))}" aria-label="{name}"'
        ' controls muted playsinline preload="none"></video>'
        '<p class="trouble" hidden></p><div class="timeline"></div></article>'
    )


def relative_url(file: Path, folder: Path) -> str:
    """The percent-encoded URL of a file for a page in `folder`: relative, or absolute from another Windows drive."""
    try:
        relative = os.path.relpath(file, folder)
    except ValueError:
        return file.absolute().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _timelines(videos: Sequence[ReportVideo]) -> dict[str, object]:
    """What the script draws: true segments [start, end, label] and predicted ones [start, end, label, score].

    A label is its number in `labels`. Times are rounded to milliseconds and scores to four figures: no page shows more.
    """
    true_labels = {segment.label for video in videos for segment in video.truth}
    labels = sorted(true_labels.union(p.label for video in videos for p in video.predictions))
    number = {label: i for i, label in enumerate(labels)}
    return {
        "labels": labels,
        "videos": [
            {
                "duration": round(video.duration, 3),
                "truth": [[round(s.start, 3), round(s.end, 3), number[s.label]] for s in video.truth],
                "predictions": [
                    [round(p.start, 3), round(p.end, 3), number[p.label], float(f"{p.score:.4g}")]
                    for p in video.predictions
                ],
            }
            for video in videos
        ],
    }


def _script_json(value: object) -> str:
    """JSON that is safe inside a script element: no `<` is left that could end it or open a comment."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
