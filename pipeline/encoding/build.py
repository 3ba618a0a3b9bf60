"""Encoders by name, those of others among them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from encoders import ENCODERS, Builder, Encoder, build_encoder
from pipeline.options import plugins


def build_named_encoder(name: str, *, named: Collection[str], **options: Any) -> Encoder:
    """`encoders.build_encoder`, also for encoders of installed packages and for `package.module:build`.

    Args:
        name: of the encoder.
        named: the names that the user has given on this call; any other `package.module:build` is refused.
        options: of `encoders.build_encoder`.

    Raises:
        ValueError: no such encoder, a file names it and the user has not, or what it builds is none; and as there.
    """
    return build_encoder(name, builder=find_builder(name, named=named), **options)


def find_builder(name: str, *, named: Collection[str]) -> Builder:
    """What builds an encoder: `build(name, num_frames=…, frame_stride=…, size=…)`, of which any keyword may be absent.

    Raises:
        ValueError: there is none of that name, or a file names it and the user has not.
    """
    return ENCODERS[name] if name in ENCODERS else plugins.find("encoders", name, ours=ENCODERS, named=named)
