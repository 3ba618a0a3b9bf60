"""Files of features as others write them: each format's way to put down arrays, whole, cut short or with code in it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch


class Code:
    """What makes a folder `path` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def write_csv(path: Path, array: Any) -> None:
    header = ",".join(f"f{channel}" for channel in range(array.shape[-1]))
    np.savetxt(path, array, delimiter=",", header=header, comments="", fmt="%.7g")


def write_pickle(path: Path, tree: Any) -> None:
    path.write_bytes(pickle.dumps(tree))


def write_hdf5(path: Path, arrays: Mapping[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def write_torch(path: Path, tree: Any) -> None:
    torch.save(tree, path)


ONE_ARRAY: dict[str, Callable[[Path, Any], None]] = {
    ".npy": lambda path, array: np.save(path, array),
    ".npz": lambda path, array: np.savez(path, features=array),
    ".csv": write_csv,
    ".h5": lambda path, array: write_hdf5(path, {"features": array}),
    ".pkl": write_pickle,
    ".pt": lambda path, array: write_torch(path, torch.from_numpy(array)),
}
"""Writes one array, by suffix."""

MANY_ARRAYS: dict[str, Callable[[Path, Mapping[str, Any]], None]] = {
    ".npz": lambda path, arrays: np.savez(path, **arrays),
    ".hdf5": write_hdf5,
    ".pkl": lambda path, arrays: write_pickle(path, dict(arrays)),
    ".pt": lambda path, arrays: write_torch(path, {name: torch.from_numpy(array) for name, array in arrays.items()}),
}
"""Writes arrays by name, by suffix."""

WITH_CODE: dict[str, Callable[[Path, Code], None]] = {
    ".npy": lambda path, code: np.save(path, np.array([code], object), allow_pickle=True),
    ".npz": lambda path, code: np.savez(path, features=np.array([code], object)),
    ".pkl": lambda path, code: write_pickle(path, {"features": code}),
    ".pt": lambda path, code: write_torch(path, {"features": code}),
}
"""Writes a file that runs code in a reader that lets it, by suffix."""


def damage_header(path: Path) -> None:
    """Of a .npy file, so that numpy ends in an error of Python's tokenizer."""
    path.write_bytes(path.read_bytes().replace(b"{", b"z", 1))


def cut_short(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
