"""The public ActionFormer (github.com/happyharrycn/actionformer_release) trained by its own code on a store of ours.

FOLDER is a checkout of it. It imports pandas, joblib and its own compiled NMS, for which its INSTALL.md has
`python setup.py install` run in FOLDER/libs/utils (or, to leave the environment as it is, `build_ext --build-lib
PLACE`, with PLACE in PYTHONPATH). It needs no CUDA device here.

A process of its own, which `peer_metrics` starts, trains it: what stands below "In the other process" calls FOLDER's
functions in the order of its train.py and eval.py, which themselves ask for a CUDA device and for TensorBoard.
Features, annotations and config are written for it, so that its grid in time is ours: row i is the second (i + ½)/fps.
The settings are those of its config for THUMOS14, but for what `_config` says. Our evaluator scores its detections.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command_line import script_parser
from pipeline.data.annotations import Annotations, read_annotations
from pipeline.data.detections import Detections
from pipeline.data.features import FeatureStore
from pipeline.data.files import write_json
from pipeline.measures.detection_metrics import GroundTruth, detection_metrics

# Of its soft-NMS: its own, and that of our config, which was chosen on split 1. One training is decoded with both.
SIGMAS = (0.5, 0.1)
ROWS = 2304  # its training fills every video up to so many; no video may be longer


def peer_metrics(
    folder: Path, sigma: float, tiou: tuple[float, ...], store: Path, annotations: Path, out: Path, seed: int
) -> dict[str, Any]:
    """mAP of the public ActionFormer at each tIoU, trained unless its detections are there.

    Args:
        folder: checkout of the public code.
        sigma: of its soft-NMS, one of SIGMAS.
        tiou: thresholds.
        store: feature store.
        annotations: ActivityNet JSON with the subsets training and validation.
        out: where its inputs and its detections are kept.
        seed: of its training.

    Raises:
        ValueError: `folder` is no checkout.
    """
    if not (folder / "libs" / "modeling" / "meta_archs.py").is_file():
        raise ValueError(f"--peer {folder}: no checkout of actionformer_release, which has libs/modeling/meta_archs.py")
    videos = read_annotations(annotations)
    if not _detections(out, sigma).exists():
        config = write_inputs(FeatureStore.open(store), videos, out)
        paths = os.pathsep.join([str(folder.resolve()), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "benchmarks.peer_actionformer", str(config), str(out), "--seed", str(seed)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": paths})
    ground_truth = GroundTruth.of(videos.in_subset("validation"))
    return detection_metrics(ground_truth, Detections.from_json(_detections(out, sigma)), tiou)


def _detections(out: Path, sigma: float) -> Path:
    return out / f"detections_sigma{sigma:g}.json"


# --- What it reads ----------------------------------------------------------------------------------------------------


def write_inputs(store: FeatureStore, annotations: Annotations, out: Path) -> Path:
    """Features as .npy (T, C), annotations and config in the public code's forms; the path of the config."""
    labels, database = annotations.labels, {}
    (out / "features").mkdir(parents=True, exist_ok=True)
    for video in annotations.videos.values():
        features_TC, stored = store.load(video.id), store.videos[video.id]
        if len(features_TC) > ROWS:
            raise ValueError(f"{video.id} has {len(features_TC)} rows; the public code trains on {ROWS} at most")
        np.save(out / "features" / f"{video.id}.npy", features_TC)
        database[video.id] = {
            "subset": video.subset,
            "duration": video.duration,
            "fps": 1 / stored.timeline.stride,
            "annotations": [
                {"segment": [x.start, x.end], "label": x.label, "label_id": labels.index(x.label)}
                for x in video.segments
            ],
        }
    write_json(out / "annotations.json", {"database": database})
    write_json(out / "config.yaml", _config(out, features_TC.shape[1], len(labels)))  # JSON is YAML, too
    return out / "config.yaml"


def _config(out: Path, channels: int, classes: int) -> dict[str, Any]:
    """Its THUMOS14 config for rows one frame apart and 21 training videos.

    Otherwise than there: 128 channels rather than 512, a learning rate of 1e-3 rather than 1e-4, and 25 epochs after
    the 5 of the warm-up rather than 30.
    """
    return {
        "dataset_name": "thumos",
        "devices": ["cpu"],
        "train_split": ["training"],
        "val_split": ["validation"],
        "dataset": {
            "json_file": str(out / "annotations.json"),
            "feat_folder": str(out / "features"),
            "file_prefix": None,
            "file_ext": ".npy",
            "num_classes": classes,
            "input_dim": channels,
            "feat_stride": 1,
            "num_frames": 1,
            "default_fps": None,
            "trunc_thresh": 0.5,
            "crop_ratio": [0.9, 1.0],
            "max_seq_len": ROWS,
        },
        "model": {"n_mha_win_size": 19, "embd_dim": 128, "fpn_dim": 128, "head_dim": 128},
        "opt": {"learning_rate": 1e-3, "warmup_epochs": 5, "epochs": 25, "weight_decay": 0.05},
        "loader": {"batch_size": 2, "num_workers": 1},
        "train_cfg": {"init_loss_norm": 100, "clip_grad_l2norm": 1.0},
        "test_cfg": {"pre_nms_topk": 2000, "max_seg_num": 200, "min_score": 0.001},
    }


# --- In the other process ---------------------------------------------------------------------------------------------

EMA_DECAY = 0.99  # its .999 is for trainings of many more steps than these 300
SILENT = 10**9  # it prints every so many steps, and then waits for a CUDA device


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    _train_and_detect(parser.parse_args())


def _train_and_detect(options: argparse.Namespace) -> None:
    """Train by the public code, and write its detections in the validation subset, once for each sigma."""
    from libs.core import load_config

    config = load_config(str(options.config))
    config["model"]["train_cfg"]["head_empty_cls"] = []
    model, labels = _train(config, options.seed)
    for sigma in SIGMAS:
        model.test_nms_sigma = sigma
        write_json(_detections(options.out, sigma), {"results": _detect(model, config, labels)})


def _train(config: dict[str, Any], seed: int) -> tuple[Any, dict[int, str]]:
    """The weight average after the last epoch, and the label of each class."""
    from libs.datasets import make_data_loader, make_dataset
    from libs.modeling import make_meta_arch
    from libs.utils import ModelEma, fix_random_seed, make_optimizer, make_scheduler, train_one_epoch

    generator = fix_random_seed(seed, include_cuda=True)
    dataset = make_dataset(config["dataset_name"], True, config["train_split"], **config["dataset"])
    loader = make_data_loader(dataset, True, generator, **config["loader"])
    model = make_meta_arch(config["model_name"], **config["model"])
    optimizer = make_optimizer(model, config["opt"])
    scheduler = make_scheduler(optimizer, config["opt"], len(loader))
    average = ModelEma(model, decay=EMA_DECAY)
    for epoch in range(config["opt"]["warmup_epochs"] + config["opt"]["epochs"]):
        clip = config["train_cfg"]["clip_grad_l2norm"]
        train_one_epoch(
            loader, model, optimizer, scheduler, epoch, model_ema=average, clip_grad_l2norm=clip, print_freq=SILENT
        )
    return average.module.eval(), {index: label for label, index in dataset.label_dict.items()}


def _detect(model: Any, config: dict[str, Any], labels: dict[int, str]) -> dict[str, list[dict[str, Any]]]:
    """Its detections of each video, in the form of ActivityNet's results."""
    import torch
    from libs.datasets import make_data_loader, make_dataset

    dataset = make_dataset(config["dataset_name"], False, config["val_split"], **config["dataset"])
    found = {}
    for videos in make_data_loader(dataset, False, None, 1, config["loader"]["num_workers"]):
        with torch.no_grad():
            [result] = model(videos)
        rows = zip(result["segments"].tolist(), result["scores"].tolist(), result["labels"].tolist(), strict=True)
        found[result["video_id"]] = [
            {"segment": segment, "score": score, "label": labels[label]} for segment, score, label in rows
        ]
    return found


if __name__ == "__main__":
    main()
