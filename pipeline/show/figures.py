"""Figures of features: similarity matrices, accuracy curves and differences at boundaries, drawn with matplotlib.

Similarities are drawn as the paper of SoLa scales them: (1 + cosine) / 2, from 0 to 1. Every function returns a figure,
which `save` writes; both are to be called within `style()`.

Shapes: T rows of a video, S rows of a subsequence, N snapshots, R runs of a training (seeds), E epochs, C channels.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from pipeline.measures.boundary_differences import EDGES, BoundaryDifferences
from pipeline.measures.self_similarity import by_interval

FloatArray = NDArray[np.float64]

PANEL = 2.5  # inches
MAX_SNAPSHOTS = 6
SUFFIXES = (".png", ".svg")


def style() -> AbstractContextManager[None]:
    """Text that stays text in SVG, names that are not read as formulas, and the same bytes from the same numbers."""
    return mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "tal-pipeline", "text.parse_math": False, "font.size": 9}
    )


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name`.png and `name`.svg, each whole or not at all."""
    for suffix in SUFFIXES:
        path = folder / f"{name}{suffix}"
        partial = path.with_name(path.name + ".partial")
        metadata = {"Date": None} if suffix == ".svg" else {}
        figure.savefig(partial, format=suffix[1:], dpi=150, metadata=metadata)
        os.replace(partial, path)


# --- Similarity matrices ----------------------------------------------------------------------------------------------


def average_tsms(target_SS: FloatArray, average_of: Mapping[str, FloatArray], step: int) -> Figure:
    """The target TSM, the average TSM of each store, and similarity against interval (SoLa, Fig. 3).

    Each matrix has its own scale: the target exaggerates what the averages show.
    """
    panels = {"target": target_SS, **average_of}
    figure, axes = _row_of_panels(len(panels) + 1)
    for axis, (name, tsm_SS) in zip(axes, panels.items(), strict=False):
        image = _draw_matrix(axis, tsm_SS, name, low=float(tsm_SS.min()), high=float(tsm_SS.max()))
        axis.set_xlabel(f"position (steps of {step} rows)")
        figure.colorbar(image, ax=axis, shrink=0.7)
    for name, tsm_SS in panels.items():
        axes[-1].plot(by_interval(tsm_SS), label=name, marker=".", linestyle="--" if name == "target" else "-")
    axes[-1].set(title="by interval", xlabel=f"interval (steps of {step} rows)", ylabel="similarity")
    axes[-1].legend()
    return figure


def snapshots(steps_N: NDArray[np.int64], tsm_NSS: FloatArray, target_SS: FloatArray) -> Figure:
    """Average predicted TSMs along SoLa's training beside the target, on one scale (SoLa, Fig. 4)."""
    shown = np.unique(np.linspace(0, len(steps_N) - 1, MAX_SNAPSHOTS).round().astype(int))
    panels = {f"step {steps_N[n]}": tsm_NSS[n] for n in shown} | {"target": target_SS}
    low = min(float(tsm_SS.min()) for tsm_SS in panels.values())
    high = max(float(tsm_SS.max()) for tsm_SS in panels.values())
    figure, axes = _row_of_panels(len(panels))
    for axis, (name, tsm_SS) in zip(axes, panels.items(), strict=True):
        image = _draw_matrix(axis, tsm_SS, name, low=low, high=high)
    figure.colorbar(image, ax=axes, shrink=0.7)
    return figure


@dataclass(frozen=True, eq=False)
class VideoTSM:
    """A video's TSM in one store: matrix (T, T), the seconds that it covers, standard deviation of its entries."""

    tsm_TT: FloatArray
    start: float
    end: float
    std: float


def video_tsms(
    video_of: Mapping[str, Mapping[str, VideoTSM]],
    mean_std_of: Mapping[str, float],
    segments_of: Mapping[str, Sequence[tuple[float, float]]],
) -> Figure:
    """A line of TSMs for each video, a column for each store, a line's matrices on one scale (SoLa, Fig. 5).

    Args:
        video_of: by video id and then by store.
        mean_std_of: the paper's "mean of std-dev" of each store, for its title.
        segments_of: true segments (seconds) of each video, framed in red.
    """
    size = (0.6 + PANEL * len(mean_std_of), 0.6 + PANEL * len(video_of))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(video_of), len(mean_std_of), squeeze=False)
    for line, (video_id, of_store) in zip(axes, video_of.items(), strict=True):
        low = min(float(video.tsm_TT.min()) for video in of_store.values())
        for axis, video in zip(line, of_store.values(), strict=True):
            extent = (video.start, video.end, video.end, video.start)
            image = _draw_matrix(axis, video.tsm_TT, f"std-dev {video.std:.4f}", low=low, high=1.0, extent=extent)
            for start, end in segments_of.get(video_id, ()):
                axis.add_patch(Rectangle((start, start), end - start, end - start, fill=False, edgecolor="red"))
        line[0].set_ylabel(f"{video_id} (s)")
        figure.colorbar(image, ax=line, shrink=0.7)
    for axis, (name, mean_std) in zip(axes[0], mean_std_of.items(), strict=True):
        axis.set_title(f"{name}\nmean of std-dev {mean_std:.4f}\n\n{axis.get_title()}")
    return figure


def _row_of_panels(number: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(PANEL * number, PANEL), layout="constrained")
    return figure, list(figure.subplots(1, number, squeeze=False)[0])


def _draw_matrix(
    axis: Axes,
    tsm: FloatArray,
    title: str,
    *,
    low: float,
    high: float,
    extent: tuple[float, float, float, float] | None = None,
) -> AxesImage:
    axis.set_title(title)
    return axis.imshow(tsm, vmin=low, vmax=high, extent=extent, interpolation="nearest")


# --- Linear evaluation ------------------------------------------------------------------------------------------------


def accuracy_curves(accuracy_of: Mapping[str, FloatArray], majorities: Collection[float]) -> Figure:
    """Test accuracy (R, E) in percent after each epoch: the mean of a store's runs, and their range (SoLa, Fig. 6).

    `majorities` are the accuracies of always answering with the more frequent class: one, if the stores' rows are of
    the same moments.
    """
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, accuracy_RE in accuracy_of.items():
        epochs = np.arange(1, accuracy_RE.shape[1] + 1)
        axis.plot(epochs, accuracy_RE.mean(axis=0), label=name)
        axis.fill_between(epochs, accuracy_RE.min(axis=0), accuracy_RE.max(axis=0), alpha=0.25, linewidth=0)
    for majority in sorted(majorities):
        axis.axhline(majority, color="grey", linestyle="--", label=f"the more frequent class alone: {majority:.1f}")
    axis.set(xlabel="epoch", ylabel="test accuracy (%)", title="foreground or background, by one linear layer")
    axis.legend()
    return figure


# --- Boundaries -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DrawnPair:
    """Absolute differences (C,) of a pair of snippets in each store, by the store's name; `title` says which pair."""

    title: str
    difference_of: Mapping[str, FloatArray]


def boundary_differences(differences_of: Mapping[str, BoundaryDifferences], pairs: Sequence[DrawnPair]) -> Figure:
    """A column for each store: differences of single pairs, and histograms of those of all pairs (BSP, Fig. 4).

    The channels of a difference are laid out as a matrix, row by row; the matrices are on one scale.
    """
    lines = len(pairs) + 1
    figure = Figure(figsize=(0.6 + 1.2 * PANEL * len(differences_of), PANEL * lines), layout="constrained")
    axes = figure.subplots(lines, len(differences_of), squeeze=False)
    high = max((float(difference_C.max()) for pair in pairs for difference_C in pair.difference_of.values()), default=0)
    for line, pair in zip(axes, pairs, strict=False):
        for axis, name in zip(line, differences_of, strict=True):
            difference_C = pair.difference_of[name]
            image = _draw_matrix(axis, _as_matrix(difference_C), f"mean {difference_C.mean():.3f}", low=0, high=high)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(pair.title)
        figure.colorbar(image, ax=line, shrink=0.7)
    _draw_histograms(list(axes[-1]), list(differences_of.values()))
    for axis, name in zip(axes[0], differences_of, strict=True):
        axis.set_title(f"{name}\n\n{axis.get_title()}")
    return figure


def _draw_histograms(axes: Sequence[Axes], stores: Sequence[BoundaryDifferences]) -> None:
    """All on the same scales, as far as there is anything to see."""
    densities = [{"boundary": of.boundary.density, "elsewhere": of.elsewhere.density} for of in stores]
    highest = np.max([density for of_store in densities for density in of_store.values()], axis=0)
    seen = np.flatnonzero(highest)
    limits = {"xlim": (0, EDGES[seen[-1] + 1]), "ylim": (0.5 * highest[seen].min(), 2 * highest.max())}
    for axis, of_store, differences in zip(axes, densities, stores, strict=True):
        for sort, density in of_store.items():
            axis.stairs(density, EDGES, label=sort)
        axis.set(yscale="log", xlabel="absolute difference", title=f"AUC {differences.auc:.3f}", **limits)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
    axes[0].set_ylabel("density")
    axes[0].legend()


def _as_matrix(values_C: FloatArray) -> FloatArray:
    """Row by row, as near to a square as C allows: 2048 to 32 × 64."""
    num_rows = max(n for n in range(1, int(len(values_C) ** 0.5) + 1) if len(values_C) % n == 0)
    return values_C.reshape(num_rows, -1)
