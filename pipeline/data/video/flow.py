"""Optical flow between the frames of a video, as pictures that flow networks take: dual TV-L1, coded in eight bits.

    frames, resized ──gray──▶ pairs ──tvl1_flow──▶ pixels ──code_flow──▶ 0–255 ──the middle cut out──▶ flow pictures
                                     in threads

The conventions are those of TSN (Wang et al., ECCV 2016) and I3D (Carreira and Zisserman, CVPR 2017): frames are
resized before the flow is computed, so that a pixel of motion is one of the resized frame, and pictures are cropped
after it; motion along x comes before motion along y; ±20 pixels are coded as 0–255. One differs from TSN, as in I3D:
frames keep their aspect. TSN's are all 340×256, so that in a 16:9 video, 455×256 here, its motion along x is 1.34 times
smaller.

TV-L1 takes far longer than everything else in extraction: measured on one core at 256×341 pixels, 0.3 s for a pair of
frames without motion, 2 s on average, 6 s for a fast pan. So each core computes a pair of its own, and the pictures can
be kept on disk (`pipeline.data.video.flow_cache`).

Shapes: P pairs of frames, H W pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.data.snippets import SnippetAssembler
from pipeline.data.video.flow_cache import cache_name, read_pictures, write_through
from pipeline.data.video.pictures import Picture, PictureSize

FlowPicture: TypeAlias = NDArray[np.uint8]  # (H, W, 2): x, y
Gray: TypeAlias = NDArray[np.uint8]  # (H, W)

BOUND = 20.0
"""Pixels of motion, either way, that eight bits hold; more is clipped."""


class FlowReader:
    """Flow pictures of one video after the other; a context manager.

    Args:
        num_workers: pairs of frames that are computed side by side.
        cache: folder in which pictures are kept, or None.

    Raises:
        ValueError: OpenCV is not installed, or lacks its contributed modules.
    """

    def __init__(self, num_workers: int, cache: Path | None = None) -> None:
        import_opencv().setNumThreads(1)  # the pairs share the cores already
        self._num_workers = num_workers
        self._cache = cache
        self._pool = ThreadPoolExecutor(num_workers, "flow")

    def __enter__(self) -> FlowReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def pictures(
        self, video: Path, pairs_P2: NDArray[np.int64], frames: Iterable[Picture], *, resize: int, crop: int
    ) -> Iterator[FlowPicture]:
        """The coded flow of each pair, (crop, crop, 2), in order, with bounded memory.

        Args:
            video: the file.
            pairs_P2: pairs of frame indices, each once and in order, as `sample_flow` gives them.
            frames: the frames that occur in them, each once and in order. Not touched where the cache has the pictures.
            resize: what the short side of `frames` was brought to.
            crop: side of the square that is cut from the middle of a picture.

        Raises:
            VideoError: a file of the cache is damaged; and what `frames` raises.
        """
        computed = self._compute(pairs_P2, frames, crop)
        if self._cache is None:
            return computed
        file = self._cache / cache_name(video, pairs_P2, resize=resize, crop=crop)
        stored = read_pictures(file)
        return write_through(file, computed) if stored is None else stored

    def _compute(self, pairs_P2: NDArray[np.int64], frames: Iterable[Picture], crop: int) -> Iterator[FlowPicture]:
        under_way: deque[Future[FlowPicture]] = deque()
        for first, second in _gray_pairs(pairs_P2, frames):
            under_way.append(self._pool.submit(flow_picture, first, second, crop))
            if len(under_way) > 2 * self._num_workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _gray_pairs(pairs_P2: NDArray[np.int64], frames: Iterable[Picture]) -> Iterator[list[Gray]]:
    """The two frames of each pair, in gray; of one that stands still, twice the same array."""
    opencv = import_opencv()
    assembler = SnippetAssembler[Gray](pairs_P2)
    for frame_HWC in frames:
        yield from assembler.push(opencv.cvtColor(frame_HWC, opencv.COLOR_RGB2GRAY))


def flow_picture(first: Gray, second: Gray, crop: int) -> FlowPicture:
    """The coded flow from one gray frame (H, W) to another, its middle: (crop, crop, 2)."""
    height, width = first.shape
    still = first is second
    flow_HW2 = np.zeros((height, width, 2), np.float32) if still else tvl1_flow(first, second)
    return PictureSize(height, width, crop).cut(code_flow(flow_HW2))


def tvl1_flow(first: Gray, second: Gray) -> NDArray[np.float32]:
    """How far the content of each pixel of `first` moves until `second`: (H, W, 2), pixels along x and along y.

    Dual TV-L1 (Zach, Pock and Bischof, DAGM 2007) as OpenCV implements it, with the parameters it comes with, which are
    those that the field's flow was made with.
    """
    algorithm = import_opencv().optflow.DualTVL1OpticalFlow_create()  # holds buffers, so one for each thread
    flow_HW2: NDArray[np.float32] = algorithm.calc(first, second, None)
    return flow_HW2


def code_flow(flow: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Pixels to 0–255: round(255·(v + 20)/40), clipped. No motion is 128."""
    coded: NDArray[np.uint8] = np.clip(np.rint(255 * (flow + BOUND) / (2 * BOUND)), 0, 255).astype(np.uint8)
    return coded


def import_opencv() -> Any:
    """The module `cv2`. ValueError with the cure if it is missing, or is a build without TV-L1."""
    try:
        import cv2
    except ImportError as error:
        raise ValueError(f'optical flow needs OpenCV ({error}): pip install "tal-pipeline[flow]"') from error
    if not hasattr(getattr(cv2, "optflow", None), "DualTVL1OpticalFlow_create"):
        raise ValueError(
            f"optical flow needs OpenCV with its contributed modules, and OpenCV {cv2.__version__} here has none: "
            'uninstall the other opencv packages, then pip install "tal-pipeline[flow]"'
        )
    return cv2
