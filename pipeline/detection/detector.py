"""A trained head with all that makes detections of its output: what a localize run is for `predict`.

Features of whole videos become windows, windows become scored cells, and the cells of all windows of a video go through
one soft-NMS, so that what two windows both see is found once. This module does without Lightning.

Shapes: B windows, V videos, N cells, K classes, M candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from encoders.sola import SoLa
from encoders.weights import save_weights
from heads.base import Proposals, ScoredSegments
from heads.nms import soft_nms, vote
from pipeline.data.detections import Detection
from pipeline.data.features import StoreHeader
from pipeline.data.files import write_json
from pipeline.data.snippets import Timeline
from pipeline.detection.options import PostConfig
from pipeline.detection.windows import FeatureArray, Rescale, Window, rescale_whole, window_features, windows_of
from pipeline.options.heads import find_head
from pipeline.training.run_folder import read_run_json

HEAD, HEAD_WEIGHTS, ENCODER = "head.json", "head.safetensors", "encoder.json"

PROPOSAL = "action"  # the label of segments without a class

# Scored (cell, class) pairs of a window that soft-NMS gets to see, of heads that score every class of every cell.
CANDIDATES = 2000
WINDOWS_AT_A_TIME = 16


@dataclass(frozen=True, eq=False)
class LocalizeRun:
    """A trained head and what belongs to it.

    Attributes:
        path: run folder.
        head: the network, in evaluation mode.
        name: of the head.
        arguments: what it was built with.
        labels: the K class names, in the order of its outputs.
        rescale: how features are brought to its T rows, or to `rescale_rows`.
        post: how cells become detections.
        header: how the features were made.
        row_step: which of them are used: every `row_step`-th row.
        rescale_rows: rows that whole videos are brought to before a head that sees them whole; None: they stay as they
            are.
        unified: arguments of the SoLa module in front of the head, if there is one.
    """

    path: Path
    head: nn.Module
    name: str
    arguments: dict[str, Any]
    labels: tuple[str, ...]
    rescale: Rescale
    post: PostConfig
    header: StoreHeader
    row_step: int = 1
    rescale_rows: int | None = None
    unified: dict[str, Any] | None = None

    @property
    def num_snippets(self) -> int | None:
        """T, the rows of a window; None: the head sees videos whole."""
        num_snippets: Any = self.head.num_snippets
        return None if num_snippets is None else int(num_snippets)

    @property
    def crop_rows(self) -> int:
        """Rows of a video that the head sees at most in training, if it sees videos whole."""
        return int(self.head.crop_rows)  # type: ignore[arg-type]  # a number, which nn.Module does not know

    @property
    def encoder_weights(self) -> list[Path]:
        """The weights of each encoder inside of the run; the parts of `header` say how to build them.

        Raises:
            ValueError: the run was trained on features that were made elsewhere.
        """
        paths = [self.path / name for name in self.header.encoder_files]
        if not all(map(Path.is_file, paths)) or any(part.encoder is None for part in self.header.parts):
            raise ValueError(
                f"{self.path} was trained on imported features, so it has no encoder and cannot start from videos. "
                "Make the features with `pipeline extract` and run `pipeline localize` on them"
            )
        return paths


class FeatureRows(NamedTuple):
    """Features of one video, (T, C), their place in time, and the video's duration in seconds."""

    features: FeatureArray
    timeline: Timeline
    duration: float

    def every(self, step: int) -> FeatureRows:
        """Every `step`-th row."""
        return FeatureRows(self.features[::step], self.timeline.every(step), self.duration)

    def rescaled(self, num_rows: int, rescale: Rescale) -> FeatureRows:
        """The same seconds in another number of rows."""
        return FeatureRows(*rescale_whole(self.features, self.timeline, num_rows, rescale), self.duration)


class UnifiedHead(nn.Module):
    """A head behind a SoLa module that is trained with it, by its loss (SoLa, section 4.3 and Table 4, Unified)."""

    def __init__(self, sola: SoLa, head: nn.Module) -> None:
        super().__init__()
        self.sola, self.head = sola, head
        self.num_snippets, self.crop_rows = head.num_snippets, getattr(head, "crop_rows", 0)
        self.targets, self.loss, self.decode = head.targets, head.loss, head.decode

    def forward(self, feats_BCT: Tensor, *valid: Tensor) -> Any:
        # Rows of zeros fill up a window beyond the video's end, and stay zeros.
        valid_BT = valid[0] if valid else feats_BCT.any(dim=1)
        return self.head(self.sola(feats_BCT, valid_BT), *valid)


def build_head(
    name: str, arguments: Mapping[str, Any], unified: Mapping[str, Any] | None, *, named: Collection[str] = ()
) -> nn.Module:
    """An untrained head; behind a SoLa module where `unified` holds the arguments of one.

    Raises:
        ValueError: as `find_head`, or what the head's own class does not accept.
    """
    head: nn.Module = find_head(name, named=named)(**arguments)
    return head if unified is None else UnifiedHead(SoLa(**unified), head)


def save_run(run: LocalizeRun) -> None:
    """Write what `load_run` reads; the encoder's weights are copied by whoever has them."""
    save_weights(run.head, run.path / HEAD_WEIGHTS)
    write_json(run.path / ENCODER, asdict(run.header))
    description = {
        "head": run.name,
        "arguments": run.arguments,
        "unified": run.unified,
        "labels": list(run.labels),
        "rescale": run.rescale,
        "row_step": run.row_step,
        "rescale_rows": run.rescale_rows,
        "post": asdict(run.post),
    }
    write_json(run.path / HEAD, description)


def load_run(path: Path, *, named: Collection[str] = ()) -> LocalizeRun:
    """Read a run folder of `pipeline localize`.

    Args:
        path: the folder.
        named: the names of others' heads, `package.module:MyHead`, that the user has given on this call.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no finished localize run, its files do not fit each other, or it has a head that the user has
            neither installed nor named.
    """
    described = read_run_json(path / HEAD, made_by="pipeline localize")
    header = read_run_json(path / ENCODER, made_by="pipeline localize")
    try:
        head = build_head(described["head"], described["arguments"], described["unified"], named=named)
        head.load_state_dict(load_file(path / HEAD_WEIGHTS))
        return LocalizeRun(
            path,
            head.eval(),
            described["head"],
            described["arguments"],
            tuple(described["labels"]),
            described["rescale"],
            PostConfig(**described["post"]),
            StoreHeader.from_dict(header),
            described["row_step"],
            described.get("rescale_rows"),  # which older versions did not write
            described["unified"],
        )
    except (KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
        raise ValueError(
            f"{path}: {HEAD}, {HEAD_WEIGHTS} and {ENCODER} do not belong together, or another version wrote them "
            f"({type(error).__name__}: {error}); copy the run again, or repeat `pipeline localize`"
        ) from error


def detect(run: LocalizeRun, features_TC: FeatureArray, timeline: Timeline, duration: float) -> list[Detection]:
    """What a run finds in one video, best first."""
    [detections] = detect_all(run, [FeatureRows(features_TC, timeline, duration)])
    return detections


def detect_all(run: LocalizeRun, videos: Iterable[FeatureRows], *, classes: bool = True) -> Iterator[list[Detection]]:
    """What a run finds in each video, best first: over all classes at most as many as `post.most` says.

    Several videos go through the head and through soft-NMS together. The head runs where its weights lie. Without
    `classes`, segments have the label `PROPOSAL` and the sum of their classes' scores; those of a head that gives each
    segment one class, the score of that.
    """
    labels = run.labels if classes else (PROPOSAL,)
    for group in _groups(run, videos):
        cells = [_best_cells(run, batch, classes) for batch in _batches(run, group)]
        most = [run.post.most(video.duration) for video, _ in group]
        found = _suppress(_by_video(cells, group), run.post, max(most))
        for number, (video, _) in enumerate(group):
            yield _detections(run, labels, video.duration, Cells(*(column[number, : most[number]] for column in found)))


class Cells(NamedTuple):
    """Scored segments: as shares of their video's duration, so that float64 tells them apart in any video."""

    segments: Tensor  # (..., M, 2) float64
    scores: Tensor  # (..., M) float64; 0 is padding
    labels: Tensor  # (..., M) class indices


class _WindowOfVideo(NamedTuple):
    video: FeatureRows
    window: Window


_Group = list[tuple[FeatureRows, list[Window]]]


def _groups(run: LocalizeRun, videos: Iterable[FeatureRows]) -> Iterator[_Group]:
    """Videos with their windows, as many at a time as make a batch of windows; a long video may make many."""
    group: _Group = []
    for video in videos:
        used = video.every(run.row_step)
        if run.rescale_rows is not None:
            used = used.rescaled(run.rescale_rows, run.rescale)
        group.append((used, _windows(run, used)))
        if sum(len(windows) for _, windows in group) >= WINDOWS_AT_A_TIME:
            yield group
            group = []
    if group:
        yield group


def _windows(run: LocalizeRun, video: FeatureRows) -> list[Window]:
    return windows_of(
        video.timeline,
        len(video.features),
        video.duration,
        num_rows=run.num_snippets,
        longest=run.post.window,
        rescale=run.rescale,
    )


def _batches(run: LocalizeRun, group: _Group) -> Iterator[list[_WindowOfVideo]]:
    all_windows = [_WindowOfVideo(video, window) for video, windows in group for window in windows]
    of_one_length = run.num_snippets or run.rescale_rows
    at_a_time = WINDOWS_AT_A_TIME if of_one_length else 1
    for first in range(0, len(all_windows), at_a_time):
        yield all_windows[first : first + at_a_time]


@torch.inference_mode()
def _best_cells(run: LocalizeRun, batch: list[_WindowOfVideo], classes: bool) -> Cells:
    """The best scored (cell, class) pairs of each window, (B, M), cut to their video."""
    features_BCT = _features(run, batch)
    num_rows = features_BCT.shape[2]
    # Whole videos in a batch are of one length, so that no row is padding.
    valid = () if run.num_snippets else (features_BCT.new_ones(len(batch), num_rows, dtype=torch.bool),)
    best = _best_pairs(run.head.decode(run.head(features_BCT, *valid)), classes)  # type: ignore[operator]
    spans_B2 = torch.tensor(
        [(window.start / video.duration, window.end / video.duration) for video, window in batch], dtype=torch.float64
    )
    start_B11, end_B11 = spans_B2[..., None, None].unbind(1)
    segments_BM2 = torch.lerp(start_B11, end_B11, best.segments.double().cpu() / num_rows).clamp(0, 1)
    # What a window sees behind the end of its video is nothing.
    scores_BM = best.scores.double().cpu() * (segments_BM2[..., 1] > segments_BM2[..., 0])
    cells = Cells(segments_BM2, scores_BM, best.labels.cpu())
    return cells if run.post.max_per_window is None else _suppress(cells, run.post, run.post.max_per_window)


def _best_pairs(found: Proposals | ScoredSegments, classes: bool) -> ScoredSegments:
    """The best pairs of a segment and a class; without `classes`, segments with the sum of their classes' scores."""
    if isinstance(found, ScoredSegments):
        # The head has chosen; those of score 0 are none.
        scores_BM, place_BM = found.scores.topk(int((found.scores > 0).sum(dim=1).max()))
        labels_BM = found.labels if classes else torch.zeros_like(found.labels)
        segments_BM2 = found.segments.gather(1, place_BM[..., None].expand(-1, -1, 2))
        return ScoredSegments(segments_BM2, scores_BM, labels_BM.gather(1, place_BM))
    scores_BNK = found.scores if classes else found.scores.sum(dim=2, keepdim=True)
    num_classes = scores_BNK.shape[2]
    flat_BM = scores_BNK.flatten(1)
    scores_BM, place_BM = flat_BM.topk(min(CANDIDATES, flat_BM.shape[1]))
    cell_BM2 = (place_BM // num_classes)[..., None].expand(-1, -1, 2)
    return ScoredSegments(found.segments.gather(1, cell_BM2), scores_BM, place_BM % num_classes)


def _features(run: LocalizeRun, batch: list[_WindowOfVideo]) -> Tensor:
    """(B, C, T), where the head lies."""
    if run.num_snippets is None:
        features_BCT = np.stack([np.ascontiguousarray(video.features.T) for video, _ in batch])
    else:
        features_BCT = np.stack(
            [
                window_features(video.features, video.timeline, window, num_rows=run.num_snippets, rescale=run.rescale)
                for video, window in batch
            ]
        )
    return torch.from_numpy(features_BCT).to(next(run.head.parameters()).device)


def _by_video(cells: Sequence[Cells], group: _Group) -> Cells:
    """What all windows of a video found, side by side: (V, M), padded with scores of zero."""
    ends = np.cumsum([len(windows) for _, windows in group]).tolist()
    columns = []
    for parts in zip(*cells, strict=True):
        of_windows = [window for part in parts for window in part]  # (M,) or (M, 2), M of each batch its own
        of_videos = [torch.cat(of_windows[first:end]) for first, end in pairwise([0, *ends])]
        columns.append(pad_sequence(of_videos, batch_first=True))
    return Cells(*columns)


def _suppress(cells: Cells, post: PostConfig, keep: int) -> Cells:
    """The best `keep` of each video (or window) after soft-NMS within each class, or over all, and voting."""
    keep = min(keep, cells.scores.shape[1])
    # Every class has a stretch of the axis for itself, so that one pass over a video suppresses within classes.
    place_of_class_VM = torch.zeros_like(cells.labels) if post.class_agnostic else 2 * cells.labels
    apart_VM2 = cells.segments + place_of_class_VM[..., None]
    if post.nms == "none":
        scores_VM, place_VM = cells.scores.topk(keep)
    else:
        _, scores_VM, place_VM = soft_nms(
            apart_VM2, cells.scores, keep=keep, sigma=post.sigma, method=post.nms, length=1.0
        )
    place_VM2 = place_VM[..., None].expand(-1, -1, 2)
    segments_VM2 = cells.segments.gather(1, place_VM2)
    if post.voting is not None:
        weight = post.voting_weight or "score-iou"
        voted_VM2 = vote(apart_VM2.gather(1, place_VM2), apart_VM2, cells.scores, threshold=post.voting, weight=weight)
        segments_VM2 = voted_VM2 - place_of_class_VM.gather(1, place_VM)[..., None]
    return Cells(segments_VM2, scores_VM, cells.labels.gather(1, place_VM))


def _detections(run: LocalizeRun, labels: Sequence[str], duration: float, cells: Cells) -> list[Detection]:
    chosen = cells.scores > max(run.post.min_score, 0.0)
    seconds_M2 = (cells.segments[chosen] * duration).clamp(0.0, duration)
    rows = zip(seconds_M2.tolist(), cells.labels[chosen].tolist(), cells.scores[chosen].tolist(), strict=True)
    return [Detection(start, end, labels[label], score) for (start, end), label, score in rows]
