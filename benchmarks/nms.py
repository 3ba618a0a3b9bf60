"""How fast soft-NMS within classes is over many videos at once, against a loop and ActionFormer's compiled one.

    python benchmarks/nms.py [--videos 16 200] [--classes 1 20 200] [--boxes 2000] [--keep 200] [--repeats 5]
                             [--threads 2] [--peer FOLDER]

ours       `heads.nms` on all videos at once, each class at a place of its own on the axis, as predictions go through it
loop       box by box in Python, as the definition says (`tests/helpers/reference_gtad.py`), on one video
peer       the public code's `batched_nms`, video by video and class by class in C++ (`benchmarks/peer.py`)

All take turns; what is printed are medians of milliseconds a video. The `keep` best of a video are returned, and ours
must be those of the others, but for the order of equal scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.command_line import script_parser
from benchmarks.peer import on_path
from benchmarks.references import slow_soft_nms
from benchmarks.results import results_table
from benchmarks.turns import take_turns
from heads.nms import soft_nms

SIGMA = 0.5
ROWS = 2304


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--videos", type=int, nargs="+", default=[16, 200])
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 20, 200])
    parser.add_argument("--boxes", type=int, default=2000)
    parser.add_argument("--keep", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    title = f"soft-NMS of {options.boxes} segments, {options.keep} kept, {options.threads} threads: ms a video"
    names = ["ours", "loop"] + ["peer"] * (options.peer is not None)
    table = results_table(title, "videos", "classes", *names)
    for videos in options.videos:
        for classes in options.classes:
            milliseconds = compare(videos, classes, options)
            table.add_row(str(videos), str(classes), *(f"{milliseconds[name]:.2f}" for name in names))
    Console(width=100).print(table)


def compare(videos: int, classes: int, options: argparse.Namespace) -> dict[str, float]:
    segments_VN2, scores_VN, labels_VN = random_boxes(videos, options.boxes, classes)
    apart_VN2 = segments_VN2 + 2 * ROWS * labels_VN[..., None]

    def ours() -> Tensor:
        return soft_nms(apart_VN2, scores_VN, keep=options.keep, sigma=SIGMA)[1]

    def loop() -> Tensor:
        kept = slow_soft_nms(apart_VN2[0].tolist(), scores_VN[0].tolist(), options.keep, SIGMA)
        return torch.tensor([score for _, score in kept])

    runs: dict[str, Callable[[], Tensor]] = {"ours": ours, "loop": loop}
    if options.peer is not None:
        runs["peer"] = peer_form(options.peer, segments_VN2, scores_VN, labels_VN, options.keep)
        torch.testing.assert_close(ours(), runs["peer"](), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours()[0], loop(), rtol=1e-3, atol=1e-4)
    seconds = take_turns(runs, options.repeats)
    return {name: 1000 * own / (1 if name == "loop" else videos) for name, own in seconds.items()}


def random_boxes(videos: int, boxes: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Segments (V, N, 2) in rows, of which most are short, scores (V, N) and classes (V, N)."""
    generator = torch.Generator().manual_seed(0)
    middle_VN = ROWS * torch.rand(videos, boxes, generator=generator)
    half_VN = 1 + ROWS / 8 * torch.rand(videos, boxes, generator=generator) ** 3
    scores_VN = torch.rand(videos, boxes, generator=generator)
    segments_VN2 = torch.stack([middle_VN - half_VN, middle_VN + half_VN], dim=2).clamp(0, ROWS)
    return segments_VN2, scores_VN, torch.randint(classes, (videos, boxes), generator=generator)


def peer_form(
    folder: Path, segments_VN2: Tensor, scores_VN: Tensor, labels_VN: Tensor, keep: int
) -> Callable[[], Tensor]:
    on_path(folder)
    from libs.utils.nms import batched_nms

    def peer() -> Tensor:
        return torch.stack(
            [
                batched_nms(*video, 0.1, 0.001, keep, use_soft_nms=True, multiclass=True, sigma=SIGMA)[1]
                for video in zip(segments_VN2, scores_VN, labels_VN, strict=True)
            ]
        )

    return peer


if __name__ == "__main__":
    main()
