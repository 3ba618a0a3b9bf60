"""The small files around a data set: video ids and the files they name, JSON, and csv as spreadsheets write it."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import os
import re
import shutil
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _csv import Reader

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}
)
VALIDATION_SHARE = 0.2
NO_SUBSET = "{} without a subset (a fifth became validation, the rest training; give subsets to decide otherwise)"

_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and bytes that are no UTF-8
_TIME = re.compile(r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+(?:[.,][0-9]*)?(?:[eE][-+]?[0-9]+)?)")


# --- Ids and video files ----------------------------------------------------------------------------------------------


def check_video_id(video_id: str) -> str:
    """The id itself. ValueError if a file named after it could lie outside its folder, on Linux or Windows."""
    is_file_name = PureWindowsPath(video_id).name == video_id and video_id not in ("", ".", "..")
    if not is_file_name or _UNWRITABLE.search(video_id):
        raise ValueError(f"video id {video_id!r} cannot name a file: expected a plain name such as 'v_QOlSCBRmfWY'")
    return video_id


def match_ids(wanted: Iterable[str], available: Iterable[str]) -> dict[str, str]:
    """Which available id each wanted id means; ids without a counterpart are left out.

    An id is first taken literally. The rest match with ActivityNet's prefix `v_` added or removed, each available id
    once: `abc` finds `v_abc`, unless `v_abc` is wanted too.
    """
    wanted, free = list(wanted), set(available)
    matches = {video_id: video_id for video_id in wanted if video_id in free}
    free -= matches.keys()
    for video_id in wanted:
        other = video_id.removeprefix("v_") if video_id.startswith("v_") else f"v_{video_id}"
        if video_id not in matches and other in free:
            matches[video_id] = other
            free.remove(other)
    return matches


def split_by_hash(ids: Iterable[str]) -> dict[str, str]:
    """A subset for each id of a list that gives none: `validation` for about a fifth, `training` for the rest.

    A hash of the id decides, so that a video stays on its side while the list grows; of two or more videos at least
    one is on each side.
    """
    draws = {video_id: int(hashlib.sha256(video_id.encode()).hexdigest()[:8], 16) / 2**32 for video_id in ids}
    order = sorted(draws, key=lambda video_id: (draws[video_id], video_id))
    share = sum(draw < VALIDATION_SHARE for draw in draws.values())
    validation = set(order[: min(max(share, 1), len(order) - 1)])
    return {video_id: "validation" if video_id in validation else "training" for video_id in draws}


def strip_video_suffix(name: str) -> str:
    """`a.mp4` → `a`; a name that ends otherwise stays whole, dots included."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in VIDEO_SUFFIXES else name


def walk_files(folder: Path, suffixes: Container[str]) -> list[Path]:
    """The files with one of these suffixes in a folder and its subfolders, sorted, hidden ones left out."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
    )


def walk_videos(folder: Path) -> list[Path]:
    """The video files in a folder and its subfolders, sorted, hidden ones left out. An empty folder is a ValueError."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; expected one with video files")
    files = walk_files(folder, VIDEO_SUFFIXES)
    if not files:
        raise ValueError(f"no video file in {folder} or below; videos are known by {' '.join(sorted(VIDEO_SUFFIXES))}")
    return files


def find_videos(folder: Path) -> dict[str, Path]:
    """The video files in a folder and its subfolders by id, which is the file name without its suffix, sorted.

    Raises:
        ValueError: There is none, two have one id, or an id could not name a feature file.
        NotADirectoryError: `folder` is no folder.
    """
    videos: dict[str, Path] = {}
    for file in walk_videos(folder):
        try:
            video_id = check_video_id(file.stem)
        except ValueError as error:
            raise ValueError(f"{str(file)!r}: {error}; rename the file") from error
        if video_id in videos:
            raise ValueError(f"two videos have the id {video_id!r}: {videos[video_id]} and {file}; rename one")
        videos[video_id] = file
    return videos


# --- JSON -------------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """The contents of a JSON file, gzipped if its name ends in .gz. ValueError naming the file if it is not JSON."""
    data = path.read_bytes()
    try:
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except RecursionError as error:
        raise ValueError(f"{path}: its JSON is nested too deeply to be read; it is no file of a data set") from error
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not JSON, or only a part of it: {error}") from error


def write_json(path: Path, data: object) -> None:
    """Write a JSON file that appears whole or not at all. NaN and infinity are a ValueError: they are not JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(json.dumps(data, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


# --- Text -------------------------------------------------------------------------------------------------------------


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file whole or not at all."""
    partial = target.with_name(f"{target.name}.part")
    shutil.copyfile(source, partial)
    partial.replace(target)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, stripped, without the empty ones. ValueError if it is not UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error})") from error
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


# --- csv --------------------------------------------------------------------------------------------------------------


def parse_time(text: str) -> float:
    """Seconds from `75.5`, `1:15.5` (m:ss) or `0:01:15.5` (h:mm:ss); a decimal comma is read as a point."""
    match = _TIME.fullmatch(text.strip())
    hours, minutes, seconds = match.groups(default="") if match else ("", "", "inf")
    seconds_s = float(seconds.replace(",", "."))
    fits = seconds_s < (60 if minutes else math.inf) and not (hours and int(minutes) >= 60)
    if not fits:
        raise ValueError(f"{text!r} is not a time: write seconds (75.5), m:ss (1:15.5) or h:mm:ss (0:01:15.5)")
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + seconds_s


def read_table(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a csv file with their line numbers; keys are the header's names in lower case, values are stripped.

    Reads what spreadsheets write: a byte order mark, any line end, `,` `;` or tab between values, a first line `sep=;`,
    empty rows.

    Raises:
        ValueError: Not UTF-8, a required column missing, or a row with more values than the header; names the line.
    """
    columns, reader = _open_table(path)
    missing = [name for name in required if name not in columns]
    if missing:
        raise ValueError(f"{path} has no column {missing}; its header is {columns}, expected {','.join(required)}")
    try:
        for row in reader:
            values = [value.strip() for value in row]
            if any(values[len(columns) :]):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(values)} values for {len(columns)} columns; "
                    "quote values that hold a comma"
                )
            if any(values):
                values += [""] * (len(columns) - len(values))
                yield reader.line_num, dict(zip(columns, values, strict=False))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error


def table_columns(path: Path) -> list[str]:
    """The names in the header of a csv file, in lower case."""
    return _open_table(path)[0]


def _open_table(path: Path) -> tuple[list[str], Reader]:
    text = _decode(path)
    header = next((line for line in text.splitlines() if not _is_separator_line(line)), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    row = next(reader, [])
    if row and _is_separator_line(row[0]):
        row = next(reader, [])
    return [name.strip().lower() for name in row], reader


def _is_separator_line(line: str) -> bool:
    """Excel's own note on top of a csv."""
    return line.lower().startswith("sep=")


def _decode(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); in the spreadsheet save it as 'CSV UTF-8'") from error
