"""The SoLa module's options, for those who train one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SolaModuleConfig:
    """The SoLa module (`encoders.sola`)."""

    form: Literal["adapter", "direct"] = "adapter"
    """`adapter`: residual and gated. `direct`: the convolutions alone."""
    kernel_size: Literal[1, 3, 5, 7] = 5
    """Rows that the first convolution sees."""
    hidden: int = 1024
    """Channels between the convolutions."""
