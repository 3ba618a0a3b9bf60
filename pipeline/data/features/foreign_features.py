"""Features that others made: which file, and which array in it, holds a video's numbers.

Two layouts: a folder, with subfolders, of files that hold one video each; and one file that holds many. Formats:

    .npy                 one array
    .csv                 one array, a line a row, with or without a header
    .npz, .h5, .hdf5     arrays by name, such as `v_abc/features`
    .pkl, .pt            one array, or arrays by name in dicts, also nested: `v_abc/features` again

No file can run code: object arrays are not loaded, .pt goes through torch's reader of weights, .pkl through
`pipeline.data.features.plain_pickle`. torch and h5py are imported where such a file is read.

Shapes are as the files have them; `pipeline.data.features.feature_axes` tells which axis is time.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.features import MANIFEST
from pipeline.data.features.plain_pickle import load_plain_pickle, replace_leaves
from pipeline.data.files import strip_video_suffix, walk_files
from pipeline.terminal.notes import some

_OBJECTS = (
    "is damaged, or holds Python objects that could run code when they are loaded, so it was not read. If you trust "
    "it, load it yourself and save its numbers alone: np.save('features.npy', array)"
)


class Place(NamedTuple):
    """Where a video's array is: a file, and its name there; None: the only one."""

    file: Path
    name: str | None

    def __str__(self) -> str:
        return str(self.file) if self.name is None else f"{self.file}, {self.name}"


class Arrays(NamedTuple):
    """The arrays of an open file, each loaded when asked for. A single nameless one is called ''."""

    names: list[str]
    load: Callable[[str], Any]


# --- Finding ----------------------------------------------------------------------------------------------------------


class ForeignFeatures:
    """Others' features by video id.

    Args:
        path: a folder of files, or one file.
        pattern: what the name of a video's features looks like, `{video}` standing for its id and `*` for anything.
            In a folder, of the file, without its suffix: its path below the folder if the pattern holds a `/`, else
            its last part alone. In a file of many videos, of the array.
        key: name of the array in each file, where files hold one video but several arrays.

    Attributes:
        places: where each video's array is, by id, in the order of files or of the arrays in the one file.
        ignored: names that the pattern does not fit.

    Raises:
        FileNotFoundError: no such path.
        ValueError: nothing is found, two arrays are of one video, or the one file cannot be read.
    """

    def __init__(self, path: Path, *, pattern: str | None = None, key: str | None = None) -> None:
        self.ignored: list[str] = []
        self._open: tuple[Path, Arrays] | None = None
        if path.is_dir():
            named = _files_in(path, by_path=pattern is not None and "/" in pattern)
            found = [(name, Place(file, key)) for name, file in named]
        elif path.is_file():
            found = self._in_one_file(path, key)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder of features")
        self.places = self._by_id(found, _name_pattern(pattern))
        if not self.places:
            raise ValueError(_nothing_fits(path, pattern, [name for name, _ in found]))

    def load(self, video_id: str) -> NDArray[np.floating]:
        """The array of a video, in its file's shape and type; .npy files are memory-mapped.

        Raises:
            ValueError: it cannot be read, holds no floating-point numbers, or is one of several; names the place.
        """
        place = self.places[video_id]
        arrays = self._arrays(place.file)
        name = _only_name(place.file, arrays) if place.name is None else place.name
        with _reading(place):
            array: NDArray[np.floating] = np.asarray(arrays.load(name))
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"{place}: holds {array.dtype}, expected floating-point numbers")
        return array

    def _arrays(self, file: Path) -> Arrays:
        """The file's arrays; the file read last stays open, so that one with many videos is read once."""
        if self._open is None or self._open[0] != file:
            self._open = (file, READERS[file.suffix.lower()](file))
        return self._open[1]

    def _in_one_file(self, file: Path, key: str | None) -> list[tuple[str, Place]]:
        if file.suffix.lower() not in READERS:
            raise ValueError(f"{file}: expected a folder, or a file that ends in {' '.join(READERS)}")
        names = [""] if key is not None else self._arrays(file).names
        return [(file.stem, Place(file, key))] if names == [""] else [(name, Place(file, name)) for name in names]

    def _by_id(self, found: Iterable[tuple[str, Place]], pattern: re.Pattern[str]) -> dict[str, Place]:
        places: dict[str, Place] = {}
        for name, place in found:
            match = pattern.fullmatch(name)
            if match is None:
                self.ignored.append(name)
                continue
            video_id = strip_video_suffix(match["video"])
            if video_id in places:
                raise ValueError(
                    f"two features are of video {video_id!r}: {places[video_id]} and {place}; rename or remove one, "
                    "or choose by --pattern, such as 'training/{video}'"
                )
            places[video_id] = place
        return places


def _files_in(folder: Path, *, by_path: bool) -> list[tuple[str, Path]]:
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder}: is a feature store already; use it as it is")
    files = walk_files(folder, READERS)
    if not files:
        raise ValueError(f"{folder}: holds no file of features, one a video; they are known by {' '.join(READERS)}")
    return [(file.relative_to(folder).with_suffix("").as_posix() if by_path else file.stem, file) for file in files]


def _name_pattern(pattern: str | None) -> re.Pattern[str]:
    pattern = "{video}" if pattern is None else pattern.strip("/")
    if pattern.count("{video}") != 1:
        raise ValueError(
            f"--pattern {pattern}: must hold {{video}} once, where the video's id stands; an array that has the same "
            f"name in each file is chosen by --key"
        )
    before, after = (re.escape(part).replace(r"\*", "[^/]*") for part in pattern.split("{video}"))
    return re.compile(f"{before}(?P<video>[^/]+){after}")


def _nothing_fits(path: Path, pattern: str | None, names: list[str]) -> str:
    asked = "is a plain video id" if pattern is None else f"fits --pattern {pattern}"
    return f"{path}: no name in it {asked}; found {some(names)}. Give --pattern, such as 'v_{{video}}/features'"


def _only_name(file: Path, arrays: Arrays) -> str:
    if len(arrays.names) == 1:
        return arrays.names[0]
    raise ValueError(
        f"{file}: holds {len(arrays.names)} arrays ({some(arrays.names)}), expected one; choose it by --key, or, if "
        f"this file holds many videos, give it alone: --features {file}"
    )


# --- Reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def _reading(place: Path | Place) -> Iterator[None]:
    """What goes wrong in a library while it reads becomes a ValueError that names the place."""
    try:
        yield
    except Exception as error:  # a damaged file makes them raise nearly anything
        why = str(error) or type(error).__name__
        in_numpys_words = "allow_pickle" in why or "Python objects" in why
        holds_objects = in_numpys_words or isinstance(error, pickle.UnpicklingError)
        raise ValueError(f"{place}: {_OBJECTS if holds_objects else f'cannot be read ({why})'}") from error


def _read_npy(file: Path) -> Arrays:
    with _reading(file):
        array = np.lib.format.open_memmap(file, mode="r")
    return Arrays([""], {"": array}.__getitem__)


def _read_npz(file: Path) -> Arrays:
    with _reading(file):
        archive = zipfile.ZipFile(file)

    def load(name: str) -> Any:
        with archive.open(f"{name}.npy") as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    return Arrays([name[:-4] for name in archive.namelist() if name.endswith(".npy")], load)


def _read_hdf5(file: Path) -> Arrays:
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"{file}: HDF5 files need h5py: pip install 'tal-pipeline[hdf5]'") from error
    names: list[str] = []
    with _reading(file):
        opened = h5py.File(file, "r")
        opened.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return Arrays(names, lambda name: opened[name][()])


def _read_csv(file: Path) -> Arrays:
    """Lines of numbers. A header is a first line of names, or the column numbers 0, 1, 2, ... that pandas writes.

    A column without a name before the others is pandas' row number, and left out.
    """
    with _reading(file):
        lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{file}: is empty")
    delimiter = max(",;\t", key=lines[0].count)
    first = [cell.strip().strip('"') for cell in lines[0].split(delimiter)]
    has_header = not _is_numbers(first) or first == [str(column) for column in range(len(first))]
    if len(lines) == has_header:
        raise ValueError(f"{file}: holds a header and no line of numbers")
    with _reading(file):
        rows_TC = np.loadtxt(lines[has_header:], dtype=np.float32, delimiter=delimiter, ndmin=2, comments=None)
    if rows_TC.shape[1] != len(first):
        raise ValueError(f"{file}: {rows_TC.shape[1]} numbers a line, but {len(first)} names in the header")
    features_TC = rows_TC[:, 1:] if has_header and first[0] == "" else rows_TC
    return Arrays([""], {"": features_TC}.__getitem__)


def _is_numbers(cells: Iterable[str]) -> bool:
    try:
        return all(isinstance(float(cell), float) for cell in cells)
    except ValueError:
        return False


def _read_pickle(file: Path) -> Arrays:
    return _named_arrays(file, load_plain_pickle(file))


def _read_torch(file: Path) -> Arrays:
    import torch

    def to_numpy(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return (leaf.float() if leaf.dtype == torch.bfloat16 else leaf).detach().numpy()
        return leaf

    with _reading(file):
        tree = replace_leaves(torch.load(file, map_location="cpu", weights_only=True), to_numpy, file)
    return _named_arrays(file, tree)


def _named_arrays(file: Path, tree: Any) -> Arrays:
    with _reading(file):
        arrays = _flat(tree)
    if not arrays:
        raise ValueError(f"{file}: holds no array of numbers")
    return Arrays(list(arrays), arrays.__getitem__)


def _flat(tree: Any, name: str = "") -> dict[str, NDArray[Any]]:
    """The arrays in nested dicts, keys joined by `/`. A list of equally long rows is an array, other things are not."""
    if isinstance(tree, Mapping):
        nested = (_flat(value, f"{name}/{key}" if name else str(key)) for key, value in tree.items())
        return {key: array for arrays in nested for key, array in arrays.items()}
    if isinstance(tree, list):
        try:
            return {name: np.asarray(tree, np.float32)}
        except (ValueError, TypeError):
            return {}
    return {name: tree} if isinstance(tree, np.ndarray) else {}


READERS: dict[str, Callable[[Path], Arrays]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".pkl": _read_pickle,
    ".pickle": _read_pickle,
    ".pt": _read_torch,
    ".pth": _read_torch,
}
"""What opens a file, by its suffix."""
