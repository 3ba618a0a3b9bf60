"""Features of two encoders side by side, one of RGB and one of flow, from videos up to detections."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_encoder import quick_flow, register
from found import found_in
from video_files import write_video

import pipeline.data.video.flow
from heads.options import GTADOptions
from pipeline.commands.extract import command as extract
from pipeline.commands.extract.options import ExtractConfig, SamplingConfig
from pipeline.commands.localize import command as localize
from pipeline.commands.localize.options import LocalizeConfig
from pipeline.commands.merge_features import command as merge_features
from pipeline.commands.merge_features.options import MergeFeaturesConfig
from pipeline.commands.predict import command as predict
from pipeline.commands.predict.options import PredictConfig
from pipeline.data.annotations import Segment, Video, write_annotations
from pipeline.data.features import FeatureStore
from pipeline.detection.detector import load_run
from pipeline.detection.prediction import Processing, extract_features, load_encoders
from pipeline.options.heads import with_head
from pipeline.training.options import TrainingConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with videos/, the stores rgb, flow and both, and a finished run; `build_encoder` knows the encoder."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "videos").mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        name = register(monkeypatch)
        monkeypatch.setattr(pipeline.data.video.flow, "tvl1_flow", quick_flow)
        annotated = []
        for seed in range(4):
            write_video(folder / "videos" / f"v{seed}.mp4", 20 + seed, fps=10)
            subset = "training" if seed < 3 else "validation"
            annotated.append(Video(f"v{seed}", 2.0, subset, (Segment(0.0, 1.0, "right"), Segment(1.0, 2.0, "left"))))
        write_annotations(folder / "annotations.json", annotated)
        for store, encoder, dtype in (("rgb", "tsm_tiny", "float16"), ("flow", name, "float32")):
            assert not extract.run(config(folder, store, encoder, dtype)).failed
        both = MergeFeaturesConfig(stores=(folder / "rgb", folder / "flow"), out=folder / "both")
        assert not merge_features.run(both).failed
        assert not localize.run(localize_config(folder)).failed
        yield folder


def config(folder: Path, store: str, encoder: str, dtype: Any) -> ExtractConfig:
    return ExtractConfig(
        videos=folder / "videos",
        out=folder / store,
        encoder=encoder,
        weights="random",
        sampling=SamplingConfig(num_frames=4, frame_stride=1, step=2),
        size=32,
        dtype=dtype,
        precision="float32",
    )


def localize_config(folder: Path) -> LocalizeConfig:
    return with_head(LocalizeConfig, "gtad")(
        features=folder / "both",
        annotations=folder / "annotations.json",
        out=folder / "run",
        gtad=GTADOptions(num_snippets=8, hidden=64),
        training=TrainingConfig(epochs=1, batch_size=4, num_workers=0, device="cpu"),
    )


def test_a_two_stream_store_has_the_channels_and_the_encoders_of_both(data: Path) -> None:
    rgb, flow, both = (FeatureStore.open(data / name) for name in ("rgb", "flow", "both"))
    assert both.header.streams == (rgb.header, flow.header)
    assert list(both.videos) == ["v0", "v1", "v2", "v3"]
    for video_id, video in both.videos.items():
        joined_TC = np.concatenate([rgb.load(video_id), flow.load(video_id)], axis=1)
        np.testing.assert_array_equal(both.load(video_id), joined_TC)
        assert (video.timeline, video.duration) == (rgb.videos[video_id].timeline, rgb.videos[video_id].duration)
    for store, name in ((rgb, "encoder_1.safetensors"), (flow, "encoder_2.safetensors")):
        weights = (store.path / "encoder.safetensors").read_bytes()
        assert (data / "both" / name).read_bytes() == (data / "run" / name).read_bytes() == weights


def test_predict_runs_both_encoders(data: Path, tmp_path: Path) -> None:
    """From a run that was moved away, the videos get what localize found through the stores."""
    shutil.copytree(data / "run", tmp_path / "run")
    out = tmp_path / "found.json"
    assert not predict.run(PredictConfig(video=(data / "videos",), run=tmp_path / "run", out=out)).failed
    expected, found = (found_in(path) for path in (data / "run" / "detections.json", out))
    assert expected["v3"]
    by_segment = [
        {(round(d.start, 6), round(d.end, 6), d.label): d.score for d in detections}
        for detections in (found["v3"], expected["v3"])
    ]
    assert by_segment[0] == pytest.approx(by_segment[1], rel=1e-4)
    assert list(found) == ["v0", "v1", "v2", "v3"]


def test_a_video_that_fails_in_both_streams_is_one_failure(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    videos = (data / "videos" / "v0.mp4", tmp_path / "broken.mp4", data / "videos" / "v1.mp4")
    out = tmp_path / "found.json"
    assert predict.run(PredictConfig(video=videos, run=data / "run", out=out)).failed
    assert list(found_in(out)) == ["v0", "v1"]
    assert "1 of 3 videos failed" in capsys.readouterr().err


def test_other_weights_in_one_stream_are_refused(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "run", tmp_path / "run")
    shutil.copyfile(data / "both" / "encoder_2.safetensors", tmp_path / "run" / "encoder_1.safetensors")
    with pytest.raises(ValueError, match=r"encoder_1\.safetensors"):
        predict.run(PredictConfig(video=(data / "videos",), run=tmp_path / "run", out=tmp_path / "found.json"))


def test_progress_is_that_of_both_encoders(data: Path) -> None:
    trained = load_run(data / "run")
    shares: list[float] = []
    videos = {"v0": data / "videos" / "v0.mp4"}
    for _ in extract_features(
        videos,
        trained,
        load_encoders(trained),
        Processing(batch_size=2),
        lambda _, so_far, of: shares.append(so_far / of),
    ):
        assert shares == sorted(shares)
        assert shares[0] < 0.5
        assert shares[-1] == 1
