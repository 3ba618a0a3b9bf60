"""From a decoded frame to the picture that is asked for: scaled, as displayed, RGB, the middle cut out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from pipeline.data.video.packets import VideoInfo

Picture: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True)
class PictureSize:
    """Pixels, as displayed: what a frame is scaled to, and the side of the square that is then cut from its middle."""

    height: int
    width: int
    crop: int | None

    @classmethod
    def of(cls, info: VideoInfo, *, resize: int | None, crop: int | None) -> PictureSize:
        """The short side becomes `resize`, and the long side keeps the aspect: long · resize / short, halves upward.

        Raises:
            ValueError: a size below one, or a crop larger than the scaled frame.
        """
        for name, side in (("resize", resize), ("crop", crop)):
            if side is not None and side < 1:
                raise ValueError(f"{name} is {side} pixels; give 1 or more")
        short = min(info.height, info.width)
        scale_to = short if resize is None else resize
        height, width = ((2 * side * scale_to + short) // (2 * short) for side in (info.height, info.width))
        if crop is not None and crop > min(height, width):
            raise ValueError(f"{info.path}: cannot cut {crop}×{crop} pixels from {width}×{height}; set resize={crop}")
        return cls(height, width, crop)

    def cut(self, picture_HWC: Picture) -> Picture:
        """The middle `crop`×`crop` pixels; an odd pixel more stays on the right and at the bottom."""
        if self.crop is None:
            return picture_HWC
        top, left = (self.height - self.crop) // 2, (self.width - self.crop) // 2
        return np.ascontiguousarray(picture_HWC[top : top + self.crop, left : left + self.crop])


class PictureMaker:
    """Turns the frames of one video into pictures. Kept for the video, because setting up the scaler takes long."""

    def __init__(self, info: VideoInfo, size: PictureSize) -> None:
        self._size = size
        self._quarter_turns = info.quarter_turns
        turned = info.quarter_turns % 2 == 1
        self._coded_width, self._coded_height = (size.height, size.width) if turned else (size.width, size.height)
        self._scaler = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> Picture:
        """`frame` as (H, W, 3) RGB; bilinear, over a wider area when it shrinks, as decord does it."""
        rgb = self._scaler.reformat(
            frame, width=self._coded_width, height=self._coded_height, format="rgb24", interpolation="BILINEAR"
        )
        picture_HWC = np.asarray(rgb.to_ndarray(), np.uint8)
        return (
            self._size.cut(np.rot90(picture_HWC, self._quarter_turns))
            if self._quarter_turns
            else self._size.cut(picture_HWC)
        )
