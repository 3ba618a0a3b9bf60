"""Decoding in a child: the same frames; a child that crashes, hangs or is left alone costs one video at most."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from video_files import read_index, write_video

import pipeline
from pipeline.data.video import VideoError, decoder_process, probe_video, read_frames
from pipeline.data.video.decoder_process import DecoderProcess, Signal

N = 300

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these tests look children up in /proc")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So large that a chunk holds 5 of its frames, and the queue and the pipe not all of them."""
    return write_video(
        tmp_path_factory.mktemp("videos") / "large.mp4", N, size=(640, 480), options={"preset": "ultrafast"}
    )


@pytest.fixture
def process() -> Iterator[DecoderProcess]:
    with DecoderProcess(time_limit=20.0) as process:
        yield process


def _pid(process: DecoderProcess) -> int:
    assert process._child is not None
    return process._child._process.pid


def _is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def _wait_until_gone(pid: int, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not _is_gone(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.02)


def test_the_child_gives_what_the_readers_give(process: DecoderProcess, path: Path) -> None:
    here, there = probe_video(path), process.probe(path)
    np.testing.assert_array_equal(here.timestamps, there.timestamps)
    assert (here.width, here.height, here.duration) == (there.width, there.height, there.duration)
    indices = [0, 3, 3, 150, 299]
    chunks = list(process.frames(path, indices, resize=48, crop=40))
    np.testing.assert_array_equal(np.concatenate(chunks), list(read_frames(path, indices, resize=48, crop=40)))
    assert list(process.frames(path, [])) == []


def test_large_videos_come_in_chunks_in_order_from_one_child(process: DecoderProcess, path: Path) -> None:
    for _ in range(2):
        chunks = process.frames(path, range(N))
        first = next(chunks)
        assert 1 < len(first) < 10
        pid = _pid(process)
        seen = [read_index(frame) for frame in first] + [read_index(frame) for chunk in chunks for frame in chunk]
        assert seen == list(range(N))
        assert _pid(process) == pid


def test_errors_are_those_of_the_readers_and_leave_the_child_alive(
    process: DecoderProcess, path: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    process.probe(path)
    pid = _pid(process)
    with pytest.raises(VideoError, match=r"broken.mp4: cannot be read as a video"):
        process.probe(broken)
    with pytest.raises(VideoError, match=r"broken.mp4: cannot be read as a video"):
        list(process.frames(broken, [0]))
    with pytest.raises(ValueError, match="frames 0 to 299"):
        list(process.frames(path, [N]))
    assert len(next(process.frames(path, [7], resize=32))) == 1
    assert _pid(process) == pid


def test_a_crash_is_an_error_that_names_the_file_and_the_next_call_works(process: DecoderProcess, path: Path) -> None:
    chunks = process.frames(path, range(N))
    next(chunks)
    os.kill(_pid(process), signal.SIGSEGV)
    with pytest.raises(VideoError, match=r"large.mp4: the decoder crashed \(SIGSEGV\)"):
        list(chunks)
    assert process.probe(path).num_frames == N


def test_a_crash_between_videos_costs_nothing(process: DecoderProcess, path: Path) -> None:
    process.probe(path)
    os.kill(_pid(process), signal.SIGKILL)
    assert process._child is not None
    process._child._process.wait(10)  # a zombie may have threads that end later, and cannot be waited for until then
    assert process.probe(path).num_frames == N


def test_silence_is_an_error_that_names_the_file_and_the_next_call_works(path: Path) -> None:
    with DecoderProcess(time_limit=3.0) as process:
        process.probe(path)
        pid = _pid(process)
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(VideoError, match=r"large.mp4: no frame for 3 s"):
            process.probe(path)
        assert 2.5 < time.monotonic() - started < 10
        assert _is_gone(pid)
        assert process.probe(path).num_frames == N


def test_a_slow_consumer_is_not_silence(path: Path) -> None:
    with DecoderProcess(time_limit=1.5) as process:
        process.probe(path)
        chunks = process.frames(path, range(N))
        next(chunks)
        time.sleep(4)  # more than the parent's limit, and the child's own of 3 s
        assert sum(map(len, chunks)) == N - 5


def test_an_unfinished_call_ends_when_another_starts(process: DecoderProcess, path: Path) -> None:
    unfinished = process.frames(path, range(N))
    next(unfinished)
    pid = _pid(process)
    assert read_index(next(process.frames(path, [123]))[0]) == 123
    assert _is_gone(pid)
    with pytest.raises(VideoError, match=r"crashed \(SIGKILL\)"):
        list(unfinished)


def test_leaving_the_block_ends_the_child(path: Path) -> None:
    with DecoderProcess() as process:
        next(process.frames(path, range(N)))
        pid = _pid(process)
    assert _is_gone(pid)


def test_two_threads_may_end_it_at_the_same_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    communicate = subprocess.Popen.communicate

    def slowly(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        inside.append(child)
        assert len(inside) == 1, "subprocess cannot be asked by two at a time"
        time.sleep(0.2)
        inside.remove(child)
        return communicate(child)

    inside: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(subprocess.Popen, "communicate", slowly)
    process = DecoderProcess()
    next(process.frames(path, np.arange(N)))
    child = process._child
    assert child is not None
    with ThreadPoolExecutor(2) as threads:
        for ending in [threads.submit(child.kill), threads.submit(child.kill)]:
            ending.result(timeout=20)
    assert child.receive(time_limit=0) is Signal.DIED


def test_progress_is_reported_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = io.BytesIO()
    pulse = decoder_process._Pulse(replies, 60.0)
    try:
        pulse.send("first")
        for _ in range(100):
            pulse()
        monkeypatch.setattr(decoder_process, "PULSE_SECONDS", 0.0)
        pulse()
    finally:
        pulse.rest()
    replies.seek(0)
    assert [pickle.load(replies), pickle.load(replies)] == ["first", Signal.ALIVE]
    assert replies.read() == b""


HANGING_CHILD = """
import ctypes, os
from pipeline.data.video.decoder_process import _Pulse
_Pulse(open(os.devnull, "wb"), 0.5).send("about to hang")
ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the interpreter's lock, as a hanging decoder does
"""


def test_a_child_that_hangs_ends_itself() -> None:
    started = time.monotonic()
    hanging = subprocess.run([sys.executable, "-c", HANGING_CHILD], capture_output=True, check=False, timeout=30)
    assert hanging.returncode != 0
    assert time.monotonic() - started < 20


UNGUARDED_MAIN = """
import sys
from pipeline.data.video.decoder_process import DecoderProcess
print("main", flush=True)
process = DecoderProcess(time_limit=20)
frames = process.frames(sys.argv[1], range({n}))
next(frames)
print(process._child._process.pid, flush=True)
{then}
"""


def _start_main(path: Path, script: Path, then: str) -> subprocess.Popen[str]:
    script.write_text(UNGUARDED_MAIN.format(n=N, then=then))
    environment = os.environ | {"PYTHONPATH": str(Path(pipeline.__file__).parents[1])}
    command = [sys.executable, str(script), str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_main_module_without_a_guard_runs_once(path: Path, tmp_path: Path) -> None:
    with _start_main(path, tmp_path / "main.py", "process.close()") as main:
        output, _ = main.communicate(timeout=30)
    assert main.returncode == 0
    assert output.startswith("main\n")
    assert output.count("main") == 1


@pytest.mark.parametrize("then", ["list(frames); print(flush=True); input()", "print(flush=True); input()"])
def test_no_child_outlives_a_killed_parent(path: Path, tmp_path: Path, then: str) -> None:
    """Neither one that waits for a request nor one that waits to be read."""
    with _start_main(path, tmp_path / "main.py", then) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "main\n"
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "\n"
        assert not _is_gone(pid)
        parent.kill()
    _wait_until_gone(pid)
