"""The configs of the public data sets: features and annotations of their shapes, made up and small, train and score."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import (
    write_actionformer_thumos14,
    write_bsn,
    write_gtad_thumos14,
    write_hacs,
    write_thumos14_tables,
    write_thumos14_texts,
)

from encoders import ENCODERS
from heads.options import ActionFormerOptions, BMNOptions, TemporalMaxerOptions, TriDetOptions
from pipeline import cli
from pipeline.commands.extract.options import ExtractConfig, SamplingConfig
from pipeline.commands.localize.options import LocalizeConfig
from pipeline.commands.lofi_train.options import LofiTrainConfig
from pipeline.commands.sola.options import SolaConfig
from pipeline.data.annotations import AMBIGUOUS, Segment, Video
from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline
from pipeline.detection.options import PostConfig
from pipeline.options import flags
from pipeline.options.packaged import find_config
from pipeline.options.yaml_file import read_yaml
from pipeline.training.loop import lr_factor

CONFIGS = Path(cli.__file__).parents[1] / "configs"
Write = Callable[[Path, Sequence[Video]], Path]

SMALL = {
    "gtad": [
        *("--gtad.num_snippets", "16", "--gtad.max_duration", "8", "--gtad.hidden", "64", "--gtad.inner_bins", "4"),
        *("--gtad.context_bins", "2"),
    ],
    "bmn": ["--bmn.num_snippets", "16", "--bmn.max_duration", "8", "--bmn.hidden", "16", "--bmn.num_samples", "4"],
    "actionformer": ["--actionformer.hidden", "32", "--actionformer.num-levels", "3"],
    "temporalmaxer": ["--temporalmaxer.hidden", "32", "--temporalmaxer.num-levels", "3"],
    "tridet": [
        *("--tridet.hidden", "32", "--tridet.mlp-hidden", "32", "--tridet.head-hidden", "32", "--tridet.num-bins", "4"),
        *("--tridet.num-levels", "3"),
    ],
}
DURATION = 20.0
CLASSES = {"Surfing", "Ballet", "Diving", "Shotput"}


def activitynet(number: int) -> Video:
    segments = (Segment(2.0 + number, 9.0 + number, ("Surfing", "Ballet")[number % 2]),)
    return Video(f"v_{number}", DURATION, "training" if number < 4 else "validation", segments)


def thumos14(number: int) -> Video:
    subset = "validation" if number < 4 else "test"
    first = Segment(1.0 + number / 2, 2.5 + number / 2, ("Diving", "Shotput")[number % 2])
    unclear = Segment(12.0, 13.0, AMBIGUOUS)
    return Video(f"video_{subset}_{number:07d}", DURATION, subset, (first, unclear, Segment(15.0, 16.0, first.label)))


# Config, layout of the annotations, videos, channels, seconds from row to row.
CASES: list[tuple[str, Write, Callable[[int], Video], int, float]] = [
    ("activitynet/localize_gtad", write_bsn, activitynet, 64, 0.5),
    ("activitynet/localize_gtad_tsn", write_bsn, activitynet, 400, DURATION / 100),
    ("activitynet/localize_gtad_tsp", write_bsn, activitynet, 512, 16 / 15),
    ("activitynet/localize_gtad_i3d", write_bsn, activitynet, 2048, 16 / 25),
    ("activitynet/localize_lofi", write_bsn, activitynet, 512, DURATION / 100),
    ("activitynet/localize_bmn_tsn", write_bsn, activitynet, 400, DURATION / 100),
    ("activitynet/localize_bmn_tsp", write_bsn, activitynet, 512, 16 / 15),
    ("activitynet/localize_bmn_i3d", write_bsn, activitynet, 2048, 16 / 25),
    ("activitynet/localize_tridet_tsp", write_bsn, activitynet, 512, 16 / 15),
    ("activitynet/localize_actionformer_tsn", write_bsn, activitynet, 400, 16 / 30),
    ("activitynet/localize_actionformer_tsp", write_bsn, activitynet, 512, 16 / 15),
    ("activitynet/localize_actionformer_i3d", write_bsn, activitynet, 2048, 16 / 25),
    ("hacs/localize_gtad_i3d", write_hacs, activitynet, 2048, 0.5),
    ("hacs/localize_actionformer_i3d", write_hacs, activitynet, 2048, 0.5),
    ("hacs/localize_tridet_i3d", write_hacs, activitynet, 2048, 0.5),
    ("hacs/localize_tridet_slowfast", write_hacs, activitynet, 2304, 8 / 15),
    ("thumos14/localize_gtad_tsn", write_thumos14_tables, thumos14, 2048, 1 / 30),
    ("thumos14/localize_gtad_tsp", write_thumos14_tables, thumos14, 512, 1 / 15),
    ("thumos14/localize_gtad_i3d", write_thumos14_texts, thumos14, 2048, 4 / 30),
    ("thumos14/localize_actionformer_i3d", write_thumos14_texts, thumos14, 2048, 4 / 30),
    ("thumos14/localize_actionformer_tsp", write_actionformer_thumos14, thumos14, 512, 1 / 15),
    ("thumos14/localize_tridet_i3d", write_thumos14_texts, thumos14, 2048, 4 / 30),
    ("thumos14/localize_tridet_tsp", write_thumos14_tables, thumos14, 512, 1 / 15),
    ("thumos14/localize_temporalmaxer_i3d", write_thumos14_texts, thumos14, 2048, 4 / 30),
    ("thumos14/localize_temporalmaxer_tsp", write_thumos14_tables, thumos14, 512, 1 / 15),
    ("thumos14/localize_gtad_i3d", write_gtad_thumos14, thumos14, 2048, 4 / 30),
    ("thumos14/localize_gtad_i3d", write_actionformer_thumos14, thumos14, 2048, 4 / 30),
]


def write_store(path: Path, videos: Sequence[Video], channels: int, stride: float) -> Path:
    rng = np.random.default_rng(0)
    rows = int(DURATION / stride)
    with FeatureStore.create_or_resume(path, StoreHeader()) as store:
        for video in videos:
            features_TC = rng.standard_normal((rows, channels)).astype(np.float32)
            store.add(video.id, features_TC, Timeline(0.0, stride, stride), DURATION)
    return path


@pytest.mark.parametrize(("config", "write", "make", "channels", "stride"), CASES)
def test_every_config_trains_on_what_it_is_for(
    tmp_path: Path, config: str, write: Write, make: Callable[[int], Video], channels: int, stride: float
) -> None:
    videos = [make(number) for number in range(6)]
    annotations = write(tmp_path / "annotations", videos)
    features = write_store(tmp_path / "store", videos, channels, stride)
    words = ["--features", str(features), "--annotations", str(annotations), "--out", str(tmp_path / "run")]
    head = read_yaml(find_config(config)).get("head", "gtad")
    small = [*SMALL[head], "--training.epochs", "1", "--training.device", "cpu"]
    assert cli.main(["localize", "--config", config, *words, *small]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["tiou"] == ([0.3, 0.4, 0.5, 0.6, 0.7] if "thumos" in config else list(np.arange(50, 100, 5) / 100))
    results = json.loads((tmp_path / "run" / "detections.json").read_text())["results"]
    assert len(results) == 2
    assert all(results.values())
    assert {found["label"] for of_video in results.values() for found in of_video} <= CLASSES


def test_every_localize_config_of_a_data_set_is_tried() -> None:
    names = {f"{file.parent.name}/{file.stem}" for file in CONFIGS.rglob("localize_*.yaml")}
    assert {name for name in names if name.split("/")[0] in ("activitynet", "hacs", "thumos14")} == {
        config for config, *_ in CASES
    }


def test_lofi_on_activitynet_has_the_papers_numbers() -> None:
    words = ["--videos", "DIR", "--out", "OUT", "--config"]
    name = "activitynet/lofi-train_tsm_r18"
    config = flags.parse("lofi-train", LofiTrainConfig, [*words, name, "--annotations", "GT.json"])
    assert (config.schedule, config.reduction, config.cycle_epochs, config.cycle_batches) == ("long", 4, 1, 16)
    assert (config.num_frames, config.frame_stride, config.size, config.gtad.num_snippets) == (8, 8, 224, 100)
    training = config.training
    assert (training.optimizer, training.lr, training.momentum, training.weight_decay) == ("sgd", 0.1, 0.0, 1e-4)
    assert [lr_factor(training, epoch) for epoch in range(15)] == [1.0] * 5 + [0.5] * 5 + [0.25] * 5
    plain = LofiTrainConfig(videos=Path("DIR"), annotations=Path("GT.json"), out=Path("OUT"), encoder="tsm_r18")
    assert replace(training, num_workers=plain.training.num_workers) == plain.training
    extraction = flags.parse("extract", ExtractConfig, [*words, "activitynet/extract_tsm_r18"])
    sampling = SamplingConfig(num_frames=config.num_frames, frame_stride=config.frame_stride, num_snippets=100)
    assert (extraction.encoder, extraction.sampling) == (config.encoder, sampling)


def test_bmn_on_activitynet_has_the_numbers_of_its_public_code() -> None:
    words = ["--features", "STORE", "--annotations", "GT.json", "--out", "RUN"]
    config = flags.parse("localize", LocalizeConfig, [*words, "--config", "activitynet/localize_bmn_tsn"])
    assert config.head == "bmn"
    assert config.bmn == BMNOptions()
    assert config.post == PostConfig(nms="bmn", sigma=0.4, max_detections=100, min_score=0.0, window=1000)
    training = config.training
    assert (training.optimizer, training.lr, training.weight_decay, training.batch_size) == ("adam", 1e-3, 1e-4, 16)
    assert [lr_factor(training, epoch) for epoch in range(training.epochs)] == [1.0] * 7 + [pytest.approx(0.1)] * 2
    assert training.keep == "last"


def test_actionformer_on_thumos14_has_the_numbers_of_its_public_code() -> None:
    words = ["--features", "STORE", "--annotations", "GT.json", "--out", "RUN"]
    config: Any = flags.parse("localize", LocalizeConfig, [*words, "--config", "thumos14/localize_actionformer_i3d"])
    assert config.actionformer == ActionFormerOptions()
    assert config.post == PostConfig(sigma=0.5, max_detections=200, min_score=0.001)
    training = config.training
    assert (training.optimizer, training.lr, training.weight_decay, training.batch_size) == ("adamw", 1e-4, 0.05, 2)
    assert (training.epochs, training.warmup_epochs, training.lr_schedule) == (35, 5, "cosine")
    assert (training.clip_grad_norm, training.ema_decay, training.decay_only) == (1.0, 0.999, "matrices")
    assert training.keep == "last"


@pytest.mark.parametrize("features", ["tsp", "i3d", "tsn"])
def test_actionformer_on_activitynet_has_the_numbers_of_its_public_code(features: str) -> None:
    words = ["--features", "STORE", "--annotations", "GT.json", "--out", "RUN"]
    name = f"activitynet/localize_actionformer_{features}"
    config: Any = flags.parse("localize", LocalizeConfig, [*words, "--config", name])
    assert config.actionformer == ActionFormerOptions(
        crop_rows=192, hidden=256, window=7, last_window=0, position_rows=192,
        label_smoothing=0.1, reg_weight=2.0, initial_positives=200, min_length=0.001,
    )  # fmt: skip
    assert (config.rescale, config.rescale_rows, config.fusion) == ("linear", 192, "top2-sqrt")
    assert config.post == PostConfig(sigma=0.75, class_agnostic=True, voting=0.9, max_detections=100, min_score=0.001)
    training = config.training
    assert (training.optimizer, training.lr, training.weight_decay, training.batch_size) == ("adamw", 1e-3, 0.05, 16)
    assert (training.epochs, training.warmup_epochs, training.lr_schedule) == (15, 5, "cosine")
    assert (training.clip_grad_norm, training.ema_decay, training.decay_only) == (1.0, 0.999, "matrices")
    assert training.keep == "last"


def test_temporalmaxer_on_thumos14_has_the_numbers_of_its_public_code() -> None:
    words = ["--features", "STORE", "--annotations", "GT.json", "--out", "RUN"]
    config: Any = flags.parse("localize", LocalizeConfig, [*words, "--config", "thumos14/localize_temporalmaxer_i3d"])
    assert config.temporalmaxer == TemporalMaxerOptions()
    assert config.post == PostConfig(sigma=0.5, max_detections=200, min_score=0.001)
    training = config.training
    assert (training.optimizer, training.lr, training.weight_decay, training.batch_size) == ("adamw", 1e-4, 0.05, 2)
    assert (training.epochs, training.warmup_epochs, training.lr_schedule) == (65, 5, "cosine")
    assert (training.clip_grad_norm, training.ema_decay, training.decay_only) == (1.0, 0.999, "matrices")
    assert training.keep == "last"


def test_tridet_on_thumos14_has_the_numbers_of_its_public_code() -> None:
    words = ["--features", "STORE", "--annotations", "GT.json", "--out", "RUN"]
    config: Any = flags.parse("localize", LocalizeConfig, [*words, "--config", "thumos14/localize_tridet_i3d"])
    assert config.tridet == TriDetOptions()
    assert config.post == PostConfig(sigma=0.5, max_detections=2000, min_score=0.001)
    training = config.training
    assert (training.optimizer, training.lr, training.weight_decay, training.batch_size) == ("adamw", 1e-4, 0.025, 2)
    assert (training.epochs, training.warmup_epochs, training.lr_schedule) == (40, 20, "cosine")
    assert (training.clip_grad_norm, training.ema_decay, training.decay_only) == (1.0, 0.999, "matrices")
    assert training.keep == "last"


@pytest.mark.parametrize(
    ("features", "head", "lr_min", "epochs", "warmup", "clip"),
    [
        ("slowfast", {"crop_rows": 960, "position_rows": 960, "kernel": 3, "num_bins": 14}, 5e-4, 11, 7, 0.5),
        (
            "i3d",
            {"crop_rows": 512, "position_rows": 512, "kernel": 15, "num_bins": 12, "num_levels": 7},
            2e-4,
            13,
            10,
            1,
        ),
    ],
)
def test_tridet_on_hacs_has_the_numbers_of_its_public_code(
    features: str, head: dict[str, int], lr_min: float, epochs: int, warmup: int, clip: float
) -> None:
    words = ["--features", "STORE", "--annotations", "GT.json", "--out", "RUN"]
    config: Any = flags.parse("localize", LocalizeConfig, [*words, "--config", f"hacs/localize_tridet_{features}"])
    assert config.tridet == TriDetOptions(
        **head, hidden=1024, mlp_hidden=1024, head_hidden=1024, kernel_ratio=1.2, depthwise_init=0.1, head_kernel=5,
        boundary_kernel=1, iou_power=1.0, input_noise=0.2 if features == "slowfast" else 0.0, label_smoothing=0.1,
        initial_positives=400,
    )  # fmt: skip
    assert config.post == PostConfig(sigma=0.75, max_detections=250, min_score=0.001)
    training = config.training
    assert (training.lr, training.lr_min, training.weight_decay, training.batch_size) == (1e-3, lr_min, 0.03, 16)
    assert (training.epochs, training.warmup_epochs, training.clip_grad_norm) == (epochs, warmup, clip)
    assert training.keep == "last"


# --- SoLa -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hidden", "rows", "epochs"),
    [
        ("activitynet/sola_tsn", 1024, 65, 500),  # the paper's supplement, Table 4a
        ("thumos14/sola_tsn", 1024, 65, 500),
        ("hacs/sola_i3d", 512, 23, 150),  # hacs_canonical.yaml of the authors' code: sampling_duration is 23
    ],
)
def test_the_sola_configs_have_the_published_settings(name: str, hidden: int, rows: int, epochs: int) -> None:
    config = flags.parse("sola", SolaConfig, ["--features", "STORE", "--out", "RUN", "--config", name])
    assert (config.module.hidden, config.projector_hidden, config.k) == (hidden, 512, 16)
    assert (config.tsm_size - 1) * config.step + 9 == rows
    training = config.training
    assert (training.optimizer, training.lr, training.batch_size, training.epochs) == ("adamw", 1e-4, 256, epochs)


# --- Extraction -------------------------------------------------------------------------------------------------------


def extract_configs() -> dict[str, ExtractConfig]:
    words = ["--videos", "DIR", "--out", "STORE", "--config"]
    files = sorted(CONFIGS.glob("*/extract*.yaml"))
    return {str(file): flags.parse("extract", ExtractConfig, [*words, str(file)]) for file in files}


def test_every_extract_config_names_an_encoder() -> None:
    assert {config.encoder for config in extract_configs().values()} <= ENCODERS.keys()


def test_the_streams_of_a_data_set_see_the_same_seconds() -> None:
    configs = extract_configs()
    streams = [name for name in configs if name.endswith("_flow.yaml")]
    assert len(streams) >= 3
    for name in streams:
        flow, rgb = configs[name].sampling, configs[name.replace("_flow.yaml", ".yaml")].sampling
        seconds = [
            (s.num_frames * s.frame_stride, s.step, s.fps) for s in (flow, rgb) if s.num_frames and s.frame_stride
        ]
        assert len(seconds) == 2
        assert seconds[0] == seconds[1]
