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

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as pipeline.cli does, before torch is loaded

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from benchmarks.gains import format_interval, head_metrics  # noqa: E402
from encoders import Encoder, build_encoder  # noqa: E402
from encoders.weights import save_weights  # noqa: E402
from pipeline.clips.batches import random_crop  # noqa: E402
from pipeline.clips.training import Classifier  # noqa: E402
from pipeline.commands.extract import command as extract  # noqa: E402
from pipeline.commands.extract.options import ExtractConfig  # noqa: E402
from pipeline.commands.localize import command as localize  # noqa: E402
from pipeline.commands.localize.options import LocalizeConfig  # noqa: E402
from pipeline.commands.pretrain import command as pretrain  # noqa: E402
from pipeline.commands.pretrain.options import PretrainConfig  # noqa: E402
from pipeline.data.annotations import Video, read_annotations  # noqa: E402
from pipeline.data.features import ENCODER_WEIGHTS, FeatureStore, StoreHeader  # noqa: E402
from pipeline.data.files import find_videos  # noqa: E402
from pipeline.data.snippets import Sampling, sample_snippets  # noqa: E402
from pipeline.data.video import probe_video, read_frames  # noqa: E402
from pipeline.options.flags import parse  # noqa: E402
from pipeline.training.batches import load_batches  # noqa: E402
from pipeline.training.loop import fit  # noqa: E402
from synth.scenes import SIZES, write_dataset  # noqa: E402

CHANNELS_OF_NOISE = 128


@dataclass(frozen=True)
class Setting:
    """Where everything lies, and how long the encoders train."""

    out: Path
    seed: int
    clip_epochs: int
    frame_epochs: int

    @property
    def clips(self) -> Path:
        return self.out / "data" / "trimmed" / "clips.csv"

    @property
    def videos(self) -> Path:
        return self.out / "data" / "untrimmed" / "videos"

    @property
    def annotations(self) -> Path:
        return self.out / "data" / "untrimmed" / "annotations.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=[*SIZES], default="ablation")
    parser.add_argument("--seed", type=int, default=0, help="of the data and of the encoders' training")
    parser.add_argument("--head-seeds", type=int, default=3, help="how many heads are trained on each kind of features")
    parser.add_argument("--rows", nargs="+", choices=[*STORES], default=[*STORES])
    parser.add_argument("--clip-epochs", type=int, default=30)
    parser.add_argument("--frame-epochs", type=int, default=6)
    options = parser.parse_args()
    setting = Setting(options.out, options.seed, options.clip_epochs, options.frame_epochs)
    if not setting.annotations.exists():
        write_dataset(setting.out / "data", size=options.size, seed=options.seed)
    results = {}
    for row in options.rows:
        store = STORES[row](setting, setting.out / row)
        folder = setting.out / row
        results[row] = [
            train_head(store, setting.annotations, folder / f"head{seed}", seed) for seed in range(options.head_seeds)
        ]
        (setting.out / "headroom.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    _print_table(results)


# --- Four kinds of features -------------------------------------------------------------------------------------------


def _noise(setting: Setting, folder: Path) -> Path:
    """Random features, laid out in time as those of the untrained encoder."""
    like = FeatureStore.open(_untrained(setting, setting.out / "untrained"))
    rng = np.random.default_rng(setting.seed)
    with FeatureStore.create_or_resume(folder / "features", StoreHeader(None, None, None)) as store:
        for video in like.videos.values():
            if video.id not in store.videos:
                noise_TC = rng.standard_normal((video.rows, CHANNELS_OF_NOISE), dtype=np.float32)
                store.add(video.id, noise_TC, video.timeline, video.duration)
    return folder / "features"


def _untrained(setting: Setting, folder: Path) -> Path:
    return extract_features(setting, folder, "random")


def classification(setting: Setting, folder: Path) -> Path:
    return extract_features(setting, folder, _classifier(setting))


def _classifier(setting: Setting) -> Path:
    return train_on_clips(setting, setting.out / "classification" / "encoder", setting.seed)


def train_on_clips(setting: Setting, out: Path, seed: int) -> Path:
    """Run folder of an encoder that classifies the trimmed clips."""
    words = ["--config", "demo/pretrain", "--clips", str(setting.clips), "--out", str(out)]
    words += ["--training.seed", str(seed), "--training.epochs", str(setting.clip_epochs)]
    pretrain.run(parse("pretrain", PretrainConfig, words))
    return out


def _frame_labels(setting: Setting, folder: Path) -> Path:
    if not (folder / "encoder" / ENCODER_WEIGHTS).exists():
        _train_on_frame_labels(setting, folder / "encoder")
    return extract_features(setting, folder, folder / "encoder")


STORES: dict[str, Callable[[Setting, Path], Path]] = {
    "noise": _noise,
    "untrained": _untrained,
    "classification": classification,
    "frame-labels": _frame_labels,
}


def extract_features(setting: Setting, folder: Path, weights: str | Path) -> Path:
    """Feature store of the untrimmed videos, `folder`/features."""
    extract.run(_extract_config(setting, folder, weights))
    return folder / "features"


def _extract_config(setting: Setting, folder: Path, weights: str | Path) -> ExtractConfig:
    words = ["--config", "demo/extract", "--videos", str(setting.videos), "--out", str(folder / "features")]
    return parse("extract", ExtractConfig, [*words, "--weights", str(weights)])


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
    words = ["--config", "demo/pretrain", "--clips", str(setting.clips), "--out", str(out)]
    words += ["--training.seed", str(setting.seed), "--training.epochs", str(setting.frame_epochs)]
    config = parse("pretrain", PretrainConfig, words)
    extraction = _extract_config(setting, out, "random")
    out.mkdir(parents=True, exist_ok=True)

    annotations, files = read_annotations(setting.annotations), find_videos(setting.videos)
    videos = {files[video.id]: video for video in annotations.in_subset("training").values()}
    encoder = build_encoder(config.encoder, weights=_classifier(setting))
    sampling = extract.resolve_sampling(encoder, extraction.sampling)
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


# --- Heads and what they reach ----------------------------------------------------------------------------------------


def train_head(store: Path, annotations: Path, out: Path, seed: int) -> dict[str, Any]:
    """Metrics of the head trained with this seed, and the seconds its training took."""
    words = ["--config", "demo/localize", "--features", str(store), "--annotations", str(annotations)]
    words += ["--out", str(out), "--training.seed", str(seed)]
    localize.run(parse("localize", LocalizeConfig, words))
    return head_metrics(out, annotations)


def _print_table(results: dict[str, list[dict[str, Any]]]) -> None:
    table = Table(title="mAP (%): mean over head seeds, and the half-width of its 95 % interval")
    for column in ("features", "average mAP", "mAP@0.5", "gain over classification", "seconds a head"):
        table.add_column(column, justify="left" if column == "features" else "right")
    base = average_maps(results["classification"]) if "classification" in results else None
    for row, runs in results.items():
        average_S = average_maps(runs)
        at_half_S = np.array([run["map"][run["tiou"].index(0.5)] for run in runs])
        gain = "" if base is None else format_interval(average_S - base)
        seconds = float(np.mean([run["seconds"] for run in runs]))
        table.add_row(row, format_interval(average_S), format_interval(at_half_S), gain, f"{seconds:.0f}")
    Console().print(table)


def average_maps(runs: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Average mAP of each head seed, (S,)."""
    return np.array([run["average_map"] for run in runs])


if __name__ == "__main__":
    main()
