"""Pickle files of plain arrays, read without running anything that they hold.

A pickle is a small program that names functions and calls them. This reader knows only the few names with which numpy
writes an array down, and has its own stand-ins for them, which take in a type, a shape and bytes and do nothing else.
Whatever else a file names is refused before it is called. numpy's own functions stay out of it, too: a forged type
description could make them take numbers for addresses.

A pickle may name one part many times. `replace_leaves` bounds what a tree of such parts grows to.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PARTS = 1_000_000
"""What a file of fewer bytes may hold when all that it repeats is counted again. Others hold a part a byte at most."""

_NUMBERS = re.compile("b1|[iu][1248]|f[248]")


class _RefusedError(Exception):
    """A file asks for something that is no plain array."""


def load_plain_pickle(file: Path) -> Any:
    """What a pickle holds: arrays of numbers, and dicts, lists, tuples, numbers and strings around them.

    Raises:
        ValueError: the file names anything else, which is then not run, or is damaged; names the file.
    """
    try:
        with file.open("rb") as stream:
            tree = _PlainUnpickler(stream, encoding="latin1").load()  # latin1: arrays of Python 2
        return replace_leaves(tree, _array_in, file)
    except OSError:
        raise
    except _RefusedError as error:
        raise ValueError(
            f"{file}: {error}, which could run code, so it was not read. If you trust the file, load it yourself and "
            "save the arrays alone: np.savez('features.npz', **arrays)"
        ) from error
    except Exception as error:  # a damaged pickle can lead to any
        raise ValueError(f"{file}: not a whole pickle file ({error})") from error


def replace_leaves(tree: Any, replace: Callable[[Any], Any], file: Path) -> Any:
    """The tree with dicts, lists for lists and tuples, and `replace` of everything else.

    Raises:
        ValueError: the tree has more parts than its file has bytes, and more than `MAX_PARTS`.
    """
    left = max(MAX_PARTS, file.stat().st_size)

    def replaced(tree: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("its parts hold each other so often that it would never end")
        if isinstance(tree, Mapping):
            return {key: replaced(value) for key, value in tree.items()}
        if isinstance(tree, (list, tuple)):
            return [replaced(value) for value in tree]
        return replace(tree)

    return replaced(tree)


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise _RefusedError(f"it asks for {module}.{name}")
        return lambda *arguments: known(*arguments)  # a new one each time: a pickle may set attributes of what it names


class _DType:
    """Stands in for `numpy.dtype`: a type of numbers."""

    def __init__(self, name: str, *_: object) -> None:
        if not _NUMBERS.fullmatch(name):
            raise _RefusedError(f"it holds an array of type {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])  # (version, byte order, ...)


class _Array:
    """Stands in for `numpy.ndarray`, whose contents come after it was made."""

    array: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.array = _array_of(data, dtype, shape, "F" if is_fortran else "C")


def _array_of(data: bytes | bytearray | str, dtype: _DType, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: _DType, data: bytes | str) -> Any:
    return _array_of(data, dtype, (), "C").item()


def _latin1(text: str, _: str) -> bytes:
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_of,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): bytes,  # none, as the protocols before 3 write them
    ("collections", "OrderedDict"): dict,
}


def _array_in(leaf: Any) -> Any:
    return leaf.array if isinstance(leaf, _Array) else leaf
