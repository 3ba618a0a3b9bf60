"""How long `pipeline evaluate` takes on files of ActivityNet's size: 470,000 detections on 4,700 videos, 200 classes.

    python benchmarks/evaluate.py [--runs 5]

Prints the median time of the whole command (Python's start, reading both files, mAP at ten thresholds), and how many
times faster than the tests' slow reference the metric alone is, both on the first hundredth of the videos.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command_line import script_parser
from benchmarks.references import mean_average_precision
from pipeline.data.annotations import read_annotations
from pipeline.data.detections import Detections
from pipeline.measures.detection_metrics import ACTIVITYNET_TIOU, GroundTruth, detection_metrics
from pipeline.options.packaged import ROOT

NUM_VIDEOS, NUM_CLASSES, DETECTIONS_A_VIDEO = 4700, 200, 100

Rows = dict[str, list[dict[str, Any]]]  # by video: {"segment", "label"} and for detections "score"


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    truth, found = draw_data()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, truth, found)
        times = [seconds(lambda: run_command(folder)) for _ in range(runs)]
        print(f"{NUM_VIDEOS * DETECTIONS_A_VIDEO} detections, whole command: median {statistics.median(times):.2f} s")
        print(f"of {runs} runs: {', '.join(f'{value:.2f}' for value in times)} s")

        some = list(truth)[: NUM_VIDEOS // 100]
        small = [{video_id: rows[video_id] for video_id in some} for rows in (truth, found)]
        print(f"the metric alone is {speed_up(folder, *small):.0f} times faster than the reference")


def draw_data() -> tuple[Rows, Rows]:
    """One class and one to four segments a video; half of its detections are of that class, near its segments."""
    random = np.random.default_rng(0)
    truth: Rows = {}
    found: Rows = {}
    for index in range(NUM_VIDEOS):
        video_id, label = f"v_{index:011d}", f"class {random.integers(NUM_CLASSES):03d}"
        starts = random.uniform(0, 90, random.integers(1, 5))
        truth[video_id] = [{"segment": [start, start + 25], "label": label} for start in starts.tolist()]
        near = random.choice(starts, DETECTIONS_A_VIDEO) + random.normal(0, 5, DETECTIONS_A_VIDEO)
        ends = near + random.uniform(5, 50, DETECTIONS_A_VIDEO)
        others = random.integers(0, NUM_CLASSES, DETECTIONS_A_VIDEO)
        scores = random.random(DETECTIONS_A_VIDEO)
        found[video_id] = [
            {"segment": [start, end], "label": label if n % 2 else f"class {int(other):03d}", "score": score}
            for n, (start, end, other, score) in enumerate(np.stack([near, ends, others, scores], axis=1).tolist())
        ]
    return truth, found


def write_files(folder: Path, truth: Rows, found: Rows) -> None:
    database = {video_id: {"subset": "validation", "annotations": rows} for video_id, rows in truth.items()}
    (folder / "truth.json").write_text(json.dumps({"database": database}))
    (folder / "found.json").write_text(json.dumps({"version": "VERSION 1.3", "external_data": {}, "results": found}))


def run_command(folder: Path) -> None:
    files = ["--ground-truth", str(folder / "truth.json"), "--predictions", str(folder / "found.json")]
    command = [sys.executable, "-m", "pipeline.cli", "evaluate", *files]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)


def speed_up(folder: Path, truth: Rows, found: Rows) -> float:
    write_files(folder, truth, found)
    annotations = read_annotations(folder / "truth.json")
    columns = GroundTruth.of(annotations.videos), Detections.from_json(folder / "found.json")
    true_rows = [(v, row["label"], *row["segment"]) for v, rows in truth.items() for row in rows]
    found_rows = [(v, row["label"], *row["segment"], row["score"]) for v, rows in found.items() for row in rows]
    slow = seconds(lambda: [mean_average_precision(true_rows, found_rows, threshold) for threshold in ACTIVITYNET_TIOU])
    return slow / seconds(lambda: detection_metrics(*columns))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
