"""Tables as people and spreadsheets write them: csv, tsv and xlsx; and the times in them.

Everything that reads a table reads it here, so that a byte order mark, a blank first line, a repeated column or a
decimal comma is the same thing in all of them.
"""

from __future__ import annotations

import csv
import datetime
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")

# What others call our columns, in the spelling of `plain_name`.
_ALSO_CALLED: Mapping[str, Sequence[str]] = {
    "video": ("videoid", "videoname", "filename", "file", "youtubeid", "mediafile", "mediafilename", "name", "id"),
    "start": ("starttime", "timestart", "startsec", "starts", "tstart", "begin", "begintime", "onset", "from"),
    "end": ("endtime", "timeend", "endsec", "ends", "tend", "stop", "stops", "stoptime", "finish", "offset", "to"),
    "label": ("class", "classname", "action", "category", "behavior", "behaviour", "activity", "event", "type"),
    "subset": ("split", "set", "partition"),
}
_TIME = re.compile(r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+(?:[.,][0-9]*)?(?:[eE][-+]?[0-9]+)?)")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")  # 1,234 may be, 1,234.5 and 1,234,567 must be
_ONLY_THOUSANDS = re.compile(r"[0-9]{1,3}(?:(?:,[0-9]{3}){2,}|,[0-9]{3}\.)[0-9.]*")

Row = dict[str, str]


@dataclass(frozen=True)
class Table:
    """The rows of a table with their line numbers.

    Attributes:
        path: the file.
        columns: the header's names, in lower case.
        rows: line number, and the values by the column's name, stripped; empty rows are left out.
        delimiter: between values; empty where the file has none.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Row], ...]
    delimiter: str

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        return iter(self.rows)

    def clock(self, *columns: str) -> Callable[[str], float]:
        """How the times in these columns are read: `parse_time`, with what a comma means in them.

        Raises:
            ValueError: a comma may be a decimal one and one of thousands; names the line, and shows both readings.
        """
        if self.delimiter == ";":  # written where the comma is the decimal mark
            return parse_time
        readings = {text: line for line, row in self for name in columns if "," in (text := row.get(name, ""))}
        thousands = [text for text in readings if _ONLY_THOUSANDS.fullmatch(text)]
        decimals = [text for text in readings if not _THOUSANDS.fullmatch(text)]
        if thousands and decimals:
            raise ValueError(
                f"{self.path}, line {readings[thousands[0]]}: {thousands[0]!r} has commas for thousands, and "
                f"{decimals[0]!r} in line {readings[decimals[0]]} for decimals; write all times with a decimal point"
            )
        if readings and not thousands and not decimals:
            text, line = next(iter(readings.items()))
            raise ValueError(
                f"{self.path}, line {line}: {text!r} may be {text.replace(',', '.')} s or {text.replace(',', '')} s; "
                "write times with a decimal point and without a mark for thousands"
            )
        return (lambda text: parse_time(text.replace(",", ""))) if thousands else parse_time


def parse_time(text: str) -> float:
    """Seconds from `75.5`, `1:15.5` (m:ss) or `0:01:15.5` (h:mm:ss); a decimal comma is read as a point."""
    match = _TIME.fullmatch(text.strip())
    hours, minutes, seconds = match.groups(default="") if match else ("", "", "inf")
    seconds_s = float(seconds.replace(",", "."))
    fits = seconds_s < (60 if minutes else math.inf) and not (hours and int(minutes) >= 60)
    if not fits:
        raise ValueError(f"{text!r} is not a time: write seconds (75.5), m:ss (1:15.5) or h:mm:ss (0:01:15.5)")
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + seconds_s


def read_table(path: Path, required: Sequence[str]) -> Table:
    """Read a csv, a tsv (by its name) or the first sheet of an xlsx.

    Reads what spreadsheets write: a byte order mark, any line end, `,` `;` or tab between values, a first line `sep=;`,
    empty rows, also before the header.

    Raises:
        ValueError: Not UTF-8, a required column missing, a column that stands twice, or a row with more values than the
            header; names the line.
    """
    columns, delimiter, lines = _open(path)
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        raise ValueError(f"{path}: the column {twice[0]!r} stands {columns.count(twice[0])} times; keep one of them")
    missing = [name for name in required if name not in columns]
    if missing:
        raise ValueError(
            f"{path} has no column {missing}; its header is {list(columns)}, expected {','.join(required)}"
            + "".join(_proposals(missing, columns))
        )
    return Table(path, columns, tuple(_rows(path, columns, lines)), delimiter)


def table_columns(path: Path) -> tuple[str, ...]:
    """The names in the header of a table, in lower case."""
    return _open(path)[0]


def plain_name(name: str) -> str:
    """The name of a column or key without capitals, spaces, `_`, `-`, and what stands in brackets, such as units."""
    return re.sub(r"\(.*?\)|\[.*?\]|[\s_-]", "", name.lower())


_Lines = Iterator[tuple[int, Sequence[str]]]


def _rows(path: Path, columns: Sequence[str], lines: _Lines) -> Iterator[tuple[int, Row]]:
    for line, row in lines:
        values = [value.strip() for value in row]
        if any(values[len(columns) :]):
            raise ValueError(
                f"{path}, line {line}: {len(values)} values for {len(columns)} columns; quote values that hold a comma"
            )
        if any(values):
            values += [""] * (len(columns) - len(values))
            yield line, dict(zip(columns, values, strict=False))


def _proposals(missing: Iterable[str], columns: Sequence[str]) -> Iterator[str]:
    """For each missing column the one that seems to be it, if there is one."""
    for name in missing:
        likely = [column for column in columns if plain_name(column) in _ALSO_CALLED.get(name, ())]
        if likely:
            yield f"; {likely[0]!r} seems to be {name}: rename it"


def _open(path: Path) -> tuple[tuple[str, ...], str, _Lines]:
    """Header, delimiter, and the lines below with their numbers."""
    delimiter, lines = ("", _sheet_lines(path)) if path.suffix.lower() == ".xlsx" else _text_lines(path)
    header = next((row for _, row in lines if any(value.strip() for value in row)), [])
    return tuple(name.strip().lower() for name in header), delimiter, lines


# --- csv and tsv ------------------------------------------------------------------------------------------------------


def _text_lines(path: Path) -> tuple[str, _Lines]:
    text = _decode(path)
    header = next((line for line in text.splitlines() if line.strip() and not _is_separator_line(line)), "")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    return delimiter, _parse_lines(path, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def _parse_lines(path: Path, reader: Any) -> _Lines:
    try:
        for row in reader:
            if not (row and _is_separator_line(row[0])):
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error


def _is_separator_line(line: str) -> bool:
    """Excel's own note on top of a csv."""
    return line.lower().startswith("sep=")


def _decode(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); in the spreadsheet save it as 'CSV UTF-8'") from error


# --- xlsx -------------------------------------------------------------------------------------------------------------


def _sheet_lines(path: Path) -> _Lines:
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise ValueError(
            f"{path} is read by openpyxl: pip install 'tal-pipeline[sheets]', or save the sheet as 'CSV UTF-8'"
        ) from error
    try:
        sheet: Any = load_workbook(path, read_only=True, data_only=True).worksheets[0]
        rows = [[_cell_text(cell) for cell in row] for row in sheet.iter_rows()]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except OSError:
        raise  # no such file, or none that may be read
    except Exception as error:  # a damaged file makes openpyxl raise nearly anything
        raise ValueError(f"{path} is no xlsx file, or a damaged one ({type(error).__name__}: {error})") from error
    yield from enumerate(rows, start=1)


def _cell_text(cell: Any) -> str:
    """What stands in a cell; times of day, which a sheet makes of 0:12:30, as such.

    Raises:
        ValueError: a time without seconds: a sheet takes what was meant as minutes and seconds for hours and minutes.
    """
    value = cell.value
    if isinstance(value, (datetime.time, datetime.timedelta, datetime.datetime)):
        if "s" not in cell.number_format.lower():
            raise ValueError(
                f"cell {cell.coordinate} is a time in hours and minutes, {value}: sheets read 1:15 so; format the "
                "column as text, or write h:mm:ss"
            )
        return _clock_text(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _clock_text(value: datetime.time | datetime.timedelta | datetime.datetime) -> str:
    if isinstance(value, datetime.timedelta):
        return f"{value.total_seconds():.6f}"
    hours = 24 * value.day if isinstance(value, datetime.datetime) else 0  # days since 1899-12-31, for over 24 hours
    return f"{hours + value.hour}:{value.minute:02d}:{value.second + value.microsecond / 1e6:09.6f}"
