"""Training an encoder on more snippets than their activations would fit into memory: compute them twice."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def encode_recomputing(encoder: nn.Module, clips: Tensor, chunk: int) -> Tensor:
    """`encoder(clips)` with its gradients, in the memory of `chunk` clips' activations.

    The clips go through the encoder chunk by chunk and nothing but their features is kept; in the backward pass each
    chunk goes through it once more, right before its gradients are computed. That costs one forward pass more, in
    theory a third of the time of a training step. Random numbers, such as dropout's, are the same both times.

    Each chunk is a checkpoint of torch's non-reentrant kind. A hand-written `autograd.Function` could run the first
    pass without building a graph, but it would have to start a backward pass inside the backward pass, which DDP,
    gradient hooks and `torch.autograd.grad` do not see through; and torch's checkpoint also brings back random states
    and autocast, and stops the second pass after the last tensor that the gradients need. Its peak is the same.

    Args:
        encoder: clips (N,C,L,H,W) to features (N,C); what it does with a clip must not depend on the others.
        clips: (N,C,L,H,W).
        chunk: clips whose activations are in memory at a time; the last chunk may be smaller.

    Returns:
        features (N,C).

    Raises:
        ValueError: `chunk` is not positive, or batch normalisation would look at the clips of a chunk together.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    _refuse_batch_statistics(encoder)
    features = [checkpoint(encoder, part, use_reentrant=False) for part in torch.split(clips, chunk)]
    return torch.cat(features)


def _refuse_batch_statistics(encoder: nn.Module) -> None:
    for name, module in encoder.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            raise ValueError(
                f"{name} normalises by the statistics of its batch, which would be those of a chunk, and would count "
                "each clip twice: freeze batch normalisation (.eval()), or keep the activations"
            )
