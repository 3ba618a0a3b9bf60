"""Time, memory and parameters of each head, against its literal form, public code and the rate of a matrix product.

    python benchmarks/head_speed.py [--sizes thumos activitynet] [--heads actionformer] [--forms ours literal]
                                    [--repeats 5] [--rows 40000] [--threads 2] [--peer FOLDER]

ours       a training step (targets, forward, loss, backward, clipping, AdamW), and a long video to scored segments
literal    the same as the paper's figures draw it: all T x T scores of attention and a mask on them; every sample of
           every segment of G-TAD and BMN, by a product with a mask
peer       ActionFormer's public code with the same weights: see `benchmarks/peer.py`
limit      the products of the head, forward and backward, at the rate of a large matrix product

THUMOS size is 2,304 rows of 2,048 channels, 2 videos in a batch and 20 classes (windows of 256 rows for G-TAD, of 128
for BMN), ActivityNet size 192 rows of 512 channels, 16 videos and one class (2 windows of 100 rows of 400 channels for
G-TAD and BMN). All forms take turns on the same features; times are medians, and peaks what torch's CPU allocator held
beyond what it held before. A head that sees windows gets those of the long video that overlap by half. The literal
form does not get the long video: all scores of 40,000 rows are 26 GB.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from rich.console import Console
from torch import Tensor, nn

import heads.actionformer
from benchmarks.command_line import script_parser
from benchmarks.peer import PeerActionFormer
from benchmarks.results import results_table
from benchmarks.turns import Product, count_flops, peak_bytes, take_turns
from heads import HEADS
from heads.actionformer import ActionFormer
from heads.bmn import BoundaryMatching
from heads.folding import SparseMap
from heads.sgalign import SGAlign
from heads.stochastic_depth import ScaledDropPath

SEGMENTS = 15
WINDOWS_AT_A_TIME = 4
MAX_NORM = 1.0


class Setting(NamedTuple):
    """What a head is measured on."""

    channels: int
    num_classes: int
    batch: int
    rows: int
    options: dict[str, Any]


# As published. A head that has no setting here has the first one's features, and its own defaults.
SETTINGS: dict[str, dict[str, Setting]] = {
    "thumos": {
        "actionformer": Setting(2048, 20, 2, 2304, {}),
        "gtad": Setting(
            2048,
            20,
            2,
            256,
            {"num_snippets": 256, "max_duration": 64, "inner_bins": 16, "context_bins": 16, "map_kernel": 3},
        ),
        "bmn": Setting(2048, 20, 2, 128, {"num_snippets": 128, "max_duration": 64}),
    },
    "activitynet": {
        "actionformer": Setting(
            512,
            1,
            16,
            192,
            {
                "crop_rows": 192,
                "hidden": 256,
                "window": 7,
                "last_window": 0,
                "position_rows": 192,
                "label_smoothing": 0.1,
                "reg_weight": 2.0,
                "initial_positives": 200.0,
                "min_length": 0.001,
            },
        ),
        "gtad": Setting(400, 1, 2, 100, {}),
        "bmn": Setting(400, 1, 2, 100, {}),
    },
}


class Batch(NamedTuple):
    feats_BCT: Tensor
    segments: list[Tensor]  # (N, 2) rows
    labels: list[Tensor]  # (N,)


class Form(NamedTuple):
    """One way to compute a head."""

    train: Callable[[], object]
    detect: Callable[[], object] | None


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--forms", nargs="+", choices=["ours", "literal", "peer"], default=["ours", "literal", "peer"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for size in options.sizes:
        for name in options.heads:
            compare(size, name, options)


def compare(size: str, name: str, options: argparse.Namespace) -> None:
    """Print a table of the forms of a head at a size."""
    torch.manual_seed(0)
    default = next(iter(SETTINGS[size].values()))._replace(options={})
    setting = SETTINGS[size].get(name, default)
    head = HEADS[name].load()(setting.channels, num_classes=setting.num_classes, **setting.options)
    batch, video_CT = random_batch(setting), torch.randn(setting.channels, options.rows)

    forms = {"ours": our_form(copy.deepcopy(head), batch, video_CT)}
    if literal := literal_form(copy.deepcopy(head), batch):
        forms["literal"] = literal
    if name == "actionformer" and options.peer is not None:
        peer = PeerActionFormer(options.peer, size, head, longest=options.rows)
        print_differences(copy.deepcopy(head), copy.deepcopy(peer), batch)
        forms["peer"] = peer_form(peer, batch, video_CT)
    flops = [count_flops(run) for run in forms["ours"] if run is not None]
    forms = {form: forms[form] for form in options.forms if form in forms}

    table = results_table(
        f"{name} at {size} size: {setting.batch} x {setting.rows} rows, {count(head):,} parameters, "
        f"{options.threads} threads",
        *("", "training step", "of the limit", "peak", f"{options.rows:,} rows", "of the limit", "peak"),
    )
    trained = measured({form: runs.train for form, runs in forms.items()}, flops[0], options.repeats)
    found = {form: runs.detect for form, runs in forms.items() if runs.detect is not None}
    detected = measured(found, flops[1], -(-options.repeats // 2))
    for form in [*forms, "limit"]:
        table.add_row(form, *trained[form], *detected.get(form, ["–"] * 3))
    Console(width=120).print(table)


def measured(runs: dict[str, Callable[[], object]], flops: int, repeats: int) -> dict[str, list[str]]:
    """Of each form, and of the limit: seconds, the limit over them, and the peak of memory."""
    product = Product()
    seconds = take_turns({**runs, "limit": product}, repeats)
    limit = seconds["limit"] = product.limit(flops, seconds["limit"])
    peaks = {form: f"{peak_bytes(run) / 2**20:,.0f} MiB" for form, run in runs.items()}
    return {form: [f"{own:.3f} s", f"{limit / own:.2f}", peaks.get(form, "–")] for form, own in seconds.items()}


def count(head: nn.Module) -> int:
    return sum(parameter.numel() for parameter in head.parameters())


# --- What a head does -------------------------------------------------------------------------------------------------


def random_batch(setting: Setting) -> Batch:
    """Features at random, and segments of which some are short and some are long."""
    generator = torch.Generator().manual_seed(0)
    feats_BCT = torch.randn(setting.batch, setting.channels, setting.rows, generator=generator)
    segments, labels = [], []
    for _ in range(setting.batch):
        middle_N = setting.rows * torch.rand(SEGMENTS, generator=generator)
        half_N = setting.rows / 4 * torch.rand(SEGMENTS, generator=generator) ** 3 + 1
        segments.append(torch.stack([middle_N - half_N, middle_N + half_N], dim=1).clamp(0, setting.rows))
        labels.append(torch.randint(setting.num_classes, (SEGMENTS,), generator=generator))
    return Batch(feats_BCT, segments, labels)


def our_form(head: Any, batch: Batch, video_CT: Tensor) -> Form:
    def loss() -> Tensor:
        targets = head.targets(batch.segments, batch.labels)
        loss: Tensor = head.loss(forward(head, batch.feats_BCT), targets)["loss"]
        return loss

    def detect() -> None:
        head.eval()
        for part_BCT in torch.split(parts_of(head, video_CT), WINDOWS_AT_A_TIME):
            head.decode(forward(head, part_BCT))

    return Form(training_step(head, loss), torch.no_grad()(detect))


def forward(head: Any, feats_BCT: Tensor) -> Any:
    """A head that sees videos whole is told that no row is padding, as a batch of videos would."""
    if head.num_snippets is not None:
        return head(feats_BCT)
    return head(feats_BCT, torch.ones(len(feats_BCT), feats_BCT.shape[2], dtype=torch.bool))


def parts_of(head: Any, video_CT: Tensor) -> Tensor:
    """The video as the head sees it, (parts, C, T)."""
    if head.num_snippets is None:
        return video_CT[None]
    return video_CT.unfold(1, head.num_snippets, head.num_snippets // 2).movedim(1, 0)


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()

    return step


# --- Literal forms ----------------------------------------------------------------------------------------------------


def literal_form(head: Any, batch: Batch) -> Form | None:
    """A training step of the head, which this changes, in its literal form; None of one that has none."""
    for name, module in list(head.named_children()):
        if isinstance(module, (SGAlign, BoundaryMatching)):
            setattr(head, name, LiteralSampling(module, head.num_snippets))
    step = our_form(head, batch, batch.feats_BCT[0]).train
    if any(isinstance(module, LiteralSampling) for module in head.children()):
        return Form(step, None)
    if any(isinstance(module, heads.actionformer.Attention) for module in head.modules()):
        return Form(mock.patch.object(heads.actionformer, "local_attention", dense_attention)(step), None)
    return None


def dense_attention(query_BHTE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor, valid_BT: Tensor, window: int) -> Tensor:
    """All T x T scores, and a mask on those outside of the window."""
    row_T = torch.arange(query_BHTE.shape[2])
    seen_B1TT = ((row_T - row_T[:, None]).abs() <= window // 2) & valid_BT[:, None, None]
    scores_BHTT = query_BHTE @ key_BHTE.mT / query_BHTE.shape[3] ** 0.5
    return scores_BHTT.masked_fill(~seen_B1TT, -torch.inf).softmax(dim=3) @ value_BHTE


class LiteralSampling(nn.Module):
    """All samples of all segments, and the convolution that reads them and its ReLU: (B, T, C), … -> (B, N, O)."""

    def __init__(self, folded: SGAlign | BoundaryMatching, num_rows: int) -> None:
        super().__init__()
        self.bias = folded.bias
        pairs = (
            [(folded.inner, folded.inner_map), (folded.context, folded.context_map)]
            if isinstance(folded, SGAlign)
            else [(folded.samples, folded.sample_map)]
        )
        self.convolutions = nn.ModuleList(linear for linear, _ in pairs)
        self.masks = [sampling_mask(samples, num_rows) for _, samples in pairs]

    def forward(self, *feats: Tensor) -> Tensor:
        parts = [self._convolved(*part) for part in zip(self.convolutions, self.masks, feats, strict=True)]
        return torch.relu(sum(parts, start=self.bias))

    def _convolved(self, convolution: nn.Linear, mask_NKT: Tensor, feats_BTC: Tensor) -> Tensor:
        num_cells, num_samples, num_rows = mask_NKT.shape
        # (N * K, T) @ (B, T, C) -> (B, N, K * C)
        sampled_BNI = (mask_NKT.view(-1, num_rows) @ feats_BTC).view(len(feats_BTC), num_cells, -1)
        weight_OI = convolution.weight.view(num_samples, -1, convolution.in_features).transpose(0, 1).flatten(1)
        return sampled_BNI @ weight_OI.T


def sampling_mask(samples: SparseMap, num_rows: int) -> Tensor:
    """How much of each row (N, K, T) each sample of each segment takes, with all zeros."""
    shape = (samples.num_rows, len(samples.transposed_offset) - 1)
    entries = (samples.plain_offset, samples.plain_index, samples.plain_weight)
    return torch.sparse_csr_tensor(*entries, shape).to_dense().view(samples.num_rows, num_rows, -1).mT.contiguous()


# --- Public code ------------------------------------------------------------------------------------------------------


def peer_form(peer: PeerActionFormer, batch: Batch, video_CT: Tensor) -> Form:
    def detect() -> None:
        peer.eval()
        peer.detect(video_CT)

    return Form(training_step(peer, lambda: peer.loss(*batch)), torch.no_grad()(detect))


def print_differences(head: ActionFormer, peer: PeerActionFormer, batch: Batch) -> None:
    """How far both are apart in a training step in which no branch is left out, on videos without padding."""
    for module in head.modules():
        if isinstance(module, ScaledDropPath):
            module.rate = 0.0
    peer.without_chance()
    output = forward(head, batch.feats_BCT)
    ours = (output.logits, output.offsets, head.loss(output, head.targets(batch.segments, batch.labels))["loss"])
    with peer.recorded() as outputs:
        loss = peer.loss(*batch)
    theirs = (*outputs, loss)
    apart = [float((own - their).norm() / their.norm()) for own, their in zip(ours, theirs, strict=True)]
    print("relative difference from the public code: " + "logits {:.1e}, offsets {:.1e}, loss {:.1e}".format(*apart))


if __name__ == "__main__":
    main()
