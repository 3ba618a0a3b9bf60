"""Arrays come out of pickles; whatever else a pickle asks for does not happen."""

import collections
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_files import Code, cut_short, write_pickle

from pipeline.data.features import plain_pickle
from pipeline.data.features.plain_pickle import load_plain_pickle

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        NUMBERS,
        np.asfortranarray(NUMBERS),
        NUMBERS.astype(">f8"),
        NUMBERS.astype(np.float16)[:, ::2],
        NUMBERS > 2,
        np.zeros((0, 3)),
        np.array(3.0),
    ],
)
def test_arrays_come_back_as_they_were(tmp_path: Path, array: Any, protocol: int) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(array, protocol))
    loaded = load_plain_pickle(tmp_path / "a.pkl")
    np.testing.assert_array_equal(loaded, array)
    assert loaded.dtype == array.dtype


def test_containers_numbers_and_strings_stay(tmp_path: Path) -> None:
    tree = {"a": [NUMBERS, {"fps": 25.0, "name": "a"}], "n": (1, None, True), "mean": np.float64(0.5)}
    write_pickle(tmp_path / "a.pkl", collections.OrderedDict(tree))
    loaded = load_plain_pickle(tmp_path / "a.pkl")
    np.testing.assert_array_equal(loaded["a"][0], NUMBERS)
    assert loaded["a"][1] == {"fps": 25.0, "name": "a"}
    assert (loaded["n"], loaded["mean"]) == ([1, None, True], 0.5)


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """Its bytes are strings: protocol 2 with the array's contents as SHORT_BINSTRING."""
    python_3 = pickle.dumps(np.array([1.0, -2.0], "<f4"), 2)
    text = np.array([1.0, -2.0], "<f4").tobytes()
    start, end = python_3.rindex(b"h\x03X"), python_3.rindex(b"Rq") + 1  # _codecs.encode(text, "latin1")
    python_2 = python_3[:start] + b"U" + bytes([len(text)]) + text + python_3[end:]
    (tmp_path / "a.pkl").write_bytes(python_2)
    np.testing.assert_array_equal(load_plain_pickle(tmp_path / "a.pkl"), [1, -2])


@pytest.mark.parametrize("wrap", [lambda code: code, lambda code: {"a": NUMBERS, "b": [code]}, lambda code: {code: 1}])
def test_code_is_refused_and_does_not_run(tmp_path: Path, wrap: Any) -> None:
    write_pickle(tmp_path / "a.pkl", wrap(Code(tmp_path / "made")))
    with pytest.raises(ValueError, match=r"a\.pkl: it asks for posix\.mkdir|nt\.mkdir"):
        load_plain_pickle(tmp_path / "a.pkl")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "array",
    [np.array([{}, []], object), np.array([(1.0, None)], [("a", "f4"), ("b", object)]), np.array(["a"])],
    ids=["objects", "forged fields", "text"],
)
def test_arrays_of_other_things_are_refused(tmp_path: Path, array: Any) -> None:
    write_pickle(tmp_path / "a.pkl", array)
    with pytest.raises(ValueError, match="it holds an array of type"):
        load_plain_pickle(tmp_path / "a.pkl")


def test_numpys_other_functions_are_out_of_reach(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"cnumpy\nload\n(S'x.npy'\ntR.")
    with pytest.raises(ValueError, match=r"it asks for numpy\.load"):
        load_plain_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize(("module", "name"), plain_pickle._STAND_INS)
def test_a_pickle_cannot_set_attributes_of_what_it_names(tmp_path: Path, module: str, name: str) -> None:
    """Opcode BUILD does so where a state is (None, {attribute: value})."""
    known = plain_pickle._STAND_INS[module, name]
    before = dict(vars(known))
    program = f"c{module}\n{name}\n(N}}V__doc__\nVforged\nsV__name__\nVforged\nstb."
    (tmp_path / "a.pkl").write_bytes(program.encode())
    with suppress(ValueError):
        load_plain_pickle(tmp_path / "a.pkl")
    assert dict(vars(known)) == before
    assert (known.__name__, known.__doc__) != ("forged", "forged")


def test_every_way_to_cut_a_pickle_short_is_a_value_error(tmp_path: Path) -> None:
    whole = pickle.dumps({"a": NUMBERS, "b": NUMBERS.astype(">f4")}, 4)
    for length in range(len(whole)):
        (tmp_path / "a.pkl").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.pkl"):
            load_plain_pickle(tmp_path / "a.pkl")


def test_a_container_in_itself_is_refused(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    write_pickle(tmp_path / "a.pkl", endless)
    with pytest.raises(ValueError, match=r"a\.pkl"):
        load_plain_pickle(tmp_path / "a.pkl")


def test_half_a_file(tmp_path: Path) -> None:
    write_pickle(tmp_path / "a.pkl", NUMBERS)
    cut_short(tmp_path / "a.pkl")
    with pytest.raises(ValueError, match="not a whole pickle file"):
        load_plain_pickle(tmp_path / "a.pkl")
