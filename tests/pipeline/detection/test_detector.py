"""From a head's output to detections: against a slow form, one video and class after the other."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from reference_actionformer import vote as slow_vote
from torch import Tensor, nn

from heads.actionformer import ActionFormer
from heads.base import Proposals, ScoredSegments
from pipeline.data.detections import Detection
from pipeline.data.features import StoreHeader
from pipeline.data.snippets import Timeline
from pipeline.detection.detector import PROPOSAL, FeatureRows, LocalizeRun, detect, detect_all
from pipeline.detection.options import PostConfig
from pipeline.detection.windows import Window, cut_windows, window_features

LABELS = ("jump", "spin", "wave")
ROWS = 8
POST = PostConfig(window=30.0, max_detections=7, sigma=0.5, min_score=0.0)


class RandomHead(nn.Module):
    """Any segments with any scores, which follow from the features alone."""

    num_snippets = ROWS

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(2, ROWS, 40, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight.double())  # as what follows makes much of small differences

    def forward(self, feats_BCT: Tensor) -> Tensor:
        return torch.einsum("bct,ctn->bn", feats_BCT.double(), self.weight).sin()

    def decode(self, output: Tensor) -> Proposals:
        start_BN = (output * 77).cos().abs() * (ROWS - 1)
        end_BN = start_BN + (output * 99).sin().abs() * (ROWS - start_BN)
        scores_BNK = torch.stack([(output * factor).sin().clamp(min=0) for factor in (11, 23, 47)], dim=2)
        return Proposals(torch.stack([start_BN, end_BN], dim=2), scores_BNK)


def make_run(post: PostConfig = POST) -> LocalizeRun:
    return LocalizeRun(
        Path("run"), RandomHead(), "random", {"num_snippets": ROWS}, LABELS, "linear", post, StoreHeader()
    )


def make_video(duration: float, seed: int) -> FeatureRows:
    features = np.random.default_rng(seed).standard_normal((round(duration), 2)).astype(np.float32)
    return FeatureRows(features, Timeline(0, 1, 1), duration)


def iou(a: Detection, b: Detection) -> float:
    overlap = max(0.0, min(a.end, b.end) - max(a.start, b.start))
    return overlap / ((a.end - a.start) + (b.end - b.start) - overlap)


def detect_slowly(run: LocalizeRun, video: FeatureRows) -> list[Detection]:
    """Soft-NMS and voting within each class, or over all, over the cells of all windows; then the best of all."""
    found: dict[str, list[Detection]] = {label: [] for label in LABELS}
    for window in cut_windows(video.duration, run.post.window):
        for label, cells in cells_of(run, video, window).items():
            found["any" if run.post.class_agnostic else label] = found.get("any", found[label]) + cells
    kept = [
        vote_slowly(detection, cells, run.post)
        for cells in found.values()
        for detection in suppress_slowly(cells, run.post, video.duration)
    ]
    return sorted(kept, key=lambda detection: -detection.score)[: run.post.max_detections]


def cells_of(run: LocalizeRun, video: FeatureRows, window: Window) -> dict[str, list[Detection]]:
    """All cells of a window by class."""
    found: dict[str, list[Detection]] = {label: [] for label in LABELS}
    features = window_features(video.features, video.timeline, window, num_rows=ROWS, rescale="linear")
    with torch.no_grad():
        proposals = run.head.decode(run.head(torch.from_numpy(features)[None]))  # type: ignore[operator]
    for (start, end), scores in zip(proposals.segments[0].tolist(), proposals.scores[0].tolist(), strict=True):
        start, end = window.to_seconds(np.array([start, end]), ROWS).tolist()
        for label, score in zip(LABELS, scores, strict=True):
            found[label].append(Detection(start, end, label, score))
    return found


def suppress_slowly(cells: list[Detection], post: PostConfig, duration: float) -> list[Detection]:
    cells, kept = list(cells), []
    while post.nms != "none" and cells:
        best = max(cells, key=lambda detection: detection.score)
        cells.remove(best)
        kept.append(best)
        cells = [replace(cell, score=cell.score * decay(cell, best, post, duration)) for cell in cells]
    return [cell for cell in kept + cells if cell.score > post.min_score]


def vote_slowly(kept: Detection, cells: list[Detection], post: PostConfig) -> Detection:
    if post.voting is None:
        return kept
    segments, scores = [(cell.start, cell.end) for cell in cells], [cell.score for cell in cells]
    weight = post.voting_weight or "score-iou"
    start, end = slow_vote((kept.start, kept.end), segments, scores, post.voting, weight)
    return replace(kept, start=start, end=end)


def decay(cell: Detection, best: Detection, post: PostConfig, duration: float) -> float:
    overlap = iou(cell, best)
    if post.nms == "bmn" and overlap <= 0.5 + 0.4 * (best.end - best.start) / duration:
        return 1.0
    return float(np.exp(-(overlap**2) / post.sigma))


def as_rows(detections: list[Detection]) -> list[Any]:
    return [(d.label, *(pytest.approx(value, abs=1e-6) for value in (d.start, d.end, d.score))) for d in detections]


@pytest.mark.parametrize(
    "changes",
    [
        *({}, {"nms": "bmn"}, {"nms": "none"}, {"min_score": 0.6}, {"max_detections": 999}),
        *({"class_agnostic": True}, {"class_agnostic": False}, {"voting": 0.5}, {"nms": "none", "voting": 0.5}),
        *({"voting": 0.5, "voting_weight": "score"}, {"voting": 0.5, "class_agnostic": True}),
    ],
)
@pytest.mark.parametrize("duration", [12.0, 100.0])
def test_detections_equal_the_slow_form(changes: dict[str, Any], duration: float) -> None:
    run, video = make_run(replace(POST, **changes)), make_video(duration, seed=1)
    expected = detect_slowly(run, video)
    found = [(d.label, d.start, d.end, d.score) for d in detect(run, *video)]
    assert found == as_rows(expected)
    assert len(found) > 1


@pytest.mark.parametrize("nms", ["gaussian", "none"])
def test_suppression_within_each_window_comes_before_that_over_the_video(nms: Literal["gaussian", "none"]) -> None:
    post = replace(POST, nms=nms, max_per_window=10, max_detections=50)
    run, video = make_run(post), make_video(100.0, seed=1)
    kept: list[Detection] = []
    for window in cut_windows(100.0, 30.0):
        by_label = cells_of(run, video, window)
        within = [cell for cells in by_label.values() for cell in suppress_slowly(cells, run.post, 100.0)]
        kept += sorted(within, key=lambda detection: -detection.score)[:10]
    over_all: list[Detection] = []
    for label in LABELS:
        over_all += suppress_slowly([cell for cell in kept if cell.label == label], run.post, 100.0)
    expected = sorted(over_all, key=lambda detection: -detection.score)[: run.post.max_detections]
    assert [(d.label, d.start, d.end, d.score) for d in detect(run, *video)] == as_rows(expected)


def test_without_classes_a_segment_has_the_sum_of_its_scores() -> None:
    run, video = make_run(replace(POST, nms="none", max_detections=999)), make_video(12.0, seed=1)
    [found] = detect_all(run, [video], classes=False)
    sums: dict[tuple[float, float], float] = {}
    for cells in cells_of(run, video, Window(0.0, 12.0)).values():
        for cell in cells:
            sums[cell.start, cell.end] = sums.get((cell.start, cell.end), 0.0) + cell.score
    expected = sorted(((score, *segment) for segment, score in sums.items() if score > 0), reverse=True)
    assert {d.label for d in found} == {PROPOSAL}
    np.testing.assert_allclose([(d.score, d.start, d.end) for d in found], expected, atol=1e-6)


class Stretches(RandomHead):
    """Finds rows 1–3 and 5–8 of each window; its first feature tells how sure."""

    def forward(self, feats_BCT: Tensor) -> Tensor:
        return feats_BCT

    def decode(self, output: Tensor) -> Proposals:
        segments_12 = torch.tensor([[[1.0, 3.0], [5.0, 8.0]]])
        scores_B2 = output[:, :1, 0] + torch.tensor([[0.5, 0.25]])
        return Proposals(segments_12.expand(len(output), -1, -1), scores_B2[..., None])


def test_rows_as_they_are_keep_their_place_in_time() -> None:
    """Every second row of 25, each a second long: 13 rows in windows of 8 from rows 0, 4 and 5."""
    run = replace(make_run(replace(POST, nms="none")), head=Stretches(), rescale="none", row_step=2)
    features = np.repeat(np.arange(25, dtype=np.float32)[:, None], 2, axis=1)
    found = detect(run, features, Timeline(0, 1, 1), 25.0)
    # Row r of them is second 2r + 0.5, and stands for 2r - 0.5 to 2r + 1.5.
    expected = [
        (10.5, [2 * (5 + 1) - 0.5, 2 * (5 + 3) - 0.5]),
        (10.25, [2 * (5 + 5) - 0.5, 25.0]),  # row 12 ends at 25.5 s, the video before
        (8.5, [2 * (4 + 1) - 0.5, 2 * (4 + 3) - 0.5]),
        (8.25, [2 * (4 + 5) - 0.5, 2 * (4 + 8) - 0.5]),
        (0.5, [1.5, 5.5]),
        (0.25, [9.5, 15.5]),
    ]
    assert [(d.score, [d.start, d.end]) for d in found] == [
        (pytest.approx(score), pytest.approx(segment)) for score, segment in expected
    ]


def test_nothing_is_found_behind_the_end_of_a_short_video() -> None:
    run = replace(make_run(replace(POST, nms="none")), head=Stretches(), rescale="none")
    found = detect(run, np.zeros((2, 2), np.float32), Timeline(0, 1, 1), 2.0)
    assert [(d.start, d.end, d.score) for d in found] == [(1.0, 2.0, 0.5)]


def test_segments_that_reach_far_behind_a_short_video_do_not_suppress_other_classes() -> None:
    class ToTheEnd(Stretches):
        def decode(self, output: Tensor) -> Proposals:
            return Proposals(torch.tensor([[[1.0, 8.0]]]), torch.full((1, 1, 3), 0.5))

    run = replace(make_run(replace(POST, sigma=1e-3)), head=ToTheEnd(), rescale="none")
    found = detect(run, np.zeros((2, 2), np.float32), Timeline(0, 1, 1), 2.0)
    assert [(d.start, d.end, d.label, d.score) for d in found] == [(1.0, 2.0, label, 0.5) for label in LABELS]


def test_several_videos_at_once_equal_one_after_the_other() -> None:
    run = make_run()
    videos = [make_video(duration, seed) for seed, duration in enumerate([12.0, 100.0, 400.0, 7.0, 20.0, 31.0])]
    together = list(detect_all(run, videos))
    assert len(together) == len(videos)
    for detections, video in zip(together, videos, strict=True):
        assert [(d.label, d.start, d.end, d.score) for d in detections] == as_rows(detect(run, *video))


def test_detections_are_ordered_and_within_the_video() -> None:
    detections = detect(make_run(), *make_video(100.3, seed=5))
    scores = [detection.score for detection in detections]
    assert scores == sorted(scores, reverse=True)
    assert len(detections) == POST.max_detections
    assert all(0 <= d.start < d.end <= 100.3 for d in detections)


def test_an_action_that_two_windows_see_is_found_once() -> None:
    class Rising(RandomHead):
        """Finds the seconds 34–42 of a video whose features are the seconds, in whichever window it sees it."""

        def decode(self, output: Tensor) -> Proposals:
            first, last = self.seen[:, 0, :1], self.seen[:, 0, -1:]
            row_B1 = (last - first) / (ROWS - 1)
            segments_B12 = torch.stack([(edge - first) / row_B1 + 0.5 for edge in (34, 42)], dim=2)
            return Proposals(segments_B12, torch.full((len(first), 1, 3), 0.9))

        def forward(self, feats_BCT: Tensor) -> Tensor:
            self.seen = feats_BCT
            return feats_BCT

    seconds = np.repeat(np.arange(0.5, 60)[:, None], 2, axis=1).astype(np.float32)
    run = replace(make_run(replace(POST, sigma=1e-3)), head=Rising())
    detections = detect(run, seconds, Timeline(0, 1, 1), 60.0)
    strong = [d for d in detections if d.score > 0.1 and d.label == "jump"]
    assert len([w for w in cut_windows(60.0, 30.0) if w.start <= 34 and w.end >= 42]) > 1
    assert len(strong) == 1
    assert (strong[0].start, strong[0].end) == pytest.approx((34, 42), abs=1e-3)


# --- Heads that see videos whole --------------------------------------------------------------------------------------


class Blips(nn.Module):
    """Finds a segment of four rows around every row whose feature is above 0, of one of three classes."""

    num_snippets = None

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> Tensor:
        assert valid_BT.all()
        return feats_BCT[:, 0] * self.gain

    def decode(self, output: Tensor) -> ScoredSegments:
        row_T = torch.arange(output.shape[1]).expand(len(output), -1)
        segments_BT2 = torch.stack([row_T - 1.5, row_T + 2.5], dim=2)
        return ScoredSegments(segments_BT2, output.clamp(min=0), row_T % 3)


def whole_run(post: PostConfig = POST) -> LocalizeRun:
    return replace(make_run(post), head=Blips())


def blips(num_rows: int, seed: int) -> np.ndarray:
    """One blip in about ten rows, none near the ends, so that a seam cuts none."""
    rng = np.random.default_rng(seed)
    scores_T = np.where(rng.random(num_rows) < 0.1, rng.uniform(0.2, 1.0, num_rows), -1.0)
    scores_T[:4] = scores_T[-4:] = -1.0
    return np.stack([scores_T, scores_T], axis=1).astype(np.float32)


def test_a_video_that_is_seen_whole_has_its_segments_where_its_rows_are() -> None:
    features_TC = np.full((8, 2), -1.0, np.float32)
    features_TC[4] = 0.5
    [found] = detect(whole_run(), features_TC, Timeline(1.0, 0.5, 0.5), 6.0)
    assert (found.start, found.end, found.label, found.score) == (2.25, 4.25, LABELS[1], 0.5)


def test_a_joined_recording_has_what_its_parts_have() -> None:
    post = replace(POST, sigma=0.1, max_detections=3, per_minute=60.0, min_score=0.0)
    parts = [blips(120, seed) for seed in range(20)]
    run, row = whole_run(post), Timeline(0.0, 0.5, 0.5)
    joined = detect(run, np.concatenate(parts), row, 60.0 * len(parts))
    expected = [
        replace(found, start=found.start + 60.0 * number, end=found.end + 60.0 * number)
        for number, part in enumerate(parts)
        for found in detect(run, part, row, 60.0)
    ]
    assert len(joined) == len(expected) > 200
    in_order = sorted(joined, key=lambda d: (d.start, d.label)), sorted(expected, key=lambda d: (d.start, d.label))
    for found, wanted in zip(*in_order, strict=True):
        assert found.label == wanted.label
        assert (found.start, found.end) == pytest.approx((wanted.start, wanted.end), abs=1e-6)
        assert found.score == pytest.approx(wanted.score, abs=1e-6)


def test_as_many_detections_a_minute_but_never_fewer_than_asked_for_a_video() -> None:
    post = replace(POST, nms="none", max_detections=5, min_score=0.0)
    features_TC = np.ones((600, 2), np.float32)
    for per_minute, seconds, most in ((None, 600.0, 5), (2.0, 60.0, 5), (2.0, 600.0, 20), (0.45, 700.0, 6)):
        found = detect(whole_run(replace(post, per_minute=per_minute)), features_TC, Timeline(0, 1, 1), seconds)
        assert len(found) == most


def test_videos_of_any_length_go_through_together() -> None:
    videos = [FeatureRows(blips(rows, rows), Timeline(0, 1, 1), float(rows)) for rows in (30, 200, 9, 77)]
    run = whole_run()
    for together, video in zip(detect_all(run, videos), videos, strict=True):
        assert [(d.label, d.start, d.end, d.score) for d in together] == as_rows(detect(run, *video))


def test_a_joined_recording_gives_what_its_parts_give_but_for_the_seams() -> None:
    torch.manual_seed(0)
    head = ActionFormer(2, num_classes=3, hidden=16, num_heads=2, num_levels=3, window=3, most_per_level=4000)
    nn.init.normal_(head.classify.out.convolution.weight)
    nn.init.normal_(head.regress.out.convolution.weight)
    post = PostConfig(max_detections=5, per_minute=10_000, sigma=0.1, min_score=0.0)
    run = replace(make_run(post), head=head.eval(), rescale="none")
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((300, 2)).astype(np.float32) for _ in range(3)]
    joined = detect(run, np.concatenate(parts), Timeline(0, 1, 1), 900.0)
    reach = 60  # of what the head sees, and of detections that suppress each other in a row

    def inside(found: list[Detection], start: float) -> NDArray[np.float64]:
        chosen = [d for d in found if start + reach < d.start and d.end < start + 300 - reach]
        rows = [(LABELS.index(d.label), d.start - start, d.end - start, d.score) for d in chosen]
        return np.array(sorted(rows, key=lambda row: [round(number, 3) for number in row]))

    for number, part in enumerate(parts):
        alone = inside(detect(run, part, Timeline(0, 1, 1), 300.0), 0)
        assert len(alone) > 100
        np.testing.assert_allclose(inside(joined, 300 * number), alone, atol=1e-4)


def test_a_threshold_for_votes_that_is_no_iou() -> None:
    for threshold in (0.0, 1.5):
        with pytest.raises(
            ValueError, match=rf"post\.voting is {threshold}; as an IoU it must be above 0 and at most 1"
        ):
            PostConfig(voting=threshold)


class Ramp(nn.Module):
    """Finds one segment of a whole video, between the rows whose features are next to 0.25 and to 0.75."""

    num_snippets = None

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, feats_BCT: Tensor, valid_BT: Tensor) -> Tensor:
        assert valid_BT.shape == (len(feats_BCT), feats_BCT.shape[2])
        assert valid_BT.all()
        self.seen.append(tuple(feats_BCT.shape))
        return feats_BCT[:, 0] * self.gain

    def decode(self, output: Tensor) -> ScoredSegments:
        edges = [(output - place).abs().argmin(dim=1) + 0.5 for place in (0.25, 0.75)]
        return ScoredSegments(
            torch.stack(edges, dim=1)[:, None], torch.ones(len(output), 1), torch.zeros(len(output), 1).long()
        )


@pytest.mark.parametrize(("rescale", "row_step"), [("linear", 1), ("linear", 2), ("bins", 1)])
def test_whole_videos_that_are_brought_to_some_rows_have_their_segments_in_seconds(
    rescale: Literal["linear", "bins"], row_step: int
) -> None:
    """Features that are the seconds as shares of the video: whatever its rows were, the middle half is found there."""
    run = replace(whole_run(), head=Ramp(), rescale=rescale, rescale_rows=64, row_step=row_step)
    videos = []
    for rows, timeline in ((30, Timeline(0, 0.5, 0.5)), (400, Timeline(2.0, 0.1, 0.3)), (64, Timeline(0, 1, 1))):
        first, last = timeline.edge(0), timeline.edge(rows)
        shares_T = (timeline.centers(rows) - first) / (last - first)
        features_TC = np.stack([shares_T, shares_T], axis=1).astype(np.float32)
        videos.append((FeatureRows(features_TC, timeline, timeline.end(rows)), first, last))
    together = list(detect_all(run, [video for video, *_ in videos]))
    assert run.head.seen == [(3, 2, 64)]  # videos of one length go through together
    for [found], (video, first, last) in zip(together, videos, strict=True):
        expected = (first + (last - first) / 4, first + 3 * (last - first) / 4)
        assert (found.start, found.end) == pytest.approx(expected, abs=(last - first) / 64)
        assert as_rows([found]) == [(d.label, d.start, d.end, d.score) for d in detect(run, *video)]


def test_bringing_to_rows_is_torchs_interpolation() -> None:
    features_TC = np.random.default_rng(0).standard_normal((37, 3)).astype(np.float32)
    video = FeatureRows(features_TC, Timeline(0, 0.64, 0.64), 24.0).rescaled(19, "linear")
    expected = F.interpolate(torch.from_numpy(features_TC.T)[None], size=19, mode="linear", align_corners=False)[0]
    np.testing.assert_allclose(video.features.T, expected, rtol=1e-4, atol=1e-5)
    assert (video.timeline.edge(0), video.timeline.edge(19)) == pytest.approx((0, 37 * 0.64))
    assert video.duration == 24.0
