"""Attention of each row to the rows near it, in memory linear in the number of rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows whose queries go through together, at least.
BLOCK = 32
# Added to the scores of padding: far below all others, yet a number, so that a row of padding alone has a softmax.
PADDING_SCORE = -1e4


def local_attention(query_BHTE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor, valid_BT: Tensor, window: int) -> Tensor:
    """Softmax attention (B, H, T, E) in which row i sees rows i - r … i + r of its sequence, r = window // 2.

    The T rows are cut into blocks. The queries of a block need the keys of the block and r more on either side, so
    that each block is a small dense attention. For T = 8, blocks of 4 and r = 1, with `x` for the scores in use::

        keys     -1  0  1  2  3  4          3  4  5  6  7  8
        query 0   x  x  x             4     x  x  x
        query 1      x  x  x          5        x  x  x
        query 2         x  x  x       6           x  x  x
        query 3            x  x  x    7              x  x  x

    Keys before the first row, behind the last one, and padding in between have no weight; queries of padding give 0.
    """
    batch, heads, num_rows, width = query_BHTE.shape
    radius = window // 2
    block = max(BLOCK, 2 * radius)
    num_blocks = -(-num_rows // block)
    behind = num_blocks * block - num_rows
    span = block + 2 * radius

    # (B, H, T, E) -> (B * blocks, H, rows of a block, E)
    query = F.pad(query_BHTE, (0, 0, 0, behind)).reshape(batch, heads, num_blocks, block, width)
    query = query.transpose(1, 2).flatten(0, 1)
    key, value = (
        F.pad(rows_BHTE, (0, 0, radius, behind + radius)).unfold(2, span, block).mT.transpose(1, 2).flatten(0, 1)
        for rows_BHTE in (key_BHTE, value_BHTE)
    )
    # (B, T) -> (B * blocks, 1, rows of a block, keys)
    seen = F.pad(valid_BT, (radius, behind + radius)).unfold(1, span, block).flatten(0, 1)[:, None, None]
    rows, keys = torch.arange(block, device=seen.device), torch.arange(span, device=seen.device) - radius
    far = (keys - rows[:, None]).abs() > radius
    scores = torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, PADDING_SCORE).masked_fill(far, -torch.inf)

    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=scores)
    # (B * blocks, H, rows of a block, E) -> (B, H, T, E)
    attended_BHTE = attended.view(batch, num_blocks, heads, block, width).transpose(1, 2).flatten(2, 3)[:, :, :num_rows]
    return attended_BHTE.masked_fill(~valid_BT[:, None, :, None], 0)


def global_attention(query_BHTE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor, valid_BT: Tensor) -> Tensor:
    """Softmax attention (B, H, T, E) to all rows of a sequence; queries of padding give 0."""
    scores = torch.zeros_like(valid_BT, dtype=query_BHTE.dtype).masked_fill(~valid_BT, PADDING_SCORE)
    attended_BHTE = F.scaled_dot_product_attention(query_BHTE, key_BHTE, value_BHTE, attn_mask=scores[:, None, None])
    return attended_BHTE.masked_fill(~valid_BT[:, None, :, None], 0)
