import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_evaluate import Found, Truth, average_recall, mean_average_precision
from reference_evaluate import average_precision as slow_average_precision

from pipeline.data.annotations import Segment, Video
from pipeline.data.detections import Detection, Detections
from pipeline.measures import detection_metrics as fast

TIOU = list(fast.ACTIVITYNET_TIOU)


def ground_truth(truth: Truth, empty: str = "") -> fast.GroundTruth:
    """Columns of the truth; `empty` names one more video, without segments."""
    videos = {empty: Video(empty, None, "validation", ())} if empty else {}
    for name, label, start, end in truth:
        before = videos[name].segments if name in videos else ()
        videos[name] = Video(name, None, "validation", (*before, Segment(start, end, label)))
    return fast.GroundTruth.of(videos)


def table(found: Found) -> Detections:
    results: dict[str, list[Detection]] = {}
    for video, label, start, end, score in found:
        results.setdefault(video, []).append(Detection(start, end, label, score))
    return Detections.from_videos(results)


def ap(truth: Truth, found: Found, *tiou: float) -> list[float]:
    """Of a single class."""
    row: list[float] = fast.average_precision(ground_truth(truth), table(found), tiou)[0].tolist()
    return row


# --- By hand ----------------------------------------------------------------------------------------------------------


def test_precision_envelope_by_hand() -> None:
    truth: Truth = [("v", "run", 0, 10), ("v", "run", 20, 30)]
    found: Found = [("v", "run", 0, 10, 0.9), ("v", "run", 50, 60, 0.8), ("v", "run", 20, 30, 0.7)]
    # Recall 1/2 at precision 1, then recall 1 at precision 2/3.
    assert ap(truth, found, 0.5) == pytest.approx([(1 + 2 / 3) / 2])


def test_each_threshold_counts_by_itself() -> None:
    # tIoU 8/10.
    assert ap([("v", "run", 0, 10)], [("v", "run", 0, 8, 1.0)], 0.5, 0.8, 0.85) == [1.0, 1.0, 0.0]


def test_second_detection_of_a_segment_is_a_false_positive() -> None:
    truth: Truth = [("v", "run", 0, 10), ("v", "run", 50, 60)]
    found: Found = [("v", "run", 0, 10, 0.9), ("v", "run", 0, 10, 0.8), ("v", "run", 50, 60, 0.7)]
    assert ap(truth, found, 0.5) == pytest.approx([(1 + 2 / 3) / 2])


def test_taken_segment_falls_through_to_the_next_best() -> None:
    # Both detections prefer [0, 10]; the weaker one overlaps [0, 12] by 10/12.
    truth: Truth = [("v", "run", 0, 12), ("v", "run", 0, 10)]
    found: Found = [("v", "run", 0, 10, 0.5), ("v", "run", 0, 10, 0.9)]
    assert ap(truth, found, 0.5, 0.9) == pytest.approx([1.0, 0.5])


def test_duplicated_truth_needs_two_detections() -> None:
    truth: Truth = [("v", "run", 0, 10), ("v", "run", 0, 10)]
    assert ap(truth, [("v", "run", 0, 10, 0.9)], 0.5) == [0.5]
    assert ap(truth, [("v", "run", 0, 10, 0.9), ("v", "run", 0, 10, 0.1)], 0.5) == [1.0]


def test_ties_keep_the_order_of_the_file() -> None:
    truth: Truth = [("v", "run", 0, 10)]
    hit, miss = ("v", "run", 0.0, 10.0, 0.5), ("v", "run", 50.0, 60.0, 0.5)
    assert ap(truth, [hit, miss], 0.5) == [1.0]
    assert ap(truth, [miss, hit], 0.5) == [0.5]


def test_of_two_equal_overlaps_the_first_in_the_file_is_taken() -> None:
    early, late = ("v", "run", 0.0, 10.0), ("v", "run", 2.0, 12.0)
    found: Found = [("v", "run", 1, 11, 0.9), ("v", "run", 0, 10, 0.8)]  # 9/11 with both; 1 with the early one alone
    assert ap([early, late], found, 0.7) == [0.5]
    assert ap([late, early], found, 0.7) == [1.0]


def test_video_without_the_class_or_outside_the_subset_gives_false_positives() -> None:
    truth: Truth = [("v", "run", 0, 10), ("w", "jump", 0, 10)]
    for video in ("w", "elsewhere"):
        found: Found = [(video, "run", 0, 10, 0.9), ("v", "run", 0, 10, 0.8)]
        scores = fast.average_precision(ground_truth(truth), table(found), (0.5,))
        assert scores.tolist() == [[0.0], [0.5]]  # jump was never found


def test_ids_match_with_and_without_prefix() -> None:
    assert ap([("v_abc", "run", 0, 10)], [("abc", "run", 0, 10, 0.9)], 0.5) == [1.0]


def test_empty_and_backward_detections_find_nothing() -> None:
    found: Found = [("v", "run", 5, 5, 0.9), ("v", "run", 9, 1, 0.8), ("v", "run", 0, 10, 0.7)]
    assert ap([("v", "run", 0, 10)], found, 0.5) == pytest.approx([1 / 3])


def test_no_detections() -> None:
    truth = ground_truth([("v", "run", 0, 10)])
    assert fast.detection_metrics(truth, table([]))["map"] == [0.0] * 10
    assert fast.proposal_metrics(truth, table([])) == {"ar@1": 0, "ar@5": 0, "ar@10": 0, "ar@100": 0, "auc": 0}


def test_average_recall_by_hand() -> None:
    # 100 proposals in one video: the first finds the first segment at every threshold, the tenth the second at 0.5.
    wrong = [("v", "run", 100.0 + n, 101.0 + n, 0.5 - n / 1000) for n in range(100)]
    wrong[0], wrong[9] = ("v", "a", 0.0, 10.0, 0.5), ("v", "b", 20.0, 25.0, 0.491)
    metrics = fast.proposal_metrics(ground_truth([("v", "run", 0, 10), ("v", "run", 20, 30)]), table(wrong))
    assert metrics["ar@1"] == metrics["ar@5"] == pytest.approx(50)
    assert metrics["ar@10"] == metrics["ar@100"] == pytest.approx(55)
    assert metrics["auc"] == pytest.approx((8 * 50 + 52.5 + 90 * 55) / 100)


# --- Against the slow reference ---------------------------------------------------------------------------------------


def random_case(seed: int, videos: int, truths: int, detections: int) -> tuple[Truth, Found]:
    """Short times in whole seconds and few distinct scores: full of ties, duplicates and exact thresholds."""
    random = np.random.default_rng(seed)

    def rows(number: int, names: int) -> list[tuple[str, str, float, float]]:
        starts, lengths = random.integers(0, 20, number), random.integers(1, 20, number)
        video, label = random.integers(0, names, number), random.integers(0, 4, number)
        columns = (video.tolist(), label.tolist(), starts.tolist(), (starts + lengths).tolist())
        return [(f"v{v}", f"c{c}", float(s), float(e)) for v, c, s, e in zip(*columns, strict=True)]

    scores = random.integers(0, 30, detections) / 30
    # Grouped by video, as the file has it; two more videos than the truth has.
    found = sorted(rows(detections, videos + 2), key=lambda row: row[0])
    return rows(truths, videos), [(*row, score) for row, score in zip(found, scores.tolist(), strict=True)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), videos=st.integers(1, 6), truths=st.integers(1, 40), detections=st.integers(0, 120)
)
def test_agrees_with_the_reference(seed: int, videos: int, truths: int, detections: int) -> None:
    truth, found = random_case(seed, videos, truths, detections)
    # Of the two further videos that have detections, one is in the subset, without segments.
    columns = ground_truth(truth, empty=f"v{videos}")
    metrics = fast.detection_metrics(columns, table(found), TIOU)
    expected = [100 * mean_average_precision(truth, found, threshold) for threshold in TIOU]
    assert metrics["map"] == pytest.approx(expected, abs=1e-9)
    recall = fast.average_recall(columns, table(found), TIOU)
    assert recall.tolist() == pytest.approx(average_recall(truth, found, TIOU), abs=1e-9)


def test_recall_of_more_than_a_hundred_proposals_a_video_agrees_with_the_reference() -> None:
    # Four videos, one of them without segments and one outside the subset: far more than can be kept.
    truth, found = random_case(11, videos=2, truths=12, detections=700)
    recall = fast.average_recall(ground_truth(truth, empty="v2"), table(found), [0.5, 0.9])
    assert recall.tolist() == pytest.approx(average_recall(truth, found, [0.5, 0.9]), abs=1e-9)


def test_per_class_agrees_with_the_reference_at_low_thresholds() -> None:
    # Low thresholds: long chains of detections that turn each other out.
    truth, found = random_case(7, videos=2, truths=60, detections=300)
    columns = ground_truth(truth)
    scores = fast.average_precision(columns, table(found), (0.05, 0.3))
    for label, row in zip(columns.labels, scores.tolist(), strict=True):
        assert row == pytest.approx([slow_average_precision(truth, found, label, t) for t in (0.05, 0.3)], abs=1e-9)


def test_portions_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, found = random_case(3, videos=3, truths=30, detections=100)
    whole = fast.detection_metrics(ground_truth(truth), table(found))
    monkeypatch.setattr(fast, "_PAIRS_AT_ONCE", 5)
    assert fast.detection_metrics(ground_truth(truth), table(found)) == whole


# --- The command ------------------------------------------------------------------------------------------------------


def test_one_video_with_many_segments_of_one_class() -> None:
    """A long chain: every detection but the best loses its first choice, and again, and again."""
    truth: Truth = [("v", "run", 0.0, 10.0 + n / 1000) for n in range(50)]
    found: Found = [("v", "run", 0.0, 9.0, float(n)) for n in range(200)]
    assert ap(truth, found, 0.5) == [1.0]
