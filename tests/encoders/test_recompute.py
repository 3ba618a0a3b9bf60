"""Activations that are computed twice: the same features and gradients in the memory of a chunk; and their bytes."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from encoders import Encoder, build_encoder
from encoders.activations import peak_bytes, saved_bytes
from encoders.recompute import encode_recomputing

FLOAT = 4


@pytest.fixture(scope="module", params=["tsm_r18", "r2plus1d_18"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """A small clip's encoder with frozen batch norm."""
    return build_encoder(request.param, weights="random", num_frames=2, size=32).eval()


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return torch.randint(0, 256, (5, 3, 2, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def gradients(module: nn.Module, features_NC: Tensor) -> list[Tensor]:
    """Of a loss in which every feature has another weight and all depend on each other."""
    weights_NC = torch.linspace(-1, 1, features_NC.numel()).view_as(features_NC)
    loss = (features_NC * weights_NC).sum() + (features_NC.mean(dim=0) ** 2).sum()
    module.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]


def largest_difference(ones: list[Tensor], others: list[Tensor]) -> float:
    """Relative to the largest gradient of each parameter."""
    pairs = zip(ones, others, strict=True)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


# --- Gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [2, 5])
def test_gradients_are_those_of_plain_backpropagation(encoder: Encoder, clips: Tensor, chunk: int) -> None:
    features_NC = encoder(clips)
    plain = gradients(encoder, features_NC)
    again_NC = encode_recomputing(encoder, clips, chunk)
    assert (again_NC - features_NC).abs().max() < 1e-5
    recomputed = gradients(encoder, again_NC)
    assert len(plain) == len(list(encoder.parameters()))
    assert largest_difference(recomputed, plain) < 1e-5


def test_gradients_reach_the_clips() -> None:
    clips_NF = torch.randn(5, 3, requires_grad=True)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    wanted = torch.autograd.grad(network(clips_NF).square().sum(), clips_NF)[0]
    found = torch.autograd.grad(encode_recomputing(network, clips_NF, 2).square().sum(), clips_NF)[0]
    assert (wanted - found).abs().max() < 1e-6


def test_dropout_drops_the_same_both_times() -> None:
    """A linear network's gradient says which inputs went through; its features say which did the first time."""
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 1, bias=False))
    clips_NF = torch.eye(64)  # clip n shows input n alone
    features_N1 = encode_recomputing(network, clips_NF, 16)
    torch.randn(1000)  # whatever is drawn in between
    features_N1.sum().backward()  # type: ignore[no-untyped-call]
    weight = network[1].weight
    assert isinstance(weight.grad, Tensor)
    kept = features_N1[:, 0] != 0
    assert 10 < kept.sum() < 54
    assert torch.equal(weight.grad[0], torch.where(kept, 2.0, 0.0))


def test_batch_statistics_are_refused(clips: Tensor) -> None:
    training = build_encoder("tsm_tiny", weights="random", num_frames=2)
    with pytest.raises(ValueError, match=r"network\.bn1 normalises by the statistics of its batch.*freeze"):
        encode_recomputing(training, clips, 2)


def test_chunks_of_nothing_are_refused(clips: Tensor) -> None:
    with pytest.raises(ValueError, match="chunk is 0, expected at least 1"):
        encode_recomputing(nn.Identity(), clips, 0)


# --- Bytes ------------------------------------------------------------------------------------------------------------


class Three(nn.Module):
    """Inputs (N,4) to tanh of a linear layer (N,6), saved once; its square, which saves the same storage; its exp."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.linear(inputs).tanh()
        result: Tensor = (hidden * hidden[:, :]).exp()
        return result


def unchanging(network: nn.Module, inputs: Tensor) -> Iterator[Tensor]:
    yield from network.parameters()
    yield inputs


def test_each_saved_storage_counts_once() -> None:
    network, inputs = Three(), torch.randn(10, 4)
    assert saved_bytes(lambda: network(inputs), excluded=unchanging(network, inputs)) == 2 * 10 * 6 * FLOAT
    # The linear layer keeps its input for the gradient of its weight; without a gradient for it, not its weight.
    assert saved_bytes(lambda: network(inputs)) == (2 * 60 + 10 * 4) * FLOAT


def test_a_view_counts_as_the_storage_that_it_keeps_alive() -> None:
    wide = torch.randn(10, 100)
    linear = nn.Linear(4, 6)
    assert saved_bytes(lambda: linear(wide[:, :4]), excluded=linear.parameters()) == 10 * 100 * FLOAT
    assert saved_bytes(lambda: linear(wide[:, :4]), excluded=unchanging(linear, wide)) == 0


def test_the_peak_counts_what_is_alive_together() -> None:
    def temporaries() -> Tensor:
        first = torch.ones(100)
        second = first + 1  # both alive: 800 bytes
        del first
        second.mul_(2)[:50].view(5, 10)  # views and changes in place take nothing
        return torch.cat([second, second])  # and 800 more

    assert peak_bytes(temporaries) == 3 * 400
    given = torch.ones(100)
    assert peak_bytes(lambda: given[:50].view(5, 10)) == 0


def test_what_needs_no_gradient_saves_nothing() -> None:
    network, inputs = Three(), torch.randn(10, 4)
    with torch.no_grad():
        assert saved_bytes(lambda: network(inputs)) == 0


def test_the_backward_pass_frees_on_its_way() -> None:
    """Two networks one after the other, each forward and backward: the peak is one of them."""
    network, inputs = Three(), torch.randn(10, 4)

    def twice() -> None:
        for _ in range(2):
            network(inputs).sum().backward()

    one = saved_bytes(lambda: network(inputs), excluded=unchanging(network, inputs))
    assert saved_bytes(twice, excluded=unchanging(network, inputs)) == one


def test_gradients_are_the_same_while_bytes_are_counted(clips: Tensor) -> None:
    encoder = build_encoder("tsm_tiny", weights="random", num_frames=2)
    plain = gradients(encoder, encoder(clips))
    counted: list[Tensor] = []
    saved_bytes(lambda: counted.extend(gradients(encoder, encoder(clips))))
    assert all(torch.equal(one, other) for one, other in zip(counted, plain, strict=True))


def test_recomputing_holds_one_chunk_of_activations(encoder: Encoder, clips: Tensor) -> None:
    excluded = [*encoder.parameters(), *encoder.buffers(), clips]
    one = saved_bytes(lambda: encoder(clips[:1]), excluded=excluded)
    assert saved_bytes(lambda: encoder(clips), excluded=excluded) == 5 * one  # bytes are linear in clips
    features = 5 * encoder.channels * FLOAT
    assert saved_bytes(lambda: encode_recomputing(encoder, clips, 2), excluded=excluded) <= 2 * features

    def step(encode: Callable[[], Tensor]) -> None:
        encoder.zero_grad()
        encode().square().sum().backward()  # type: ignore[no-untyped-call]

    plain = peak_bytes(lambda: step(lambda: encoder(clips)))
    recomputed = peak_bytes(lambda: step(lambda: encode_recomputing(encoder, clips, 2)))
    # The weights' gradients are there from the first chunk on; where two are added up, there are three for a moment.
    sizes = [FLOAT * parameter.numel() for parameter in encoder.parameters()]
    assert plain >= 5 * one
    assert sum(sizes) + 2 * one <= recomputed <= sum(sizes) + 2 * one + 2 * max(sizes) + 3 * features
