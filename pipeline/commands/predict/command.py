"""`pipeline predict`: raw videos and a run of `pipeline localize` to detections (`pipeline.detection.prediction`).

DETECTIONS.json   ActivityNet's JSON
DETECTIONS.csv    the same as a table
VIDEO.vtt         subtitles for each video, its best detections without repeats
DETECTIONS.html   the page, with --report
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.commands.predict.options import PredictConfig
from pipeline.data.detections import Detection, Detections
from pipeline.data.subtitles import without_repeats
from pipeline.detection.detector import load_run
from pipeline.detection.prediction import Prediction, Predictor, Processing, collect_videos, load_encoders
from pipeline.encoding.progress import ExtractionProgress
from pipeline.show.report import ReportVideo, write_report
from pipeline.terminal.notes import say, shows_progress
from pipeline.terminal.outcome import Failure, Outcome, list_failures

DETECTIONS_PRINTED = 5  # for each video


@dataclass(frozen=True, kw_only=True)
class Predicted(Outcome):
    """What was found in videos.

    Attributes:
        path: the JSON; what else was written stands beside it.
        detections: in all videos, best first in each.
    """

    path: Path
    detections: Detections


def run(config: PredictConfig) -> Predicted:
    """Detect actions in the videos and write all outputs.

    A failed video is listed at the end and is in no output; the others are whole.

    Raises:
        ValueError: two videos of one id, no video, an output that is no .json, or a run that cannot predict.
        FileNotFoundError: a video or the run is not there.
    """
    if config.out.suffix.lower() != ".json":
        raise ValueError(f"--out {config.out}: detections are written as JSON; give a name that ends in .json")
    videos = collect_videos(config.video)
    processing = Processing(
        device=config.device, decoder=config.decoder, batch_size=config.batch_size, time_limit=config.time_limit
    )
    trained = load_run(config.run, named=config.named)
    predictor = Predictor(trained, load_encoders(trained, config.named), processing)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    predictions: list[Prediction] = []
    failures: list[Failure] = []
    with ExtractionProgress(videos, show=shows_progress()) as progress:
        for result in progress.track(predictor.predict(videos, progress.on_frames)):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                predictions.append(replace(result, detections=result.detections.at_least(config.min_score)))
    found = write_outputs(config, predictions)
    say(format_summary(predictions))
    page = f", {config.out.with_suffix('.html')}" if config.report else ""
    say(f"written: {config.out}, {config.out.with_suffix('.csv')}{page}, and beside them a .vtt for each video")
    list_failures(f"{len(failures)} of {len(videos)} videos failed; the others are done:", failures)
    return Predicted(path=config.out, detections=found, failed=tuple(failures))


def write_outputs(config: PredictConfig, predictions: Sequence[Prediction]) -> Detections:
    """The JSON; beside it the csv, subtitles for each video, and the page if it is asked for."""
    found = join(predictions)
    found.to_json(config.out)
    found.to_csv(config.out.with_suffix(".csv"))
    for prediction in predictions:
        subtitles = config.out.with_name(f"{prediction.video_id}.vtt")
        prediction.detections.to_vtt(subtitles, least_share=config.subtitle_score)
    if config.report:
        page = config.out.with_suffix(".html")
        write_report(
            page,
            title="Detected actions",
            description=f"Detections of {config.run} in {_count(len(predictions), 'video')}.",
            videos=[ReportVideo(p.video_id, p.path, p.duration, p.detections) for p in predictions],
        )
    return found


def join(predictions: Iterable[Prediction]) -> Detections:
    """What was found in all videos."""
    return Detections.from_videos({prediction.video_id: prediction.detections for prediction in predictions})


def format_summary(predictions: Iterable[Prediction]) -> str:
    """The best few detections of each video, repeats left out, a line each: start, end, score, label."""
    blocks = []
    for prediction in predictions:
        best = without_repeats(prediction.detections)[:DETECTIONS_PRINTED]
        found = _count(len(prediction.detections), "detection")
        head = f"{prediction.video_id} ({_clock(prediction.duration)}): {found}" + (", best first" if best else "")
        blocks.append("\n".join([head, *map(_summary_line, best)]))
    return "\n".join(blocks)


def _summary_line(detection: Detection) -> str:
    return f"  {_clock(detection.start):>9} – {_clock(detection.end):>9}  {detection.score:6.3f}  {detection.label}"


def _clock(seconds: float) -> str:
    """0:05.2, 12:05.2 or 1:12:05.2."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes_of_hour = divmod(minutes, 60)
    upper = f"{hours}:{minutes_of_hour:02}" if hours else str(minutes)
    return f"{upper}:{rest // 10:02}.{rest % 10}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
