"""Linear evaluation: how well one linear layer tells the foreground's rows from the background's (SoLa, Fig. 6).

A row is foreground if its middle lies in a segment. The classifier sees L2-normalised rows; it trains with SGD at the
settings of SoLa's supplement (Table 4b), on the rows as they are: neither class is weighted or drawn more often. So the
accuracy is to be held against the share of the more frequent class (`majority`).

Shapes: T rows (snippets) of a video, C channels, N rows of the training subset, M of the validation subset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.data.annotations import Segment, Video
from pipeline.data.features import FeatureStore, load_finite
from pipeline.data.snippets import Timeline

EPOCHS, BATCH_SIZE, LEARNING_RATE, MOMENTUM = 100, 256, 0.01, 0.9


def foreground(segments: Iterable[Segment], timeline: Timeline, num_rows: int) -> NDArray[np.bool_]:
    """Which rows of a video have their middle in a segment (its end is outside), (T,)."""
    centers_T = timeline.centers(num_rows)
    inside_T = np.zeros(num_rows, dtype=bool)
    for segment in segments:
        inside_T |= (segment.start <= centers_T) & (centers_T < segment.end)
    return inside_T


def labelled_rows(store: FeatureStore, videos: Mapping[str, Video], max_rows: int) -> tuple[Tensor, Tensor]:
    """Rows of some videos, by their ids in the store: features (N, C), and whether they are foreground (N,).

    Of more than `max_rows` rows it takes that many at random, the same of every store with the same rows.
    """
    counts_V = np.array([store.videos[video_id].rows for video_id in videos])
    ends_V = np.cumsum(counts_V)
    taken = np.arange(ends_V[-1])
    if len(taken) > max_rows:
        taken = np.sort(np.random.default_rng(0).choice(len(taken), max_rows, replace=False))
    places_V = np.split(np.arange(len(taken)), np.searchsorted(taken, ends_V[:-1]))
    features_NC = np.empty((len(taken), store.videos[next(iter(videos))].channels), np.float32)
    labels_N = np.empty(len(taken), bool)
    for (video_id, video), places, start in zip(videos.items(), places_V, ends_V - counts_V, strict=True):
        stored, rows = store.videos[video_id], taken[places] - start
        features_NC[places] = load_finite(store, video_id)[rows]
        labels_N[places] = foreground(video.segments, stored.timeline, stored.rows)[rows]
    return torch.from_numpy(features_NC), torch.from_numpy(labels_N)


def majority(labels_M: Tensor) -> float:
    """Accuracy, in percent, of always answering with the more frequent class."""
    share = labels_M.double().mean().item()
    return 100 * max(share, 1 - share)


def linear_evaluation(
    train_features_NC: Tensor,
    train_labels_N: Tensor,
    test_features_MC: Tensor,
    test_labels_M: Tensor,
    *,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    lr: float = LEARNING_RATE,
    momentum: float = MOMENTUM,
    seed: int = 0,
) -> list[float]:
    """Train a linear classifier on some rows and test it on others, all on the tensors' device.

    Args:
        train_features_NC, test_features_MC: rows, not normalised.
        train_labels_N, test_labels_M: 1 foreground, 0 background; integers or booleans.
        epochs: passes over the training rows.
        seed: fixes initial weights and order; the same for features of one size, so that these can be compared.

    Returns:
        Test accuracy after each epoch, in percent.

    Raises:
        ValueError: the training rows are all of one class, there is no test row, or C differs.
    """
    _check(train_features_NC, train_labels_N, test_features_MC)
    train_NC, test_MC = F.normalize(train_features_NC, dim=1), F.normalize(test_features_MC, dim=1)
    train_labels_N, test_labels_M = train_labels_N.long(), test_labels_M.long()
    classifier = _classifier(train_NC, seed)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=lr, momentum=momentum)
    generator = torch.Generator().manual_seed(seed)
    accuracies = []
    for _ in range(epochs):
        order_N = torch.randperm(len(train_NC), generator=generator).to(train_NC.device)
        for batch in torch.split(order_N, batch_size):
            loss = F.cross_entropy(classifier(train_NC[batch]), train_labels_N[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.inference_mode():
            correct_M = classifier(test_MC).argmax(dim=1) == test_labels_M
        accuracies.append(100 * correct_M.double().mean().item())
    return accuracies


def _check(train_features_NC: Tensor, train_labels_N: Tensor, test_features_MC: Tensor) -> None:
    num_foreground, num_rows = int(train_labels_N.sum()), len(train_labels_N)
    if num_foreground in (0, num_rows):
        raise ValueError(
            f"linear evaluation: {num_foreground} of {num_rows} training rows are foreground; it needs both kinds"
        )
    if len(test_features_MC) == 0:
        raise ValueError("linear evaluation: there is no row to test on")
    if train_features_NC.shape[1] != test_features_MC.shape[1]:
        raise ValueError(
            f"linear evaluation: {train_features_NC.shape[1]} channels in training, {test_features_MC.shape[1]} in test"
        )


def _classifier(like_NC: Tensor, seed: int) -> nn.Linear:
    """Linear(C → 2), drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = nn.Linear(like_NC.shape[1], 2)
    return classifier.to(like_NC)
