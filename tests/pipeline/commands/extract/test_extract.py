"""Extraction: the right frames in the right rows, whatever else is extracted, whatever fails, whenever it is killed."""

import json
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from video_files import read_index, write_video

import pipeline.commands.extract.command
import pipeline.encoding.video_features
from encoders import Encoder, build_encoder
from encoders.base import FrameEncoder
from encoders.devices import resolve_device
from encoders.weights import fingerprint
from pipeline.commands.extract.command import resolve_sampling, run
from pipeline.commands.extract.options import ExtractConfig, SamplingConfig
from pipeline.data.features import FeatureStore
from pipeline.data.snippets import Sampling, sample_snippets
from pipeline.data.video import VideoError, VideoInfo, probe_video, read_frames
from pipeline.encoding.video_features import VideoFeatures, iterate_features
from pipeline.terminal.outcome import Failure

NUM_FRAMES = {"a": 30, "b": 5, "c": 70, "d": 1, "e": 41}

frames_seen: list[int] = []


class IndexReader(torch.nn.Module):
    """A network whose feature of a frame is the number drawn into it; frame 60 makes it stumble."""

    def forward(self, frames_NCHW: torch.Tensor) -> torch.Tensor:
        frames_NHWC = frames_NCHW.permute(0, 2, 3, 1).numpy().astype(np.uint8)
        indices = [read_index(frame) if frame.any() else 0 for frame in frames_NHWC]
        frames_seen.extend(indices)
        features_NC = torch.tensor(indices, dtype=torch.float32)[:, None].repeat(1, 2)
        return torch.where(features_NC == 60, torch.nan, features_NC)


def index_encoder(frame_wise: bool = False, num_frames: int = 4) -> Encoder:
    encoder = FrameEncoder(
        IndexReader(),
        name="reader",
        channels=2,
        num_frames=num_frames,
        frame_stride=2,
        size=64,
        resize_ratio=1.0,
        mean=(0.0,) * 3,
        std=(1 / 255,) * 3,
    )
    encoder.frame_wise = frame_wise
    return encoder


SAMPLING = Sampling(num_frames=4, frame_stride=2, step=3)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {name: write_video(folder / f"{name}.mp4", num_frames) for name, num_frames in NUM_FRAMES.items()}


def features_of(results: Iterator[VideoFeatures | Failure]) -> dict[str, npt.NDArray[np.float32]]:
    features = {}
    for result in results:
        assert isinstance(result, VideoFeatures), result
        features[result.video_id] = result.features_TC
    return features


# --- What reaches the encoder -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame_wise", [False, True])
@pytest.mark.parametrize(
    "sampling",
    [
        SAMPLING,
        Sampling(num_frames=4, frame_stride=2, step=20),
        Sampling(num_frames=4, frame_stride=2, num_snippets=6),
        Sampling(num_frames=4, frame_stride=1, step=2, fps=10.0),
    ],
)
def test_each_row_is_made_of_its_frames(videos: dict[str, Path], sampling: Sampling, frame_wise: bool) -> None:
    some = {name: videos[name] for name in ("a", "b", "d", "e")}
    results = list(iterate_features(some, index_encoder(frame_wise), sampling, batch_size=4, precision="float32"))
    assert [result.video_id for result in results] == list(some)
    for result in results:
        assert isinstance(result, VideoFeatures)
        info = probe_video(videos[result.video_id])
        indices_TL, timeline = sample_snippets(info.timestamps, info.duration, sampling)
        np.testing.assert_allclose(result.features_TC, indices_TL.mean(axis=1)[:, None].repeat(2, axis=1), rtol=1e-6)
        assert result.features_TC.dtype == np.float32
        assert (result.timeline, result.duration) == (timeline, info.duration)


def test_a_frame_wise_encoder_sees_each_frame_once(videos: dict[str, Path]) -> None:
    frames_seen.clear()
    dense = Sampling(num_frames=4, frame_stride=1, step=1)
    features_of(iterate_features({"a": videos["a"]}, index_encoder(frame_wise=True), dense, batch_size=5))
    assert frames_seen == list(range(30))


def test_sampling_is_at_the_rate_of_the_encoders_weights_unless_another_is_asked_for() -> None:
    encoder = index_encoder()
    assert resolve_sampling(encoder, SamplingConfig()).fps is None
    encoder.fps = 15.0
    assert resolve_sampling(encoder, SamplingConfig()).fps == 15.0
    assert resolve_sampling(encoder, SamplingConfig(fps=25.0)).fps == 25.0


@pytest.mark.parametrize("name", ["tsm_tiny", "tsn_r18", "x3d_m"])
def test_real_encoders_give_what_they_give_on_the_clips(videos: dict[str, Path], name: str) -> None:
    encoder = build_encoder(name, weights="random", size=64).eval()
    sampling = resolve_sampling(encoder, SamplingConfig())
    extracted = features_of(iterate_features(videos, encoder, sampling, batch_size=3, precision="float32"))
    for video_id, path in videos.items():
        info = probe_video(path)
        indices_TL, _ = sample_snippets(info.timestamps, info.duration, sampling)
        frames_NHWC = np.stack(list(read_frames(path, range(info.num_frames), resize=encoder.resize, crop=64)))
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(frames_NHWC[indices_TL]).permute(0, 4, 1, 2, 3))
        np.testing.assert_allclose(extracted[video_id], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["tsm_tiny", "tsn_r18", "tsn_efficientnet_lite0"])
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_features_are_bit_equal_alone_and_in_company(videos: dict[str, Path], name: str, precision: Any) -> None:
    """At batches of 8, `b` does not fill one, and `e` stands elsewhere in its batches when it is alone."""
    encoder = build_encoder(name, weights="random", size=64)
    sampling = resolve_sampling(encoder, SamplingConfig())
    together = features_of(iterate_features(videos, encoder, sampling, batch_size=8, precision=precision))
    for video_id in ("b", "e"):
        one = {video_id: videos[video_id]}
        alone = features_of(iterate_features(one, encoder, sampling, batch_size=8, precision=precision))
        np.testing.assert_array_equal(together[video_id], alone[video_id])


def test_progress_reaches_every_frame_that_is_needed(videos: dict[str, Path]) -> None:
    told: dict[str, tuple[int, int]] = {}
    results = iterate_features(
        videos,
        index_encoder(),
        Sampling(num_frames=4, frame_stride=2, step=8),
        batch_size=4,
        on_frames=lambda video_id, so_far, of: told.update({video_id: (so_far, of)}),
    )
    assert len(list(results)) == 5
    assert told == {"a": (16, 16), "b": (3, 3), "c": (36, 36), "d": (1, 1), "e": (21, 21)}


# --- What goes wrong --------------------------------------------------------------------------------------------------


class FailingProcess:
    """Decodes in this process; the videos in `bad` fail after so many frames."""

    bad: ClassVar[dict[str, int]] = {}

    def __init__(self, **options: Any) -> None: ...

    def __enter__(self) -> "FailingProcess":
        return self

    def __exit__(self, *error: object) -> None: ...

    def close(self) -> None: ...

    def probe(self, path: Path) -> VideoInfo:
        if self.bad.get(path.stem) == 0:
            raise VideoError(f"{path}: no video")
        return probe_video(path)

    def frames(self, path: Path, indices: Sequence[int], **size: Any) -> Iterator[npt.NDArray[np.uint8]]:
        for number, frame in enumerate(read_frames(path, indices, **size)):
            if number == self.bad.get(path.stem):
                raise VideoError(f"{path}: died")
            yield frame[None]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_failures_take_their_place_and_leave_the_others_alone(
    videos: dict[str, Path], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.encoding.video_features, "DecoderProcess", FailingProcess)
    whole = features_of(iterate_features(videos, index_encoder(), SAMPLING, batch_size=batch_size))
    monkeypatch.setattr(FailingProcess, "bad", {"a": 25, "d": 0, "e": 3})
    results = list(iterate_features(videos, index_encoder(), SAMPLING, batch_size=batch_size))
    names = [result.name if isinstance(result, Failure) else result.video_id for result in results]
    assert names == list(videos)
    assert [result.reason.partition(": ")[2] for result in results if isinstance(result, Failure)] == [
        "died",
        "no video",
        "died",
    ]
    for result in results:
        if isinstance(result, VideoFeatures):
            np.testing.assert_array_equal(result.features_TC, whole[result.video_id])


def test_an_error_of_our_own_in_the_decoding_thread_is_raised(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*args: Any) -> None:
        raise RuntimeError("stumbled")

    monkeypatch.setattr(pipeline.encoding.video_features, "sample_snippets", stumble)
    with pytest.raises(RuntimeError, match="stumbled"):
        list(iterate_features(videos, index_encoder(), SAMPLING))


def test_decoding_ends_when_no_one_wants_more(videos: dict[str, Path]) -> None:
    results = iterate_features(videos, index_encoder(), SAMPLING, batch_size=1)
    next(results)
    assert "decoding" in {thread.name for thread in threading.enumerate()}
    results.close()  # type: ignore[attr-defined]
    assert "decoding" not in {thread.name for thread in threading.enumerate()}


def test_stopping_does_not_wait_for_a_decoder_that_hangs(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = threading.Event()

    class HangingProcess(FailingProcess):
        def probe(self, path: Path) -> VideoInfo:
            if path.stem == "b":
                assert killed.wait(timeout=60)
                raise VideoError(f"{path}: killed")
            return probe_video(path)

        def close(self) -> None:
            killed.set()

    monkeypatch.setattr(pipeline.encoding.video_features, "DecoderProcess", HangingProcess)
    results = iterate_features(videos, index_encoder(), SAMPLING, batch_size=1)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert killed.is_set()
    assert "decoding" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"time_limit": 0.0}])
def test_numbers_that_make_no_sense_are_refused(videos: dict[str, Path], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be above zero"):
        list(iterate_features(videos, index_encoder(), SAMPLING, **wrong))


def test_no_gpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="--device cpu"):
        resolve_device("cuda")


# --- The stage --------------------------------------------------------------------------------------------------------


def config(videos: dict[str, Path], out: Path, **options: Any) -> ExtractConfig:
    defaults: dict[str, Any] = {"encoder": "tsm_tiny", "weights": "random", "precision": "float32"}
    return ExtractConfig(videos=videos["a"].parent, out=out, **(defaults | options))


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_store_holds_all_that_rebuilds_its_encoder(videos: dict[str, Path], tmp_path: Path) -> None:
    assert not run(
        config(videos, tmp_path, sampling=SamplingConfig(num_frames=4, frame_stride=3, fps=12.5), size=32)
    ).failed
    store = FeatureStore.open(tmp_path)
    assert list(store.videos) == list(videos)
    assert store.header.sampling == {"num_frames": 4, "frame_stride": 3, "step": 6, "num_snippets": None, "fps": 12.5}
    assert store.header.encoder is not None
    rebuilt = build_encoder(**store.header.encoder, weights=tmp_path)
    assert (rebuilt.num_frames, rebuilt.frame_stride, rebuilt.size) == (4, 3, 32)
    assert fingerprint(rebuilt) == store.header.weights


def test_a_rerun_does_only_what_is_missing(
    videos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config(videos, tmp_path))
    expected = contents(tmp_path)
    manifest = expected["manifest.jsonl"].splitlines(keepends=True)
    (tmp_path / "manifest.jsonl").write_bytes(b"".join(manifest[:3]))
    asked: list[list[str]] = []

    def remember(asked_for: dict[str, Path], *args: Any, **options: Any) -> Iterator[VideoFeatures | Failure]:
        asked.append(list(asked_for))
        return iterate_features(asked_for, *args, **options)

    monkeypatch.setattr(pipeline.commands.extract.command, "iterate_features", remember)
    assert not run(config(videos, tmp_path)).failed
    assert asked == [["c", "d", "e"]]
    assert "5 videos, 2 of them" in capsys.readouterr().err
    assert contents(tmp_path) == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder": "tsm_r18"}, "encoder.name: tsm_tiny, not tsm_r18"),
        ({"size": 32}, "encoder.size: 64, not 32"),
        ({"sampling": SamplingConfig(step=5)}, "sampling.step: 8, not 5"),
        ({"dtype": "float16"}, "dtype: float32, not float16"),
    ],
)
def test_a_store_made_otherwise_is_refused(
    videos: dict[str, Path], tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    run(config({"a": videos["a"]}, tmp_path))
    expected = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(config(videos, tmp_path, **changed))
    assert contents(tmp_path) == expected


def test_failures_are_listed_and_the_rest_stays(
    videos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file is no video, another makes the encoder stumble."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "c"):
        (folder / f"{name}.mp4").symlink_to(videos[name])
    (folder / "b.mp4").write_bytes(b"no video")
    monkeypatch.setattr(
        pipeline.commands.extract.command, "build_named_encoder", lambda *args, **options: index_encoder()
    )
    assert run(config({"a": folder / "a.mp4"}, tmp_path / "store")).failed
    assert list(FeatureStore.open(tmp_path / "store").videos) == ["a"]
    told = capsys.readouterr().err
    assert "2 of 3 videos failed" in told
    assert f"b: {folder / 'b.mp4'}: " in told
    assert "c: video 'c': features hold NaN" in told


def test_annotations_choose_the_videos(
    videos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = tmp_path / "gt.json"
    entry = {"subset": "training", "duration": 9.0, "annotations": []}
    annotations.write_text(json.dumps({"database": dict.fromkeys(["v_b", "d", "gone", "away"], entry)}))
    assert not run(config(videos, tmp_path / "store", annotations=annotations)).failed
    assert list(FeatureStore.open(tmp_path / "store").videos) == ["b", "d"]
    told = " ".join(capsys.readouterr().err.split())
    assert f"2 annotated videos that are not in {config(videos, tmp_path).videos} (gone, away)" in told
    annotations.write_text(json.dumps({"database": {"gone": entry}}))
    with pytest.raises(ValueError, match="none of the videos that"):
        run(config(videos, tmp_path / "store", annotations=annotations))


def test_no_videos_and_no_such_encoder(videos: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no encoder"):
        run(config(videos, tmp_path / "store", encoder="nonsense"))
    assert not (tmp_path / "store").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        run(config({"a": tmp_path / "empty" / "a.mp4"}, tmp_path / "store"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a fork server and SIGKILL")
def test_killed_at_any_moment_and_repeated_gives_the_same_store(videos: dict[str, Path], tmp_path: Path) -> None:
    """Killed before the store is there, and at random moments after each of four lines of its manifest."""
    whole, killed = config(videos, tmp_path / "whole"), config(videos, tmp_path / "killed")
    run(whole)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.commands.extract.command"])
    random = np.random.default_rng(0)
    for lines in range(5):
        process = context.Process(target=run, args=(killed,))
        process.start()
        while process.is_alive() and _count_lines(killed.out / "manifest.jsonl") < lines:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        process.kill()
        process.join()
    run(killed)
    assert contents(killed.out) == contents(whole.out)


def _count_lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0
