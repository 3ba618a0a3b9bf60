"""Others' classification of whole videos, and the published rules by which it gives segments their classes.

The heads of the papers propose segments without a class; which actions a video shows comes from a classifier of whole
videos. Two forms of its output are in use:

- UntrimmedNet's for THUMOS14 that comes with G-TAD: a .npy of 101 columns, the UCF101 classes in THUMOS14's order. Row
  n - 1 is test video number n: `video_test_0000004` is row 3. The columns of the 20 classes that are localized count.
- JSON as CUHK's for ActivityNet that comes with BSN, BMN and G-TAD: {"results": {VIDEO_ID: [K scores]}, "class": [K
  names]}; ids may lack ActivityNet's prefix `v_`.

Scores need not be probabilities, but the two best of a video multiply those of segments or are shared between them, so
they must not be negative, as the second-best logit can be.

Shapes: K classes.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.detections import Detection
from pipeline.data.files import match_ids, read_json

FloatArray = NDArray[np.float64]

# The classes of THUMOS14's detection task by their number, from 1, among the 101 of its classification task.
THUMOS_CLASSES = {
    7: "BaseballPitch",
    9: "BasketballDunk",
    12: "Billiards",
    21: "CleanAndJerk",
    22: "CliffDiving",
    23: "CricketBowling",
    24: "CricketShot",
    26: "Diving",
    31: "FrisbeeCatch",
    33: "GolfSwing",
    36: "HammerThrow",
    40: "HighJump",
    45: "JavelinThrow",
    51: "LongJump",
    68: "PoleVault",
    79: "Shotput",
    85: "SoccerPenalty",
    92: "TennisSwing",
    93: "ThrowDiscus",
    97: "VolleyballSpiking",
}
THUMOS_COLUMNS = 101


# --- The rules --------------------------------------------------------------------------------------------------------


def top2(scores_K: FloatArray) -> dict[int, float]:
    """The two best classes with their scores (ActivityNet and THUMOS14)."""
    return {int(k): float(scores_K[k]) for k in _best_first(scores_K)[:2]}


def top1_share(scores_K: FloatArray) -> dict[int, float]:
    """The best class with its share in the sum of the two best scores (HACS), which are not negative."""
    best = scores_K[_best_first(scores_K)[:2]]
    return {int(scores_K.argmax()): float(best[0] / best.sum())}


class Fusion(NamedTuple):
    """A published rule: which classes a video's segments have, with which weights, and what a segment then scores."""

    classes: Callable[[FloatArray], dict[int, float]]
    score: Callable[[float, float], float] = operator.mul


def geometric_mean(first: float, second: float) -> float:
    """As ActionFormer and TriDet have it for ActivityNet: a product that is still on the scale of its factors."""
    return math.sqrt(first * second)


FUSION: Mapping[str, Fusion] = {
    "top2": Fusion(top2),
    "top2-sqrt": Fusion(top2, geometric_mean),
    "top1-share": Fusion(top1_share),
}


def _best_first(scores_K: FloatArray) -> NDArray[np.int64]:
    return np.argsort(-scores_K, kind="stable")


@dataclass(frozen=True, eq=False)
class VideoScores:
    """What a classifier says of some videos.

    Attributes:
        labels: the K class names.
        by_video: scores (K,) by video id.
    """

    labels: tuple[str, ...]
    by_video: Mapping[str, FloatArray]

    def fuse(self, video_id: str, proposals: Iterable[Detection], rule: str, min_score: float) -> list[Detection]:
        """Each proposal once for each class that the rule chooses, best first, with the score that the rule gives it.

        A video without scores has no detections; those of at most `min_score` are left out.
        """
        if video_id not in self.by_video:
            return []
        fusion = FUSION[rule]
        chosen = fusion.classes(self.by_video[video_id])
        fused = [
            Detection(proposal.start, proposal.end, self.labels[k], fusion.score(proposal.score, weight))
            for proposal in proposals
            for k, weight in chosen.items()
        ]
        enough = [detection for detection in fused if detection.score > min_score]
        return sorted(enough, key=lambda detection: -detection.score)


# --- The files --------------------------------------------------------------------------------------------------------


def read_video_scores(path: Path, video_ids: Collection[str]) -> VideoScores:
    """The scores of some videos. Those that the file lacks are left out.

    Args:
        path: .npy, .json or .json.gz.
        video_ids: the annotations' ids.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of another form, scores of another number than there are classes, or NaN, infinite or
            negative ones among the two best of a video; or a file that has none of the videos.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; give the scores of whole videos, a .npy or .json")
    if path.suffix == ".npy":
        labels, by_video = _read_thumos_array(path, video_ids)
    elif path.name.endswith((".json", ".json.gz")):
        labels, by_video = _read_json(path, video_ids)
    else:
        raise ValueError(f"{path}: scores of whole videos come as .npy (THUMOS14) or .json, not as {path.suffix!r}")
    if not by_video:
        raise ValueError(
            f"{path} has scores of none of the {len(video_ids)} videos, such as {next(iter(video_ids))!r}; give the "
            "file of this data set and subset (a .npy is of THUMOS14's test videos)"
        )
    for video_id, scores_K in by_video.items():
        _check_scores(path, video_id, scores_K)
    return VideoScores(labels, by_video)


def _read_thumos_array(path: Path, video_ids: Iterable[str]) -> tuple[tuple[str, ...], dict[str, FloatArray]]:
    try:
        scores = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged header makes numpy raise nearly anything
        raise ValueError(f"{path}: not a .npy file of numbers, or only a part of it ({error})") from error
    if scores.ndim != 2 or scores.shape[1] != THUMOS_COLUMNS or not np.issubdtype(scores.dtype, np.floating):
        raise ValueError(
            f"{path} holds {scores.dtype} of shape {scores.shape}; expected floating-point scores of shape (test "
            f"videos, {THUMOS_COLUMNS}), as UntrimmedNet's for THUMOS14"
        )
    columns = np.array(list(THUMOS_CLASSES)) - 1
    rows = {video_id: _thumos_row(video_id) for video_id in video_ids}
    by_video = {
        video_id: scores[row, columns].astype(np.float64)
        for video_id, row in rows.items()
        if row is not None and row < len(scores)
    }
    return tuple(THUMOS_CLASSES.values()), by_video


def _thumos_row(video_id: str) -> int | None:
    match = re.fullmatch(r"video_test_0*([1-9]\d*)", video_id)
    return int(match[1]) - 1 if match else None


def _read_json(path: Path, video_ids: Iterable[str]) -> tuple[tuple[str, ...], dict[str, FloatArray]]:
    data = read_json(path)
    results, labels = (data.get("results"), data.get("class")) if isinstance(data, dict) else (None, None)
    if not (isinstance(results, dict) and isinstance(labels, list) and all(isinstance(name, str) for name in labels)):
        raise ValueError(f'{path}: expected {{"results": {{VIDEO_ID: [scores]}}, "class": [names]}}')
    if not labels:
        raise ValueError(f'{path}: its "class" names no class')
    by_video = {}
    for video_id, id_in_file in match_ids(video_ids, results).items():
        try:
            by_video[video_id] = np.array(results[id_in_file], dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path}, video {id_in_file!r}: expected a list of scores ({error})") from error
        if by_video[video_id].shape != (len(labels),):
            found = by_video[video_id].shape
            raise ValueError(f"{path}, video {id_in_file!r}: scores of shape {found} for {len(labels)} classes")
    return tuple(labels), by_video


def _check_scores(path: Path, video_id: str, scores_K: FloatArray) -> None:
    if not np.isfinite(scores_K).all():
        raise ValueError(f"{path}, video {video_id!r}: scores that are NaN or infinite; make the file again")
    best = scores_K[_best_first(scores_K)[:2]]
    if best.min() < 0 or best.max() <= 0:
        raise ValueError(
            f"{path}, video {video_id!r}: its best scores are {best.tolist()}; they multiply those of segments, so "
            "they cannot be negative, nor all zero: give probabilities (softmax)"
        )
