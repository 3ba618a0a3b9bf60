"""How large a tensor a computation makes, as a test can count it on any machine."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """Within this context, `numel` is the number of elements of the largest tensor that an operation has made."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [
            leaf.untyped_storage().nbytes() // leaf.itemsize
            for leaf in tree_leaves(result)
            if isinstance(leaf, torch.Tensor)
        ]
        self.numel = max([self.numel, *made])
        return result
