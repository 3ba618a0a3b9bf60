"""Weight files: reading others' and our own, writing ours, and telling whether two networks have the same weights."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from encoders.base import Encoder

FILE_IN_FOLDER = "encoder.safetensors"
"""What a run folder or a feature store calls its encoder's weights."""

_WRAPPERS = ("module.", "model.", "encoder.", "backbone.", "base_model.", "network.")
_CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model")


def load_weights(encoder: Encoder, weights: str | Path | None, *, allow_missing: bool = False) -> None:
    """Loads weights into an encoder, in place.

    Args:
        encoder: what to load them into.
        weights: None: the encoder's registered pretrained weights. "random": leave it as it was initialised.
            A .safetensors, .pth, .pt or .tar file, or a folder that holds `encoder.safetensors` (a run, a feature
            store). Otherwise the name of registered weights, such as IMAGENET1K_V1.
        allow_missing: load what fits although keys are missing or unexpected, with a warning.

    Raises:
        ValueError: there are no such weights, the file cannot be read without running code from it, or it does not
            fit the encoder: the message lists the keys. Another shape is an error even with `allow_missing`.
    """
    if weights == "random":
        return
    state: Mapping[str, Tensor]
    if weights is not None and (path := Path(weights)).exists():
        state, source = read_weights(path), str(path)
    elif weights is not None and _looks_like_path(weights):
        raise ValueError(f"there is no weight file or folder {weights}")
    else:
        state, source = encoder.registered_state(None if weights is None else str(weights)), "registered weights"
    _load_state(encoder, state, source, allow_missing)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a weight file, or of the `encoder.safetensors` of a folder.

    Raises:
        ValueError: not a weight file, one without a state dict, or one that would run code.
    """
    if path.is_dir():
        path = _file_of_folder(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in {".pth", ".pt", ".tar", ".ckpt"}:
        return _read_torch(path)
    raise ValueError(f"{path}: expected a weight file that ends in .safetensors, .pth, .pt, .tar or .ckpt")


def save_weights(module: nn.Module, path: Path) -> None:
    """Writes a module's state dict as safetensors; an existing file is replaced whole or not at all."""
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in module.state_dict().items()}
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(save(state))  # `save_file` leaves a nameless file behind when it is killed
    partial.replace(path)


def fingerprint(module: nn.Module) -> str:
    """16 hexadecimal digits that differ when a weight's name, shape, type or value differs.

    BatchNorm's step counts are left out: features do not depend on them, and files of others lack them.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        if not _is_step_count(key):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype};".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _looks_like_path(weights: str | Path) -> bool:
    return isinstance(weights, Path) or Path(weights).suffix != "" or Path(weights).name != weights


def _file_of_folder(folder: Path) -> Path:
    path = folder / FILE_IN_FOLDER
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no {FILE_IN_FOLDER}: expected a weight file, a run folder, or a feature store that "
            "`pipeline extract` wrote"
        )
    return path


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is damaged, or holds Python objects that could run code when they are loaded, so it was not "
            "read. If you trust it, save its tensors alone: torch.save(checkpoint['state_dict'], 'tensors.pth')"
        ) from error
    except Exception as error:  # a damaged file makes torch raise nearly anything
        raise ValueError(f"{path} is not a whole PyTorch file: {error!r}") from error
    return state_dict_in(checkpoint, path)


def state_dict_in(checkpoint: Any, source: Path | str) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, at its top or in one of the usual places; ValueError if there are none."""
    for container in _CONTAINERS:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(container), Mapping):
            checkpoint = checkpoint[container]
    entries = checkpoint.items() if isinstance(checkpoint, Mapping) else ()
    state = {key: value for key, value in entries if isinstance(key, str) and isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"{source} holds no state dict: expected named tensors, at the top or under 'state_dict'")
    return state


def _load_state(encoder: Encoder, state: Mapping[str, Tensor], source: str, allow_missing: bool) -> None:
    own = encoder.network.state_dict()
    found = _without_old_shapes(_rename(encoder, state, source), own)
    problems = _problems(own, found)
    if any(problems.values()):
        message = f"{source} does not fit {encoder.name}: {_listed(problems)}"
        if problems["with another shape"] or own.keys().isdisjoint(found):
            raise ValueError(f"{message}. Choose the encoder that the weights were made for")
        if not allow_missing:
            raise ValueError(f"{message}. Choose the encoder that the weights were made for, or set allow_missing")
        warnings.warn(f"{message}. The rest was loaded", stacklevel=4)
    encoder.network.load_state_dict(found, strict=False)


def _problems(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, list[str]]:
    return {
        "missing": [key for key in own if key not in found and not _is_step_count(key)],
        "unexpected": [key for key in found if key not in own],
        "with another shape": [
            f"{key} {tuple(found[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in found and found[key].shape != own[key].shape
        ],
    }


def _rename(encoder: Encoder, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, tensor in state.items():
        own_key = encoder.own_key(_unwrapped(key))
        if own_key in found:
            raise ValueError(f"{source} holds {own_key} more than once, under different prefixes (one is {key})")
        if own_key is not None:
            found[own_key] = tensor
    return found


def _without_old_shapes(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PyTorch before 0.2 wrote a BatchNorm's vectors as (1, C); so they are in the checkpoints of TSN."""
    return {
        key: tensor[0] if key in own and tensor.shape == (1, *own[key].shape) and own[key].ndim == 1 else tensor
        for key, tensor in found.items()
    }


def _unwrapped(key: str) -> str:
    """The key without what training code put before it: `module.` of DataParallel, `base_model.` of TSM, ..."""
    while key.startswith(_WRAPPERS):
        key = key.partition(".")[2]
    return key


def _listed(problems: Mapping[str, list[str]], most: int = 3) -> str:
    return "; ".join(
        f"keys {kind}: {len(keys)} ({', '.join(keys[:most])}{', ...' if len(keys) > most else ''})"
        for kind, keys in problems.items()
        if keys
    )


def _is_step_count(key: str) -> bool:
    return key.endswith(".num_batches_tracked")
