"""How much there is to gain on the procedural data: the same head on four kinds of features.

    python benchmarks/headroom.py OUT [--size ablation] [--seed 0] [--head-seeds 3] [--rows classification frame-labels]

    noise           random numbers: what the lengths and places of actions alone give away
    untrained       the encoder with random weights
    classification  the encoder trained to classify the trimmed clips (ACP): where every method starts
    frame-labels    that encoder trained on to tell, for each snippet of the untrimmed training videos, which action,
                    if any, its middle lies in: the ceiling that no method without such labels is expected to reach
                    (from random weights it learns the videos by heart)

All four come from the demo's configs. The headroom, frame-labels minus classification, is to be at least 10 points of
average mAP: with less there is no task discrepancy to cure, and the data has to be made harder. What is in OUT already
is not made again. OUT/headroom.json holds the metrics of each row and head seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from benchmarks.drawn_data import HEAD_CONFIG, DrawnData, add_data_flags
from benchmarks.gains import train_head
from benchmarks.results import format_interval, results_table, write_results
from encoders import Encoder, build_encoder
from encoders.weights import save_weights
from pipeline.clips.batches import random_crop
from pipeline.clips.training import Classifier
from pipeline.commands.extract.command import resolve_sampling
from pipeline.commands.extract.options import ExtractConfig
from pipeline.commands.pretrain.options import PretrainConfig
from pipeline.data.annotations import Video, read_annotations
from pipeline.data.features import ENCODER_WEIGHTS, FeatureStore, StoreHeader
from pipeline.data.files import find_videos
from pipeline.data.snippets import Sampling, sample_snippets
from pipeline.data.video import probe_video, read_frames
from pipeline.options.keywords import from_keywords
from pipeline.training.batches import load_batches
from pipeline.training.loop import fit

CHANNELS_OF_NOISE = 128


@dataclass(frozen=True)
class Setting(DrawnData):
    """The data, and how long the ceiling's encoder trains."""

    frame_epochs: int = 6


def main() -> None:
    parser = script_parser(__doc__)
    add_data_flags(parser)
    parser.add_argument("--head-seeds", type=int, default=3, help="how many heads are trained on each kind of features")
    parser.add_argument("--rows", nargs="+", choices=[*STORES], default=[*STORES])
    parser.add_argument("--clip-epochs", type=int, default=30)
    parser.add_argument("--frame-epochs", type=int, default=6)
    options = parser.parse_args()
    setting = Setting(options.out, options.seed, options.clip_epochs, options.frame_epochs)
    setting.draw(options.size)
    results = {}
    for row in options.rows:
        store, folder = STORES[row](setting), setting.out / row
        results[row] = [
            train_head(HEAD_CONFIG, store, setting.annotations, folder / f"head{seed}", seed)
            for seed in range(options.head_seeds)
        ]
        write_results(setting.out / "headroom.json", results)
    _print_table(results)


# --- Four kinds of features -------------------------------------------------------------------------------------------


def _noise(setting: Setting) -> Path:
    """Random features, laid out in time as those of the untrained encoder."""
    like, folder = FeatureStore.open(_untrained(setting)), setting.out / "noise"
    rng = np.random.default_rng(setting.seed)
    with FeatureStore.create_or_resume(folder / "features", StoreHeader(None, None, None)) as store:
        for video in like.videos.values():
            if video.id not in store.videos:
                noise_TC = rng.standard_normal((video.rows, CHANNELS_OF_NOISE), dtype=np.float32)
                store.add(video.id, noise_TC, video.timeline, video.duration)
    return folder / "features"


def _untrained(setting: Setting) -> Path:
    return setting.extract_features(setting.out / "untrained", "random")


def _frame_labels(setting: Setting) -> Path:
    folder = setting.out / "frame-labels"
    if not (folder / "encoder" / ENCODER_WEIGHTS).exists():
        _train_on_frame_labels(setting, folder / "encoder")
    return setting.extract_features(folder, folder / "encoder")


STORES: dict[str, Callable[[Setting], Path]] = {
    "noise": _noise,
    "untrained": _untrained,
    "classification": Setting.classification_features,
    "frame-labels": _frame_labels,
}


# --- The ceiling: training with frame labels --------------------------------------------------------------------------


class SnippetBatch(NamedTuple):
    clips: Tensor  # (B, 3, L, H, W) uint8
    classes: Tensor  # (B,) long; 0: no action


class LabelledSnippets:
    """Snippets of untrimmed videos, each with the class of the action in its middle, or 0; all frames in memory."""

    def __init__(
        self, videos: dict[Path, Video], labels: Sequence[str], encoder: Encoder, sampling: Sampling, seed: int
    ) -> None:
        self.size, self.seed = encoder.size, seed
        self.frames: list[NDArray[np.uint8]] = []
        self.snippets: list[tuple[int, NDArray[np.int64], int]] = []
        for path, video in videos.items():
            info = probe_video(path)
            indices_TL, timeline = sample_snippets(info.timestamps, info.duration, sampling)
            classes_T = classes_at(timeline.centers(len(indices_TL)), video, labels)
            self.snippets += [
                (len(self.frames), indices_L, int(action))
                for indices_L, action in zip(indices_TL, classes_T, strict=True)
            ]
            every_frame = read_frames(path, np.arange(info.num_frames), resize=encoder.resize)
            self.frames.append(np.stack(list(every_frame)))

    def __len__(self) -> int:
        return len(self.snippets)

    def __getitem__(self, places: list[tuple[int, int]]) -> SnippetBatch:
        clips, classes = [], []
        for epoch, index in places:
            video, indices_L, action = self.snippets[index]
            rng = np.random.default_rng((self.seed, epoch, index))
            clips.append(random_crop(self.frames[video][indices_L], self.size, rng, mirror=True))
            classes.append(action)
        return SnippetBatch(torch.stack(clips).transpose(1, 2), torch.tensor(classes))


def classes_at(seconds_T: NDArray[np.float64], video: Video, labels: Sequence[str]) -> NDArray[np.int64]:
    """1 + the index of the action's class at each of `seconds_T`, 0 where there is none."""
    classes_T = np.zeros(len(seconds_T), np.int64)
    for segment in video.segments:
        classes_T[(seconds_T >= segment.start) & (seconds_T < segment.end)] = 1 + labels.index(segment.label)
    return classes_T


def _train_on_frame_labels(setting: Setting, out: Path) -> None:
    """From the clips' encoder, and as `pipeline pretrain` trains but for the epochs; the last epoch's weights."""
    training = {"seed": setting.seed, "epochs": setting.frame_epochs}
    keywords = {"clips": setting.clips, "out": out, "training": training}
    config = from_keywords("pretrain", PretrainConfig, keywords, config="demo/pretrain")
    keywords = {"videos": setting.videos, "out": out}
    extraction = from_keywords("extract", ExtractConfig, keywords, config="demo/extract")
    out.mkdir(parents=True, exist_ok=True)

    annotations, files = read_annotations(setting.annotations), find_videos(setting.videos)
    videos = {files[video.id]: video for video in annotations.in_subset("training").values()}
    encoder = build_encoder(config.encoder, weights=setting.classification_encoder())
    sampling = resolve_sampling(encoder, extraction.sampling)
    snippets = LabelledSnippets(videos, annotations.labels, encoder, sampling, setting.seed)
    torch.manual_seed(setting.seed)
    classifier = Classifier(encoder, 1 + len(annotations.labels), dropout=config.dropout)
    batches = load_batches(snippets, config.training.batch_size, shuffle_seed=setting.seed)
    fit(classifier, _losses, batches, None, run=out, training=config.training)
    save_weights(encoder, out / ENCODER_WEIGHTS)


def _losses(classifier: nn.Module, batch: SnippetBatch) -> dict[str, Tensor]:
    logits_BK = classifier(batch.clips)
    correct_B = logits_BK.argmax(dim=1) == batch.classes
    return {"loss": F.cross_entropy(logits_BK, batch.classes), "top1": 100 * correct_B.float().mean()}


# --- What heads reach -------------------------------------------------------------------------------------------------


def _print_table(results: dict[str, list[dict[str, Any]]]) -> None:
    columns = ("features", "average mAP", "mAP@0.5", "gain over classification", "seconds a head")
    table = results_table("mAP (%): mean over head seeds, and the half-width of its 95 % interval", *columns)
    base = _average_maps(results["classification"]) if "classification" in results else None
    for row, runs in results.items():
        average_S = _average_maps(runs)
        at_half_S = np.array([run["map"][run["tiou"].index(0.5)] for run in runs])
        gain = "" if base is None else format_interval(average_S - base)
        seconds = float(np.mean([run["seconds"] for run in runs]))
        table.add_row(row, format_interval(average_S), format_interval(at_half_S), gain, f"{seconds:.0f}")
    Console().print(table)


def _average_maps(runs: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Average mAP of each head seed, (S,)."""
    return np.array([run["average_map"] for run in runs])


if __name__ == "__main__":
    main()
