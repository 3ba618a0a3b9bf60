"""Extraction with encoders that see flow: the right flows in the right rows, each computed once."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from flow_encoder import mean_motion

import pipeline.data.video.flow
from pipeline.data.snippets import Sampling, sample_flow
from pipeline.data.video import probe_video, read_frames
from pipeline.data.video.flow import flow_picture, import_opencv
from pipeline.encoding.video_features import VideoFeatures, iterate_features
from pipeline.terminal.outcome import Failure

SIZE, FPS = (64, 48), 10
NUM_FRAMES = {"a": 12, "b": 5, "c": 1}


def write_motion(path: Path, num_frames: int, seed: int) -> Path:
    """A texture that moves by (2, 1) pixels a frame in the first half of the video, and by (−1, 0) in the second."""
    texture = np.random.default_rng(seed).uniform(0, 255, (20, 20, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    x, y = 40, 40
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "10"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(num_frames):
            pixels = np.ascontiguousarray(texture[y : y + SIZE[1], x : x + SIZE[0]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            x, y = (x - 2, y - 1) if number < num_frames // 2 else (x + 1, y)
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {
        name: write_motion(folder / f"{name}.mp4", num_frames, seed)
        for seed, (name, num_frames) in enumerate(NUM_FRAMES.items())
    }


def features_of(results: Iterator[VideoFeatures | Failure]) -> dict[str, npt.NDArray[np.float32]]:
    features = {}
    for result in results:
        assert isinstance(result, VideoFeatures), result
        features[result.video_id] = result.features_TC
    return features


# --- What reaches a flow encoder --------------------------------------------------------------------------------------


def slow_features(path: Path, sampling: Sampling) -> npt.NDArray[np.float64]:
    """Mean code of each row's flows, (T, 2), from all frames and all flows in memory."""
    info = probe_video(path)
    pairs_P2, indices_TL, _ = sample_flow(info.timestamps, info.duration, sampling)
    opencv = import_opencv()
    grays = [
        opencv.cvtColor(frame, opencv.COLOR_RGB2GRAY) for frame in read_frames(path, range(info.num_frames), resize=32)
    ]
    means_P2 = np.stack([flow_picture(grays[i], grays[j], 32).mean(axis=(0, 1)) for i, j in pairs_P2])
    means_T2: npt.NDArray[np.float64] = means_P2[indices_TL].mean(axis=1)
    return means_T2


@pytest.mark.parametrize(
    ("sampling", "frame_wise"),
    [
        (Sampling(num_frames=4, frame_stride=1, step=3), False),
        (Sampling(num_frames=4, frame_stride=1, step=3), True),
        (Sampling(num_frames=2, frame_stride=3, num_snippets=3), False),
        (Sampling(num_frames=2, frame_stride=1, step=4, fps=15.0), False),
    ],
)
def test_each_row_is_made_of_its_flows(videos: dict[str, Path], sampling: Sampling, frame_wise: bool) -> None:
    encoder = mean_motion(num_frames=sampling.num_frames, frame_wise=frame_wise)
    features = features_of(iterate_features(videos, encoder, sampling, batch_size=3, precision="float32"))
    assert list(features) == list(videos)
    for video_id, path in videos.items():
        np.testing.assert_allclose(features[video_id][:, :2], slow_features(path, sampling), rtol=1e-4)


def test_features_tell_the_motion(videos: dict[str, Path]) -> None:
    sampling = Sampling(num_frames=3, frame_stride=1, step=3)
    features_TC = features_of(iterate_features({"a": videos["a"]}, mean_motion(num_frames=3), sampling))["a"]
    pixels_T2 = features_TC[:, :2] / 255 * 40 - 20
    scale = 32 / SIZE[1]  # the flow is that of the resized frames
    np.testing.assert_allclose(pixels_T2[:2], [[2 * scale, scale]] * 2, atol=0.2)
    np.testing.assert_allclose(pixels_T2[2], [-scale, 0], atol=0.2)


def test_each_flow_is_computed_once_and_with_a_cache_never_again(
    videos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[None] = []
    tvl1_flow = pipeline.data.video.flow.tvl1_flow
    monkeypatch.setattr(
        pipeline.data.video.flow, "tvl1_flow", lambda *pair: (computed.append(None), tvl1_flow(*pair))[1]
    )
    overlapping = Sampling(num_frames=8, frame_stride=1, step=2)
    encoder = mean_motion(num_frames=8)
    runs = [
        features_of(iterate_features(videos, encoder, overlapping, flow_cache=tmp_path / "cache")) for _ in range(2)
    ]
    assert len(computed) == sum(num_frames - 1 for num_frames in NUM_FRAMES.values())
    assert len(list((tmp_path / "cache").iterdir())) == len(videos)
    for video_id in videos:
        np.testing.assert_array_equal(runs[0][video_id], runs[1][video_id])


def test_a_video_that_fails_leaves_the_others_alone(videos: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(videos["a"].read_bytes()[:2000])
    some = {"a": videos["a"], "broken": tmp_path / "broken.mp4", "b": videos["b"]}
    sampling = Sampling(num_frames=2, frame_stride=1, step=2)
    results = list(iterate_features(some, mean_motion(), sampling, flow_cache=tmp_path / "cache"))
    names = [result.name if isinstance(result, Failure) else result.video_id for result in results]
    assert list(zip(names, map(type, results), strict=True)) == [
        ("a", VideoFeatures),
        ("broken", Failure),
        ("b", VideoFeatures),
    ]
