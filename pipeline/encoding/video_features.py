"""From video files to features in memory, all processors busy.

The way of a video, in places that work at the same time::

    child process      decodes and resizes frames                     pipeline.data.video.decoder_process
         │
    decoding thread    asks it for each frame once, puts snippets     _Decoding
         │             together; is a few batches ahead, also into
         │             the next videos; for networks that see flow,
         │             has it computed by threads of its own          pipeline.data.video.flow
       queue (bounded)
         │
    main thread        fills batches across videos,                   iterate_features
         │             hands on whole videos
         │
    encoding threads   run the network                                EncoderPool

Batches always have the same size, the last one padded, so that a video's features do not depend on what else was
extracted beside it. Memory holds one snippet's span of frames, the queue, the batches under way, and the features of
the videos under way.

Shapes: B batch, T snippets of a video, C channels, L frames (or flows) of a snippet, H W pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from encoders import Encoder
from encoders.inference import Precision, prepare_for_inference
from pipeline.data.snippets import Sampling, SnippetAssembler, Timeline, sample_flow, sample_snippets
from pipeline.data.video import Decoder, VideoError, VideoInfo
from pipeline.data.video.decoder_process import DecoderProcess
from pipeline.data.video.flow import FlowReader
from pipeline.terminal.outcome import Failure

Frame = NDArray[np.uint8]  # (H, W, 3), or (H, W, 2) for flow
OnFrames = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """Features of a whole video, float32, with their place in time; `duration` in seconds."""

    video_id: str
    features_TC: NDArray[np.float32]
    timeline: Timeline
    duration: float


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
    flow_cache: Path | None = None,
    on_frames: OnFrames | None = None,
) -> Iterator[VideoFeatures | Failure]:
    """Features of each video, or why there are none, in the order of `videos`.

    Args:
        videos: files by video id.
        encoder: stays as it is; a copy made for inference does the work.
        sampling: its snippets must be such as the encoder was built for.
        batch_size: snippets encoded at a time; frames, where the encoder sees one frame at a time.
        device: None: the CPU.
        precision, decoder, time_limit, flow_cache: as in `ExtractConfig`.
        on_frames: called with a video's id, how many of its frames are encoded, and how many there are to encode.

    Raises:
        ValueError: `batch_size` or `time_limit` is not above zero, the device lacks the precision, or the encoder wants
            flow and OpenCV is not there.
    """
    if batch_size < 1 or time_limit <= 0:
        raise ValueError(f"batch_size is {batch_size} and time_limit {time_limit}; both must be above zero")
    under_way: deque[_Video | Failure] = deque()
    batch: list[_Item] = []
    passes: deque[_Pass] = deque()
    with (
        EncoderPool(encoder, batch_size, device or torch.device("cpu"), precision) as pool,
        _Decoding(videos, encoder, sampling, decoder, time_limit, flow_cache, ahead=2 * batch_size) as events,
    ):
        for event in events:
            if isinstance(event, _Item):
                batch.append(event)
            elif isinstance(event, _Video):
                under_way.append(event)
            elif event is not None:
                _fail(event, under_way, batch)
            if len(batch) == pool.items_per_pass:
                passes.append(_start(pool, batch))
                batch = []
            while len(passes) > pool.num_workers or (passes and passes[0].vectors.done()):
                _deliver(passes.popleft(), on_frames)
            yield from _take_finished(under_way)
        if batch:
            passes.append(_start(pool, batch))
        for last in passes:
            _deliver(last, on_frames)
    yield from _take_finished(under_way)
    assert not under_way, "a video's decoding ended neither with all of its snippets nor with an error"


class _Pass(NamedTuple):
    """A forward pass under way: what goes in, and what will come out."""

    items: list[_Item]
    vectors: Future[NDArray[np.float32]]


def _fail(failure: Failure, under_way: deque[_Video | Failure], batch: list[_Item]) -> None:
    """Put the failure in the place of its video, which began last if it began at all."""
    batch[:] = [item for item in batch if item.video.video_id != failure.name]
    if under_way and isinstance(under_way[-1], _Video) and under_way[-1].video_id == failure.name:
        under_way.pop()
    under_way.append(failure)


def _start(pool: EncoderPool, batch: list[_Item]) -> _Pass:
    return _Pass(batch, pool.submit([item.frames for item in batch]))


def _deliver(finished: _Pass, on_frames: OnFrames | None) -> None:
    """Hand each vector to its video, in order; waits for the pass if need be."""
    for item, vector_C in zip(finished.items, finished.vectors.result(), strict=True):
        item.video.receive(vector_C)
    if on_frames is not None:
        for video, frames_so_far in {item.video: item.frames_so_far for item in finished.items}.items():
            on_frames(video.video_id, frames_so_far, video.num_frames)


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


class _End:
    """Nothing comes after this."""


class EncoderPool:
    """Encodes in forward passes of one fixed size; a context manager.

    On a CPU, `num_workers` passes run side by side and share the `batch_size` items. Threads that work on one pass
    together would wait for each other at every layer, and the decoder takes cores away from them: measured on two
    cores, they burnt three times the CPU time that the work takes.
    """

    def __init__(self, encoder: Encoder, batch_size: int, device: torch.device, precision: Precision) -> None:
        self._encoder = prepare_for_inference(encoder, device, precision)
        self._device = device
        self._num_threads = torch.get_num_threads()
        self.num_workers = min(self._num_threads, batch_size) if device.type == "cpu" else 1
        self.items_per_pass = batch_size // self.num_workers
        self._pool = ThreadPoolExecutor(
            self.num_workers, "encoding", torch.set_num_threads, (self._num_threads // self.num_workers,)
        )

    def __enter__(self) -> EncoderPool:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._num_threads)  # the workers' number would be that of threads yet to come

    def submit(self, items: list[list[Frame]]) -> Future[NDArray[np.float32]]:
        """Vectors of up to `items_per_pass` items, (len(items), C), once they are encoded."""
        return self._pool.submit(self._encode, items)

    @torch.inference_mode()
    def _encode(self, items: list[list[Frame]]) -> NDArray[np.float32]:
        pixels_BLHWC = np.zeros((self.items_per_pass, len(items[0]), *items[0][0].shape), np.uint8)
        for slot_LHWC, frames in zip(pixels_BLHWC, items, strict=False):
            np.stack(frames, out=slot_LHWC)
        clips_BCLHW = torch.from_numpy(pixels_BLHWC).to(self._device).permute(0, 4, 1, 2, 3)
        if self._encoder.frame_wise:
            vectors_BC = self._encoder.encode_frames(clips_BCLHW[:, :, 0])
        else:
            vectors_BC = self._encoder(clips_BCLHW)
        vectors: NDArray[np.float32] = vectors_BC[: len(items)].cpu().numpy()
        return vectors


class _Decoding:
    """Decodes videos in a thread.

    Iterate over it, inside `with`, for each video, then its items or its failure; and for None when there is nothing
    new for a moment, so that one can see to other things.
    """

    def __init__(
        self,
        videos: Mapping[str, Path],
        encoder: Encoder,
        sampling: Sampling,
        decoder: Decoder,
        time_limit: float,
        flow_cache: Path | None,
        ahead: int,
    ) -> None:
        self._videos = videos
        self._encoder = encoder
        self._sampling = sampling
        self._flow = FlowReader(torch.get_num_threads(), flow_cache) if encoder.modality == "flow" else None
        self._process = DecoderProcess(time_limit=time_limit, decoder=decoder)
        self._queue: Queue[_Event | BaseException | _End] = Queue(maxsize=ahead)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="decoding", daemon=True)

    def __enter__(self) -> Iterator[_Event | None]:
        self._thread.start()
        return self._events()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._process.close()  # so that a decoder that hangs does not keep us waiting
        self._thread.join()

    def _events(self) -> Iterator[_Event | None]:
        while True:
            try:
                event = self._queue.get(timeout=0.1)
            except Empty:
                yield None
                continue
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, _End):
                return
            yield event

    def _run(self) -> None:
        try:
            with self._process, self._flow or nullcontext():
                for video_id, path in self._videos.items():
                    for event in self._decode(video_id, path):
                        if not self._put(event):
                            return
            self._put(_End())
        except BaseException as error:
            self._put(error)

    def _put(self, event: _Event | BaseException | _End) -> bool:
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
            indices_TL, timeline, frames = self._sample(info)
            video = _Video(video_id, indices_TL, timeline, info.duration, self._encoder.frame_wise)
            yield video
            yield from self._items(video, indices_TL, frames)
        except (VideoError, OSError) as error:
            yield Failure(video_id, str(error))

    def _sample(self, info: VideoInfo) -> tuple[NDArray[np.int64], Timeline, Iterator[Frame]]:
        """What makes the snippets, by index, (T, L); the rows' timeline; and the frames, or flows, that occur."""
        resize, crop = self._encoder.resize, self._encoder.size
        if self._flow is None:
            indices_TL, timeline = sample_snippets(info.timestamps, info.duration, self._sampling)
            return indices_TL, timeline, self._frames(info.path, indices_TL, resize=resize, crop=crop)
        pairs_P2, indices_TL, timeline = sample_flow(info.timestamps, info.duration, self._sampling)
        frames = self._frames(info.path, pairs_P2, resize=resize, crop=None)
        return indices_TL, timeline, self._flow.pictures(info.path, pairs_P2, frames, resize=resize, crop=crop)

    def _frames(self, path: Path, indices: NDArray[np.int64], *, resize: int, crop: int | None) -> Iterator[Frame]:
        """The frames that occur in `indices`, each once, in order."""
        for chunk_nHWC in self._process.frames(path, np.unique(indices), resize=resize, crop=crop):
            yield from chunk_nHWC

    def _items(self, video: _Video, indices_TL: NDArray[np.int64], frames: Iterator[Frame]) -> Iterator[_Item]:
        assembler = SnippetAssembler[Frame](indices_TL)
        for frames_so_far, frame_HWC in enumerate(frames, start=1):
            items = [[frame_HWC]] if self._encoder.frame_wise else assembler.push(frame_HWC)
            for item in items:
                yield _Item(video, item, frames_so_far)
