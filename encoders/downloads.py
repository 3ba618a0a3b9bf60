"""Pretrained weights by name: downloaded, unless they are in torch's cache."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.hub import load_state_dict_from_url
from torchvision.models import get_model_weights

from encoders.weights import state_dict_in

State = Mapping[str, Tensor]


def torchvision_state(builder: Callable[..., nn.Module], name: str | None) -> State:
    """The torchvision weights called `name` (such as IMAGENET1K_V1; None: torchvision's default) of `builder`'s model.

    Raises:
        ValueError: torchvision has none of that name, or the download fails.
    """
    weights = get_model_weights(builder)
    _check_name(name, weights.__members__, f"torchvision's {builder.__name__}")
    chosen = weights[name or "DEFAULT"]
    try:
        state: State = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no connection; a file with another checksum
        raise _failed(chosen.url, error) from error
    return state


def state_by_name(encoder: str, urls: Mapping[str, str], name: str | None) -> State:
    """The weights called `name` of an encoder whose registered weights are at `urls`; None: the first of them.

    Raises:
        ValueError: there are none of that name, or the download fails or would run code.
    """
    _check_name(name, urls, encoder)
    url = urls[name or next(iter(urls))]
    try:
        checkpoint = load_state_dict_from_url(url, map_location="cpu", progress=False, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise _failed(url, error) from error
    return state_dict_in(checkpoint, url)


def _check_name(name: str | None, names: Mapping[str, object], whose: str) -> None:
    if name is not None and name not in names:
        listed = ", ".join(each for each in names if each != "DEFAULT")
        raise ValueError(f"weights {name!r}: no such file or folder, and {whose} has only {listed}")


def _failed(url: str, error: Exception) -> ValueError:
    return ValueError(f"could not download {url} ({error}): give --weights PATH of that file, or --weights random")
