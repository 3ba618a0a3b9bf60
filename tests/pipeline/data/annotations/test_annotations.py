import csv
import datetime
import gzip
import json
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clips.reading import read_clips
from pipeline.data.annotations import Annotations, Segment, Video, read_annotations, write_annotations
from pipeline.data.files import (
    check_video_id,
    find_videos,
    match_ids,
    plain_id,
    split_by_hash,
    strip_video_suffix,
    write_json,
)
from pipeline.data.tables import parse_time
from pipeline.terminal.notes import format_counts

HUGE = "9" * 400  # more than a float can hold


def read_text(tmp_path: Path, text: str | bytes, name: str = "a.csv", *, as_written: bool = False) -> Annotations:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_annotations(file, as_written=as_written)


def read_entry(tmp_path: Path, *segments: tuple[float, float, str], as_written: bool = False) -> Annotations:
    """ActivityNet JSON with one 30 s video `v`."""
    annotations = [{"segment": [start, end], "label": label} for start, end, label in segments]
    entry = {"duration": 30, "subset": "training", "annotations": annotations}
    return read_text(tmp_path, json.dumps({"database": {"v": entry}}), "a.json", as_written=as_written)


# --- ActivityNet's JSON -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_reads_activitynet(tmp_path: Path, compressed: bool) -> None:
    segment = {"segment": [1.5, 9], "label": "Surfing"}
    database = {
        "v_a": {"duration": 30.5, "subset": "training", "url": "…", "annotations": [segment]},
        "v_b": {"duration": 12, "subset": "testing", "annotations": []},
    }
    data = json.dumps({"version": "VERSION 1.3", "taxonomy": [], "database": database}).encode()
    annotations = read_text(
        tmp_path, gzip.compress(data) if compressed else data, "a.json.gz" if compressed else "a.json"
    )
    assert annotations.videos == {
        "v_a": Video("v_a", 30.5, "training", (Segment(1.5, 9.0, "Surfing"),)),
        "v_b": Video("v_b", 12.0, "testing", ()),
    }
    assert annotations.labels == ("Surfing",)
    assert annotations.blemishes == {}  # a test set without segments is as it should be


names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\:"), min_size=1, max_size=8)
names = names.map(plain_id).filter(lambda name: plain_id(name) == name)
times = st.floats(0, 1e6, allow_nan=False)
segments = st.builds(lambda a, b, label: (min(a, b), max(a, b), label), times, times, names).filter(
    lambda s: s[0] < s[1]
)


@given(
    st.dictionaries(
        names.filter(lambda name: name not in (".", "..")),
        st.tuples(st.none() | st.just(1e6), names, st.lists(segments, unique=True)),
        min_size=1,
    )
)
def test_writing_and_reading_gives_the_same_videos(
    tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, tuple[float | None, str, list[tuple[float, float, str]]]]
) -> None:
    file = tmp_path_factory.mktemp("round") / "sub" / "a.json"
    videos = {name: Video(name, d, s, tuple(Segment(*x) for x in rows)) for name, (d, s, rows) in drawn.items()}
    write_annotations(file, videos.values())
    assert read_annotations(file).videos == videos
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"new": float("nan")})
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{"old": 1}\n']


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.json is not JSON"),
        ('{"database": {"a"', r"a\.json is not JSON, or only a part"),
        ("[1]", "not in the ActivityNet form"),
        ('{"database": []}', "not in the ActivityNet form"),
        ("{}", "names no video"),
        ('{"database": {"a": 3}}', "video 'a': expected .* found 3"),
        ('{"database": {"a": {"annotations": [{"label": "x"}]}}}', r"a\.json, video 'a': expected .*segment"),
        ('{"database": {"a": {"annotations": [{"segment": [1, 2, 3], "label": "x"}]}}}', "found .*1, 2, 3"),
        ('{"database": {"a": {"annotations": [{"segment": [1, NaN], "label": "x"}]}}}', "not finite"),
        ('{"database": {"a": {"annotations": [{"segment": [1, 2], "label": ""}]}}}', "expected a name"),
        (
            f'{{"database": {{"a": {{"annotations": [{{"segment": [1, 2{HUGE}], "label": "x"}}]}}}}}}',
            "video 'a': expected",
        ),
        (f'{{"database": {{"a": {{"duration": {HUGE}}}}}}}', r"a\.json, video 'a': int too large"),
        ("[" * 100_000, r"a\.json: its JSON is nested too deeply"),
        ('{"database": {"../a": {"annotations": []}}}', r"video '\.\./a'.*cannot name a file"),
    ],
)
def test_malformed_json_is_an_error_that_names_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_text(tmp_path, text, "a.json")


def test_truncated_gzip(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.json\.gz is not JSON, or only a part"):
        read_text(tmp_path, gzip.compress(b'{"database": {}}')[:-9], "a.json.gz")


# --- Blemishes --------------------------------------------------------------------------------------------------------


def test_segments_past_the_end_are_cut_or_dropped(tmp_path: Path) -> None:
    annotations = read_entry(tmp_path, (20, 40, "x"), (30, 31, "x"))
    assert annotations.videos["v"].segments == (Segment(20, 30, "x"),)
    assert annotations.blemishes == {
        "segments past the end of the video (cut)": 2,
        "segments outside the video (dropped)": 1,
    }


def test_segments_before_the_start_are_cut_or_dropped(tmp_path: Path) -> None:
    annotations = read_entry(tmp_path, (-1, 5, "x"), (-3, -1, "x"))
    assert annotations.videos["v"].segments == (Segment(0, 5, "x"),)
    assert annotations.blemishes == {
        "segments that start before the video (cut)": 2,
        "segments outside the video (dropped)": 1,
    }


def test_backward_segments_are_dropped_and_duplicates_kept_once(tmp_path: Path) -> None:
    # [5, 31] and [5, 30] are one segment once cut; another class is another segment.
    annotations = read_entry(tmp_path, (9, 5, "x"), (5, 5, "x"), (5, 31, "x"), (5, 30, "x"), (5, 30, "y"))
    assert annotations.videos["v"].segments == (Segment(5, 30, "x"), Segment(5, 30, "y"))
    assert format_counts(annotations.blemishes) == (
        "segments with end ≤ start (dropped): 2; segments past the end of the video (cut): 1; "
        "exact duplicates (dropped): 1"
    )


def test_as_written_keeps_late_ends_and_duplicates(tmp_path: Path) -> None:
    annotations = read_entry(tmp_path, (20, 40, "x"), (20, 40, "x"), (5, 5, "x"), as_written=True)
    assert annotations.videos["v"].segments == (Segment(20, 40, "x"),) * 2
    assert set(annotations.blemishes) == {
        "segments past the end of the video (kept)",
        "exact duplicates (kept)",
        "segments with end ≤ start (dropped)",
    }


def test_odd_subsets_durations_and_ids_are_kept_and_counted(tmp_path: Path) -> None:
    segment = {"segment": [1, 2], "label": "x"}
    database = {
        "a": {"duration": 0, "subset": "training", "annotations": [segment]},
        "b": {"duration": 9, "subset": "holdout", "annotations": [segment]},
        "v_b": {"duration": 9, "annotations": [segment]},
        "c": {"duration": 9, "subset": "validation"},
    }
    annotations = read_text(tmp_path, json.dumps({"database": database}), "a.json")
    assert [video.subset for video in annotations.videos.values()] == ["training", "holdout", "", "validation"]
    assert annotations.videos["a"].duration is None
    assert annotations.blemishes == {
        "durations that are no positive number (ignored)": 1,
        "videos without a subset, which others have (used nowhere)": 1,
        "videos of unknown subset (kept)": 1,
        "videos without segments (kept)": 1,
        "videos listed with and without v_ (kept apart)": 1,
    }
    with pytest.raises(ValueError, match=r"subset 'test'; .* '' \(1 videos\), 'holdout' \(1 videos\), 'training'"):
        annotations.in_subset("test")
    assert list(annotations.in_subset("holdout")) == ["b"]


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (3, 2), (0, float("inf")), (float("nan"), 2)])
def test_a_segment_checks_itself(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="0 ≤ start < end"):
        Segment(start, end, "x")


def test_a_video_checks_itself() -> None:
    with pytest.raises(ValueError, match="positive number"):
        Video("a", 0.0, "training", ())
    with pytest.raises(ValueError, match="cannot name a file"):
        Video("../a", 1.0, "training", ())


# --- Our csv ----------------------------------------------------------------------------------------------------------


def test_reads_csv(tmp_path: Path) -> None:
    text = "video,start,end,label,subset\na.mp4,0:12,1:02.5,Surf,training\nb,3,4.5,Run,validation\na.mp4,70,1:11,Run,\n"
    annotations = read_text(tmp_path, text)
    assert annotations.videos == {
        "a": Video("a", None, "training", (Segment(12, 62.5, "Surf"), Segment(70, 71, "Run"))),
        "b": Video("b", None, "validation", (Segment(3, 4.5, "Run"),)),
    }
    assert annotations.blemishes == {}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffvideo;start;end;label\r\na.mp4;0,5;1:02,5;Run, fast\r\n;;;\r\n\r\n",
        'sep=,\r\nvideo,start,end,label\r\na.mp4,0.5,"1:02,5","Run, fast"\r\n',
        "Video \tStart\tEND\tlabel\tcomment\ra.MP4\t0.5\t62.5\tRun, fast\tnice\r",
    ],
)
def test_reads_what_spreadsheets_write(tmp_path: Path, text: str) -> None:
    assert read_text(tmp_path, text).videos["a"].segments == (Segment(0.5, 62.5, "Run, fast"),)


def test_csv_row_with_a_video_alone_is_a_video_without_segments(tmp_path: Path) -> None:
    annotations = read_text(tmp_path, "video,start,end,label,subset\na,1,2,x,training\nb,,,,training\n")
    assert annotations.videos["b"].segments == ()
    assert annotations.blemishes == {"videos without segments (kept)": 1}


def test_csv_without_subsets_is_split(tmp_path: Path) -> None:
    annotations = read_text(tmp_path, "video,start,end,label\n" + "".join(f"v{n},1,2,x\n" for n in range(5)))
    assert {video.subset for video in annotations.videos.values()} == {"training", "validation"}
    (note,) = annotations.blemishes
    assert note.startswith("videos without a subset (a fifth became validation")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column"),
        ("a.mp4,1,2,x\n", r"no column \['video'.*expected video,start,end,label"),
        ("video,start,end,label\n", "names no video"),
        ("video,start,end,label\na,1,2,x\na,1:75,2,x\n", r"a\.csv, line 3: '1:75' is not a time"),
        ("video,start,end,label\n\na,,2,x\n", r"line 3: '' is not a time"),
        ("video,start,end,label\na,1,2,\n", r"line 2: the label is empty"),
        ("video,start,end,label\na,0,5,1,5,x\n", r"line 2: 6 values for 4 columns"),
        ("video,start,end,label\n..\\b,1,2,x\n", r"line 2: video id .* cannot name a file"),
        ("video,start,end,label,subset\na,1,2,x,test\na,3,4,x,train\n", "line 3: .* 'train' here and in 'test' before"),
        (b"video,start,end,label\na,1,2,caf\xe9\n", "not UTF-8.*CSV UTF-8"),
    ],
)
def test_malformed_csv_is_an_error_that_names_the_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_text(tmp_path, text)


@given(st.lists(st.tuples(names, segments), min_size=1, unique=True), st.sampled_from(",;\t"), st.booleans())
def test_csv_keeps_every_segment(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, tuple[float, float, str]]], sep: str, dos: bool
) -> None:
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    rows = [(plain_id(f"video {name}"), segment) for name, segment in rows]
    with file.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream, delimiter=sep, lineterminator="\r\n" if dos else "\n")
        writer.writerows([("video", "start", "end", "label"), *((f"{name}.mp4", *segment) for name, segment in rows)])
    read = [(video.id, segment) for video in read_annotations(file).videos.values() for segment in video.segments]
    assert sorted(read, key=str) == sorted(((name, Segment(*segment)) for name, segment in rows), key=str)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,start,end,label,start\na,1,2,x,9", "the column 'start' stands 2 times"),
        ('video,start,end,label\na,"1,234","1,240",x', r"line 2: '1,234' may be 1\.234 s or 1234 s"),
        (
            'video,start,end,label\na,"1,234.5","1,5",x',
            r"line 2: '1,234\.5' has commas for thousands, and '1,5' in line 2",
        ),
        ("filename,begin,Stop (s),behavior\na,1,2,x", "'filename' seems to be video.*'begin' seems to be start"),
        ("filename,begin,Stop (s),behavior\na,1,2,x", r"'stop \(s\)' seems to be end.*'behavior' seems to be label"),
    ],
)
def test_what_a_table_leaves_open_is_asked(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_text(tmp_path, text)


@pytest.mark.parametrize(
    ("sep", "start", "end", "seconds"),
    [
        (",", "1,234.5", "1,240", (1234.5, 1240.0)),
        (",", "1,5", "2,25", (1.5, 2.25)),
        (",", "1,234", "2,5", (1.234, 2.5)),
        (";", "1,234", "1,240", (1.234, 1.24)),
        ("\t", "1,234,567", "1,234,568", (1234567.0, 1234568.0)),
        (",", "0:12,5", "0:13", (12.5, 13.0)),
    ],
)
def test_what_a_comma_means_follows_from_the_whole_column(
    tmp_path: Path, sep: str, start: str, end: str, seconds: tuple[float, float]
) -> None:
    rows = [("video", "start", "end", "label"), ("a", start, end, "x")]
    text = "\n".join(sep.join(f'"{value}"' for value in row) for row in rows)
    assert read_text(tmp_path, text).videos["a"].segments == (Segment(*seconds, "x"),)


def test_a_table_may_begin_with_empty_lines_and_end_in_tsv(tmp_path: Path) -> None:
    wanted = {"a": (Segment(1, 5, "x, y"),)}
    for name, text in (
        ("a.csv", '\n\n;;\nvideo;start;end;label\na;1;5;"x, y"'),
        ("a.tsv", "video\tstart\tend\tlabel\na\t1\t5\tx, y"),
    ):
        assert {video.id: video.segments for video in read_text(tmp_path, text, name).videos.values()} == wanted


def test_a_sheet(tmp_path: Path) -> None:
    """Numbers, text, and times of day, into which sheets turn what looks like one."""
    with pytest.raises(FileNotFoundError, match=r"a\.xlsx"):
        read_annotations(tmp_path / "a.xlsx")
    book = openpyxl.Workbook()
    book.active.append(["Video", "start", "end", "label"])
    book.active.append(["a.mp4", 1, 2.5, "x"])
    book.active.append(["a.mp4", "1:15", datetime.time(0, 2, 30, 500000), "x"])
    book.active.cell(3, 3).number_format = "h:mm:ss.0"
    book.save(tmp_path / "a.xlsx")
    assert read_annotations(tmp_path / "a.xlsx").videos["a"].segments == (Segment(1, 2.5, "x"), Segment(75, 150.5, "x"))
    book.active.cell(2, 2).value = datetime.time(1, 15)
    book.active.cell(2, 2).number_format = "h:mm"
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match=r"a\.xlsx: cell B2 is a time in hours and minutes, 01:15:00"):
        read_annotations(tmp_path / "a.xlsx")
    (tmp_path / "a.xlsx").write_bytes(b"PK no sheet")
    with pytest.raises(ValueError, match=r"a\.xlsx is no xlsx file"):
        read_annotations(tmp_path / "a.xlsx")


# --- One spelling, in all forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["annotations", "annotation", "segments"])
def test_segments_by_any_of_their_usual_keys(tmp_path: Path, key: str) -> None:
    text = json.dumps({"database": {"a": {"subset": "training", key: [{"segment": [1, 4], "label": "put in"}]}}})
    assert read_text(tmp_path, text, "a.json").videos["a"].segments == (Segment(1, 4, "put in"),)


def test_actions_by_number(tmp_path: Path) -> None:
    text = json.dumps({"a": {"subset": "training", "duration": 30, "actions": [[3, 1.0, 4.5]]}})
    assert read_text(tmp_path, text, "a.json").videos["a"].segments == (Segment(1, 4.5, "3"),)
    text = json.dumps({"a": {"subset": "training", "actions": [[3, 1.0]]}})
    with pytest.raises(ValueError, match=r"video 'a': expected \[class number, start, end\]"):
        read_text(tmp_path, text, "a.json")


def test_segments_under_a_key_that_is_not_known(tmp_path: Path) -> None:
    found = [{"timestamps": [1, 2], "label": "x"}] * 3
    with pytest.raises(ValueError, match="video 'a': it has no \"annotations\", but 'action_localisation'"):
        read_text(tmp_path, json.dumps({"a": {"action_localisation": found, "tags": ["b"]}}), "a.json")


def test_labels_in_one_spelling(tmp_path: Path) -> None:
    labels = ["Long Jump", "Long Jump ", "Long\u00a0Jump", "long jump", "Caf\u00e9", "Cafe\u0301"]
    annotations = read_entry(tmp_path, *((n, n + 1, label) for n, label in enumerate(labels)))
    assert annotations.labels == ("Café", "Long Jump", "long jump")
    assert annotations.blemishes == {
        "segments whose label has other spaces or accents (respelt)": 3,
        "labels that differ from others in capitals alone (kept apart)": 1,
    }


def test_ids_in_one_spelling(tmp_path: Path) -> None:
    entry = {"subset": "training", "annotations": [{"segment": [1, 2], "label": "x"}]}
    read = read_text(tmp_path, json.dumps({"Cafe\u0301.mp4": entry, "b.MKV": entry}), "a.json")
    assert list(read.videos) == ["Caf\u00e9", "b"]
    with pytest.raises(ValueError, match=r"a\.json: the video 'b' stands there twice, once as 'b\.mp4'"):
        read_text(tmp_path, json.dumps({"b": entry, "b.mp4": entry}), "a.json")
    with pytest.raises(ValueError, match=r"a\.json: the key 'b' stands twice"):
        read_text(tmp_path, f'{{"b": {json.dumps(entry)}, "b": {json.dumps(entry)}}}', "a.json")


def test_a_subset_by_any_of_its_usual_names(tmp_path: Path) -> None:
    rows = "a,1,2,x,Train\nb,1,2,x,TEST\nc,1,2,x,"
    annotations = read_text(tmp_path, "video,start,end,label,subset\n" + rows)
    assert [*annotations.in_subset("training"), *annotations.in_subset("testing")] == ["a", "b"]
    assert annotations.blemishes == {"videos without a subset, which others have (used nowhere)": 1}
    both = read_text(tmp_path, "video,start,end,label,subset\na,1,2,x,test\nb,1,2,x,testing")
    assert [*both.in_subset("testing"), *both.in_subset("test"), *both.in_subset("no|testing")] == ["b", "a", "b"]


# --- Times and ids ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("75.5", 75.5), (" 1:15.5 ", 75.5), ("0:01:15,5", 75.5), ("90:00", 5400.0), ("3.", 3.0), ("2e-05", 2e-5)],
)
def test_parse_time(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "1:60", "1:60:00", "1:2:3:4", ":30", "1:", "nan", "inf", "9e999", "1_0", "1.2.3", "٣", "12s"]
)
def test_parse_time_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time: write seconds"):
        parse_time(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59_999))
def test_parse_time_reads_clocks_back(hours: int, minutes: int, milliseconds: int) -> None:
    seconds = f"{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"
    expected = 3600 * hours + 60 * minutes + milliseconds / 1000
    assert parse_time(f"{hours}:{minutes:02d}:{seconds}") == pytest.approx(expected, abs=1e-9)
    assert parse_time(f"{60 * hours + minutes}:{seconds}") == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("video_id", ["", ".", "..", "../x", "a/b", "/etc/x", "a\\b", "C:x", "a\0b", "a\nb", "\udcff"])
def test_ids_that_could_leave_the_folder_are_refused(video_id: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        check_video_id(video_id)


@pytest.mark.parametrize("video_id", ["v_-a.b c", "...", "日本\u3000語", "--0edUL8zmA"])
def test_ordinary_ids_pass(video_id: str) -> None:
    assert check_video_id(video_id) == video_id


def test_match_ids() -> None:
    assert match_ids(["abc", "v_def", "ghi", "none"], ["v_abc", "def", "ghi"]) == {
        "abc": "v_abc",
        "v_def": "def",
        "ghi": "ghi",
    }
    assert match_ids(["abc", "v_v_abc"], ["v_abc"]) == {"abc": "v_abc"}
    # What is wanted by its own name is not given to another.
    assert match_ids(["abc", "v_abc"], ["v_abc"]) == {"v_abc": "v_abc"}
    assert match_ids(["abc", "v_abc"], ["abc", "v_abc"]) == {"abc": "abc", "v_abc": "v_abc"}


def test_split_by_hash_is_about_a_fifth_and_stays_put() -> None:
    ids = [f"video {n}" for n in range(1000)]
    split = split_by_hash(ids)
    assert 150 < list(split.values()).count("validation") < 250
    grown = split_by_hash([*ids, *(f"new {n}" for n in range(500))])
    assert {name: grown[name] for name in ids} == split


@given(st.sets(names, min_size=2, max_size=4))
def test_split_by_hash_fills_both_sides(ids: set[str]) -> None:
    assert set(split_by_hash(ids).values()) == {"training", "validation"}


def test_split_by_hash_of_one_video_trains() -> None:
    assert split_by_hash(["a"]) == {"a": "training"}
    assert split_by_hash([]) == {}


def test_ids_match_with_suffixes_and_however_accents_are_composed() -> None:
    assert match_ids(["Caf\u00e9", "v_b", "c.mp4", "d"], ["Cafe\u0301.mp4", "b", "c", "d", "e"]) == {
        "Caf\u00e9": "Cafe\u0301.mp4",
        "v_b": "b",
        "c.mp4": "c",
        "d": "d",
    }


def test_only_video_suffixes_are_stripped() -> None:
    names = ["a.mp4", "a.b.MKV", "a.b", "v1.5", ".mp4"]
    assert [strip_video_suffix(name) for name in names] == ["a", "a.b", "a.b", "v1.5", ".mp4"]


# --- Files ------------------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_find_videos(tmp_path: Path) -> None:
    touch(tmp_path, "b.MP4", "sub/deep/a.1.avi", "note.txt", "._b.mp4", "c.npy")
    assert find_videos(tmp_path) == {"b": tmp_path / "b.MP4", "a.1": tmp_path / "sub" / "deep" / "a.1.avi"}


def test_two_videos_of_one_name_are_an_error_that_lists_both(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "sub/a.avi")
    with pytest.raises(ValueError, match=r"'a': .*a\.mp4 and .*sub.a\.avi"):
        find_videos(tmp_path)


def test_no_videos(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no video file in .*\.mp4"):
        find_videos(touch(tmp_path, "a.txt"))
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        find_videos(tmp_path / "a.txt")


def test_a_video_name_that_is_no_id_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\\nb\.mp4.*rename the file"):
        find_videos(touch(tmp_path, "a\nb.mp4"))


# --- Clips ------------------------------------------------------------------------------------------------------------

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


def test_kinetics_csv(tmp_path: Path) -> None:
    touch(tmp_path, "run/ID1_000010_000020.mp4", "val/whole.mkv", "both.mp4", "both_000001_000002.mp4")
    rows = ["run,ID1,10,20,train,0", "jump,whole,3.5,8,val,0", "run,gone,1,2,train,0", "run,both,1,2,test,0"]
    (tmp_path / "k.csv").write_text(HEADER + "\n".join([*rows, "run,ID1,20,20,train,0"]))
    clips = read_clips(tmp_path / "k.csv")
    assert [(c.path.name, c.label, c.start, c.end, c.subset) for c in clips.clips] == [
        ("ID1_000010_000020.mp4", "run", None, None, "training"),
        ("whole.mkv", "jump", 3.5, 8.0, "validation"),
        ("both_000001_000002.mp4", "run", None, None, "testing"),
    ]
    assert clips.labels == ("jump", "run")
    assert clips.blemishes == {"clips without a file (skipped)": 1, "clips with end ≤ start (skipped)": 1}
    assert [clip.label for clip in clips.in_subset("validation")] == ["jump"]
    assert clips.in_subset("Train") == clips.in_subset("training")
    with pytest.raises(ValueError, match=r"no clip is in the subset 'held'.*\['testing', 'training', 'validation'\]"):
        clips.in_subset("held")


def test_ones_own_csv_is_a_list_of_clips(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "my.csv").write_text("video,start,end,label,subset\na.mp4,1,2,run,Training\nb,1,3,jump,val\n")
    clips = read_clips(tmp_path / "my.csv").clips
    assert [(clip.path.name, clip.label, clip.start, clip.end, clip.subset) for clip in clips] == [
        ("a.mp4", "run", 1.0, 2.0, "training"),
        ("b.mp4", "jump", 1.0, 3.0, "validation"),
    ]


def test_a_clip_that_is_listed_twice_is_one_clip(tmp_path: Path) -> None:
    """Else a boundary clip of two clips of a class could be made of one and the same."""
    touch(tmp_path, "a.mp4", "b.mp4")
    rows = ["run,a,1,2,train,0", "run,b,1,2,train,0", "run,a,1,2,train,0", "run,a,2,3,train,0"]
    (tmp_path / "k.csv").write_text(HEADER + "\n".join(rows))
    clips = read_clips(tmp_path / "k.csv")
    assert [(clip.path.name, clip.start) for clip in clips.clips] == [("a.mp4", 1.0), ("b.mp4", 1.0), ("a.mp4", 2.0)]
    assert clips.blemishes == {"clips listed twice (taken once)": 1}


def test_there_is_no_clip_list(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"k.csv: there is no such csv, annotation JSON, or folder"):
        read_clips(tmp_path / "k.csv")


def test_kinetics_csv_and_videos_in_different_folders(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "jump/a.mp4", "run/a.mp4")
    (tmp_path / "k.csv").write_text("label,youtube_id,time_start,time_end\nrun,a,1,2\njump,a,1,2\n")
    clips = read_clips(tmp_path / "k.csv", tmp_path / "videos")
    assert [clip.path.parent.name for clip in clips.clips] == ["run", "jump"]  # each from its class's folder
    assert len({clip.subset for clip in clips.clips}) == 1  # one source video stays on one side


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "run,gone,1,2,train,0",
            r"gives no clip \(clips without a file \(skipped\): 1\); .* ID.mp4 in .*; give --videos",
        ),
        ("", "it is empty"),
        ("run,a,1,x,train,0", "line 2: 'x' is not a time"),
        (",a,1,2,train,0", "line 2: the label is empty"),
        ("run,../a,1,2,train,0", "line 2: .*cannot name a file"),
        ("run,twice,1,2,train,0", r"line 2: 2 files fit: .*twice\.avi, .*twice\.mp4; keep one"),
    ],
)
def test_malformed_clip_list(tmp_path: Path, rows: str, message: str) -> None:
    touch(tmp_path, "a.mp4", "twice.mp4", "twice.avi")
    (tmp_path / "k.csv").write_text(HEADER + rows)
    with pytest.raises(ValueError, match=message):
        read_clips(tmp_path / "k.csv")


def test_segments_of_annotations_are_clips(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "a/v_one.mp4", "two.mkv", "four.mp4")
    run, jump = ({"segment": [start, 8.5], "label": label} for start, label in ((3, "run"), (8.5, "jump")))
    database = {
        "one": {"subset": "training", "duration": 9, "annotations": [run, {**run, "segment": [0, 1.5]}]},
        "two": {"subset": "val", "duration": 9, "annotations": [run, jump]},
        "three": {"subset": "training", "duration": 9, "annotations": [run]},
        "four": {"subset": "testing", "annotations": []},
    }
    path = tmp_path / "gt.json"
    path.write_text(json.dumps({"database": database}))
    clips = read_clips(path, tmp_path / "videos")
    assert [(clip.path.name, clip.label, clip.start, clip.end, clip.subset) for clip in clips.clips] == [
        ("v_one.mp4", "run", 3.0, 8.5, "training"),
        ("v_one.mp4", "run", 0.0, 1.5, "training"),
        ("two.mkv", "run", 3.0, 8.5, "validation"),
    ]
    assert clips.blemishes["videos without a file (skipped)"] == 1
    assert clips.blemishes["segments with end ≤ start (dropped)"] == 1
    with pytest.raises(ValueError, match=r"gt.json gives no clip .*videos without a file \(skipped\): 4"):
        read_clips(path, touch(tmp_path / "others", "other.mp4"))


def test_clip_tree(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "run/b.mp4", "jump/c_000001_000002.mp4", "stray.mp4")
    clips = read_clips(tmp_path)
    assert [(clip.path.name, clip.label) for clip in clips.clips] == [
        ("c_000001_000002.mp4", "jump"),
        ("a.mp4", "run"),
        ("b.mp4", "run"),
    ]
    assert {clip.subset for clip in clips.clips} == {"training", "validation"}
    assert clips.blemishes["files outside of a class folder (skipped)"] == 1


def test_clip_tree_with_splits(tmp_path: Path) -> None:
    clips = read_clips(touch(tmp_path, "train/run/a.mp4", "val/run/a.mp4"))
    assert [clip.subset for clip in clips.clips] == ["training", "validation"]
    assert clips.blemishes == {}


def test_clip_tree_without_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"outside of a class folder .*expected files such as class_name/clip.mp4"):
        read_clips(touch(tmp_path, "a.mp4"))
