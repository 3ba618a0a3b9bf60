"""Contact sheets: short clips as rows of pictures, with a line where something changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

FrameArray = NDArray[np.uint8]

FRAME_SIDE = 96
"""Smaller frames are shown several times as large, in whole multiples, until they have this many pixels."""
_GAP, _LINE, _CAPTION = 6, 4, 16
_RED = (220, 30, 30)


class Row(NamedTuple):
    """One clip on a sheet."""

    caption: str
    frames: FrameArray  # (L, H, W, 3)
    change_point: int | None  # frames before the line


def write_contact_sheet(path: Path, rows: Sequence[Row]) -> None:
    """A PNG, whole or not at all, with a row for each clip under its caption. All clips have frames of one size."""
    drawn = [_draw_row(row) for row in rows]
    sheet = Image.new("RGB", (max(row.width for row in drawn), sum(row.height for row in drawn)), "white")
    top = 0
    for row in drawn:
        sheet.paste(row, (0, top))
        top += row.height
    partial = path.with_name(path.name + ".partial")
    sheet.save(partial, format="png")
    os.replace(partial, path)


def _draw_row(row: Row) -> Image.Image:
    scale = -(-FRAME_SIDE // min(row.frames.shape[1:3]))
    frames_LHWC = row.frames.repeat(scale, axis=1).repeat(scale, axis=2)
    num_frames, height, width = frames_LHWC.shape[:3]
    picture = Image.new("RGB", (_GAP + num_frames * (width + _GAP), _CAPTION + height + _GAP), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_GAP, 2), row.caption, fill="black")
    for place, frame_HWC in enumerate(frames_LHWC):
        picture.paste(Image.fromarray(frame_HWC), (_GAP + place * (width + _GAP), _CAPTION))
    if row.change_point is not None:
        left = row.change_point * (width + _GAP) + (_GAP - _LINE) // 2
        draw.rectangle((left, _CAPTION - 2, left + _LINE - 1, _CAPTION + height + 1), fill=_RED)
    return picture
