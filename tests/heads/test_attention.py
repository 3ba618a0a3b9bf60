"""Attention in blocks against the dense form, and how much memory it takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from largest_tensor import LargestTensor
from reference_actionformer import attention as dense

from heads.attention import BLOCK, global_attention, local_attention


def rows(num_rows: int, seed: int = 0) -> list[torch.Tensor]:
    """Queries, keys and values: 2 sequences, 2 heads of width 3, with scores far apart."""
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(2, 2, num_rows, 3, generator=generator) for _ in range(3)]


def assert_dense(out: torch.Tensor, parts: list[torch.Tensor], valid_BT: torch.Tensor, radius: float) -> None:
    for video in range(2):
        for head in range(2):
            query, key, value = (part[video, head].double().numpy() for part in parts)
            expected = dense(query, key, value, valid_BT[video].tolist(), radius)
            np.testing.assert_allclose(out[video, head].numpy(), expected, rtol=0, atol=1e-5)


@given(st.data())
def test_local_attention_is_dense_attention_within_a_window(data: st.DataObject) -> None:
    num_rows, radius = data.draw(st.integers(1, 3 * BLOCK + 5)), data.draw(st.integers(0, 20))
    flags = st.lists(st.booleans(), min_size=num_rows, max_size=num_rows)
    valid_BT = torch.tensor([data.draw(flags), data.draw(flags)])
    parts = rows(num_rows, data.draw(st.integers(0, 100)))
    assert_dense(local_attention(*parts, valid_BT, 2 * radius + 1), parts, valid_BT, radius)


@pytest.mark.parametrize("radius", [BLOCK, 2 * BLOCK + 1])
def test_windows_longer_than_a_block(radius: int) -> None:
    parts, valid_BT = rows(3 * BLOCK), torch.ones(2, 3 * BLOCK, dtype=torch.bool)
    assert_dense(local_attention(*parts, valid_BT, 2 * radius + 1), parts, valid_BT, radius)


def test_global_attention_sees_all_rows_but_padding() -> None:
    parts = rows(9)
    valid_BT = torch.tensor([[True] * 9, [True] * 4 + [False] * 5])
    assert_dense(global_attention(*parts, valid_BT), parts, valid_BT, np.inf)


def test_padding_of_any_content_has_no_weight() -> None:
    parts, valid_BT = rows(40), torch.arange(40) < torch.tensor([[30], [3]])
    others = [part.where(valid_BT[:, None, :, None], 50.0) for part in parts]
    torch.testing.assert_close(local_attention(*parts, valid_BT, 9), local_attention(*others, valid_BT, 9))
    torch.testing.assert_close(global_attention(*parts, valid_BT), global_attention(*others, valid_BT))


def test_gradients_are_those_of_the_dense_form_and_finite_without_any_valid_row() -> None:
    parts = [part.requires_grad_() for part in rows(2 * BLOCK + 3)]
    valid_BT = torch.arange(2 * BLOCK + 3) < torch.tensor([[BLOCK + 7], [0]])
    pull = torch.randn(parts[0].shape, generator=torch.Generator().manual_seed(1))
    query, key, value = parts
    distance = (torch.arange(2 * BLOCK + 3) - torch.arange(2 * BLOCK + 3)[:, None]).abs()
    unseen = (distance > 4) | ~valid_BT[:1]
    scores = (query[0] @ key[0].mT / 3**0.5).masked_fill(unseen, -1e9)
    expected = (scores.softmax(dim=2) @ value[0]).masked_fill(~valid_BT[0, :, None], 0)
    out = local_attention(*parts, valid_BT, 9)
    found = torch.autograd.grad((out * pull).sum(), parts)
    wanted = torch.autograd.grad((expected * pull[0]).sum(), parts)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
        assert not ours[1].any()


def test_no_tensor_grows_faster_than_the_sequence() -> None:
    sizes = []
    for num_rows in (2000, 8000):
        parts = [part.requires_grad_() for part in rows(num_rows)]
        with LargestTensor() as largest:
            local_attention(*parts, torch.ones(2, num_rows, dtype=torch.bool), 19).sum().backward()
        sizes.append(largest.numel)
    assert sizes[0] < 2 * 2 * 2000 * 100
    assert sizes[1] <= 4.1 * sizes[0]
