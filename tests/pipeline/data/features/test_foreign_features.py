"""Others' files are found and read, or refused with their name; none runs code."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from foreign_files import MANY_ARRAYS, ONE_ARRAY, WITH_CODE, Code, cut_short, write_hdf5, write_pickle, write_torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.features.foreign_features import ForeignFeatures, _name_pattern

NUMBERS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def write_npy(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, NUMBERS)


# --- Formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ONE_ARRAY)
def test_a_folder_of_any_format(tmp_path: Path, suffix: str) -> None:
    ONE_ARRAY[suffix](tmp_path / f"a{suffix}", NUMBERS)
    features = ForeignFeatures(tmp_path)
    assert list(features.places) == ["a"]
    np.testing.assert_allclose(features.load("a"), NUMBERS, rtol=1e-6)


@pytest.mark.parametrize("suffix", MANY_ARRAYS)
def test_a_file_of_many_videos(tmp_path: Path, suffix: str) -> None:
    MANY_ARRAYS[suffix](tmp_path / f"all{suffix}", {"a": NUMBERS, "b": NUMBERS[:2]})
    features = ForeignFeatures(tmp_path / f"all{suffix}")
    assert list(features.places) == ["a", "b"]
    np.testing.assert_array_equal(features.load("b"), NUMBERS[:2])


@pytest.mark.parametrize("suffix", MANY_ARRAYS)
def test_groups_by_a_pattern(tmp_path: Path, suffix: str) -> None:
    """As in GTEA's archives, and ActivityNet's C3D file."""
    MANY_ARRAYS[suffix](tmp_path / f"all{suffix}", {"v_a/A": NUMBERS, "v_a/X": NUMBERS[:1], "v_b/A": NUMBERS[:2]})
    features = ForeignFeatures(tmp_path / f"all{suffix}", pattern="v_{video}/A")
    assert list(features.places) == ["a", "b"]
    assert features.ignored == ["v_a/X"]
    np.testing.assert_array_equal(features.load("b"), NUMBERS[:2])


@pytest.mark.parametrize("suffix", ONE_ARRAY)
def test_half_a_file_is_refused_with_its_name(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    ONE_ARRAY[suffix](file, NUMBERS)
    cut_short(file)
    with pytest.raises(ValueError, match=rf"a\{suffix}: "):
        ForeignFeatures(tmp_path).load("a")


@pytest.mark.parametrize("suffix", ONE_ARRAY)
@pytest.mark.parametrize("content", [b"", b"no array", b"\x80\x04"])
def test_a_file_of_something_else_is_refused_with_its_name(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\{suffix}: "):
        ForeignFeatures(tmp_path).load("a")


@pytest.mark.parametrize("suffix", ONE_ARRAY)
@pytest.mark.parametrize("flipped", [0x01, 0x04, 0xFF])
def test_any_flipped_byte_gives_other_numbers_or_a_refusal_with_the_name(
    tmp_path: Path, suffix: str, flipped: int
) -> None:
    """numpy, torch and h5py have nothing that they would not raise."""
    file = tmp_path / f"a{suffix}"
    ONE_ARRAY[suffix](file, NUMBERS)
    whole = file.read_bytes()
    refusals = []
    for position in range(0, len(whole), 1 + len(whole) // 300):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ flipped]) + whole[position + 1 :])
        try:
            ForeignFeatures(tmp_path).load("a")
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > 5
    assert all(str(file) in refusal for refusal in refusals)


@pytest.mark.parametrize("suffix", WITH_CODE)
def test_code_is_refused_and_does_not_run(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    WITH_CODE[suffix](folder / f"a{suffix}", Code(tmp_path / "made"))
    with pytest.raises(ValueError, match=rf"a\{suffix}.* could run code"):
        ForeignFeatures(folder).load("a")
    assert not (tmp_path / "made").exists()


def test_hdf5_holds_no_code_that_could_run(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.void(b"cposix\nmkdir\n(S'made'\ntR.")
        file["b"] = "text"
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    features = ForeignFeatures(tmp_path / "a.h5")
    assert list(features.places) == ["a", "b"]
    for name in features.places:
        with pytest.raises(ValueError, match=rf"a\.h5, {name}: holds .*, expected floating-point"):
            features.load(name)


@pytest.mark.parametrize("cut", [False, True])
def test_torch_files_of_the_form_before_1_6(tmp_path: Path, cut: bool) -> None:
    file = tmp_path / "a.pt"
    torch.save(torch.from_numpy(NUMBERS), file, _use_new_zipfile_serialization=False)
    if not cut:
        np.testing.assert_array_equal(ForeignFeatures(tmp_path).load("a"), NUMBERS)
        return
    cut_short(file)
    with pytest.raises(ValueError, match=r"a\.pt: "):
        ForeignFeatures(tmp_path).load("a")


@pytest.mark.parametrize("suffix", [".pkl", ".pt"])
def test_lists_that_hold_one_list_many_times_are_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some hundred bytes that would grow to 2^40 numbers."""
    monkeypatch.setattr("pipeline.data.features.plain_pickle.MAX_PARTS", 10_000)
    tree: list[Any] = [0.0]
    for _ in range(40):
        tree = [tree, tree]
    {".pkl": write_pickle, ".pt": write_torch}[suffix](tmp_path / f"a{suffix}", {"features": tree})
    with pytest.raises(ValueError, match=rf"a\{suffix}: .*its parts hold each other so often"):
        ForeignFeatures(tmp_path).load("a")


def test_tensors_of_any_kind(tmp_path: Path) -> None:
    tensors = {"grad": torch.ones(2, 3, requires_grad=True), "brain": torch.ones(2, 3, dtype=torch.bfloat16)}
    write_torch(tmp_path / "all.pt", tensors | {"rows": [torch.ones(3), torch.ones(3)]})
    features = ForeignFeatures(tmp_path / "all.pt")
    for name in ("grad", "brain", "rows"):
        np.testing.assert_array_equal(features.load(name), np.ones((2, 3)))


def test_what_is_no_array_in_a_pickle_is_passed_over(tmp_path: Path) -> None:
    write_pickle(tmp_path / "a.pkl", {"features": NUMBERS, "fps": 25.0, "names": ["x", "y"], "more": {"id": 3}})
    np.testing.assert_array_equal(ForeignFeatures(tmp_path).load("a"), NUMBERS)
    write_pickle(tmp_path / "a.pkl", {"fps": 25.0})
    with pytest.raises(ValueError, match=r"a\.pkl: holds no array"):
        ForeignFeatures(tmp_path).load("a")


def test_a_file_of_several_arrays_needs_a_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=NUMBERS, other=NUMBERS[:1])
    with pytest.raises(
        ValueError, match=r"a\.npz: holds 2 arrays \(features, other\), .* --key, .* --features .*a\.npz"
    ):
        ForeignFeatures(tmp_path).load("a")
    np.testing.assert_array_equal(ForeignFeatures(tmp_path, key="features").load("a"), NUMBERS)
    np.testing.assert_array_equal(ForeignFeatures(tmp_path / "a.npz", key="features").load("a"), NUMBERS)
    with pytest.raises(ValueError, match=r"a\.npz, none: "):
        ForeignFeatures(tmp_path, key="none").load("a")


def test_whole_numbers_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 3), np.int64))
    with pytest.raises(ValueError, match=r"a\.npy: holds int64, expected floating-point"):
        ForeignFeatures(tmp_path).load("a")


@pytest.mark.parametrize(("written", "named"), [(".npy", ".npz"), (".npz", ".npy")])
def test_an_archive_under_the_name_of_an_array(tmp_path: Path, written: str, named: str) -> None:
    ONE_ARRAY[written](tmp_path / f"a{written}", NUMBERS)
    (tmp_path / f"a{written}").rename(tmp_path / f"a{named}")
    with pytest.raises(ValueError, match=rf"a\{named}: cannot be read"):
        ForeignFeatures(tmp_path).load("a")


# --- csv --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "f0,f1,f2\n1,2,3\n4,5,6\n",
        "1,2,3\n4,5,6",
        "1;2;3\r\n4;5;6\r\n",
        "\ufeffrgb0\trgb1\trgb2\n1\t2\t3\n4\t5\t6\n\n",
        "0,1,2\n1,2,3\n4,5,6\n",  # column numbers, as pandas names them
        ",0,1,2\n0,1,2,3\n1,4,5,6\n",  # and with the row numbers
        '"f0","f1","f2"\n1e0,2.0,+3\n4,5,6\n',
    ],
)
def test_csv_with_and_without_a_header(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    np.testing.assert_array_equal(ForeignFeatures(tmp_path).load("a"), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("f0,f1\n", "a header and no line"),
        ("f0,f1,f2\n1,2\n3,4\n", "2 numbers a line, but 3 names"),
        ("1,2,3\n4,5\n", "cannot be read"),
        ("f0,f1\n1,2\n3,x\n", "cannot be read"),
        ("\n\n", "is empty"),
    ],
)
def test_csv_files_that_are_not_whole(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.csv: .*{said}"):
        ForeignFeatures(tmp_path).load("a")


# --- Names ------------------------------------------------------------------------------------------------------------


def test_subfolders_are_searched_and_other_files_passed_over(tmp_path: Path) -> None:
    """As HACS' features are laid out."""
    write_npy(tmp_path / "training/a.npy", tmp_path / "validation/b.mp4.npy", tmp_path / "._c.npy")
    (tmp_path / "README.txt").touch()
    assert list(ForeignFeatures(tmp_path).places) == ["a", "b"]


def test_two_files_of_one_video_are_an_error_that_names_both(tmp_path: Path) -> None:
    write_npy(tmp_path / "training/a.npy", tmp_path / "validation/a.npy")
    with pytest.raises(ValueError, match=r"video 'a': .*training.a\.npy and .*validation.a\.npy; .* --pattern"):
        ForeignFeatures(tmp_path)
    features = ForeignFeatures(tmp_path, pattern="validation/{video}")
    assert features.places["a"].file == tmp_path / "validation" / "a.npy"
    assert features.ignored == ["training/a"]


def test_a_pattern_takes_the_id_out_of_file_names(tmp_path: Path) -> None:
    write_npy(tmp_path / "x/a_rgb.npy", tmp_path / "x/a_flow.npy", tmp_path / "y/v_b_rgb.npy")
    assert list(ForeignFeatures(tmp_path, pattern="{video}_rgb").places) == ["a", "v_b"]
    assert list(ForeignFeatures(tmp_path, pattern="*/v_{video}_rgb").places) == ["b"]


@given(st.text("ab1_-.[(*", min_size=1), st.text("v_./+(", max_size=4), st.text("-_/)A", max_size=4))
def test_a_pattern_finds_the_id_that_was_put_in(video: str, before: str, after: str) -> None:
    pattern = f"{before}{{video}}{after}".strip("/")
    match = _name_pattern(pattern).fullmatch(pattern.replace("{video}", video))
    assert match is not None
    assert match["video"] == video


@pytest.mark.parametrize("pattern", ["features", "{video}/{video}", "{id}"])
def test_a_pattern_holds_the_video_once(tmp_path: Path, pattern: str) -> None:
    write_npy(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"must hold \{video\} once"):
        ForeignFeatures(tmp_path, pattern=pattern)


@pytest.mark.parametrize("pattern", [None, "u_{video}"])
def test_names_that_do_not_fit_are_shown(tmp_path: Path, pattern: Any) -> None:
    write_hdf5(tmp_path / "all.h5", {"v_a/features": NUMBERS, "v_b/features": NUMBERS})
    with pytest.raises(ValueError, match=r"found v_a/features, v_b/features\. Give --pattern"):
        ForeignFeatures(tmp_path / "all.h5", pattern=pattern)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        ForeignFeatures(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"holds no file of features.*\.npy .*\.pt"):
        ForeignFeatures(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"a\.txt: expected a folder, or a file that ends in \.npy"):
        ForeignFeatures(tmp_path / "a.txt")
    (tmp_path / "manifest.jsonl").touch()
    with pytest.raises(ValueError, match="a feature store already"):
        ForeignFeatures(tmp_path)
