"""The small files around a data set: video ids and the files they name, JSON, and text."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import unicodedata
import zlib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}
)
VALIDATION_SHARE = 0.2
NO_SUBSET = "{} without a subset (a fifth became validation, the rest training; give subsets to decide otherwise)"

_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and bytes that are no UTF-8


# --- Ids and video files ----------------------------------------------------------------------------------------------


def check_video_id(video_id: str) -> str:
    """The id itself. ValueError if a file named after it could lie outside its folder, on Linux or Windows."""
    is_file_name = PureWindowsPath(video_id).name == video_id and video_id not in ("", ".", "..")
    if not is_file_name or _UNWRITABLE.search(video_id):
        raise ValueError(f"video id {video_id!r} cannot name a file: expected a plain name such as 'v_QOlSCBRmfWY'")
    return video_id


def plain_id(name: str) -> str:
    """The id in a name of a video: without the suffix of a video file, accents composed as most systems write them."""
    return unicodedata.normalize("NFC", strip_video_suffix(name))


def plain_label(label: str) -> str:
    """A label as everybody writes it: accents composed, one space between words (also for ones that do not break)."""
    return " ".join(unicodedata.normalize("NFC", label).split())


def match_ids(wanted: Iterable[str], available: Iterable[str]) -> dict[str, str]:
    """Which available id each wanted id means; ids without a counterpart are left out.

    An id is first taken literally. The rest match as `plain_id` has them, and then with ActivityNet's prefix `v_` added
    or removed, each available id once: `abc` finds `v_abc`, unless `v_abc` is wanted too.
    """
    wanted, available = list(wanted), list(available)
    exact = set(available)
    matches = {video_id: video_id for video_id in wanted if video_id in exact}
    for spell in (plain_id, _other_prefix):
        taken = set(matches.values())
        free = {plain_id(name): name for name in reversed(available) if name not in taken}
        for video_id in wanted:
            if video_id not in matches and spell(video_id) in free:
                matches[video_id] = free.pop(spell(video_id))
    return {video_id: matches[video_id] for video_id in wanted if video_id in matches}


def _other_prefix(video_id: str) -> str:
    """The plain id with `v_`, or without where it has one."""
    plain = plain_id(video_id)
    return plain.removeprefix("v_") if plain.startswith("v_") else f"v_{plain}"


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
            video_id = check_video_id(unicodedata.normalize("NFC", file.stem))
        except ValueError as error:
            raise ValueError(f"{str(file)!r}: {error}; rename the file") from error
        if video_id in videos:
            raise ValueError(f"two videos have the id {video_id!r}: {videos[video_id]} and {file}; rename one")
        videos[video_id] = file
    return videos


# --- JSON -------------------------------------------------------------------------------------------------------------


def read_json(path: Path, *, unique: bool = False) -> Any:
    """The contents of a JSON file, gzipped if its name ends in .gz.

    Args:
        path: the file.
        unique: refuse keys that stand twice in an object, of which JSON takes the last; costs a little time.

    Raises:
        ValueError: it is not JSON, or a key stands twice; names the file.
    """
    data = path.read_bytes()
    try:
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        return json.loads(text, object_pairs_hook=_unique_keys if unique else None)
    except RecursionError as error:
        raise ValueError(f"{path}: its JSON is nested too deeply to be read; it is no file of a data set") from error
    except _RepeatedKeyError as error:
        raise ValueError(f"{path}: the key {error} stands twice in one object; keep one of the two") from error
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not JSON, or only a part of it: {error}") from error


class _RepeatedKeyError(ValueError):
    """The key, as text."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise _RepeatedKeyError(repr(key))
        fields[key] = value
    return fields


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
