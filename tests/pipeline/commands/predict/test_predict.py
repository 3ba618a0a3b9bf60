"""From video files to detections, with a run that the other stages made of the same videos."""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from found import found_in

from heads.options import BMNOptions, GTADOptions
from pipeline.commands.extract import command as extract
from pipeline.commands.extract.options import ExtractConfig, SamplingConfig
from pipeline.commands.localize import command as localize
from pipeline.commands.localize.options import LocalizeConfig
from pipeline.commands.predict import command as predict
from pipeline.commands.predict.options import PredictConfig
from pipeline.commands.sola import command as sola
from pipeline.commands.sola.options import SolaConfig
from pipeline.data.annotations import Segment, Video, read_annotations, write_annotations
from pipeline.data.detections import Detection, Detections
from pipeline.data.features import SOLA_WEIGHTS
from pipeline.data.snippets import Timeline
from pipeline.detection.detector import load_run
from pipeline.detection.options import PostConfig
from pipeline.detection.prediction import Prediction, collect_videos, detect_in
from pipeline.encoding.options import SolaModuleConfig
from pipeline.encoding.video_features import VideoFeatures
from pipeline.options.heads import with_head
from pipeline.training.options import TrainingConfig

SECONDS, FPS, SIZE = 4, 10, 64
CHANNELS = 128  # of tsm_tiny


def write_scene(path: Path, seed: int) -> Segment:
    """A dim noisy video in which a bright square is seen for a while; returns when."""
    rng = np.random.default_rng(seed)
    start, length = rng.integers(4, 15), rng.integers(8, 20)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for i in range(SECONDS * FPS):
            pixels = rng.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
            if start <= i < start + length:
                pixels[16:48, 16:48] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return Segment(start / FPS, (start + length) / FPS, f"square {seed % 2}")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos/, a store and a finished localize run of them, half of them for validation."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "videos").mkdir()
    videos = []
    for i in range(6):
        segment = write_scene(folder / "videos" / f"scene {i}.mp4", seed=i)
        videos.append(Video(f"scene {i}", SECONDS, "training" if i < 4 else "validation", (segment,)))
    write_annotations(folder / "annotations.json", videos)
    store, run = folder / "store", folder / "run"
    sampling = SamplingConfig(num_frames=4, frame_stride=1, step=2)
    options = ExtractConfig(
        videos=folder / "videos",
        out=store,
        encoder="tsm_tiny",
        weights="random",
        sampling=sampling,
        dtype="float16",
        precision="float32",
    )
    assert not extract.run(options).failed
    training = TrainingConfig(epochs=2, batch_size=4, num_workers=0, device="cpu")
    head = GTADOptions(num_snippets=16, hidden=64)
    found = localize.run(
        with_head(LocalizeConfig, "gtad")(
            features=store,
            annotations=folder / "annotations.json",
            out=run,
            gtad=head,
            training=training,
            post=PostConfig(max_detections=300),  # every cell of either class
        )
    )
    assert not found.failed
    return folder


def run_predict(data: Path, out: Path, *videos: Path, **options: object) -> predict.Predicted:
    config = PredictConfig(video=videos or (data / "videos",), run=data / "run", out=out)
    return predict.run(replace(config, **options))  # type: ignore[arg-type]


def edit_header(run: Path, **values: str) -> None:
    header = json.loads((run / "encoder.json").read_text(encoding="utf-8"))
    (run / "encoder.json").write_text(json.dumps({**header, **values}), encoding="utf-8")


def by_segment(detections: list[Detection]) -> dict[tuple[float, float, str], float]:
    return {(round(d.start, 6), round(d.end, 6), d.label): d.score for d in detections}


def test_detections_are_those_of_localize(data: Path, tmp_path: Path) -> None:
    assert not run_predict(data, tmp_path / "found.json").failed
    found = found_in(tmp_path / "found.json")
    expected = found_in(data / "run" / "detections.json")
    assert list(found) == [f"scene {i}" for i in range(6)]
    assert set(expected) == {"scene 4", "scene 5"}
    for video_id, detections in expected.items():
        assert detections
        # Localize puts several videos through the head at once, which may round otherwise.
        assert by_segment(found[video_id]) == pytest.approx(by_segment(detections), rel=1e-4)


def test_a_run_moved_elsewhere_finds_the_same(data: Path, tmp_path: Path) -> None:
    assert not run_predict(data, tmp_path / "here.json").failed
    shutil.copytree(data / "videos", tmp_path / "other" / "videos")
    shutil.copytree(data / "run", tmp_path / "other" / "run")
    (data / "run").rename(data / "away")
    (data / "store").rename(data / "store away")
    try:
        assert not run_predict(tmp_path / "other", tmp_path / "there.json").failed
    finally:
        (data / "away").rename(data / "run")
        (data / "store away").rename(data / "store")
    assert (tmp_path / "there.json").read_bytes() == (tmp_path / "here.json").read_bytes()


def test_a_moved_run_of_bmn_finds_what_localize_found(data: Path, tmp_path: Path) -> None:
    options = with_head(LocalizeConfig, "bmn")(
        features=data / "store",
        annotations=data / "annotations.json",
        out=tmp_path / "run",
        head="bmn",
        bmn=BMNOptions(num_snippets=16, hidden=16, num_samples=8),
        training=TrainingConfig(epochs=1, batch_size=4, num_workers=0, device="cpu"),
        post=PostConfig(max_detections=300, nms="none", min_score=0.0),  # every cell of either class
    )
    assert not localize.run(options).failed
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert not run_predict(data, tmp_path / "found.json", run=tmp_path / "elsewhere").failed
    found, expected = (found_in(tmp_path / name) for name in ("found.json", "elsewhere/detections.json"))
    for video_id, detections in expected.items():
        assert len(detections) == 2 * 16 * 17 / 2
        assert by_segment(found[video_id]) == pytest.approx(by_segment(detections), rel=1e-4)


def test_a_run_on_refined_features_refines_those_of_new_videos(data: Path, tmp_path: Path) -> None:
    training = TrainingConfig(
        optimizer="adamw", lr=5e-3, batch_size=4, epochs=8, lr_schedule="constant", num_workers=0, device="cpu"
    )
    refined = SolaConfig(
        features=data / "store",
        out=tmp_path / "sola",
        module=SolaModuleConfig(hidden=16),
        step=1,
        tsm_size=4,
        training=training,
    )
    assert not sola.run(refined).failed
    options = with_head(LocalizeConfig, "gtad")(
        features=tmp_path / "sola" / "features",
        annotations=data / "annotations.json",
        out=tmp_path / "run",
        gtad=GTADOptions(num_snippets=16, hidden=64),
        training=TrainingConfig(epochs=1, batch_size=4, num_workers=0, device="cpu"),
        post=PostConfig(max_detections=300),
    )
    assert not localize.run(options).failed
    shutil.rmtree(tmp_path / "sola")  # the run remembers the module
    assert not run_predict(data, tmp_path / "found.json", run=tmp_path / "run").failed
    found, expected = (found_in(tmp_path / name) for name in ("found.json", "run/detections.json"))
    for video_id, detections in expected.items():
        assert by_segment(found[video_id]) == pytest.approx(by_segment(detections), rel=1e-4)

    (tmp_path / "run" / SOLA_WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"sola.safetensors: cannot be read as the SoLa module"):
        run_predict(data, tmp_path / "again.json", run=tmp_path / "run")


def test_a_video_alone_gets_what_it_gets_in_company(data: Path, tmp_path: Path) -> None:
    assert not run_predict(data, tmp_path / "all.json").failed
    assert not run_predict(data, tmp_path / "one.json", data / "videos" / "scene 3.mp4").failed
    alone, together = (found_in(tmp_path / name) for name in ("one.json", "all.json"))
    assert alone == {"scene 3": together["scene 3"]}


def test_every_output_is_written(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new folder" / "found.json"
    assert not run_predict(data, out, *sorted((data / "videos").iterdir())[:2], report=True).failed
    names = {"found.json", "found.csv", "found.html", "scene 0.vtt", "scene 1.vtt"}
    assert {file.name for file in out.parent.iterdir()} == names
    found = found_in(out)
    as_annotated = read_annotations(out.with_suffix(".csv"), as_written=True).videos
    for video_id, detections in found.items():
        expected = [Segment(round(d.start, 3), round(d.end, 3), d.label) for d in detections]
        assert list(as_annotated[video_id].segments) == expected
    page = out.with_suffix(".html").read_text(encoding="utf-8")
    for name in ("scene%200.mp4", "scene%201.mp4"):
        assert f"/videos/{name}" in page
    printed = capsys.readouterr().out
    assert printed.startswith(f"scene 0 (0:04.0): {len(found['scene 0'])} detections, best first\n")


def test_features_are_rounded_as_in_the_store(data: Path) -> None:
    exact_TC = np.random.default_rng(0).normal(0, 30, (8, CHANNELS)).astype(np.float32)
    stored_TC = exact_TC.astype(np.float16).astype(np.float32)
    run = load_run(data / "run")
    timeline = Timeline(0.0, 0.2, 0.4)
    exact, stored = (
        detect_in(VideoFeatures("a", features_TC, timeline, 2.0), Path("a.mp4"), run, None)
        for features_TC in (exact_TC, stored_TC)
    )
    assert exact == stored


def test_subtitles_hold_the_asked_share_of_the_best_score(data: Path, tmp_path: Path) -> None:
    cues = []
    for share in (0.0, 1.0):
        assert not run_predict(data, tmp_path / "a.json", data / "videos" / "scene 0.mp4", subtitle_score=share).failed
        cues.append((tmp_path / "scene 0.vtt").read_text(encoding="utf-8").count("-->"))
    assert cues[0] > cues[1] == 1


def test_a_broken_video_is_listed_and_the_others_are_done(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    assert run_predict(data, tmp_path / "found.json", broken, data / "videos" / "scene 0.mp4").failed
    assert list(found_in(tmp_path / "found.json")) == ["scene 0"]
    assert (tmp_path / "scene 0.vtt").exists()
    assert not (tmp_path / "broken.vtt").exists()
    said = capsys.readouterr().err
    assert "1 of 2 videos failed" in said
    assert str(broken) in said


def test_features_that_are_not_finite_are_a_failure(data: Path) -> None:
    features_TC = np.full((8, CHANNELS), np.nan, np.float32)
    video = VideoFeatures("a", features_TC, Timeline(0.0, 0.2, 0.4), 2.0)
    result = detect_in(video, Path("a.mp4"), load_run(data / "run"), None)
    assert result == extract.Failure("a", "a.mp4: the encoder gave features that are NaN or infinite")


def test_min_score_holds_in_every_output(data: Path, tmp_path: Path) -> None:
    video = data / "videos" / "scene 0.mp4"
    assert not run_predict(data, tmp_path / "all.json", video).failed
    scores = [detection.score for detection in found_in(tmp_path / "all.json")["scene 0"]]
    assert not run_predict(data, tmp_path / "best.json", video, min_score=scores[2]).failed
    assert [detection.score for detection in found_in(tmp_path / "best.json")["scene 0"]] == scores[:3]
    assert len((tmp_path / "best.csv").read_text(encoding="utf-8").splitlines()) == 1 + 3
    assert (tmp_path / "scene 0.vtt").read_text(encoding="utf-8").count("-->") <= 3


def test_nothing_found_is_an_answer(data: Path, tmp_path: Path) -> None:
    video = data / "videos" / "scene 0.mp4"
    assert not run_predict(data, tmp_path / "none.json", video, min_score=2.0).failed
    assert found_in(tmp_path / "none.json") == {"scene 0": []}
    assert read_annotations(tmp_path / "none.csv").videos["scene 0"].segments == ()
    assert (tmp_path / "scene 0.vtt").read_text(encoding="utf-8") == "WEBVTT\n"


def test_features_of_a_precision_that_is_not_here_are_made_in_float32(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = data / "videos" / "scene 0.mp4"
    assert not run_predict(data, tmp_path / "here.json", video).failed
    shutil.copytree(data / "run", tmp_path / "run")
    edit_header(tmp_path / "run", precision="bfloat16")
    monkeypatch.setattr("pipeline.detection.prediction.computes_in_bfloat16", lambda _: False)
    assert not run_predict(tmp_path, tmp_path / "there.json", video).failed
    assert (tmp_path / "there.json").read_bytes() == (tmp_path / "here.json").read_bytes()


# --- What is refused --------------------------------------------------------------------------------------------------


def test_a_run_on_imported_features_cannot_predict(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "run", tmp_path / "run")
    (tmp_path / "run" / "encoder.safetensors").unlink()
    with pytest.raises(ValueError, match=r"imported features.*pipeline extract"):
        run_predict(tmp_path, tmp_path / "found.json", data / "videos")


def test_other_weights_than_the_head_knows_are_refused(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "run", tmp_path / "run")
    edit_header(tmp_path / "run", weights="0" * 16)
    with pytest.raises(ValueError, match=r"encoder\.safetensors holds other weights"):
        run_predict(tmp_path, tmp_path / "found.json", data / "videos")


def test_detections_are_json(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found\.csv.*ends in \.json"):
        run_predict(data, tmp_path / "found.csv")


def test_two_videos_of_one_id_are_named(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "scene.mp4", tmp_path / "b" / "scene.avi"
    for file in (first, second):
        file.parent.mkdir()
        file.touch()
    with pytest.raises(ValueError, match="two videos have the id 'scene'") as error:
        collect_videos([tmp_path / "a", second])
    assert str(first) in str(error.value)
    assert str(second) in str(error.value)


def test_a_file_named_twice_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "scene.mp4"
    file.touch()
    (tmp_path / "sub").mkdir()
    assert collect_videos([tmp_path, tmp_path / "sub" / ".." / "scene.mp4"]) == {"scene": file}


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        collect_videos([tmp_path / "nowhere.mp4"])


# --- Text -------------------------------------------------------------------------------------------------------------


def prediction(video_id: str, duration: float, *detections: Detection) -> Prediction:
    found = Detections.from_videos({video_id: detections})
    return Prediction(video_id, Path(f"{video_id}.mp4"), duration, found)


def test_the_summary_names_the_best_actions() -> None:
    many = [Detection(float(i), i + 0.96, "spin", 1 - i / 10) for i in range(6)]
    many.insert(1, Detection(0.1, 0.9, "spin", 0.95))  # tells nothing that the first does not
    summary = predict.format_summary([prediction("a", 3725.04, *many), prediction("b", 59.97)])
    assert summary.splitlines() == [
        "a (1:02:05.0): 7 detections, best first",
        "     0:00.0 –    0:01.0   1.000  spin",
        "     0:01.0 –    0:02.0   0.900  spin",
        "     0:02.0 –    0:03.0   0.800  spin",
        "     0:03.0 –    0:04.0   0.700  spin",
        "     0:04.0 –    0:05.0   0.600  spin",
        "b (1:00.0): 0 detections",
    ]


def test_the_csv_quotes_labels(tmp_path: Path) -> None:
    label = 'cut, "then" paste'
    Detections.from_videos({"a": [Detection(0.25, 1.5, label, 0.123456789)]}).to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["video", "start", "end", "label", "score"],
            ["a", "0.250", "1.500", label, "0.123457"],
        ]
