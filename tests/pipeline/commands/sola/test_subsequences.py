"""Which rows a subsequence gathers, and that a batch holds those and their neighbours."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.sola.subsequences import MARGIN, Gathering, Subsequences, write_rows
from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline

CHANNELS = 3


def write_store(path: Path, rows: list[int]) -> FeatureStore:
    """Row i of video v is (v, i, v·i)."""
    with FeatureStore.create_or_resume(path, StoreHeader()) as store:
        for v, count in enumerate(rows):
            i = np.arange(count)
            features_TC = np.stack([np.full(count, v), i, v * i], axis=1).astype(np.float32)
            store.add(f"v{v}", features_TC, Timeline(0.0, 0.5, 0.5), count / 2)
    return store


def subsequences(folder: Path, rows: list[int], *, kernel_size: int = 5, per_video: int = 2) -> Subsequences:
    store = write_store(folder / "store", rows)
    first_V, _ = write_rows(folder / "rows.npy", store, list(store.videos))
    return Subsequences(folder / "rows.npy", first_V, np.array(rows), Gathering(3, 2), kernel_size, per_video, seed=0)


@pytest.mark.parametrize(("step", "length"), [(2, 23), (8, 65)])
def test_subsequences_are_as_long_as_those_of_the_authors(step: int, length: int) -> None:
    assert Gathering(8, step).length == length


@given(size=st.integers(2, 12), step=st.integers(1, 12), kernel_size=st.sampled_from([1, 3, 5, 7]))
def test_no_gathered_row_sees_the_end_of_its_subsequence(size: int, step: int, kernel_size: int) -> None:
    gathering, reach = Gathering(size, step), kernel_size // 2
    assert len(gathering.offsets) == size
    assert (np.diff(gathering.offsets) == step).all()
    assert gathering.offsets[0] >= MARGIN >= reach
    assert gathering.offsets[-1] + reach < gathering.length


@pytest.mark.parametrize("kernel_size", [1, 5])
def test_a_batch_holds_the_gathered_rows_of_one_video_each_and_their_neighbours(
    tmp_path: Path, kernel_size: int
) -> None:
    source = subsequences(tmp_path, [13, 20, 30], kernel_size=kernel_size)
    near_BSkC = source[[(4, index) for index in range(len(source))]].features
    assert near_BSkC.shape == (6, 3, kernel_size, CHANNELS)
    video_BSk, row_BSk = near_BSkC[..., 0], near_BSkC[..., 1]
    np.testing.assert_array_equal(video_BSk[:, 0, 0], [0, 1, 2, 0, 1, 2])
    assert (video_BSk == video_BSk[:, :1, :1]).all()
    assert (np.diff(row_BSk, axis=1) == 2).all()
    assert (np.diff(row_BSk, axis=2) == 1).all()
    assert (near_BSkC[..., 2] == video_BSk * row_BSk).all()


def test_draws_reach_every_place_and_no_other_and_change_with_the_epoch(tmp_path: Path) -> None:
    source = subsequences(tmp_path, [13, 16], per_video=1)  # a subsequence has 13 rows
    starts = np.array([source.starts(epoch) for epoch in range(200)])
    assert set(starts[:, 0]) == {0}
    assert set(starts[:, 1]) == {13, 14, 15, 16}
    np.testing.assert_array_equal(source.starts(7), source.starts(7))


def test_a_place_gives_the_same_rows_in_whatever_batch_it_comes(tmp_path: Path) -> None:
    source = subsequences(tmp_path, [20, 30])
    whole = source[[(3, index) for index in range(4)]].features
    np.testing.assert_array_equal(source[[(3, 2), (3, 1)]].features, whole[[2, 1]])


def test_videos_that_never_change_are_named(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [4, 5])
    with FeatureStore.create_or_resume(tmp_path / "store", StoreHeader()) as store:
        store.add("still", np.ones((6, CHANNELS), np.float32), Timeline(0.0, 0.5, 0.5), 3.0)
    first_V, constant = write_rows(tmp_path / "rows.npy", store, ["v0", "still", "v1"])
    assert constant == ["still"]
    np.testing.assert_array_equal(first_V, [0, 4, 10])
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy")[10:], store.load("v1"))


@pytest.mark.parametrize(("size", "step"), [(1, 8), (8, 0)])
def test_a_gathering_of_one_row_or_of_no_step_is_refused(size: int, step: int) -> None:
    with pytest.raises(ValueError, match="expected at least 2"):
        Gathering(size, step)
