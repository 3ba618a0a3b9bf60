"""Decoding in a child process that can be killed, because decoders crash and hang on damaged files.

    parent                                             child (`serve`)
    ───────────────────────────────────────────────────────────────────────────────────────
    request ──── standard input ────────────────────▶  probe, decode
    queue ◀── reading thread ◀── standard output ────  VideoInfo or chunks of pictures, ALIVE now and then, DONE

The reading thread lets the child decode ahead, until the queue and the pipe are full. The child is a fresh interpreter,
not `multiprocessing`'s: that would import the parent's main module again, and needs a guard in it.

No child outlives its parent: it ends when its pipes break, or, if it hangs in a decoder just then, when its own time
limit runs out, which faulthandler keeps without the interpreter's help.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from queue import Empty, Queue
from threading import Lock, Thread
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pipeline.data.video import Decoder, Indices, Picture, VideoError, VideoInfo, probe_video, read_frames

# Pictures travel in chunks of about this size, and this many chunks wait in the parent: 32 MiB of pictures in all.
CHUNK_BYTES = 4 << 20
QUEUE_CHUNKS = 8
# The child says this often that packets still come in, also where it has no picture to send.
PULSE_SECONDS = 0.5


class Signal(Enum):
    """Messages without content, from the child and (DIED) about it."""

    ALIVE = "alive"
    DONE = "done"
    DIED = "died"


@dataclass(frozen=True, eq=False)
class FramesRequest:
    """Arguments of `read_frames`."""

    path: Path
    indices: npt.NDArray[np.int64]
    resize: int | None
    crop: int | None
    decoder: Decoder


@dataclass(frozen=True)
class ProbeRequest:
    """Argument of `probe_video`."""

    path: Path


Request = FramesRequest | ProbeRequest


class DecoderProcess:
    """Reads videos, one after the other, in a child process; a context manager.

    A video at which the child crashes, or is silent for `time_limit` seconds, raises a VideoError; the next call works
    in a fresh child. One thread at a time may use it, and a new call ends an unfinished one; any thread may close it.
    """

    def __init__(self, *, time_limit: float = 60.0, decoder: Decoder = "auto") -> None:
        self._time_limit = time_limit
        self._decoder = decoder
        self._child: _Child | None = None

    def __enter__(self) -> DecoderProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, whatever it is doing."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def probe(self, path: Path | str) -> VideoInfo:
        """`probe_video(path)`."""
        (info,) = self._replies(ProbeRequest(Path(path)))
        assert isinstance(info, VideoInfo)
        return info

    def frames(
        self, path: Path | str, indices: Indices, *, resize: int | None = None, crop: int | None = None
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """The pictures of `read_frames`, in chunks (n, H, W, 3) of about 4 MiB."""
        request = FramesRequest(Path(path), np.asarray(indices, np.int64), resize, crop, self._decoder)
        return self._replies(request)

    def _replies(self, request: Request) -> Iterator[Any]:
        """Contents of the child's replies until it is done.

        Raises:
            VideoError, ValueError: what `read_frames` raised in the child; or the child died, or was silent.
        """
        child = self._idle_child()
        child.send(request)
        while (message := child.receive(self._time_limit)) is not Signal.DONE:
            if isinstance(message, Exception):
                child.is_busy = False
                raise message
            if message is Signal.DIED:
                raise VideoError(f"{request.path}: the decoder crashed ({child.ending()}); the file is damaged")
            if message is None:
                child.kill()
                raise VideoError(
                    f"{request.path}: no frame for {self._time_limit:g} s; the file is damaged, or the limit too short"
                )
            if message is not Signal.ALIVE:
                yield message
        child.is_busy = False

    def _idle_child(self) -> _Child:
        if self._child is None or self._child.is_busy or self._child.has_ended:
            self.close()
            self._child = _Child(self._time_limit)
        return self._child


class _Child:
    """The child process, and the thread that reads what it sends."""

    def __init__(self, time_limit: float) -> None:
        code = (
            f"import sys; sys.path[:] = {sys.path!r}\n"
            f"from pipeline.data.video.decoder_process import serve; serve({time_limit!r})"
        )
        self._process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self._queue: Queue[Any] = Queue(QUEUE_CHUNKS)
        self._thread = Thread(target=_read_all, args=(self._process.stdout, self._queue), daemon=True)
        self._thread.start()
        self._ending = Lock()
        self.is_busy = False

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def send(self, request: Request) -> None:
        self.is_busy = True
        try:
            pickle.dump(request, self._requests)
            self._requests.flush()
        except BrokenPipeError:
            return  # `receive` will say that it died

    def receive(self, time_limit: float) -> Any:
        """The next message, or None after `time_limit` seconds of silence."""
        try:
            return self._queue.get(timeout=time_limit)
        except Empty:
            return None

    def ending(self) -> str:
        """How it ended: the signal's name, or the exit status."""
        status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def kill(self) -> None:
        """End it, and the thread; whoever waits for a message receives DIED. Any thread may call it, at any time."""
        self._process.kill()
        with self._ending:  # the user's thread and the one that stops it often come here together
            while self._thread.is_alive() or not self._queue.empty():
                try:
                    self._queue.get(timeout=0.01)
                except Empty:
                    continue
            self._process.communicate()
            self._queue.put(Signal.DIED)


def _read_all(replies: IO[bytes], queue: Queue[Any]) -> None:
    """Put what the child sends into `queue`, and DIED at the end."""
    try:
        while True:
            queue.put(pickle.load(replies))
    except (EOFError, OSError, pickle.UnpicklingError):
        queue.put(Signal.DIED)


def serve(time_limit: float) -> None:
    """Answer the parent's requests until its pipe closes. This is the child's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    requests, replies = _take_pipes()
    pulse = _Pulse(replies, 2 * time_limit)
    known: dict[Path, VideoInfo] = {}
    while True:
        try:
            request: Request = pickle.load(requests)
        except EOFError:
            return
        for message in _answer(request, pulse, known):
            pulse.send(message)
        pulse.rest()


def _take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for the parent alone: what libraries print goes nowhere."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    return requests, replies


class _Pulse:
    """Sends messages; calling it says ALIVE now and then. The child ends itself `limit` seconds after the last call."""

    def __init__(self, replies: IO[bytes], limit: float) -> None:
        self._replies = replies
        self._limit = limit
        self._last = 0.0

    def __call__(self) -> None:
        if time.monotonic() - self._last > PULSE_SECONDS:
            self.send(Signal.ALIVE)

    def send(self, message: Any) -> None:
        """Send; however long the parent takes to receive it."""
        self.rest()
        pickle.dump(message, self._replies, protocol=pickle.HIGHEST_PROTOCOL)
        self._replies.flush()
        self._last = time.monotonic()
        faulthandler.dump_traceback_later(self._limit, exit=True)

    def rest(self) -> None:
        """Nothing is under way: live as long as the parent."""
        faulthandler.cancel_dump_traceback_later()


def _answer(request: Request, pulse: _Pulse, known: dict[Path, VideoInfo]) -> Iterator[Any]:
    """The replies to `request`, the last of them DONE or an exception."""
    try:
        pulse()
        if isinstance(request, ProbeRequest):
            known.clear()  # the file may have changed; and frames are asked for of the video that was probed last
            known[request.path] = probe_video(request.path, on_progress=pulse)
            yield known[request.path]
        else:
            yield from _chunks(request, pulse, known.get(request.path))
        yield Signal.DONE
    except ValueError as error:
        yield error
    except Exception:
        yield RuntimeError(f"{request.path}: the decoder process failed\n{traceback.format_exc()}")


def _chunks(request: FramesRequest, pulse: _Pulse, info: VideoInfo | None) -> Iterator[npt.NDArray[np.uint8]]:
    chunk: list[Picture] = []
    for picture in read_frames(
        request.path,
        request.indices,
        resize=request.resize,
        crop=request.crop,
        decoder=request.decoder,
        info=info,
        on_progress=pulse,
    ):
        chunk.append(picture)
        if len(chunk) * picture.nbytes >= CHUNK_BYTES:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)
