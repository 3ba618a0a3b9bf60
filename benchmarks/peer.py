"""The public code of ActionFormer, from a checkout of it, to compare with: nothing of it is in this package.

    git clone https://github.com/happyharrycn/actionformer_release FOLDER
    cd FOLDER/libs/utils && python setup.py build_ext --build-lib FOLDER

Its requirements joblib, pandas and tensorboard must be installed.
"""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from heads.actionformer import ActionFormer

CONFIGS = {"thumos": "thumos_i3d.yaml", "activitynet": "anet_tsp.yaml"}
# Ours, as patterns, and theirs.
NAMES = (
    (r"embedding\.convolutions\.(\d)\.convolution", r"backbone.embd.\1.conv"),
    (r"embedding\.norms", "backbone.embd_norm"),
    (r"(stem|branch)\.(\d)\.norm(\d)", r"backbone.\1.\2.ln\3"),
    (r"(stem|branch)\.(\d)\.attention\.convolutions\.(\d)\.convolution", r"backbone.\1.\2.attn.\3_conv.conv"),
    (r"(stem|branch)\.(\d)\.attention\.projections\.(\d)\.0", r"backbone.\1.\2.attn.\3_norm"),
    (r"(stem|branch)\.(\d)\.attention\.projections\.(\d)\.1", r"backbone.\1.\2.attn.\3"),
    (r"(stem|branch)\.(\d)\.attention\.out\.0", r"backbone.\1.\2.attn.proj"),
    (r"(stem|branch)\.(\d)\.mlp", r"backbone.\1.\2.mlp"),
    (r"(stem|branch)\.(\d)\.drop1", r"backbone.\1.\2.drop_path_attn"),
    (r"(stem|branch)\.(\d)\.drop2", r"backbone.\1.\2.drop_path_mlp"),
    (r"neck", "neck.fpn_norms"),
    (r"(cls|reg)\.hidden\.convolutions\.(\d)\.convolution", r"\1_head.head.\2.conv"),
    (r"(cls|reg)\.hidden\.norms", r"\1_head.norm"),
    (r"cls\.out\.convolution", "cls_head.cls_head.conv"),
    (r"reg\.out\.convolution", "reg_head.offset_head.conv"),
)
ROLES = {"attn.0": "attn.query", "attn.1": "attn.key", "attn.2": "attn.value"}


class PeerActionFormer(nn.Module):
    """Their network and losses on batches of ours, with the weights of a head of ours."""

    def __init__(self, folder: Path, size: str, head: ActionFormer, *, longest: int) -> None:
        super().__init__()
        on_path(folder)
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            from libs.core.config import load_config
            from libs.modeling import make_meta_arch
        config = copy.deepcopy(load_config(str(folder / "configs" / CONFIGS[size])))["model"]
        config["input_dim"] = head.embedding.convolutions[0].convolution.in_channels
        # Points for videos of that many rows, and no suppression, which `benchmarks/nms.py` compares.
        config["max_buffer_len_factor"] = max(config["max_buffer_len_factor"], -(-longest // config["max_seq_len"]) + 1)
        config["test_cfg"]["nms_method"] = "none"
        self.model = make_meta_arch("LocPointTransformer", **config)
        theirs = self.model.state_dict()
        ours = {peer_name(name): tensor for name, tensor in head.state_dict().items() if name != "num_positives"}
        for level, scale in enumerate(ours.pop("level_scale")):
            ours[f"reg_head.scale.{level}.scale"] = scale
        self.model.load_state_dict({name: tensor.view_as(theirs[name]) for name, tensor in ours.items()})

    def loss(self, feats_BCT: Tensor, segments: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Their positions count from the middle of row 0."""
        videos = [
            {"feats": feats_CT, "segments": own_N2 - 0.5, "labels": label_N}
            for feats_CT, own_N2, label_N in zip(feats_BCT, segments, labels, strict=True)
        ]
        loss: Tensor = self.model(videos)["final_loss"]
        return loss

    def detect(self, feats_CT: Tensor) -> dict[str, Tensor]:
        """`segments`, in rows of theirs, with `scores` and `labels`."""
        about = {"video_id": "", "fps": 1.0, "duration": 1e9, "feat_stride": 1.0, "feat_num_frames": 0.0}
        found: dict[str, Tensor] = self.model([{"feats": feats_CT, **about}])[0]
        return found

    def without_chance(self) -> None:
        """Leave out no branch in training."""
        for module in self.model.modules():
            if hasattr(module, "drop_prob"):
                module.drop_prob = 0.0

    @contextmanager
    def recorded(self) -> Iterator[list[Tensor]]:
        """Logits (B, P, K) and offsets (B, P, 2) of what is computed in it."""
        outputs: list[Tensor] = []

        def record(_module: nn.Module, _inputs: object, levels: Sequence[Tensor]) -> None:
            outputs.append(torch.cat(list(levels), dim=2).mT)

        hooks = [part.register_forward_hook(record) for part in (self.model.cls_head, self.model.reg_head)]
        yield outputs
        for hook in hooks:
            hook.remove()


def peer_name(name: str) -> str:
    """Their name of a parameter of ours."""
    name = name.replace("classify.", "cls.").replace("regress.", "reg.")
    for pattern, theirs in NAMES:
        name, replaced = re.subn(f"^{pattern}(?=\\.)", theirs, name)
        if replaced:
            break
    for place, role in ROLES.items():
        name = name.replace(place, role)
    return name


def on_path(folder: Path) -> None:
    """Make the modules of a checkout importable."""
    if not (folder / "libs" / "modeling" / "meta_archs.py").is_file():
        raise ValueError(f"--peer {folder}: no checkout of actionformer_release, which has libs/modeling/meta_archs.py")
    sys.path.append(str(folder))
