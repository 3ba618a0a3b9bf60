import gc
import json
from pathlib import Path

import pytest
from found import found_in
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.detections import Detection, Detections
from pipeline.data.files import plain_label

finite = st.floats(allow_nan=False, allow_infinity=False)
detections = st.lists(st.builds(Detection, finite, finite, st.text().map(plain_label), finite), max_size=5)


@given(st.dictionaries(st.text(), detections))
def test_writing_and_reading_gives_the_same_detections(
    tmp_path_factory: pytest.TempPathFactory, results: dict[str, list[Detection]]
) -> None:
    file = tmp_path_factory.mktemp("round") / "found.json"
    Detections.from_videos(results).to_json(file)
    assert found_in(file) == results
    assert list(found_in(file)) == list(results)


def test_the_file_has_the_form_of_activitynet(tmp_path: Path) -> None:
    Detections.from_videos({"v": [Detection(1.5, 2.0, "run", 0.25)], "w": []}).to_json(tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == {
        "version": "VERSION 1.3",
        "external_data": {},
        "results": {"v": [{"segment": [1.5, 2.0], "label": "run", "score": 0.25}], "w": []},
    }


def test_columns_keep_the_order_of_the_file() -> None:
    first, second, third = Detection(0, 1, "b", 0.1), Detection(1, 2, "a", 0.2), Detection(2, 3, "b", 0.3)
    table = Detections.from_videos({"v": [first, second], "w": [], "x": [third]})
    assert table.video_ids == ("v", "w", "x")
    assert table.labels == ("b", "a")
    assert table.video_N.tolist() == [0, 0, 2]
    assert table.label_N.tolist() == [0, 1, 0]
    assert table.segments_N2.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert table.scores_N.tolist() == [0.1, 0.2, 0.3]


def test_proposals_need_no_label(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text('{"results": {"v": [{"segment": [0, 1], "score": 1}]}}')
    assert Detections.from_json(tmp_path / "found.json").labels == ("",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"segment": [0, 1], "score": NaN, "label": "x"}', "score nan: expected finite numbers"),
        ('{"segment": [0, Infinity], "score": 1, "label": "x"}', r"\[0\.0, inf\] s with score 1\.0"),
        ('{"segment": [0, null], "score": 1, "label": "x"}', "NoneType"),
        ('{"segment": [0, 1], "label": "x"}', "'score' is missing"),
        ('{"score": 1, "label": "x"}', "'segment' is missing"),
        ('{"segment": [0, 1, 2], "score": 1, "label": "x"}', "too many values"),
        ('{"segment": [0, 1], "score": "high", "label": "x"}', "high"),
        (f'{{"segment": [0, 1{"0" * 400}], "score": 1, "label": "x"}}', "int too large"),
        ('{"segment": [0, 1], "score": 1, "label": 7}', "label 7: expected a name"),
        ('{"segment": [0, 1], "score": 1, "label": [7]}', "expected a name"),
        ("3", "found 3"),
    ],
)
def test_a_faulty_detection_is_named(tmp_path: Path, rows: str, message: str) -> None:
    good = '{"segment": [0, 1], "score": 1, "label": "x"}'
    (tmp_path / "found.json").write_text(f'{{"results": {{"a": [{good}], "b": [{good}, {rows}]}}}}')
    with pytest.raises(ValueError, match=f"found.json, video 'b', detection 1: .*{message}"):
        Detections.from_json(tmp_path / "found.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", "holds no detections: expected"),
        ('{"database": {}}', "holds no detections: expected"),
        ('{"results": {"a": 3}}', "video 'a': expected a list of detections, found 3"),
        ('{"results": {"a": {"segment": [0, 1]}}}', "video 'a': expected a list of detections"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "found.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        found_in(tmp_path / "found.json")


def test_reading_leaves_the_garbage_collector_on(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text("[]")
    with pytest.raises(ValueError, match="no detections"):
        found_in(tmp_path / "found.json")
    assert gc.isenabled()
