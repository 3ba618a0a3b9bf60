"""`pipeline extract`: raw videos to a feature store, one vector a snippet.

The way of a video, in three places that work at the same time::

    child process      decodes and resizes frames                     pipeline.data.decoder_process
         │
    decoding thread    asks it for each frame once, puts snippets     _Decoding
         │             together; is a few batches ahead, also into
         │             the next videos
       queue (bounded)
         │
    main thread        fills batches across videos, encodes them,     iterate_features
                       writes whole videos to the store               run

Batches always have the same size, the last one padded, so that a video's features do not depend on what else was
extracted beside it. Memory holds one snippet's span of frames, the queue, and the features of the videos under way.

Shapes: B batch, T snippets of a video, C channels, L frames of a snippet, H W pixels.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from encoders import Encoder, build_encoder
from encoders.inference import Precision, computes_in_bfloat16, prepare_for_inference
from encoders.weights import fingerprint, save_weights
from pipeline.config import ExtractConfig, SamplingConfig
from pipeline.data.annotations import read_annotations
from pipeline.data.decoder_process import DecoderProcess
from pipeline.data.features import ENCODER_WEIGHTS, FeatureStore, StoreHeader
from pipeline.data.files import find_videos, match_ids
from pipeline.data.snippets import Sampling, SnippetAssembler, Timeline, sample_snippets
from pipeline.data.video import Decoder, VideoError

Device = Literal["auto", "cpu", "cuda"]
Frame = NDArray[np.uint8]  # (H, W, 3)
OnFrames = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """Features of a whole video, float32, with their place in time; `duration` in seconds."""

    video_id: str
    features_TC: NDArray[np.float32]
    timeline: Timeline
    duration: float


@dataclass(frozen=True)
class Failure:
    """A video that gave no features, and why; `reason` names the file."""

    video_id: str
    reason: str


def run(config: ExtractConfig) -> int:
    """Extract every video that the store lacks. Returns 1 if one failed (listed at the end; the others stay), else 0.

    Raises:
        ValueError, FileNotFoundError: no videos, no such encoder or weights, or a store that was made otherwise.
    """
    console = Console(stderr=True)
    videos = _chosen_videos(config, console)
    encoder = build_encoder(
        config.encoder,
        weights=config.weights,
        num_frames=config.sampling.num_frames,
        frame_stride=config.sampling.frame_stride,
        size=config.size,
        allow_missing=config.allow_missing,
    )
    sampling = resolve_sampling(encoder, config.sampling)
    device = resolve_device(config.device)
    precision = _resolve_precision(config.precision, device)
    header = StoreHeader(encoder.build_args, fingerprint(encoder), asdict(sampling), precision, config.dtype)
    with FeatureStore.create_or_resume(config.out, header) as store:
        if not (config.out / ENCODER_WEIGHTS).exists():
            save_weights(encoder, config.out / ENCODER_WEIGHTS)
        missing = {video_id: path for video_id, path in videos.items() if video_id not in store.videos}
        console.print(f"{len(videos)} videos, {len(videos) - len(missing)} of them in {config.out} already")
        with ExtractionProgress(missing, console) as progress:
            results = iterate_features(
                missing,
                encoder,
                sampling,
                batch_size=config.batch_size,
                device=device,
                precision=precision,
                decoder=config.decoder,
                time_limit=config.time_limit,
                on_frames=progress.on_frames,
            )
            failures = _add_all(store, progress.track(results))
    report_failures(failures, len(missing), console)
    return 1 if failures else 0


def _chosen_videos(config: ExtractConfig, console: Console) -> dict[str, Path]:
    """Videos of the folder, sorted by id; only the annotated ones if there is an annotation file."""
    videos = dict(sorted(find_videos(config.videos).items()))
    if config.annotations is None:
        return videos
    annotated = read_annotations(config.annotations).videos
    matches = match_ids(annotated, videos)
    if not matches:
        raise ValueError(f"{config.videos}: none of the videos that {config.annotations} names is here")
    if absent := [video_id for video_id in annotated if video_id not in matches]:
        console.print(f"warning: annotated videos that are not in {config.videos}: {len(absent)} ({_some(absent)})")
    chosen = set(matches.values())
    return {video_id: path for video_id, path in videos.items() if video_id in chosen}


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def resolve_sampling(encoder: Encoder, config: SamplingConfig) -> Sampling:
    """What the options leave open, filled in: the encoder's own snippets, each half a span after the one before."""
    span = encoder.num_frames * encoder.frame_stride
    step = max(1, span // 2) if config.step is None and config.num_snippets is None else config.step
    return Sampling(encoder.num_frames, encoder.frame_stride, step, config.num_snippets, config.fps)


def resolve_device(device: Device) -> torch.device:
    """`auto`: the GPU if there is one. ValueError if `cuda` is asked for and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: torch finds no CUDA device here; give --device cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _resolve_precision(precision: Precision, device: torch.device) -> Precision:
    if precision != "auto":
        return precision
    return "bfloat16" if computes_in_bfloat16(device) else "float32"


def _add_all(store: FeatureStore, results: Iterable[VideoFeatures | Failure]) -> list[Failure]:
    failures = []
    for result in results:
        if isinstance(result, Failure):
            failures.append(result)
            continue
        try:
            store.add(result.video_id, result.features_TC, result.timeline, result.duration)
        except ValueError as error:
            failures.append(Failure(result.video_id, str(error)))
    return failures


def report_failures(failures: list[Failure], num_videos: int, console: Console) -> None:
    """The list at the end of a run."""
    if failures:
        console.print(f"{len(failures)} of {num_videos} videos failed; the others are done:")
    for failure in failures:
        console.print(f"  {failure.video_id}: {failure.reason}", markup=False, highlight=False, soft_wrap=True)


# --- From videos to features ------------------------------------------------------------------------------------------


def iterate_features(
    videos: Mapping[str, Path],
    encoder: Encoder,
    sampling: Sampling,
    *,
    batch_size: int = 16,
    device: torch.device | None = None,
    precision: Precision = "auto",
    decoder: Decoder = "auto",
    time_limit: float = 60.0,
    on_frames: OnFrames | None = None,
) -> Iterator[VideoFeatures | Failure]:
    """Features of each video, or why there are none, in the order of `videos`.

    Args:
        videos: files by video id.
        encoder: stays as it is; a copy made for inference does the work.
        sampling: its snippets must be such as the encoder was built for.
        batch_size: snippets in a forward pass; frames, where the encoder sees one frame at a time.
        device: None: the CPU.
        precision, decoder, time_limit: as in `ExtractConfig`.
        on_frames: called with a video's id, how many of its frames are encoded, and how many there are to encode.
    """
    encode = BatchEncoder(encoder, batch_size, device or torch.device("cpu"), precision)
    under_way: deque[_Video | Failure] = deque()
    batch: list[_Item] = []
    with _Decoding(videos, encoder, sampling, decoder, time_limit, ahead=2 * batch_size) as events:
        for event in events:
            if isinstance(event, _Item):
                batch.append(event)
            elif isinstance(event, _Video):
                under_way.append(event)
            else:
                _fail(event, under_way, batch)
            if len(batch) == batch_size:
                _deliver(batch, encode, on_frames)
            yield from _take_finished(under_way)
    _deliver(batch, encode, on_frames)
    yield from _take_finished(under_way)
    assert not under_way, "a video's decoding ended neither with all of its snippets nor with an error"


def _fail(failure: Failure, under_way: deque[_Video | Failure], batch: list[_Item]) -> None:
    """Put the failure in the place of its video, which began last if it began at all."""
    batch[:] = [item for item in batch if item.video.video_id != failure.video_id]
    if under_way and under_way[-1].video_id == failure.video_id:
        under_way.pop()
    under_way.append(failure)


def _deliver(batch: list[_Item], encode: BatchEncoder, on_frames: OnFrames | None) -> None:
    """Encode what is in the batch, hand each vector to its video, and empty the batch."""
    if not batch:
        return
    for item, vector_C in zip(batch, encode([item.frames for item in batch]), strict=True):
        item.video.receive(vector_C)
    if on_frames is not None:
        for video, frames_so_far in {item.video: item.frames_so_far for item in batch}.items():
            on_frames(video.video_id, frames_so_far, video.num_frames)
    batch.clear()


def _take_finished(under_way: deque[_Video | Failure]) -> Iterator[VideoFeatures | Failure]:
    while under_way:
        first = under_way[0]
        if isinstance(first, _Video) and not first.is_complete:
            return
        under_way.popleft()
        yield first if isinstance(first, Failure) else first.result()


class _Video:
    """A video under way: collects rows as the vectors of its items come, in order."""

    def __init__(
        self, video_id: str, indices_TL: NDArray[np.int64], timeline: Timeline, duration: float, frame_wise: bool
    ) -> None:
        self.video_id = video_id
        self._timeline = timeline
        self._duration = duration
        self._num_rows = len(indices_TL)
        self._rows: list[NDArray[np.float32]] = []
        assembler = SnippetAssembler[NDArray[np.float32]](indices_TL)
        self.num_frames = len(assembler.frames)
        self._assembler = assembler if frame_wise else None

    def receive(self, vector_C: NDArray[np.float32]) -> None:
        """A row; or of a frame-wise encoder, a frame's features, of which a row is the mean over its L frames."""
        if self._assembler is None:
            self._rows.append(vector_C)
        else:
            self._rows.extend(np.mean(frames_LC, axis=0) for frames_LC in self._assembler.push(vector_C))

    @property
    def is_complete(self) -> bool:
        return len(self._rows) == self._num_rows

    def result(self) -> VideoFeatures:
        return VideoFeatures(self.video_id, np.stack(self._rows), self._timeline, self._duration)


@dataclass(frozen=True, eq=False)
class _Item:
    """What is encoded as one: the L frames of a snippet, or one frame for a frame-wise encoder."""

    video: _Video
    frames: list[Frame]
    frames_so_far: int


_Event = _Video | _Item | Failure


class BatchEncoder:
    """Encodes up to `batch_size` items as one batch of just that size."""

    def __init__(self, encoder: Encoder, batch_size: int, device: torch.device, precision: Precision) -> None:
        self._encoder = prepare_for_inference(encoder, device, precision)
        self._device = device
        num_frames = 1 if encoder.frame_wise else encoder.num_frames
        self._pixels_BLHWC = np.zeros((batch_size, num_frames, encoder.size, encoder.size, 3), np.uint8)

    @torch.inference_mode()
    def __call__(self, items: list[list[Frame]]) -> NDArray[np.float32]:
        """Vectors of the items, (len(items), C)."""
        for slot_LHWC, frames in zip(self._pixels_BLHWC, items, strict=False):
            np.stack(frames, out=slot_LHWC)
        self._pixels_BLHWC[len(items) :] = 0
        clips_BCLHW = torch.from_numpy(self._pixels_BLHWC).to(self._device).permute(0, 4, 1, 2, 3)
        if self._encoder.frame_wise:
            vectors_BC = self._encoder.encode_frames(clips_BCLHW[:, :, 0])
        else:
            vectors_BC = self._encoder(clips_BCLHW)
        vectors: NDArray[np.float32] = vectors_BC[: len(items)].cpu().numpy()
        return vectors


class _Decoding:
    """Decodes videos in a thread. Iterate over it, inside `with`, for each video, then its items or its failure."""

    def __init__(
        self,
        videos: Mapping[str, Path],
        encoder: Encoder,
        sampling: Sampling,
        decoder: Decoder,
        time_limit: float,
        ahead: int,
    ) -> None:
        self._videos = videos
        self._encoder = encoder
        self._sampling = sampling
        self._process = DecoderProcess(time_limit=time_limit, decoder=decoder)
        self._queue: Queue[_Event | BaseException | None] = Queue(maxsize=ahead)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="decoding", daemon=True)

    def __enter__(self) -> Iterator[_Event]:
        self._thread.start()
        return self._events()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _events(self) -> Iterator[_Event]:
        while (event := self._queue.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    def _run(self) -> None:
        try:
            with self._process:
                for video_id, path in self._videos.items():
                    for event in self._decode(video_id, path):
                        if not self._put(event):
                            return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, event: _Event | BaseException | None) -> bool:
        """Wait for room in the queue. False: no one is listening any more."""
        while not self._stop.is_set():
            try:
                self._queue.put(event, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def _decode(self, video_id: str, path: Path) -> Iterator[_Event]:
        try:
            info = self._process.probe(path)
            indices_TL, timeline = sample_snippets(info.timestamps, info.duration, self._sampling)
            video = _Video(video_id, indices_TL, timeline, info.duration, self._encoder.frame_wise)
            yield video
            yield from self._items(video, path, indices_TL)
        except (VideoError, OSError) as error:
            yield Failure(video_id, str(error))

    def _items(self, video: _Video, path: Path, indices_TL: NDArray[np.int64]) -> Iterator[_Item]:
        assembler = SnippetAssembler[Frame](indices_TL)
        resize, crop = self._encoder.resize, self._encoder.size
        chunks = self._process.frames(path, assembler.frames, resize=resize, crop=crop)
        frames = (frame_HWC for chunk_nHWC in chunks for frame_HWC in chunk_nHWC)
        for frames_so_far, frame_HWC in enumerate(frames, start=1):
            items = [[frame_HWC]] if self._encoder.frame_wise else assembler.push(frame_HWC)
            for item in items:
                yield _Item(video, item, frames_so_far)


# --- Progress ---------------------------------------------------------------------------------------------------------


class ExtractionProgress:
    """A bar on the terminal: videos done, frames per second, time left.

    The bar counts bytes of the files, which foretell the time better than their number does.
    """

    def __init__(self, videos: Mapping[str, Path], console: Console) -> None:
        self._bytes = {video_id: path.stat().st_size for video_id, path in videos.items()}
        self._share_done = dict.fromkeys(videos, 0.0)
        self._num_frames = 0.0
        self._started = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[speed]:.0f} frames/s"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task(self._description(0), total=sum(self._bytes.values()), speed=0)

    def __enter__(self) -> ExtractionProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def track(self, results: Iterable[VideoFeatures | Failure]) -> Iterator[VideoFeatures | Failure]:
        """Pass results on and count them; a failed video counts as done."""
        for number, result in enumerate(results, start=1):
            yield result
            self._advance(result.video_id, 1.0)
            self._bar.update(self._task, description=self._description(number))

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
