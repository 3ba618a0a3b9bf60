from pathlib import Path

import numpy as np
import pytest
import reference_sola as reference
import torch
from torch import Tensor, nn

from pipeline.data.annotations import Segment, Video
from pipeline.data.features import FeatureStore, StoreHeader
from pipeline.data.snippets import Timeline
from pipeline.measures.linear_evaluation import foreground, labelled_rows, linear_evaluation, majority


def rows(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two classes that a line tells apart in most rows; the norm of a row says nothing."""
    random = np.random.default_rng(seed)
    labels_N = random.random(number) < 0.4
    features_NC = random.normal(size=(number, 3)) + 1.5 * labels_N[:, None] * np.array([1.0, -1.0, 0.0])
    features_NC *= random.uniform(0.1, 10, size=(number, 1))
    return torch.from_numpy(features_NC).float(), torch.from_numpy(labels_N)


def test_the_accuracy_of_each_epoch_is_that_of_the_definition() -> None:
    (train_NC, labels_N), (test_MC, test_labels_M) = rows(37, 0), rows(50, 1)
    settings = {"batch_size": 8, "lr": 0.3, "momentum": 0.9}
    torch.manual_seed(5)
    initial = nn.Linear(3, 2)
    generator = torch.Generator().manual_seed(5)
    expected = reference.linear_evaluation(
        train_NC.double().numpy(),
        labels_N.int().tolist(),
        test_MC.double().numpy(),
        test_labels_M.int().tolist(),
        weight_2C=initial.weight.detach().double().numpy(),
        bias_2=initial.bias.detach().double().numpy(),
        orders=[torch.randperm(37, generator=generator).tolist() for _ in range(6)],
        **settings,
    )
    found = linear_evaluation(train_NC, labels_N, test_MC, test_labels_M, epochs=6, seed=5, **settings)
    assert found == pytest.approx(expected)
    assert len(set(found)) > 2  # it learns something that the comparison can see
    assert found[-1] > majority(test_labels_M)


def test_the_seed_alone_decides_and_other_draws_are_left_alone() -> None:
    data = (*rows(40, 0), *rows(40, 1))
    torch.manual_seed(1)
    first = linear_evaluation(*data, epochs=3, lr=0.5, seed=3)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == drawn
    torch.manual_seed(2)
    assert linear_evaluation(*data, epochs=3, lr=0.5, seed=3) == first
    assert linear_evaluation(*data, epochs=3, lr=0.5, seed=4) != first


def test_majority_is_the_share_of_the_more_frequent_class() -> None:
    assert majority(torch.tensor([True, False, False, False])) == 75
    assert majority(torch.tensor([1, 1, 0])) == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("labels", "test_rows", "test_channels", "said"),
    [
        ([1, 1, 1], 2, 4, "3 of 3 training rows are foreground"),
        ([0, 0, 0], 2, 4, "0 of 3 training rows are foreground"),
        ([0, 1, 0], 0, 4, "no row to test on"),
        ([0, 1, 0], 2, 5, "4 channels in training, 5 in test"),
    ],
)
def test_rows_that_cannot_be_told_apart_are_errors(
    labels: list[int], test_rows: int, test_channels: int, said: str
) -> None:
    test_MC = torch.rand(test_rows, test_channels)
    with pytest.raises(ValueError, match=said):
        linear_evaluation(torch.rand(3, 4), torch.tensor(labels), test_MC, torch.zeros(test_rows))


def test_a_row_is_foreground_if_its_middle_lies_in_a_segment() -> None:
    timeline = Timeline(offset=1.0, stride=1.0, length=2.0)  # middles at 2, 3, 4, 5, 6
    segments = [Segment(3.0, 4.0, "a"), Segment(4.9, 5.1, "b"), Segment(0.0, 1.9, "c")]
    assert foreground(segments, timeline, 5).tolist() == [False, True, False, True, False]
    assert not foreground([], timeline, 5).any()


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Rows that say which they are: video a has 0 to 3, b 4 to 9, c 10."""
    with FeatureStore.create_or_resume(tmp_path / "store", StoreHeader()) as store:
        for video_id, first, number in (("a", 0, 4), ("b", 4, 6), ("c", 10, 1)):
            features_TC = np.arange(first, first + number, dtype=np.float32)[:, None]
            store.add(video_id, features_TC, Timeline(0.0, 1.0, 1.0), float(number))
    return store


def videos(*ids: str) -> dict[str, Video]:
    return {video_id: Video(video_id, None, "training", (Segment(0.0, 2.0, "a"),)) for video_id in ids}


def test_rows_of_videos_come_with_their_labels(store: FeatureStore) -> None:
    features_NC, labels_N = labelled_rows(store, videos("b", "a"), max_rows=10)
    assert features_NC[:, 0].tolist() == [4, 5, 6, 7, 8, 9, 0, 1, 2, 3]
    assert labels_N.tolist() == [True, True] + 4 * [False] + [True, True] + 2 * [False]


@pytest.mark.parametrize("max_rows", [1, 5, 10])
def test_of_too_many_rows_a_fixed_choice_is_taken(store: FeatureStore, max_rows: int) -> None:
    features_NC, labels_N = labelled_rows(store, videos("a", "b", "c"), max_rows)
    chosen = [int(row) for row in features_NC[:, 0]]
    assert len(set(chosen)) == max_rows
    assert chosen == sorted(chosen)
    assert labels_N.tolist() == [row in (0, 1, 4, 5, 10) for row in chosen]
    assert torch.equal(labelled_rows(store, videos("a", "b", "c"), max_rows)[0], features_NC)


def test_features_that_are_not_finite_are_an_error_that_names_the_video(store: FeatureStore) -> None:
    np.save(store.path / "b.npy", np.full((6, 1), np.nan, np.float32))
    with pytest.raises(ValueError, match="video 'b' are NaN"):
        labelled_rows(store, videos("a", "b"), max_rows=2)
