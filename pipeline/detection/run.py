"""A run of `pipeline localize` as Python sees it: what was found and how good that is, and predicting with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from encoders import Encoder
from encoders.devices import Device
from pipeline.data.detections import Detections
from pipeline.data.video import Decoder
from pipeline.detection.detector import LocalizeRun, load_run
from pipeline.detection.prediction import Prediction, Predictor, Processing, collect_videos, load_encoders
from pipeline.encoding.progress import ExtractionProgress
from pipeline.measures.detection_metrics import DetectionMetrics, ProposalMetrics
from pipeline.terminal.outcome import Failure, Outcome
from pipeline.training.run_folder import METRICS, read_run_json

DETECTIONS, PROPOSALS = "detections.json", "proposals.json"


@dataclass(frozen=True, kw_only=True)
class Run(Outcome):
    """A trained head with all that it needs to find actions in videos. Give it wherever a run folder is asked for.

    Attributes:
        path: its folder.
        named: names of others' encoders and heads, `package.module:name`, that may be imported for it.
    """

    path: Path
    named: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path, *, named: tuple[str, ...] = ()) -> Run:
        """The run in a folder.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: as `pipeline.detection.detector.load_run`.
        """
        run = cls(path=path, named=named)
        _ = run._trained  # so that what is wrong with it is said now
        return run

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def labels(self) -> tuple[str, ...]:
        """The actions that it knows."""
        return self._trained.labels

    @property
    def metrics(self) -> DetectionMetrics:
        """How good its detections in the validation videos are."""
        return DetectionMetrics.from_dict(read_run_json(self.path / METRICS, made_by="pipeline localize"))

    @property
    def proposal_metrics(self) -> ProposalMetrics | None:
        """How good its segments are before others' video scores give them classes; None without such scores."""
        metrics = read_run_json(self.path / METRICS, made_by="pipeline localize")
        return ProposalMetrics.from_dict(metrics) if "auc" in metrics else None

    @property
    def detections(self) -> Detections:
        """What it found in the validation videos."""
        return Detections.from_json(self.path / DETECTIONS)

    def predict(
        self,
        *videos: str | os.PathLike[str],
        progress: bool = False,
        device: Device = "auto",
        decoder: Decoder = "auto",
        batch_size: int = 16,
        time_limit: float = 60.0,
    ) -> Predictions:
        """Find actions in videos, one video after the other as you iterate.

        Args:
            videos: video files, or folders of them.
            progress: show a bar on stderr.
            device: where the networks run; `auto`: the GPU if there is one.
            decoder: which library decodes.
            batch_size: snippets encoded at a time.
            time_limit: seconds without a new frame after which a video counts as failed.

        Raises:
            FileNotFoundError: a video is not there.
            ValueError: two videos of one id, a folder without videos, or a run that cannot start from videos.
        """
        files = collect_videos(map(Path, videos))
        processing = Processing(device=device, decoder=decoder, batch_size=batch_size, time_limit=time_limit)
        return Predictions(Predictor(self._trained, self._encoders, processing), files, progress)

    @cached_property
    def _trained(self) -> LocalizeRun:
        return load_run(self.path, named=self.named)

    @cached_property
    def _encoders(self) -> list[Encoder]:
        return load_encoders(self._trained, self.named)


class Predictions(Iterator[Prediction]):
    """Predictions for some videos, made one by one as they are asked for.

    Attributes:
        failed: the videos so far in which nothing could be looked for, and why; the others are not affected.
    """

    def __init__(self, predictor: Predictor, videos: dict[str, Path], progress: bool) -> None:
        self.failed: list[Failure] = []
        self._results = self._predict(predictor, videos, progress)

    def __next__(self) -> Prediction:
        return next(self._results)

    def _predict(self, predictor: Predictor, videos: dict[str, Path], progress: bool) -> Iterator[Prediction]:
        with ExtractionProgress(videos, show=progress) as bar:
            for result in bar.track(predictor.predict(videos, bar.on_frames)):
                if isinstance(result, Failure):
                    self.failed.append(result)
                else:
                    yield result
