"""A trained SoLa module on disk, and what it does to a video's features: what its store, a run and `predict` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from encoders.sola import SoLa, refine_video
from encoders.weights import fingerprint
from pipeline.data.features import SOLA_WEIGHTS, StoreHeader


@dataclass(frozen=True, eq=False)
class Refinement:
    """A SoLa module in evaluation mode, and the type in which features are stored before and after it."""

    sola: SoLa
    dtype: str

    def __call__(self, features_TC: NDArray[np.float32]) -> NDArray[np.float32]:
        """Refined features of a whole video, (T, C)."""
        stored_TC = features_TC.astype(self.dtype).astype(np.float32)  # rounded as in the store that it trained on
        refined_TC: NDArray[np.float32] = refine_video(self.sola, torch.from_numpy(stored_TC)).numpy()
        return refined_TC


def refined_header(header: StoreHeader, sola: SoLa, parent: Path) -> StoreHeader:
    """The header of the store that `sola` makes of the one at `parent`."""
    refinement = {"module": sola.build_args, "weights": fingerprint(sola), "parent": str(parent)}
    return replace(header, sola=refinement)


def load_refinement(folder: Path, header: StoreHeader, device: torch.device) -> Refinement | None:
    """The SoLa module that made features of this `header`, its weights in `folder`; None if there was none.

    Raises:
        ValueError: the weights are not there, or are others than those.
    """
    if header.sola is None:
        return None
    return Refinement(load_sola(folder / SOLA_WEIGHTS, header.sola).to(device), header.dtype)


def load_sola(path: Path, description: Mapping[str, Any]) -> SoLa:
    """The module with these weights, in evaluation mode.

    Args:
        path: weight file.
        description: arguments to build the `module` with, and the fingerprint of the `weights`.

    Raises:
        ValueError: the weights are not there, or are others than those.
    """
    sola = SoLa(**description["module"])
    try:
        sola.load_state_dict(load_file(path))
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as the SoLa module of these features ({type(error).__name__}: {error}); "
            "copy the folder again, or repeat `pipeline sola`"
        ) from error
    if (found := fingerprint(sola)) != description["weights"]:
        raise ValueError(
            f"{path} holds other weights ({found}) than the features were made with ({description['weights']}); "
            "copy the folder again, or repeat `pipeline sola`"
        )
    return sola.eval()
