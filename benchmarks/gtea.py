"""Every head on GTEA, real egocentric videos, and beside them the public ActionFormer and classifiers of single rows.

    python benchmarks/gtea.py OUT --data FOLDER [--splits 2 3 4] [--head-seeds 3] [--rows ax|a] [--peer CHECKOUT]
                              [--methods HEAD ... linear temporal]

    HEAD      `pipeline localize` with configs/gtea/localize_HEAD.yaml, whichever there are
    linear    a softmax on each row of features, trained with the training videos' labels; a run of rows of one label is
              a segment, and its score is the mean probability of the label
    temporal  the same behind a temporal convolution over 2 seconds
    peer      the public ActionFormer by its own code (`benchmarks/peer_actionformer.py`), trained on the same rows and
              scored by the same evaluator; peer-narrow is the same networks decoded with the sigma of our config

FOLDER holds the features of the temporal convolutional networks' authors (Lea et al., CVPR 2017): for each of the four
splits Split_K.npz with VIDEO/A, the 128 activations of a CNN at 15 rows a second, which its authors trained on the
frame labels of that split's training videos, and VIDEO/X, its class scores; and annotations.json, which says for each
video in which split it is tested. Rows are both side by side, 139 channels, or with `--rows a` the activations alone.
Our configs' settings were chosen on split 1, so that it reports nothing: it is left out unless asked for.

Heads that are in OUT already are not trained again; OUT/gtea_ROWS.json holds the metrics of each method, split and
seed. All are trained seed by seed, so that what an interrupted run leaves is paired.

Two intervals stand beside each mean over splits and seeds, and beside each difference from the peer, which is taken
split by split and seed by seed:

    splits  Student's t over the splits' means, seeds averaged: what four other persons' videos might have given. It
            holds the chance in seeds, too. With three splits t is 4.3, so it is wide.
    seeds   the variance of seeds within splits, pooled: what training again on these splits might give

--develop trains and scores on the training videos of each split alone: of their three persons, one is held out. As the
CNN knows their labels, too (its own scores are right in 92 % of the rows of training videos, but in 55 % of those of
test videos), their features get noise that changes over seconds, so strong that a linear classifier is right in 55 %
of the activations' rows.
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
from rich.table import Table
from torch import Tensor, nn

from benchmarks.command_line import script_parser
from benchmarks.gains import train_head
from benchmarks.headroom import classes_at
from benchmarks.peer_actionformer import SIGMAS, peer_metrics
from benchmarks.results import format_interval, half_width, half_width_within, results_table, write_results
from pipeline.data.annotations import Annotations, Segment, Video, read_annotations, write_annotations
from pipeline.data.detections import Detection, Detections
from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline
from pipeline.measures.detection_metrics import GroundTruth, detection_metrics
from pipeline.options.packaged import CONFIGS

HEAD_CONFIG = "gtea/localize_gtad"  # of other scripts on this data
SPLITS = (1, 2, 3, 4)
REPORTED = (2, 3, 4)
TIOU = (0.1, 0.3, 0.5, 0.7)
ROWS = {"ax": ("A", "X"), "a": ("A",)}
NOISE, NOISE_ROWS = 2.1, 15  # of the held-out training videos: in standard deviations; rows of a second

# Metrics of a method, given a store, annotations, a folder of its own and a seed.
Method = Callable[[Path, Path, Path, int], dict[str, Any]]
Results = dict[str, dict[int, list[dict[str, Any]]]]  # by method and split, one for each seed


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--splits", nargs="+", type=int, choices=SPLITS, default=[*REPORTED])
    parser.add_argument("--head-seeds", type=int, default=3, help="how often each method is trained on each split")
    parser.add_argument("--rows", choices=[*ROWS], default="ax", help="activations and class scores, or the former")
    parser.add_argument("--methods", nargs="*", choices=[*METHODS], default=[*METHODS])
    parser.add_argument("--peer", type=Path, help="checkout of the public ActionFormer, to train beside them")
    parser.add_argument("--develop", action="store_true", help="hold out training videos; never look at the test set")
    options = parser.parse_args()
    methods = {name: METHODS[name] for name in options.methods} | _peers(options.peer)
    results: Results = {name: {split: [] for split in options.splits} for name in methods}
    for split in options.splits:
        folder = options.out / f"{options.rows}_split{split}"
        arrays = ROWS[options.rows]
        store, annotations = make_split(options.data, split, folder, arrays=arrays, develop=options.develop)
        for seed in range(options.head_seeds):
            for name, measure in methods.items():
                results[name][split].append(measure(store, annotations, folder / f"{name}{seed}", seed))
                write_results(options.out / f"gtea_{options.rows}.json", results)
    _print_means(results)
    if options.peer:
        _print_differences(results)


def _peers(checkout: Path | None) -> dict[str, Method]:
    """The public ActionFormer with each sigma; both decode the networks in one folder."""
    if checkout is None:
        return {}

    def measure(sigma: float, store: Path, annotations: Path, out: Path, seed: int) -> dict[str, Any]:
        return peer_metrics(checkout, sigma, TIOU, store, annotations, out.with_name(f"peer{seed}"), seed)

    return {name: partial(measure, sigma) for name, sigma in zip(PEERS, SIGMAS, strict=True)}


# --- The data ---------------------------------------------------------------------------------------------------------


def make_split(
    data: Path, split: int, folder: Path, *, arrays: Sequence[str] = ("A",), develop: bool = False
) -> tuple[Path, Path]:
    """A feature store and an annotation file of one split, made unless they are there.

    Args:
        data: folder of Split_K.npz and annotations.json.
        split: 1 to 4.
        folder: where to write them.
        arrays: which of a video's arrays make its rows, side by side.
        develop: leave the test videos out, and hold out one person's training videos instead.

    Returns:
        Paths of the store and of an ActivityNet JSON with the subsets training and validation.
    """
    store, annotations = folder / "features", folder / "annotations.json"
    videos = _read_videos(data, split, develop)
    write_annotations(annotations, videos)
    with np.load(data / f"Split_{split}.npz") as stored:
        features = {
            video: np.concatenate([stored[f"{video.id}/{name}"] for name in arrays], axis=1, dtype=np.float32)
            for video in videos
        }
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


# --- All methods ------------------------------------------------------------------------------------------------------


def _head(name: str) -> Method:
    return partial(train_head, f"gtea/localize_{name}", tiou=list(TIOU))


HEADS = sorted(path.stem.removeprefix("localize_") for path in (CONFIGS / "gtea").glob("localize_*.yaml"))
METHODS: dict[str, Method] = {
    **{name: _head(name) for name in HEADS},
    "linear": train_linear,
    "temporal": train_temporal,
}
PEERS = ("peer", "peer-narrow")


# --- What they reach --------------------------------------------------------------------------------------------------


def _print_means(results: Results) -> None:
    """Rows of a method: its mean over seeds in each split, and that of all with either interval."""
    table = results_table("mAP (%), and half-widths of 95 % intervals", "method", "split", *_columns())
    for method, by_split in results.items():
        _add_rows(table, method, _maps(by_split), [*by_split])
    Console().print(table)


def _print_differences(results: Results) -> None:
    """The same of what each method is ahead of a peer, paired by split and seed."""
    for peer in PEERS:
        table = results_table(f"mAP (%) minus that of {peer}", "method", "split", *_columns())
        for method, by_split in results.items():
            if method not in PEERS:
                _add_rows(table, method, _maps(by_split) - _maps(results[peer]), [*by_split])
        Console().print(table)


def _columns() -> list[str]:
    return [*(f"mAP@{tiou}" for tiou in TIOU), "average"]


def _add_rows(table: Table, method: str, maps_GSH: NDArray[np.float64], splits: list[int]) -> None:
    for split, maps_SH in zip(splits, maps_GSH, strict=True):
        table.add_row(method, str(split), *map(format_interval, maps_SH.T))
    for over, width in (("splits", _over_splits), ("seeds", _over_seeds)):
        cells = [f"{maps_GS.mean():.1f} ± {width(maps_GS)}" for maps_GS in np.moveaxis(maps_GSH, 2, 0)]
        table.add_row(method, f"± {over}", *cells, end_section=over == "seeds")


def _over_splits(maps_GS: NDArray[np.float64]) -> str:
    return f"{half_width(maps_GS.mean(axis=1)):.1f}" if len(maps_GS) > 1 else "?"


def _over_seeds(maps_GS: NDArray[np.float64]) -> str:
    return f"{half_width_within(maps_GS):.1f}" if maps_GS.shape[1] > 1 else "?"


def _maps(by_split: dict[int, list[dict[str, Any]]]) -> NDArray[np.float64]:
    """mAP of each split and seed at each tIoU, and their average: (splits, seeds, TIOU + 1)."""
    maps_GSH = np.array([[run["map"] for run in runs] for runs in by_split.values()])
    return np.concatenate([maps_GSH, maps_GSH.mean(axis=2, keepdims=True)], axis=2)


if __name__ == "__main__":
    main()
