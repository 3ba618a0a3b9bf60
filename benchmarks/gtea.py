"""Heads on GTEA, real egocentric videos, beside a classifier of single rows whose runs of equal labels are segments.

    python benchmarks/gtea.py OUT --data FOLDER [--splits 1 2 3 4] [--head-seeds 3]
                              [--methods gtad actionformer … linear temporal]

    gtad      `pipeline localize` with configs/gtea/localize_gtad.yaml
    actionformer  the same with configs/gtea/localize_actionformer.yaml, whose sigma was chosen on split 1
    temporalmaxer  and with configs/gtea/localize_temporalmaxer.yaml
    tridet    and with configs/gtea/localize_tridet.yaml
    linear    a softmax on each row of features, trained with the training videos' labels; a run of rows of one label is
              a segment, and its score is the mean probability of the label
    temporal  the same behind a temporal convolution over 2 seconds

FOLDER holds the features of the temporal convolutional networks' authors (Lea et al., CVPR 2017): for each of the four
splits Split_K.npz with VIDEO/A, the 128 activations of a CNN at 15 rows a second, which its authors trained on the
frame labels of that split's training videos (VIDEO/X, not used, are its class scores), and annotations.json, which
says for each video in which split it is tested. Heads that are in OUT already are not trained again; OUT/gtea.json
holds the metrics of each method, split and seed.

--develop trains and scores on the training videos of each split alone: of their three persons, one is held out. As the
CNN knows their labels, too (its own scores are right in 92 % of the rows of training videos, but in 55 % of those of
test videos), their features get noise that changes over seconds, so strong that a linear classifier is right in 55 %.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from benchmarks.command_line import script_parser
from benchmarks.gains import train_head
from benchmarks.headroom import classes_at
from benchmarks.results import format_interval, results_table, write_results
from pipeline.data.annotations import Annotations, Segment, Video, read_annotations, write_annotations
from pipeline.data.detections import Detection, Detections
from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline
from pipeline.measures.detection_metrics import GroundTruth, detection_metrics

HEAD_CONFIG = "gtea/localize_gtad"
SPLITS = (1, 2, 3, 4)
TIOU = (0.1, 0.3, 0.5)
NOISE, NOISE_ROWS = 2.1, 15  # of the held-out training videos: in standard deviations; rows of a second


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--splits", nargs="+", type=int, choices=SPLITS, default=[*SPLITS])
    parser.add_argument("--head-seeds", type=int, default=3, help="how often each method is trained on each split")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS], default=[*METHODS])
    parser.add_argument("--develop", action="store_true", help="hold out training videos; never look at the test set")
    options = parser.parse_args()
    results: dict[str, dict[int, list[dict[str, Any]]]] = {method: {} for method in options.methods}
    for split in options.splits:
        folder = options.out / f"split{split}"
        store, annotations = make_split(options.data, split, folder, develop=options.develop)
        for method in options.methods:
            train = METHODS[method]
            runs = [train(store, annotations, folder / f"{method}{seed}", seed) for seed in range(options.head_seeds)]
            results[method][split] = runs
        write_results(options.out / "gtea.json", results)
    _print_table(results)


# --- The data ---------------------------------------------------------------------------------------------------------


def make_split(data: Path, split: int, folder: Path, *, develop: bool = False) -> tuple[Path, Path]:
    """A feature store and an annotation file of one split, made unless they are there.

    Args:
        data: folder of Split_K.npz and annotations.json.
        split: 1 to 4.
        folder: where to write them.
        develop: leave the test videos out, and hold out one person's training videos instead.

    Returns:
        Paths of the store and of an ActivityNet JSON with the subsets training and validation.
    """
    store, annotations = folder / "features", folder / "annotations.json"
    videos = _read_videos(data, split, develop)
    write_annotations(annotations, videos)
    with np.load(data / f"Split_{split}.npz") as arrays:
        features = {video: arrays[f"{video.id}/A"].astype(np.float32) for video in videos}
    if develop:
        _spoil({video: rows_TC for video, rows_TC in features.items() if video.subset == "validation"})
    _write_store(store, features)
    return store, annotations


def _read_videos(data: Path, split: int, develop: bool) -> list[Video]:
    database = json.loads((data / "annotations.json").read_text(encoding="utf-8"))["database"]
    tested = {video_id: f"Split_{split}" in entry["test_in"] for video_id, entry in database.items()}
    chosen = {video_id: is_test for video_id, is_test in tested.items() if not (develop and is_test)}
    if develop:
        # S3_Tea_C1 is the third person making tea; the next one after the person of the test set is held out.
        chosen = {video_id: video_id.startswith(f"S{split % len(SPLITS) + 1}_") for video_id in chosen}
    return [_video(video_id, database[video_id], held_out) for video_id, held_out in chosen.items()]


def _video(video_id: str, entry: dict[str, Any], held_out: bool) -> Video:
    times_and_labels = [(*found["segment"], found["label"]) for found in entry["annotations"]]
    segments = tuple(Segment(start, end, label) for start, end, label in times_and_labels)
    return Video(video_id, entry["duration"], "validation" if held_out else "training", segments)


def _spoil(features: dict[Video, NDArray[np.float32]]) -> None:
    """Add noise to the features of held-out training videos, in place."""
    rng = np.random.default_rng(0)
    deviation_C = np.concatenate([*features.values()]).std(axis=0)
    kernel = np.full(NOISE_ROWS, NOISE_ROWS**-0.5)
    for rows_TC in features.values():
        noise_TC = np.apply_along_axis(np.convolve, 0, rng.standard_normal(rows_TC.shape), kernel, mode="same")
        rows_TC += NOISE * deviation_C * noise_TC


def _write_store(path: Path, features: dict[Video, NDArray[np.float32]]) -> None:
    with FeatureStore.create_or_resume(path, StoreHeader()) as store:
        for video, features_TC in features.items():
            if video.id not in store.videos:
                assert video.duration is not None
                stride = video.duration / len(features_TC)
                store.add(video.id, features_TC, Timeline(0.0, stride, stride), video.duration)


# --- Classifiers of rows ----------------------------------------------------------------------------------------------

EPOCHS = 10
ROWS_SEEN = 31  # 2 s


class LabelledVideo(NamedTuple):
    """Standardised features of a video, (1, C, T), and the class of each row, (1, T): 0 is no action."""

    features: Tensor
    classes: Tensor


def train_linear(store: Path, annotations: Path, out: Path, seed: int) -> dict[str, Any]:
    """Metrics of the segments of a linear classifier of rows."""
    return _train_classifier(store, annotations, seed, lambda channels, classes: nn.Conv1d(channels, classes, 1))


def train_temporal(store: Path, annotations: Path, out: Path, seed: int) -> dict[str, Any]:
    """Metrics of the segments of a classifier of rows that sees a second to each side."""
    return _train_classifier(
        store,
        annotations,
        seed,
        lambda channels, classes: nn.Sequential(
            nn.Dropout(0.5),
            nn.Conv1d(channels, 64, ROWS_SEEN, padding=ROWS_SEEN // 2),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv1d(64, classes, 1),
        ),
    )


def _train_classifier(
    store_path: Path, annotations_path: Path, seed: int, build: Callable[[int, int], nn.Module]
) -> dict[str, Any]:
    store, annotations = FeatureStore.open(store_path), read_annotations(annotations_path)
    train, val = (annotations.in_subset(subset) for subset in ("training", "validation"))
    labels = Annotations(train, {}).labels
    torch.manual_seed(seed)
    model = build(next(iter(store.videos.values())).channels, 1 + len(labels))
    standard = _standardise(store, train)
    _fit_rows(model, [_labelled(store, video, labels, standard) for video in train.values()])
    results = {}
    for video in val.values():
        labelled, timeline = _labelled(store, video, labels, standard), store.videos[video.id].timeline
        with torch.inference_mode():
            probability_KT = model.eval()(labelled.features)[0].softmax(dim=0)
        results[video.id] = runs_of_labels(probability_KT.numpy(), timeline, labels)
    return detection_metrics(GroundTruth.of(val), Detections.from_videos(results), TIOU)


def _standardise(store: FeatureStore, videos: dict[str, Video]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel over the rows of all videos, (C,) each."""
    features_TC = np.concatenate([store.load(video_id) for video_id in videos])
    return features_TC.mean(axis=0), features_TC.std(axis=0) + 1e-6


def _labelled(
    store: FeatureStore,
    video: Video,
    labels: Sequence[str],
    standard: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> LabelledVideo:
    mean_C, deviation_C = standard
    features_TC = (store.load(video.id) - mean_C) / deviation_C
    classes_T = classes_at(store.videos[video.id].timeline.centers(len(features_TC)), video, labels)
    return LabelledVideo(torch.from_numpy(features_TC.T[None]), torch.from_numpy(classes_T[None]))


def _fit_rows(model: nn.Module, videos: Sequence[LabelledVideo]) -> None:
    """A video a step, all rows alike."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(videos))
    for _ in range(EPOCHS):
        for index in torch.randperm(len(videos)).tolist():
            loss = F.cross_entropy(model(videos[index].features), videos[index].classes)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


def runs_of_labels(probability_KT: NDArray[np.float32], timeline: Timeline, labels: Sequence[str]) -> list[Detection]:
    """Each run of rows whose likeliest class is the same one, if it is an action; class 0 is none."""
    found, first = [], 0
    for action, run in groupby(probability_KT.argmax(axis=0).tolist()):
        last = first + len(list(run))
        if action:
            start, end = (timeline.offset + row * timeline.stride for row in (first, last))
            score = float(probability_KT[action, first:last].mean())
            found.append(Detection(start, end, labels[action - 1], score))
        first = last
    return found


METHODS: dict[str, Callable[[Path, Path, Path, int], dict[str, Any]]] = {
    "gtad": partial(train_head, HEAD_CONFIG),
    "actionformer": partial(train_head, "gtea/localize_actionformer"),
    "temporalmaxer": partial(train_head, "gtea/localize_temporalmaxer"),
    "tridet": partial(train_head, "gtea/localize_tridet"),
    "linear": train_linear,
    "temporal": train_temporal,
}


# --- What they reach --------------------------------------------------------------------------------------------------


def _print_table(results: dict[str, dict[int, list[dict[str, Any]]]]) -> None:
    """A row for each method and split; over all splits, what varies is each seed's mean over them."""
    title = "mAP (%): mean over seeds, and the half-width of its 95 % interval"
    table = results_table(title, "method", "split", *(f"mAP@{tiou}" for tiou in TIOU), "average")
    for method, by_split in results.items():
        maps = {str(split): _maps(runs) for split, runs in by_split.items()}
        maps["all"] = np.mean([*maps.values()], axis=0)
        for split, maps_SH in maps.items():
            columns = [*maps_SH.T, maps_SH.mean(axis=1)]
            table.add_row(method, split, *map(format_interval, columns), end_section=split == "all")
    Console().print(table)


def _maps(runs: list[dict[str, Any]]) -> NDArray[np.float64]:
    """mAP of each seed at each tIoU, (S, H)."""
    return np.array([[run["map"][run["tiou"].index(tiou)] for tiou in TIOU] for run in runs])


if __name__ == "__main__":
    main()
