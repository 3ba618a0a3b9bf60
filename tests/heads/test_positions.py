"""The table of positions, and how it lies over sequences of any length."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from reference_actionformer import position

from heads.positions import PositionEmbedding, sinusoids


@pytest.mark.parametrize("channels", [6, 7])
def test_the_table_is_its_formula(channels: int) -> None:
    expected = [[position(channel, time, channels) for channel in range(channels)] for time in range(20)]
    torch.testing.assert_close(sinusoids(channels, 20), torch.tensor(expected))


@pytest.mark.parametrize("num_rows", [1, 7, 12, 13, 30, 200])
def test_over_longer_sequences_the_table_is_stretched(num_rows: int) -> None:
    embedding, table_CT = PositionEmbedding(6, 12), sinusoids(6, 12).mT
    expected = F.interpolate(table_CT[None], num_rows, mode="linear")[0] if num_rows > 12 else table_CT[:, :num_rows]
    added = embedding(torch.ones(1, 6, num_rows), torch.ones(1, num_rows, dtype=torch.bool))[0] - 1
    torch.testing.assert_close(added, expected, rtol=0, atol=1e-5)


def test_the_length_is_that_of_each_sequence_and_padding_gets_nothing() -> None:
    embedding, lengths = PositionEmbedding(6, 12), [5, 40, 0]
    valid_BT = torch.arange(40) < torch.tensor(lengths)[:, None]
    added = embedding(torch.zeros(3, 6, 40), valid_BT)
    for added_CT, length in zip(added, lengths, strict=True):
        alone = embedding(torch.zeros(1, 6, length), torch.ones(1, length, dtype=torch.bool))[0]
        torch.testing.assert_close(added_CT[:, :length], alone)
        assert not added_CT[:, length:].any()


def test_nothing_is_learned_or_saved() -> None:
    assert not PositionEmbedding(6, 12).state_dict()
