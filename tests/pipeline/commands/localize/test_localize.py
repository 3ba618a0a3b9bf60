"""The localize stage: from a store and annotations to a run folder; what it says about bad input; moving a run."""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from found import found_in
from numpy.typing import NDArray
from reference_evaluate import average_recall
from safetensors.torch import load_file

from encoders.sola import SoLa
from heads.options import ActionFormerOptions, BMNOptions, GTADOptions, TemporalMaxerOptions, TriDetOptions
from pipeline.commands.evaluate.command import evaluate
from pipeline.commands.evaluate.options import EvaluateConfig
from pipeline.commands.localize import command as localize
from pipeline.commands.localize.options import LocalizeConfig
from pipeline.data.annotations import AMBIGUOUS, Segment, Video, read_annotations, write_annotations
from pipeline.data.features import ENCODER_WEIGHTS, FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline
from pipeline.detection.detector import UnifiedHead, detect, load_run
from pipeline.detection.options import PostConfig
from pipeline.detection.run import Run
from pipeline.encoding.options import SolaModuleConfig
from pipeline.measures.detection_metrics import ACTIVITYNET_TIOU
from pipeline.options.heads import with_head
from pipeline.training.options import TrainingConfig

LABELS = ("jump", "spin")
ROW = Timeline(0, 0.5, 0.5)
DURATION = 20.0
FROM_VIDEOS = StoreHeader(encoder={"name": "tsm_tiny"}, weights="0123456789abcdef", sampling={"step": 4})


def make_video(number: int, subset: str, labels: Sequence[str] = LABELS) -> Video:
    """One action, or two, at places that follow from the number."""
    rng = np.random.default_rng(number)
    starts = [rng.uniform(1, 5), rng.uniform(11, 15)][: 1 + number % 2]
    segments = [
        Segment(start, start + rng.uniform(2, 5), labels[(number + k) % len(labels)]) for k, start in enumerate(starts)
    ]
    return Video(f"video{number}", DURATION, subset, tuple(segments))


def make_features(video: Video, num_rows: int = 40) -> NDArray[np.float32]:
    """Rows that tell the class they lie in, in noise."""
    rng = np.random.default_rng(len(video.id))
    centers = ROW.centers(num_rows)
    features_TC = 0.1 * rng.standard_normal((num_rows, 8))
    for segment in video.segments:
        features_TC[(centers > segment.start) & (centers < segment.end), LABELS.index(segment.label)] += 2
    return features_TC.astype(np.float32)


def write_store(path: Path, videos: Sequence[Video], header: StoreHeader = FROM_VIDEOS) -> None:
    with FeatureStore.create_or_resume(path, header) as store:
        for video in videos:
            store.add(video.id, make_features(video), ROW, DURATION)


def make_videos(num_train: int = 6, num_val: int = 2, labels: Sequence[str] = LABELS) -> list[Video]:
    numbers = itertools.count()
    return [make_video(next(numbers), "training", labels) for _ in range(num_train)] + [
        make_video(next(numbers), "validation", labels) for _ in range(num_val)
    ]


SMALL = {
    "gtad": GTADOptions(num_snippets=20, hidden=64),
    "bmn": BMNOptions(num_snippets=20, hidden=64, num_samples=8),
    "actionformer": ActionFormerOptions(hidden=32, num_heads=2, num_levels=4, window=5, crop_rows=60, drop_path=0.0),
    "temporalmaxer": TemporalMaxerOptions(hidden=32, num_levels=4, crop_rows=60),
    "tridet": TriDetOptions(
        hidden=32, mlp_hidden=32, head_hidden=32, num_levels=4, crop_rows=60, num_bins=8, depthwise_init=0.1
    ),
}


def small_config(folder: Path, epochs: int = 1, head: str = "gtad") -> LocalizeConfig:
    return with_head(LocalizeConfig, head)(
        features=folder / "store",
        annotations=folder / "annotations.json",
        out=folder / "run",
        head=head,
        **{head: SMALL[head]},
        training=TrainingConfig(epochs=epochs, batch_size=4, lr=2e-3, lr_steps=(), device="cpu", num_workers=0),
        tiou=(0.5, 0.75),
    )


def with_input(config: LocalizeConfig) -> LocalizeConfig:
    """The same, after a store and annotations that are good have been written."""
    write_annotations(config.annotations, make_videos())
    write_store(config.features, make_videos())
    return config


@pytest.fixture
def config(tmp_path: Path) -> LocalizeConfig:
    """Options for a store and annotations that are there and good."""
    return with_input(small_config(tmp_path))


@pytest.fixture(params=SMALL)
def config_of_each_head(request: pytest.FixtureRequest, tmp_path: Path) -> LocalizeConfig:
    """The same for each head."""
    return with_input(small_config(tmp_path, head=request.param))


def notes_of(config: LocalizeConfig, capsys: pytest.CaptureFixture[str]) -> str:
    assert not localize.run(config).failed
    return capsys.readouterr().err


def metrics_of(config: LocalizeConfig) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((config.out / "metrics.json").read_text())
    return metrics


# --- The whole stage --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=SMALL)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalizeConfig:
    config = small_config(tmp_path_factory.mktemp("localize"), epochs=10, head=request.param)
    videos = make_videos(24, 8)
    write_annotations(config.annotations, videos)
    write_store(config.features, videos)
    (config.features / ENCODER_WEIGHTS).write_bytes(b"weights of an encoder")
    assert not localize.run(config).failed
    return config


def test_it_learns_to_localize(finished: LocalizeConfig) -> None:
    assert metrics_of(finished)["tiou"] == [0.5, 0.75]
    assert metrics_of(finished)["map"][0] > 60


def test_the_run_folder_holds_what_is_promised(finished: LocalizeConfig) -> None:
    assert {path.name for path in finished.out.iterdir()} == {
        "config.yaml", "log.jsonl", "best.ckpt", "last.ckpt", "head.safetensors", "head.json",
        "encoder.safetensors", "encoder.json", "detections.json", "metrics.json",
    }  # fmt: skip
    assert [path.read_bytes() for path in load_run(finished.out).encoder_weights] == [b"weights of an encoder"]
    assert load_run(finished.out).header == FROM_VIDEOS


def test_metrics_are_those_of_the_evaluate_command(finished: LocalizeConfig) -> None:
    detections = finished.out / "detections.json"
    metrics, _ = evaluate(EvaluateConfig(ground_truth=finished.annotations, predictions=detections, tiou=finished.tiou))
    assert metrics == metrics_of(finished)


def test_the_saved_head_is_that_of_the_best_epoch(finished: LocalizeConfig) -> None:
    lines = [json.loads(line) for line in (finished.out / "log.jsonl").read_text().splitlines()]
    best = torch.load(finished.out / "best.ckpt", weights_only=True)
    assert best["epoch"] == min(lines, key=lambda line: float(line["val_loss"]))["epoch"]
    for name, weight in load_file(finished.out / "head.safetensors").items():
        assert torch.equal(weight, best["state_dict"][f"model.{name}"])


def test_a_moved_run_detects_the_same_without_its_store(finished: LocalizeConfig, tmp_path: Path) -> None:
    shutil.copytree(finished.out, tmp_path / "elsewhere")
    run = load_run(tmp_path / "elsewhere")
    for video_id, detections in found_in(finished.out / "detections.json").items():
        features_TC = np.load(finished.features / f"{video_id}.npy")
        again = detect(run, features_TC, ROW, DURATION)
        assert [d.label for d in again] == [d.label for d in detections]
        times = [(d.start, d.end, d.score) for d in detections]
        np.testing.assert_allclose([(d.start, d.end, d.score) for d in again], times, rtol=1e-4)


def test_a_finished_run_is_not_repeated(finished: LocalizeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.out.iterdir()}
    assert not localize.run(finished).failed
    assert {path: path.stat().st_mtime_ns for path in finished.out.iterdir()} == before
    assert "is finished" in capsys.readouterr().out


def test_other_options_are_refused(finished: LocalizeConfig) -> None:
    with pytest.raises(ValueError, match=r"post.sigma: 0.8 there, 0.5 now"):
        localize.run(replace(finished, post=replace(finished.post, sigma=0.5)))


@pytest.mark.parametrize("killed_at", [1, 3, 5])  # an epoch has two training steps, and validates in one
def test_a_run_that_was_killed_while_training_ends_with_the_same_weights(
    config_of_each_head: LocalizeConfig, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    config = replace(config_of_each_head, training=replace(config_of_each_head.training, epochs=2))
    losses, steps = localize._losses, itertools.count()

    def until_killed(*arguments: Any) -> dict[str, torch.Tensor]:
        if next(steps) == killed_at:
            raise OSError("killed")
        return losses(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(localize, "_losses", until_killed)
        with pytest.raises(OSError, match="killed"):
            localize.run(config)
    torch.manual_seed(99)
    assert not localize.run(config).failed
    whole = replace(config, out=config.out.parent / "whole")
    assert not localize.run(whole).failed
    weights, expected = (load_file(run.out / "head.safetensors") for run in (config, whole))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())
    assert found_in(config.out / "detections.json") == found_in(whole.out / "detections.json")


def test_a_run_that_was_killed_while_detecting_ends_the_same(
    config: LocalizeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(localize, "_detect", killed)
        with pytest.raises(OSError, match="killed"):
            localize.run(config)
    assert not localize.run(config).failed
    whole = replace(config, out=config.out.parent / "whole")
    assert not localize.run(whole).failed
    assert found_in(config.out / "detections.json") == found_in(whole.out / "detections.json")


def test_results_go_to_stdout_and_the_rest_to_stderr(config: LocalizeConfig, capfd: pytest.CaptureFixture[str]) -> None:
    localize.run(config)
    shown = capfd.readouterr()
    assert len(shown.out.splitlines()) == 3
    assert "mAP@0.50" in shown.out
    assert "detecting" in shown.err


def test_bins_and_windows(config: LocalizeConfig) -> None:
    assert not localize.run(replace(config, rescale="bins", post=replace(config.post, window=12.0))).failed
    ends = [d.end for found in found_in(config.out / "detections.json").values() for d in found]
    assert max(ends) > 12


# --- THUMOS14's protocol: rows as they are, segments without classes, others' scores of the videos --------------------


@pytest.fixture(scope="module")
def thumos(tmp_path_factory: pytest.TempPathFactory) -> LocalizeConfig:
    """A finished run of G-TAD's THUMOS14 variant, small."""
    folder = tmp_path_factory.mktemp("thumos")
    names = {"validation": "video_test_{:07}", "training": "video_validation_{:07}"}
    videos = [
        replace(video, id=names[video.subset].format(number), segments=tuple(map(renamed, video.segments)))
        for number, video in enumerate(make_videos(24, 6), start=1)
    ]
    write_annotations(folder / "annotations.json", videos)
    with FeatureStore.create_or_resume(folder / "store", StoreHeader()) as store:
        for video in videos:
            features_TC = np.repeat(make_features_of(video), 2, axis=0)  # of which every second row is used
            store.add(video.id, features_TC, Timeline(0, ROW.stride / 2, ROW.length / 2), DURATION)
    scores = np.full((40, 101), 0.01, np.float32)
    for number, video in enumerate(videos, start=1):
        for segment in video.segments:
            scores[number - 1, {"LongJump": 51, "Billiards": 12}[segment.label] - 1] = 0.9
    np.save(folder / "uNet_test.npy", scores)
    config = with_head(LocalizeConfig, "gtad")(
        features=folder / "store",
        annotations=folder / "annotations.json",
        out=folder / "run",
        rescale="none",
        row_step=2,
        classes=False,
        video_scores=folder / "uNet_test.npy",
        gtad=GTADOptions(
            num_snippets=24, max_duration=12, hidden=64, inner_bins=8, context_bins=8, map_kernel=3, peaks=False,
            longest_proposal=11, reg_weight=1.0, cls_weight=10.0, cls_pseudocount=10,
        ),
        post=PostConfig(sigma=0.46, max_per_window=50, max_detections=50),
        training=TrainingConfig(
            epochs=6, batch_size=4, lr=2e-3, lr_steps=(), clip_grad_norm=1.0, keep="last", device="cpu", num_workers=0
        ),
        tiou=(0.3, 0.5),
    )  # fmt: skip
    assert not localize.run(config).failed
    return config


def renamed(segment: Segment) -> Segment:
    return replace(segment, label={"jump": "LongJump", "spin": "Billiards"}[segment.label])


def make_features_of(video: Video) -> NDArray[np.float32]:
    labels = {"LongJump": "jump", "Billiards": "spin"}
    return make_features(replace(video, segments=tuple(replace(s, label=labels[s.label]) for s in video.segments)))


def test_the_thumos14_protocol(thumos: LocalizeConfig) -> None:
    assert metrics_of(thumos)["map"][1] > 40
    for detections in found_in(thumos.out / "detections.json").values():
        by_label = Counter(d.label for d in detections)
        assert len(by_label) == 2
        assert max(by_label.values()) <= 50
        assert all(0 <= d.start < d.end <= DURATION and d.end - d.start <= 11 * ROW.stride + 1e-6 for d in detections)


def test_the_last_epoch_is_kept_if_asked_for(thumos: LocalizeConfig) -> None:
    assert not (thumos.out / "best.ckpt").exists()
    last = torch.load(thumos.out / "last.ckpt", weights_only=True)
    for name, weight in load_file(thumos.out / "head.safetensors").items():
        assert torch.equal(weight, last["state_dict"][f"model.{name}"])


def test_a_run_without_classes_finds_segments_when_loaded_again(thumos: LocalizeConfig) -> None:
    run = load_run(thumos.out)
    assert (run.rescale, run.row_step, run.labels) == ("none", 2, ("action",))
    store = FeatureStore.open(thumos.features)
    for video_id, detections in found_in(thumos.out / "detections.json").items():
        again = detect(run, store.load(video_id), store.videos[video_id].timeline, DURATION)
        assert {d.label for d in again} == {"action"}
        assert {(round(d.start, 3), round(d.end, 3)) for d in detections} <= {
            (round(d.start, 3), round(d.end, 3)) for d in again
        }


def test_classes_of_video_scores_replace_those_of_the_head(
    config: LocalizeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"results": {"video6": [0.0, 0.5, 0.2]}, "class": ["jump", "spin", "wave"]}
    path = config.annotations.with_name("scores.json")
    path.write_text(json.dumps(scores))
    notes = notes_of(replace(config, video_scores=path, fusion="top1-share"), capsys)
    assert "1 videos have no scores in" in notes
    assert "nothing is detected in them (video7)" in notes
    found = found_in(config.out / "detections.json")
    assert found["video7"] == []
    assert {d.label for d in found["video6"]} == {"spin"}
    assert load_run(config.out).labels == LABELS  # what `predict` finds are still the head's own


def test_video_scores_that_are_of_no_use_are_told_before_training(
    config: LocalizeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config.annotations.with_name("scores.json")
    path.write_text(json.dumps({"results": {"video6": [0.5], "video7": [0.5]}, "class": ["Jump"]}))
    with pytest.raises(ValueError, match=r"scores\.json: none of its classes \(Jump\) is annotated \(jump, spin are\)"):
        localize.run(replace(config, video_scores=path))
    with pytest.raises(ValueError, match=r"classes is false.*give --video-scores"):
        localize.run(replace(config, classes=False))
    path.write_text(json.dumps({"results": {"video6": [0.5], "video7": [0.5]}, "class": ["jump"]}))
    assert "1 classes are not in" in notes_of(replace(config, video_scores=path), capsys)


def test_a_row_step_below_one() -> None:
    with pytest.raises(ValueError, match="row_step is 0; it must be at least 1"):
        with_head(LocalizeConfig, "gtad")(features=Path("a"), annotations=Path("b"), out=Path("c"), row_step=0)


def test_rows_and_levels_that_follow_from_the_training_segments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features of 40 rows a second, of which segments of 2 to 5 s need every fourth, and six levels."""
    config = small_config(tmp_path, head="actionformer")
    write_annotations(config.annotations, make_videos())
    with FeatureStore.create_or_resume(config.features, FROM_VIDEOS) as store:
        for video in make_videos():
            store.add(video.id, make_features(video).repeat(20, axis=0), Timeline(0, 0.025, 0.025), DURATION)
    options = replace(SMALL["actionformer"], num_levels=None)
    notes = notes_of(replace(config, row_step=None, actionformer=options), capsys)
    assert "segments to learn from last 2.1" in notes
    assert "rows, 6 levels" in notes
    run = load_run(config.out)
    assert (run.row_step, run.arguments["num_levels"]) == (4, 6)
    localize.run(replace(config, row_step=None, actionformer=options))
    assert "is finished" in capsys.readouterr().out  # and not: was started with other options


def test_segments_of_few_rows_are_told(config: LocalizeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert "boundaries are coarse" not in notes_of(config, capsys)
    shutil.rmtree(config.out)
    assert "boundaries are coarse and short segments lost; extract with" in notes_of(
        replace(config, row_step=4), capsys
    )


def test_a_sola_module_trained_with_the_head_belongs_to_the_run(config_of_each_head: LocalizeConfig) -> None:
    config = replace(config_of_each_head, unified=SolaModuleConfig(hidden=16, kernel_size=3))
    assert not localize.run(config).failed
    run = load_run(config.out)
    assert isinstance(run.head, UnifiedHead)
    gate = run.head.sola.gate
    assert gate is not None
    assert gate.item() != 0
    store = FeatureStore.open(config.features)
    for video_id, expected in found_in(config.out / "detections.json").items():
        stored = store.videos[video_id]
        found = detect(run, store.load(video_id), stored.timeline, stored.duration)
        assert [d.score for d in found] == pytest.approx([d.score for d in expected], rel=1e-4)


def test_rows_of_zeros_beyond_the_videos_end_stay_zeros_behind_a_sola_module() -> None:
    class Identity(torch.nn.Module):
        targets = loss = decode = None
        num_snippets = 9

        def forward(self, feats_BCT: torch.Tensor) -> torch.Tensor:
            return feats_BCT

    sola = SoLa(4, hidden=8)
    torch.nn.init.constant_(sola.alpha, 0.5)  # type: ignore[arg-type]
    feats_BCT = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    feats_BCT[1, :, 6:] = 0
    refined_BCT = UnifiedHead(sola, Identity())(feats_BCT)
    assert not refined_BCT[1, :, 6:].any()
    torch.testing.assert_close(refined_BCT[1, :, :6], sola(feats_BCT[1:, :, :6])[0])


# --- ActivityNet's protocol: whole videos in a fixed number of rows, segments without classes, voting, recall ---------


RECALL = ("ar@1", "ar@5", "ar@10", "ar@100", "auc")


def write_activitynet(folder: Path) -> None:
    """Videos of 10, 20 and 40 s with their features, and others' scores of them."""
    videos = []
    with FeatureStore.create_or_resume(folder / "store", StoreHeader()) as store:
        for number, video in enumerate(make_videos(24, 8)):
            factor = (0.5, 1, 2)[number % 3]
            segments = tuple(replace(s, start=s.start * factor, end=s.end * factor) for s in video.segments)
            videos.append(replace(video, duration=DURATION * factor, segments=segments))
            store.add(video.id, make_features(videos[-1], round(40 * factor)), ROW, DURATION * factor)
    write_annotations(folder / "annotations.json", videos)
    shown = {video.id: {segment.label for segment in video.segments} for video in videos}
    scores = {video_id: [0.9 if label in labels else 0.1 for label in LABELS] for video_id, labels in shown.items()}
    (folder / "scores.json").write_text(json.dumps({"results": scores, "class": list(LABELS)}))


@pytest.fixture(scope="module", params=[None, SolaModuleConfig(hidden=16, kernel_size=3)], ids=["plain", "unified"])
def activitynet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalizeConfig:
    """A finished run of ActionFormer's ActivityNet variant, small."""
    folder = tmp_path_factory.mktemp("activitynet")
    write_activitynet(folder)
    small = small_config(folder, epochs=10, head="actionformer")
    config = replace(
        small,
        rescale_rows=24,
        classes=False,
        video_scores=folder / "scores.json",
        fusion="top2-sqrt",
        unified=request.param,
        post=PostConfig(sigma=0.75, min_score=0.001, voting=0.9, class_agnostic=True),
        training=replace(small.training, keep="last"),
    )
    assert not localize.run(config).failed
    return config


def test_the_activitynet_protocol(activitynet: LocalizeConfig) -> None:
    metrics = metrics_of(activitynet)
    assert list(metrics) == ["tiou", "map", "average_map", *RECALL]
    assert metrics["map"][0] > 60
    assert metrics["ar@100"] > 60
    durations = {video_id: video.duration for video_id, video in FeatureStore.open(activitynet.features).videos.items()}
    for video_id, detections in found_in(activitynet.out / "detections.json").items():
        assert {d.label for d in detections} == set(LABELS)
        assert max(d.end for d in detections) <= durations[video_id]


def test_recall_is_of_the_segments_before_they_have_classes(activitynet: LocalizeConfig) -> None:
    """Against the slow form, on what the loaded run finds."""
    run, store = load_run(activitynet.out), FeatureStore.open(activitynet.features)
    assert (run.rescale_rows, run.post, run.labels) == (24, activitynet.post, ("action",))
    truth, found = [], []
    for video in read_annotations(activitynet.annotations).in_subset("validation").values():
        stored = store.videos[video.id]
        truth += [(video.id, s.label, s.start, s.end) for s in video.segments]
        for d in detect(run, store.load(video.id), stored.timeline, stored.duration):
            found.append((video.id, d.label, d.start, d.end, d.score))
    recall_F = average_recall(truth, found, list(ACTIVITYNET_TIOU))
    metrics = metrics_of(activitynet)
    assert [metrics[f"ar@{n}"] for n in (1, 5, 10, 100)] == [
        pytest.approx(100 * recall_F[n - 1]) for n in (1, 5, 10, 100)
    ]
    assert metrics["auc"] == pytest.approx(sum((a + b) / 2 for a, b in itertools.pairwise(recall_F)))
    proposals = Run.load(activitynet.out).proposal_metrics
    assert proposals is not None
    assert (proposals.ar[100], proposals.auc) == (metrics["ar@100"], metrics["auc"])
    scored = EvaluateConfig(
        ground_truth=activitynet.annotations, predictions=activitynet.out / "proposals.json", task="proposal"
    )
    assert evaluate(scored)[0] == {name: metrics[name] for name in RECALL}


def test_a_moved_run_brings_videos_to_its_rows(activitynet: LocalizeConfig, tmp_path: Path) -> None:
    shutil.copytree(activitynet.out, tmp_path / "elsewhere")
    run, store = load_run(tmp_path / "elsewhere"), FeatureStore.open(activitynet.features)
    for video_id, expected in found_in(activitynet.out / "proposals.json").items():
        stored = store.videos[video_id]
        found = detect(run, store.load(video_id), stored.timeline, stored.duration)
        times = [(d.start, d.end, d.score) for d in expected]
        np.testing.assert_allclose([(d.start, d.end, d.score) for d in found], times, rtol=1e-3, atol=1e-4)


def test_training_sees_the_rows_that_videos_are_brought_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, seen = localize._losses, set()

    def watched(head: Any, batch: Any) -> dict[str, torch.Tensor]:
        seen.update(batch.valid.sum(dim=1).tolist())
        return losses(head, batch)

    monkeypatch.setattr(localize, "_losses", watched)
    config = with_input(small_config(tmp_path, epochs=3, head="actionformer"))
    assert not localize.run(replace(config, rescale_rows=24)).failed
    assert seen == {22, 23, 24}  # nine tenths at least


def test_a_run_from_before_these_options_is_the_same_run(
    finished: LocalizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.out, tmp_path / "old")
    options = yaml.safe_load((tmp_path / "old" / "config.yaml").read_text())
    head = json.loads((tmp_path / "old" / "head.json").read_text())
    for of_run, post in ((options, options["post"]), (head, head["post"])):
        del of_run["rescale_rows"], post["voting"], post["voting_weight"], post["class_agnostic"]
    (tmp_path / "old" / "config.yaml").write_text(yaml.safe_dump(options))
    (tmp_path / "old" / "head.json").write_text(json.dumps(head))
    assert not localize.run(replace(finished, out=tmp_path / "old")).failed
    assert "is finished" in capsys.readouterr().out
    assert (load_run(tmp_path / "old").post, load_run(tmp_path / "old").rescale_rows) == (finished.post, None)
    assert Run.load(tmp_path / "old").proposal_metrics is None


def test_numbers_of_rows_that_cannot_be(config: LocalizeConfig) -> None:
    with pytest.raises(ValueError, match=r"head 'gtad' sees windows of 20 rows.*give --gtad\.num-snippets"):
        localize.run(replace(config, rescale_rows=24))
    for changes in ({"rescale_rows": 0}, {"rescale_rows": 24, "rescale": "none"}):
        with pytest.raises(ValueError, match=r"takes at least 1 of them, and a rule"):
            replace(config, **changes)


def test_train_and_validation_subset_may_be_the_same(config: LocalizeConfig) -> None:
    assert not localize.run(replace(config, val_subset="training")).failed
    assert set(found_in(config.out / "detections.json")) == {f"video{n}" for n in range(6)}


# --- Odd input that is gone on with, and told -------------------------------------------------------------------------


def test_videos_without_features_count_as_missed(config: LocalizeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    write_annotations(config.annotations, [*make_videos(), make_video(98, "training"), make_video(99, "validation")])
    notes = notes_of(config, capsys)
    assert "1 videos of subset 'training' have no features" in notes
    assert "1 videos of subset 'validation' have no features" in notes
    assert "run `pipeline extract` on them (video99)" in notes


def test_features_without_annotations(config: LocalizeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    write_annotations(config.annotations, make_videos()[1:])
    assert "1 videos have features but no annotations; they are not used (video0)" in notes_of(config, capsys)


def test_one_row_of_features(config: LocalizeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    write_annotations(config.annotations, [*make_videos(), make_video(99, "training")])
    with FeatureStore.create_or_resume(config.features, FROM_VIDEOS) as store:
        store.add("video99", np.ones((1, 8), np.float32), Timeline(0, 20, 20), DURATION)
    assert "1 videos have one row of features" in notes_of(config, capsys)


def test_one_class(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    write_annotations(config.annotations, make_videos(labels=("spin",)))
    write_store(config.features, make_videos(labels=("spin",)))
    assert not localize.run(config).failed
    assert {d.label for found in found_in(config.out / "detections.json").values() for d in found} == {"spin"}


def test_a_class_in_the_validation_videos_alone(config: LocalizeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    odd = Video("video6", DURATION, "validation", (Segment(1, 2, "juggle"),))
    write_annotations(config.annotations, [video for video in make_videos() if video.id != "video6"] + [odd])
    assert "1 classes occur in subset 'validation' alone and cannot be found (juggle)" in notes_of(config, capsys)


def test_ambiguous_segments_train_without_a_class_if_kept(config: LocalizeConfig) -> None:
    write_annotations(config.annotations, make_videos(labels=("jump", AMBIGUOUS)))
    kept = replace(config, ambiguous="keep", out=config.out.with_name("kept"))
    for run in (config, kept):
        assert not localize.run(run).failed
        assert load_run(run.out).labels == ("jump",)
    losses = [(run.out / "log.jsonl").read_text() for run in (config, kept)]
    assert losses[0] != losses[1]


def test_a_video_that_lasts_otherwise_than_annotated(
    config: LocalizeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = make_videos()
    write_annotations(config.annotations, [replace(videos[0], duration=30.0), *videos[1:]])
    assert "1 videos last otherwise than their annotation says" in notes_of(config, capsys)


def test_segments_longer_than_the_window(config: LocalizeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    long = Video("video0", DURATION, "training", (Segment(1, 19, "spin"), Segment(2, 4, "jump")))
    write_annotations(config.annotations, [long, *make_videos()[1:]])
    notes = notes_of(replace(config, post=replace(config.post, window=12.0)), capsys)
    assert "1 segments (train) lie in no window of 12 s" in notes
    assert "(video0 at 1 s)" in notes


def test_a_csv_without_durations_and_ids_without_prefix(config: LocalizeConfig) -> None:
    lines = ["video,start,end,label,subset"]
    for video in make_videos():
        lines += [f"v_{video.id},{s.start},{s.end},{s.label},{video.subset}" for s in video.segments]
    table = config.annotations.with_suffix(".csv")
    table.write_text("\n".join(lines))
    assert not localize.run(replace(config, annotations=table)).failed
    assert set(found_in(config.out / "detections.json")) == {"v_video6", "v_video7"}


def test_imported_features_have_no_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(tmp_path)
    write_annotations(config.annotations, make_videos())
    write_store(config.features, make_videos(), StoreHeader())
    assert "has no encoder" in notes_of(config, capsys)
    with pytest.raises(ValueError, match=r"trained on imported features.*`pipeline extract`"):
        print(load_run(config.out).encoder_weights)


# --- Bad input --------------------------------------------------------------------------------------------------------


def test_no_common_videos(config: LocalizeConfig) -> None:
    write_annotations(config.annotations, [replace(video, id=f"other_{video.id}") for video in make_videos()])
    with pytest.raises(ValueError, match=r"features of none of the 6 videos of subset 'training'.*other_video0"):
        localize.run(config)


def test_unknown_and_empty_subsets(config: LocalizeConfig) -> None:
    with pytest.raises(ValueError, match=r"annotations.json: no video is in the subset 'held'.*'training' \(6 videos"):
        localize.run(replace(config, train_subset="held"))


@pytest.mark.parametrize("subset", ["training", "validation"])
def test_no_segments_at_all(config: LocalizeConfig, subset: str) -> None:
    videos = [replace(video, segments=()) if video.subset == subset else video for video in make_videos()]
    write_annotations(config.annotations, videos)
    with pytest.raises(ValueError, match=rf"no video of subset '{subset}' that has features has a segment"):
        localize.run(config)


def test_no_segment_fits_in_a_window(config: LocalizeConfig) -> None:
    with pytest.raises(ValueError, match=r"longer than the windows of 1 s.*give a longer --post.window"):
        localize.run(replace(config, post=replace(config.post, window=1.0)))
    assert not localize.run(config).failed  # and the folder is not spoilt


def test_features_that_are_not_finite(config: LocalizeConfig) -> None:
    np.save(config.features / "video3.npy", np.full((40, 8), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"video 'video3' are NaN or infinite in 40 rows"):
        localize.run(config)


def test_channels_that_differ(config: LocalizeConfig) -> None:
    manifest = config.features / "manifest.jsonl"
    *lines, last = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines, last.replace('"channels": 8', '"channels": 9')]) + "\n")
    with pytest.raises(ValueError, match=r"different numbers of channels \(8 in video6, 9 in video7\)"):
        localize.run(config)


def test_missing_files(config: LocalizeConfig) -> None:
    with pytest.raises(FileNotFoundError, match="no such feature store"):
        localize.run(replace(config, features=config.features / "absent"))
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        localize.run(replace(config, annotations=config.annotations.with_name("absent.json")))


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such run folder"):
        load_run(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"has no head.json, so it is no finished run of `pipeline localize`"):
        load_run(tmp_path)


def test_a_damaged_run(finished: LocalizeConfig, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.out, copy)
    whole = (copy / "head.safetensors").read_bytes()
    (copy / "head.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"copy: head.json, head.safetensors and encoder.json do not belong together"):
        load_run(copy)
    (copy / "head.safetensors").unlink()
    with pytest.raises(ValueError, match="do not belong together"):
        load_run(copy)
