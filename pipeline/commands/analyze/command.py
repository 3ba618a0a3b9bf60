"""`pipeline analyze`: what feature stores tell of time, side by side, in figures and numbers.

    OUT/average_tsm.png, .svg        how similar rows are that stand near each other, and SoLa's target (its Fig. 3)
    OUT/video_tsms.png, .svg         similarity matrices of some videos in each store (Fig. 5)
    OUT/linear_evaluation.png, .svg  with --annotations: foreground or background, by a linear classifier (Fig. 6)
    OUT/boundaries.png, .svg         with --annotations: how features change at boundaries and elsewhere (BSP, Fig. 4)
    OUT/snapshots.png, .svg          with --run: predicted similarity along a SoLa training (Fig. 4)
    OUT/analysis.json                all their numbers; written last

The papers are SoLa's but where another is named. Only videos that all stores hold are looked at: those of the
validation subset, or all, where no annotations are given.
Similarities are rescaled cosines, (1 + cosine) / 2; the standard deviations of Fig. 5 are those of the cosines.

Shapes: T rows of a video, S rows of a subsequence, N snapshots, R runs (seeds), E epochs, C channels.
"""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from encoders.similarity import target_tsm
from pipeline.commands.analyze.options import AnalyzeConfig
from pipeline.data.annotations import Segment, Video, read_annotations
from pipeline.data.features import FeatureStore, StoredVideo, load_finite
from pipeline.data.files import match_ids, write_json
from pipeline.measures.boundary_differences import (
    EDGES,
    BoundaryDifferences,
    Differences,
    Pairs,
    absolute_differences,
    boundary_differences,
    find_pairs,
)
from pipeline.measures.linear_evaluation import labelled_rows, linear_evaluation, majority
from pipeline.measures.self_similarity import (
    average_tsm,
    by_interval,
    self_similarity,
    similarity_std,
    subsequence_length,
)
from pipeline.terminal.notes import print_counts, progress, say
from pipeline.terminal.outcome import Outcome
from pipeline.training.run_folder import CONFIG

if TYPE_CHECKING:
    from pipeline.show.figures import DrawnPair, VideoTSM

FloatArray = NDArray[np.float64]

NUM_DRAWN = 3
"""Videos drawn where --videos names none."""
MAX_DRAWN_ROWS = 512
"""Of longer videos, evenly spaced rows are drawn."""


@dataclass(frozen=True, kw_only=True)
class Analysis(Outcome):
    """What was measured of feature stores.

    Attributes:
        path: folder of the figures and analysis.json.
        numbers: what is in analysis.json.
    """

    path: Path
    numbers: dict[str, Any]


def run(config: AnalyzeConfig) -> Analysis:
    """Compute everything, then draw it, then write the numbers.

    Raises:
        ValueError, FileNotFoundError: a store, the annotations or the run cannot be used; or matplotlib is missing.
    """
    _check_matplotlib()
    notes: Counter[str] = Counter()
    chosen = choose_videos(config, notes)
    snapshots = None if config.run is None else read_snapshots(config.run)
    measured = Measured(
        {source.name: measure(source, chosen.shown, config, notes) for source in chosen.sources},
        {source.name: evaluate_linearly(source, chosen, config) for source in chosen.sources if chosen.train},
        differences_by_store(chosen, notes),
        snapshots,
    )
    config.out.mkdir(parents=True, exist_ok=True)
    _draw(config, chosen, measured)
    numbers = _numbers(config, chosen, measured, notes)
    write_json(config.out / "analysis.json", numbers)
    print_counts(notes)
    say("\n".join(_table(measured)))
    return Analysis(path=config.out, numbers=numbers)


def _check_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "the figures need the package matplotlib, which is not installed: pip install 'tal-pipeline[figures]'"
        ) from error


# --- Stores and videos ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Source:
    """A store under its name in the figures; `id_of` gives the id that it has for a video."""

    name: str
    store: FeatureStore
    id_of: Mapping[str, str]

    def load(self, video_id: str) -> NDArray[np.float32]:
        return load_finite(self.store, self.id_of[video_id])

    def video(self, video_id: str) -> StoredVideo:
        return self.store.videos[self.id_of[video_id]]


@dataclass(frozen=True, eq=False)
class Chosen:
    """The stores, and the videos that all of them hold.

    Attributes:
        shown: ids of the videos whose similarities are measured.
        drawn: those of them whose matrices are drawn.
        train, val: annotated videos for linear evaluation, by id; empty without annotations.
    """

    sources: tuple[Source, ...]
    shown: tuple[str, ...]
    drawn: tuple[str, ...]
    train: Mapping[str, Video]
    val: Mapping[str, Video]


def choose_videos(config: AnalyzeConfig, notes: Counter[str]) -> Chosen:
    """Open the stores and find the videos. ValueError where a store lacks a subset, or stores share no video."""
    stores = {name: FeatureStore.open(path) for name, path in zip(_names(config), config.features, strict=True)}
    if config.annotations is None:
        train, val = {}, {}
        shown = _in_all(stores, list(next(iter(stores.values())).videos), "of the first store", notes)
    else:
        annotations = read_annotations(config.annotations, form=config.annotation_format)
        notes.update(annotations.blemishes)
        subsets = [annotations.in_subset(name) for name in (config.train_subset, config.val_subset)]
        train, val = (
            {video_id: videos[video_id] for video_id in _in_all(stores, videos, f"of subset {name!r}", notes)}
            for videos, name in zip(subsets, (config.train_subset, config.val_subset), strict=True)
        )
        shown = list(val)
    ids = [*shown, *train]
    sources = tuple(Source(name, store, match_ids(ids, store.videos)) for name, store in stores.items())
    for source in sources:
        source.store.channels_of(source.id_of.values())  # an error if they differ
    return Chosen(sources, tuple(shown), _drawn(config, shown), train, val)


def _names(config: AnalyzeConfig) -> tuple[str, ...]:
    """What the stores are called: as asked for, or by what tells their paths apart (`acp` for `rows/acp/features`)."""
    if len(set(config.features)) < len(config.features) or not config.features:
        raise ValueError(f"--features {','.join(map(str, config.features))}: expected stores, each of them once")
    if config.names is not None:
        if len(config.names) != len(config.features) or len(set(config.names)) < len(config.names):
            raise ValueError(f"--names {','.join(config.names)}: expected {len(config.features)} different names")
        return config.names
    parts = [list(path.resolve().parts) for path in config.features]
    if len(parts) == 1:
        return (parts[0][-1],)
    for place in (-1, 0):
        while all(len(path) > 1 for path in parts) and len({path[place] for path in parts}) == 1:
            for path in parts:
                path.pop(place)
    return tuple("/".join(path) for path in parts)


def _in_all(stores: Mapping[str, FeatureStore], wanted: Iterable[str], which: str, notes: Counter[str]) -> list[str]:
    """The wanted videos that every store has, whether with ActivityNet's v_ or without."""
    wanted = list(wanted)
    common = set(wanted)
    for store in stores.values():
        matches = match_ids(wanted, store.videos)
        if not common & matches.keys():
            others = " that the stores before it have" if len(common) < len(wanted) else ""
            raise ValueError(
                f"{store.path} has features of none of the {len(common)} videos {which}{others}; "
                "run `pipeline extract` on them, or give another subset or store"
            )
        common &= matches.keys()
    notes[f"videos {which} without features in every store (left out)"] += len(wanted) - len(common)
    return [video_id for video_id in wanted if video_id in common]


def _drawn(config: AnalyzeConfig, shown: list[str]) -> tuple[str, ...]:
    if config.videos is None:
        return tuple(shown[:NUM_DRAWN])
    matches = match_ids(config.videos, shown)
    if absent := [video_id for video_id in config.videos if video_id not in matches]:
        raise ValueError(f"--videos {', '.join(absent)}: not among the {len(shown)} videos, such as {shown[0]}")
    return tuple(matches.values())


# --- Similarity -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Similarity:
    """What the similarity matrices of a store's videos say.

    Attributes:
        average_SS: the average TSM over all subsequences of a video and then over the videos, rescaled to [0, 1].
        num_averaged: the number of these videos.
        std_of: standard deviation of all cosines within a video, by video id.
    """

    average_SS: FloatArray
    num_averaged: int
    std_of: Mapping[str, float]

    @property
    def mean_std(self) -> float:
        """The paper's "mean of std-dev"."""
        return float(np.mean(list(self.std_of.values())))


def measure(source: Source, video_ids: Iterable[str], config: AnalyzeConfig, notes: Counter[str]) -> Similarity:
    """Similarities within the videos of a store; what cannot be measured is counted in `notes`.

    Raises:
        ValueError: no video is as long as a subsequence, or features are not finite.
    """
    least = subsequence_length(config.tsm_size, config.step)
    tsms, std_of, longest = [], {}, 0
    for video_id in progress(list(video_ids), f"similarity: {source.name}"):
        features_TC = source.load(video_id)
        longest = max(longest, len(features_TC))
        if len(features_TC) >= least:
            tsms.append(_rescaled(average_tsm(features_TC, config.tsm_size, config.step)))
        if len(features_TC) > 1:
            std_of[video_id] = similarity_std(features_TC)
        notes.update({f"{source.name}: {what}": count for what, count in _oddities(features_TC, least).items()})
    if not tsms:
        raise ValueError(
            f"{source.store.path}: a subsequence spans {least} rows (--tsm-size {config.tsm_size}, --step "
            f"{config.step}), but the longest video has {longest}; give a smaller --step, or extract with a smaller one"
        )
    return Similarity(np.mean(tsms, axis=0), len(tsms), std_of)


def _oddities(features_TC: NDArray[np.float32], least: int) -> dict[str, int]:
    num_rows = len(features_TC)
    return {
        "videos of one row (left out)": int(num_rows == 1),
        f"videos of fewer than {least} rows (left out of the average TSM)": int(1 < num_rows < least),
        "videos whose rows are all the same": int(num_rows > 1 and not np.ptp(features_TC, axis=0).any()),
        "rows of zeros (similar to nothing)": int((~features_TC.any(axis=1)).sum()),
    }


def _rescaled(cosines: FloatArray) -> FloatArray:
    return (1 + cosines) / 2


@dataclass(frozen=True, eq=False)
class Snapshots:
    """Average predicted TSMs (N, S, S) at some optimiser steps of a SoLa training, and its target with its K."""

    steps_N: NDArray[np.int64]
    tsm_NSS: FloatArray
    target_SS: FloatArray
    k: float


def read_snapshots(run: Path) -> Snapshots:
    """What `pipeline sola` left of its training. ValueError if this is no such run, or a damaged one."""
    if not (run / "tsm.npz").is_file() or not (run / CONFIG).is_file():
        raise ValueError(f"{run}: no finished run of `pipeline sola` (it lacks tsm.npz or {CONFIG})")
    try:
        k = float(yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))["k"])
        with (run / "tsm.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            steps_N, tsm_NSS = arrays["steps"], arrays["tsm"].astype(np.float64)
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile, yaml.YAMLError) as error:
        raise ValueError(f"{run}: cannot read the snapshots of its training ({error}); train anew") from error
    if steps_N.shape != tsm_NSS.shape[:1] or tsm_NSS.ndim != 3 or 0 in tsm_NSS.shape:
        raise ValueError(f"{run}: tsm.npz holds {tsm_NSS.shape} matrices of {steps_N.shape} steps; train anew")
    if not np.isfinite(tsm_NSS).all():
        raise ValueError(
            f"{run}: tsm.npz holds NaN or infinity, so the training diverged; give a smaller --training.lr"
        )
    return Snapshots(steps_N, tsm_NSS, _target(tsm_NSS.shape[-1], k), k)


def _target(size: int, k: float) -> FloatArray:
    target_SS: FloatArray = target_tsm(size, k).double().numpy()
    return target_SS


# --- Linear evaluation ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LinearEvaluation:
    """Foreground or background by a linear classifier.

    Attributes:
        accuracy_RE: test accuracy in percent, for each seed after each epoch.
        majority: that of always answering with the more frequent class.
        rows: numbers of foreground and background rows, of each subset.
        last: number of last epochs whose mean is a run's result.
    """

    accuracy_RE: FloatArray
    majority: float
    rows: Mapping[str, tuple[int, int]]
    last: int

    @property
    def results(self) -> FloatArray:
        """The result of each run, (R,)."""
        return np.asarray(self.accuracy_RE[:, -self.last :].mean(axis=1))


def evaluate_linearly(source: Source, chosen: Chosen, config: AnalyzeConfig) -> LinearEvaluation:
    """Train on the rows of the training subset and test on those of the validation subset, once for each seed."""
    options = config.linear
    features, labels = {}, {}
    for subset, videos in (("train", chosen.train), ("val", chosen.val)):
        by_own_id = {source.id_of[video_id]: video for video_id, video in videos.items()}
        features[subset], labels[subset] = labelled_rows(source.store, by_own_id, options.max_rows)
    try:
        accuracy_RE = [
            linear_evaluation(
                features["train"],
                labels["train"],
                features["val"],
                labels["val"],
                epochs=options.epochs,
                batch_size=options.batch_size,
                lr=options.lr,
                momentum=options.momentum,
                seed=seed,
            )
            for seed in progress(options.seeds, f"linear evaluation: {source.name}")
        ]
    except ValueError as error:
        raise ValueError(f"{source.store.path}, {config.annotations}: {error}") from error
    rows = {subset: (int(found.sum()), int((~found).sum())) for subset, found in labels.items()}
    return LinearEvaluation(np.array(accuracy_RE), majority(labels["val"]), rows, options.last_epochs)


# --- Differences at boundaries ----------------------------------------------------------------------------------------


def differences_by_store(chosen: Chosen, notes: Counter[str]) -> dict[str, BoundaryDifferences]:
    """How each store's features change at the boundaries of the validation videos; without annotations, none."""
    found = {}
    for source in chosen.sources if chosen.val else ():
        videos = ((source.load(key), source.video(key).timeline, video.segments) for key, video in chosen.val.items())
        differences = boundary_differences(videos)
        if differences is not None:
            found[source.name] = differences
        notes[f"{source.name}: no two snippets to compare at a boundary, or none elsewhere"] += differences is None
    return found


def _pairs(source: Source, video_id: str, segments: Iterable[Segment]) -> Pairs:
    stored = source.video(video_id)
    return find_pairs(segments, stored.timeline, stored.rows)


# --- What is written --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Measured:
    """Everything that was computed, by the stores' names; what was not asked for is empty or None."""

    similarity_of: Mapping[str, Similarity]
    linear_of: Mapping[str, LinearEvaluation]
    differences_of: Mapping[str, BoundaryDifferences]
    snapshots: Snapshots | None


def _draw(config: AnalyzeConfig, chosen: Chosen, measured: Measured) -> None:
    from pipeline.show import figures

    with figures.style():
        averages = {name: similarity.average_SS for name, similarity in measured.similarity_of.items()}
        target_SS = _target(config.tsm_size, config.k)
        figures.save(figures.average_tsms(target_SS, averages, config.step), config.out, "average_tsm")
        figures.save(_draw_videos(chosen, measured.similarity_of), config.out, "video_tsms")
        if measured.linear_of:
            curves = {name: linear.accuracy_RE for name, linear in measured.linear_of.items()}
            majorities = {linear.majority for linear in measured.linear_of.values()}
            figures.save(figures.accuracy_curves(curves, majorities), config.out, "linear_evaluation")
        if measured.differences_of:
            pairs = _drawn_pairs(chosen, measured.differences_of)
            figures.save(figures.boundary_differences(measured.differences_of, pairs), config.out, "boundaries")
        if (snapshots := measured.snapshots) is not None:
            drawn = figures.snapshots(snapshots.steps_N, snapshots.tsm_NSS, snapshots.target_SS)
            figures.save(drawn, config.out, "snapshots")


def _draw_videos(chosen: Chosen, similarity_of: Mapping[str, Similarity]) -> Any:
    from pipeline.show import figures

    video_of = {video_id: {s.name: _video_tsm(s, video_id) for s in chosen.sources} for video_id in chosen.drawn}
    mean_std_of = {name: similarity.mean_std for name, similarity in similarity_of.items()}
    segments_of = {
        video_id: [(segment.start, segment.end) for segment in video.segments] for video_id, video in chosen.val.items()
    }
    return figures.video_tsms(video_of, mean_std_of, segments_of)


def _video_tsm(source: Source, video_id: str) -> VideoTSM:
    from pipeline.show import figures

    features_TC, timeline = source.load(video_id), source.video(video_id).timeline
    centers = timeline.centers(len(features_TC))
    drawn = features_TC[:: math.ceil(len(features_TC) / MAX_DRAWN_ROWS)]
    return figures.VideoTSM(
        tsm_TT=_rescaled(self_similarity(drawn)),
        start=centers[0] - timeline.stride / 2,
        end=centers[-1] + timeline.stride / 2,
        std=similarity_std(features_TC),
    )


def _drawn_pairs(chosen: Chosen, names: Container[str]) -> list[DrawnPair]:
    """Of the first drawn video that has both: a pair at a boundary, and the pair elsewhere that is nearest to it."""
    from pipeline.show import figures

    sources = [source for source in chosen.sources if source.name in names]
    for video_id in chosen.drawn:
        pairs_of = {source: _pairs(source, video_id, chosen.val[video_id].segments) for source in sources}
        if all(len(pairs.boundary) and len(pairs.elsewhere) for pairs in pairs_of.values()):
            at, away = {}, {}
            for source, pairs in pairs_of.items():
                nearest = np.abs(pairs.elsewhere - pairs.boundary[0]).argmin()
                rows = np.array([pairs.boundary[0], pairs.elsewhere[nearest]])
                at[source.name], away[source.name] = absolute_differences(source.load(video_id), rows, pairs.gap)
            return [figures.DrawnPair(f"{video_id}, boundary", at), figures.DrawnPair(f"{video_id}, elsewhere", away)]
    return []


def _numbers(config: AnalyzeConfig, chosen: Chosen, measured: Measured, notes: Mapping[str, int]) -> dict[str, Any]:
    similarity_of = measured.similarity_of
    numbers: dict[str, Any] = {
        "stores": {name: str(path) for name, path in zip(similarity_of, config.features, strict=True)},
        "videos": len(chosen.shown),
        "notes": {what: count for what, count in notes.items() if count},
        "similarity": {
            "tsm_size": config.tsm_size,
            "step": config.step,
            "k": config.k,
            "target": _matrix(_target(config.tsm_size, config.k)),
            "stores": {name: _similarity_numbers(similarity) for name, similarity in similarity_of.items()},
        },
    }
    if measured.linear_of:
        numbers["linear_evaluation"] = {name: _linear_numbers(linear) for name, linear in measured.linear_of.items()}
    if measured.differences_of:
        stores = {name: _difference_numbers(differences) for name, differences in measured.differences_of.items()}
        numbers["boundary_differences"] = {"edges": EDGES.tolist(), "stores": stores}
    if (snapshots := measured.snapshots) is not None:
        differences_N = np.abs(snapshots.tsm_NSS - snapshots.target_SS).mean(axis=(1, 2))
        numbers["snapshots"] = {
            "k": snapshots.k,
            "steps": snapshots.steps_N.tolist(),
            "mean_difference_from_target": differences_N.tolist(),
        }
    return numbers


def _similarity_numbers(similarity: Similarity) -> dict[str, Any]:
    return {
        "average_tsm": _matrix(similarity.average_SS),
        "videos_in_average": similarity.num_averaged,
        "mean_of_std": similarity.mean_std,
        "std": dict(similarity.std_of),
    }


def _matrix(tsm_SS: FloatArray) -> dict[str, Any]:
    return {"matrix": tsm_SS.tolist(), "by_interval": by_interval(tsm_SS).tolist()}


def _linear_numbers(linear: LinearEvaluation) -> dict[str, Any]:
    return {
        "accuracy": float(linear.results.mean()),
        "accuracy_by_seed": linear.results.tolist(),
        "last_epochs": linear.last,
        "majority": linear.majority,
        "rows": {
            subset: {"foreground": there, "background": absent} for subset, (there, absent) in linear.rows.items()
        },
        "accuracy_by_seed_and_epoch": linear.accuracy_RE.tolist(),
    }


def _difference_numbers(differences: BoundaryDifferences) -> dict[str, Any]:
    def of(pairs: Differences) -> dict[str, Any]:
        return {"pairs": len(pairs.means_P), "mean": pairs.mean, "density": pairs.density.tolist()}

    return {"auc": differences.auc, "boundary": of(differences.boundary), "elsewhere": of(differences.elsewhere)}


def _table(measured: Measured) -> list[str]:
    """The numbers to compare stores by, as lines for the terminal."""
    width = max(map(len, measured.similarity_of))
    lines = []
    for name, similarity in measured.similarity_of.items():
        line = f"{name:<{width}}  mean of std-dev {similarity.mean_std:.4f}"
        if linear := measured.linear_of.get(name):
            line += (
                f"  linear evaluation {linear.results.mean():.2f} % (the more frequent class: {linear.majority:.2f})"
            )
        if differences := measured.differences_of.get(name):
            at, away = differences.boundary.mean, differences.elsewhere.mean
            line += f"  difference at boundaries {at:.3f}, elsewhere {away:.3f} (AUC {differences.auc:.3f})"
        lines.append(line)
    return lines
