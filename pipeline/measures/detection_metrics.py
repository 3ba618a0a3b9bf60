"""How good detections are: mean average precision, and average recall of proposals, as in the ActivityNet toolkit.

Definitions (the toolkit's `eval_detection.py` and `eval_proposal.py`), with what is ours in brackets:

- Average precision of a class at a tIoU threshold: its detections of all videos by falling score [ties in the order of
  the file; the toolkit's order is undefined] each take the true segment of their video with the highest tIoU that is
  not taken yet and reaches the threshold; a detection that finds none is a false positive. AP is the area under the
  precision envelope. mAP is the mean over the classes of the true segments of the subset.
- Detections in videos outside the subset are false positives, those of classes outside it are ignored, both counted.
- Average recall at n proposals a video on average: the share of proposals kept is the same for every video.
- True segments count as they are written, duplicates and late ends included [those with end ≤ start are dropped].

Arrays: N detections by falling score, M true segments, P pairs of both, H tIoU thresholds, K classes, V videos.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.data.annotations import Video
from pipeline.data.detections import BoolArray, Detections, FloatArray, IntArray
from pipeline.data.files import match_ids
from pipeline.terminal.outcome import Outcome

ACTIVITYNET_TIOU = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

MAX_AVERAGE_PROPOSALS = 100
_PAIRS_AT_ONCE = 2**21  # bounds the memory of dense files: some 100 MB


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """True segments as columns: segment m is in `video_ids[video_M[m]]`, of class `labels[label_M[m]]`."""

    video_ids: tuple[str, ...]
    labels: tuple[str, ...]
    video_M: IntArray
    label_M: IntArray
    segments_M2: FloatArray  # seconds

    @classmethod
    def of(cls, videos: Mapping[str, Video]) -> GroundTruth:
        """The segments of some videos. ValueError if there are none."""
        segments = [segment for video in videos.values() for segment in video.segments]
        if not segments:
            raise ValueError(f"there is nothing to find: none of the {len(videos)} videos has a segment")
        labels = tuple(sorted({segment.label for segment in segments}))
        index = {label: k for k, label in enumerate(labels)}
        return cls(
            video_ids=tuple(videos),
            labels=labels,
            video_M=np.repeat(np.arange(len(videos)), [len(video.segments) for video in videos.values()]),
            label_M=np.array([index[segment.label] for segment in segments]),
            segments_M2=np.array([(segment.start, segment.end) for segment in segments]),
        )


@dataclass(frozen=True, kw_only=True)
class DetectionMetrics(Outcome):
    """Mean average precision in percent.

    Attributes:
        tiou: the thresholds.
        map: mAP at each of them.
        average_map: their mean.
    """

    tiou: tuple[float, ...]
    map: tuple[float, ...]
    average_map: float

    @classmethod
    def from_dict(cls, metrics: Mapping[str, Any]) -> DetectionMetrics:
        """Of what `detection_metrics` gives, and `pipeline evaluate --json` writes."""
        return cls(tiou=tuple(metrics["tiou"]), map=tuple(metrics["map"]), average_map=metrics["average_map"])


@dataclass(frozen=True, kw_only=True)
class ProposalMetrics(Outcome):
    """Average recall of proposals in percent.

    Attributes:
        ar: average recall by the number of proposals a video: 1, 5, 10 and 100.
        auc: area under the curve of average recall over the number of proposals.
    """

    ar: dict[int, float]
    auc: float

    @classmethod
    def from_dict(cls, metrics: Mapping[str, Any]) -> ProposalMetrics:
        """Of what `proposal_metrics` gives, and `pipeline evaluate --json` writes."""
        recalls = {int(name.removeprefix("ar@")): value for name, value in metrics.items() if name.startswith("ar@")}
        return cls(ar=recalls, auc=metrics["auc"])


def detection_metrics(
    truth: GroundTruth, detections: Detections, tiou: Sequence[float] = ACTIVITYNET_TIOU
) -> dict[str, Any]:
    """`{"tiou": [...], "map": [...], "average_map": x}` in percent."""
    map_H = 100 * average_precision(truth, detections, tiou).mean(axis=0)
    return {"tiou": list(tiou), "map": map_H.tolist(), "average_map": float(map_H.mean())}


def proposal_metrics(
    truth: GroundTruth, detections: Detections, tiou: Sequence[float] = ACTIVITYNET_TIOU
) -> dict[str, Any]:
    """`{"ar@1": x, "ar@5": x, "ar@10": x, "ar@100": x, "auc": x}` in percent; `auc` is at most 99."""
    recall_F = 100 * average_recall(truth, detections, tiou)
    area = float((recall_F[1:] + recall_F[:-1]).sum()) / 2 / MAX_AVERAGE_PROPOSALS
    return {**{f"ar@{number}": float(recall_F[number - 1]) for number in (1, 5, 10, 100)}, "auc": area}


def mismatches(truth: GroundTruth, detections: Detections, task: str) -> dict[str, int]:
    """Counts of what in the detections does not fit the ground truth."""
    video_N, label_N = _align(truth, detections)
    segments_N2 = detections.segments_N2
    notes = {
        "detections in videos outside the subset (they count against the result)": video_N < 0,
        "detections of classes outside the subset (ignored)": (label_N < 0) & (task == "detection"),
        "detections with end ≤ start (they count against the result)": segments_N2[:, 1] <= segments_N2[:, 0],
    }
    missing = len(truth.video_ids) - len(np.unique(video_N[video_N >= 0]))
    counts = {what: int(np.count_nonzero(found_N)) for what, found_N in notes.items()}
    renamed = match_ids(truth.video_ids, detections.video_ids).items()
    return {
        **counts,
        "videos of the subset without detections": missing,
        "video ids that fit with v_ added or removed": sum(true != found for true, found in renamed),
    }


# --- Average precision ------------------------------------------------------------------------------------------------


def average_precision(truth: GroundTruth, detections: Detections, tiou: Sequence[float]) -> FloatArray:
    """AP of each class at each threshold, (K, H), from 0 to 1; row k is of the class `truth.labels[k]`."""
    num_classes = len(truth.labels)
    video_N, label_N = _align(truth, detections)
    order = np.lexsort((-detections.scores_N, label_N))
    order = order[label_N[order] >= 0]
    video_N, label_N = video_N[order], label_N[order]
    positive_HN = _match(
        _overlaps(
            video_N * num_classes + label_N,
            detections.segments_N2[order],
            truth.video_M * num_classes + truth.label_M,
            truth.segments_M2,
            _checked(tiou),
        ),
        tiou,
        len(order),
    )
    bounds = np.searchsorted(label_N, np.arange(num_classes + 1))
    areas_KH = np.stack([_precision_area(positive_HN[:, a:b]) for a, b in pairwise(bounds)])
    return areas_KH / np.bincount(truth.label_M)[:, None]


def _match(overlaps: Overlaps, tiou: Sequence[float], num_detections: int) -> BoolArray:
    """Which detections are true positives at each threshold, (H, N).

    In the definition the detections choose one after the other, best score first. The same comes out when all choose
    at once, each true segment keeps the best of those who chose it, and those it turns down choose their next best:
    the stable matching, which is unique because all true segments rank the detections alike. This ends after a few
    rounds however many detections there are.
    """
    positive_HN = np.zeros((len(tiou), num_detections), dtype=bool)
    # Choices of a detection stand together, best first; equal ones in the file's order.
    overlaps = overlaps.take(np.lexsort((overlaps.truth_P, -overlaps.tiou_P, overlaps.detection_P)))
    for positive_N, threshold in zip(positive_HN, tiou, strict=True):
        choices = overlaps.take(overlaps.tiou_P >= threshold)
        positive_N[_stable_matching(choices.detection_P, choices.truth_P)] = True
    return positive_HN


def _stable_matching(detection_P: IntArray, truth_P: IntArray) -> IntArray:
    """The detections that get a true segment; `detection_P` ascends, the earlier one wins."""
    starts = np.flatnonzero(np.diff(detection_P, prepend=-1))
    ends = np.append(starts[1:], len(detection_P))
    current = starts
    while True:
        chosen, chooser = truth_P[current], detection_P[current]
        winner_M = np.full(truth_P.max(initial=0) + 1, np.iinfo(np.int64).max)
        np.minimum.at(winner_M, chosen, chooser)
        lost = winner_M[chosen] != chooser
        if not lost.any():
            return chooser
        current = current + lost
        still = current < ends
        current, ends = current[still], ends[still]


def _precision_area(positive_HN: BoolArray) -> FloatArray:
    """Sum of the precision envelope over the true positives of one class, (H,)."""
    precision_HN = np.cumsum(positive_HN, axis=1) / np.arange(1, positive_HN.shape[1] + 1)
    envelope_HN = np.maximum.accumulate(precision_HN[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((envelope_HN * positive_HN).sum(axis=1))


# --- Average recall ---------------------------------------------------------------------------------------------------


def average_recall(truth: GroundTruth, detections: Detections, tiou: Sequence[float]) -> FloatArray:
    """Recall at 1, 2, …, 100 proposals a video on average, (100,), from 0 to 1: the mean over the thresholds."""
    video_N, _ = _align(truth, detections)
    order = np.lexsort((-detections.scores_N, video_N))
    annotated_V = np.bincount(truth.video_M, minlength=len(truth.video_ids)) > 0
    order = order[(video_N[order] >= 0) & annotated_V[video_N[order]]]
    video_N = video_N[order]

    found_V = np.bincount(video_N, minlength=len(annotated_V))
    budget = float(MAX_AVERAGE_PROPOSALS) * np.count_nonzero(annotated_V)
    kept_V = np.minimum((found_V * (budget / max(len(detections.scores_N), 1))).astype(np.int64), found_V)
    if not kept_V.any():
        return np.zeros(MAX_AVERAGE_PROPOSALS)
    fractions_F = np.arange(1, MAX_AVERAGE_PROPOSALS + 1) / 100.0 * (budget / kept_V.sum())
    number_VF = np.minimum((kept_V[:, None] * fractions_F).astype(np.int64), kept_V[:, None])

    rank_N = np.arange(len(video_N)) - (np.cumsum(found_V) - found_V)[video_N]
    overlaps = _overlaps(video_N, detections.segments_N2[order], truth.video_M, truth.segments_M2, _checked(tiou))
    recall_HF = []
    for threshold in tiou:
        hits = overlaps.take(overlaps.tiou_P >= threshold)
        first_M = np.full(len(truth.video_M), np.iinfo(np.int64).max)  # rank of the first proposal that finds segment m
        np.minimum.at(first_M, hits.truth_P, rank_N[hits.detection_P])
        recall_HF.append((first_M[:, None] < number_VF[truth.video_M]).mean(axis=0))
    return np.asarray(np.mean(recall_HF, axis=0))


# --- Shared -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of a detection and a true segment of its group that overlap enough to matter."""

    detection_P: IntArray
    truth_P: IntArray
    tiou_P: FloatArray

    def take(self, choice: IntArray | BoolArray) -> Overlaps:
        return Overlaps(self.detection_P[choice], self.truth_P[choice], self.tiou_P[choice])


def _overlaps(
    group_N: IntArray, segments_N2: FloatArray, group_M: IntArray, segments_M2: FloatArray, least: float
) -> Overlaps:
    """All pairs within a group with a tIoU of at least `least`."""
    parts = []
    for detection_P, truth_P in _pairs(group_N, group_M):
        tiou_P = _tiou(segments_N2[detection_P], segments_M2[truth_P])
        parts.append(Overlaps(detection_P, truth_P, tiou_P).take(tiou_P >= least))
    return Overlaps(
        np.concatenate([part.detection_P for part in parts]),
        np.concatenate([part.truth_P for part in parts]),
        np.concatenate([part.tiou_P for part in parts]),
    )


def _pairs(group_N: IntArray, group_M: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """All (n, m) of one group, in portions that fit in memory."""
    by_group = np.argsort(group_M, kind="stable")
    first_N = np.searchsorted(group_M[by_group], group_N, "left")
    count_N = np.searchsorted(group_M[by_group], group_N, "right") - first_N
    paired = np.flatnonzero(count_N)
    for portion in np.split(paired, np.flatnonzero(np.diff(np.cumsum(count_N[paired]) // _PAIRS_AT_ONCE)) + 1):
        count = count_N[portion]
        within_P = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        yield np.repeat(portion, count), by_group[np.repeat(first_N[portion], count) + within_P]


def _tiou(a_P2: FloatArray, b_P2: FloatArray) -> FloatArray:
    """Temporal intersection over union of paired segments; negative where they do not meet. `b` is never empty."""
    intersection = np.minimum(a_P2[:, 1], b_P2[:, 1]) - np.maximum(a_P2[:, 0], b_P2[:, 0])
    lengths = (a_P2[:, 1] - a_P2[:, 0]) + (b_P2[:, 1] - b_P2[:, 0])
    return np.asarray(intersection / (lengths - intersection))


def _align(truth: GroundTruth, detections: Detections) -> tuple[IntArray, IntArray]:
    """Video and class of each detection in the numbering of `truth`, -1 where it has none."""
    id_of = match_ids(truth.video_ids, detections.video_ids)
    video_of = {id_of[video_id]: index for index, video_id in enumerate(truth.video_ids) if video_id in id_of}
    label_of = {label: index for index, label in enumerate(truth.labels)}
    videos = np.array([video_of.get(video_id, -1) for video_id in detections.video_ids], dtype=np.int64)
    labels = np.array([label_of.get(label, -1) for label in detections.labels], dtype=np.int64)
    return videos[detections.video_N], labels[detections.label_N]


def _checked(tiou: Sequence[float]) -> float:
    """The lowest threshold."""
    if not tiou or not all(0 < threshold <= 1 for threshold in tiou):
        raise ValueError(f"tIoU thresholds {list(tiou)}: expected at least one, each above 0 and at most 1")
    return min(tiou)
