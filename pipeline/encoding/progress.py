"""How far the encoding of videos is, as a bar on the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Result = TypeVar("Result")


class ExtractionProgress:
    """A bar on the terminal: videos done, frames per second, time left.

    The bar counts bytes of the files, which foretell the time better than their number does.
    """

    def __init__(self, videos: Mapping[str, Path], *, show: bool) -> None:
        self._bytes = {video_id: path.stat().st_size for video_id, path in videos.items()}
        self._share_done = dict.fromkeys(videos, 0.0)
        self._num_frames = 0.0
        self._started = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[speed]:.0f} frames/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not show,
        )
        self._task = self._bar.add_task(self._description(0), total=sum(self._bytes.values()), speed=0)

    def __enter__(self) -> ExtractionProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def track(self, results: Iterable[Result]) -> Iterator[Result]:
        """Pass on what came of each video, in their order, and count it; a failed one counts as done."""
        for number, (video_id, result) in enumerate(zip(self._bytes, results, strict=True), start=1):
            yield result
            self._advance(video_id, 1.0)
            self._bar.update(self._task, description=self._description(number))
        self._bar.update(self._task, completed=sum(self._bytes.values()))  # what rounding left over

    def on_frames(self, video_id: str, frames_so_far: int, num_frames: int) -> None:
        """Take note of how far a video is; for `iterate_features`."""
        share = frames_so_far / num_frames
        self._num_frames += num_frames * (share - self._share_done[video_id])
        self._advance(video_id, share)
        self._bar.update(self._task, speed=self._num_frames / (time.monotonic() - self._started))

    def _advance(self, video_id: str, share: float) -> None:
        self._bar.advance(self._task, self._bytes[video_id] * (share - self._share_done[video_id]))
        self._share_done[video_id] = share

    def _description(self, number: int) -> str:
        return f"{number} of {len(self._bytes)} videos"
