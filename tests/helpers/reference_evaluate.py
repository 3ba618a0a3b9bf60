"""The metrics once more, slowly and literally from their definitions: loops, lists, one detection at a time.

Truth is a list of (video, label, start, end), detections a list of (video, label, start, end, score), seconds.
"""

from __future__ import annotations

import math

Truth = list[tuple[str, str, float, float]]
Found = list[tuple[str, str, float, float, float]]


def tiou(a: tuple[float, float], b: tuple[float, float]) -> float:
    intersection = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = max(0.0, a[1] - a[0]) + (b[1] - b[0]) - intersection
    return intersection / union


def average_precision(truth: Truth, found: Found, label: str, threshold: float) -> float:
    """Of one class, from 0 to 1."""
    targets = [row for row in truth if row[1] == label]
    ranked = sorted((row for row in found if row[1] == label), key=lambda row: -row[4])  # stable
    taken: set[int] = set()
    hits = [_take(row, targets, taken, threshold) for row in ranked]
    precisions = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
    recalls = [sum(hits[: n + 1]) / len(targets) for n in range(len(hits))]

    # All-point interpolation: the best precision at this recall or a higher one, over each step of the recall.
    area, before = 0.0, 0.0
    for n, recall in enumerate(recalls):
        area += (recall - before) * max(precisions[n:])
        before = recall
    return area


def _take(row: tuple[str, str, float, float, float], targets: Truth, taken: set[int], threshold: float) -> bool:
    overlaps = [(m, tiou(row[2:4], target[2:4])) for m, target in enumerate(targets) if target[0] == row[0]]
    for m, overlap in sorted(overlaps, key=lambda pair: -pair[1]):  # stable
        if overlap >= threshold and m not in taken:
            taken.add(m)
            return True
    return False


def mean_average_precision(truth: Truth, found: Found, threshold: float) -> float:
    labels = {row[1] for row in truth}
    return sum(average_precision(truth, found, label, threshold) for label in labels) / len(labels)


def average_recall(truth: Truth, found: Found, thresholds: list[float], most: int = 100) -> list[float]:
    """At 1, 2, …, 100 proposals a video on average, from 0 to 1."""
    targets: dict[str, list[tuple[float, float]]] = {}
    for video, _, start, end in truth:
        targets.setdefault(video, []).append((start, end))
    share = most * float(len(targets)) / len(found) if found else 0.0
    kept: dict[str, list[tuple[float, float]]] = {}
    for video in targets:
        ranked = sorted((row for row in found if row[0] == video), key=lambda row: -row[4])
        kept[video] = [row[2:4] for row in ranked[: min(int(len(ranked) * share), len(ranked))]]
    total = sum(map(len, kept.values()))
    if total == 0:
        return [0.0] * most

    recalls = []
    for number in range(1, most + 1):
        fraction = number / 100.0 * (most * float(len(targets)) / total)
        hits = 0
        for video, segments in targets.items():
            seen = kept[video][: math.floor(len(kept[video]) * fraction)]
            hits += sum(any(tiou(p, s) >= thr for p in seen) for s in segments for thr in thresholds)
        recalls.append(hits / (len(truth) * len(thresholds)))
    return recalls
