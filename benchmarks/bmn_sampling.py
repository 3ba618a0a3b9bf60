"""Time and memory of BMN's sampling with the 3-D convolution after it: folded (`heads.bmn`) against direct.

    python benchmarks/bmn_sampling.py [--repeats 5] [--threads 2]

Both forms get the same features and weights, T = D = 100, N = 32, 256 channels in, 512 out, batch 2, and must agree.
The direct form (`tests/helpers/reference_bmn.py`) is the paper's: a product with the mask of 100 x 320,000 numbers,
which is held beside what is measured (122 MiB), then the convolution over the map of samples. Peaks are what torch's
CPU allocator held beyond what it held before, by its own records.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from reference_bmn import DirectBoundaryMatching, convolution_weight  # noqa: E402

from benchmarks.sgalign import measure  # noqa: E402
from heads.bmn import BoundaryMatching  # noqa: E402
from heads.cells import valid_cells  # noqa: E402

SIZE, SAMPLES, CHANNELS, OUTPUTS, BATCH = 100, 32, 256, 512, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    module = BoundaryMatching(CHANNELS, OUTPUTS, num_snippets=SIZE, max_duration=SIZE, num_samples=SAMPLES)
    feats_BCT = torch.randn(BATCH, CHANNELS, SIZE, requires_grad=True)
    forms = {"direct": direct_form(module, feats_BCT), "folded": lambda: module(feats_BCT.mT)}
    check_agreement(forms)
    measured = {name: measure(form, arguments.repeats) for name, form in forms.items()}
    names = list(measured["folded"])
    print(
        f"T = D = {SIZE}, N = {SAMPLES}, {CHANNELS} -> {OUTPUTS} channels, batch {BATCH}, {arguments.threads} threads"
    )
    print(f"{'':12}" + "".join(f"{name:>12}" for name in names))
    for form, row in measured.items():
        print(f"{form:12}" + "".join(f"{row[name]:12.3f}" for name in names))
    print(f"{'ratio':12}" + "".join(f"{measured['direct'][name] / measured['folded'][name]:12.1f}" for name in names))


def direct_form(module: BoundaryMatching, feats_BCT: Tensor) -> Callable[[], Tensor]:
    match = DirectBoundaryMatching(SAMPLES, SIZE)
    weight = convolution_weight(module.samples.weight, SAMPLES).detach().contiguous().requires_grad_()
    bias = module.bias.detach().clone().requires_grad_()
    return lambda: match(feats_BCT, weight, bias)


def check_agreement(forms: dict[str, Callable[[], Tensor]]) -> None:
    start_N, duration_N = valid_cells(SIZE, SIZE)
    with torch.no_grad():
        direct = forms["direct"]()[:, :, start_N, start_N + duration_N].mT
        error = (forms["folded"]() - direct).norm() / direct.norm()
    print(f"relative difference of the two forms on the valid cells: {error:.1e}")
    assert error < 1e-5


if __name__ == "__main__":
    main()
