"""An encoder and a head as one network, at several numbers of snippets."""

from dataclasses import replace

import pytest
import torch

from encoders import build_encoder
from heads.options import GTADOptions
from pipeline.commands.lofi_train.end_to_end import EndToEnd, build_head, build_heads, share_parameters
from pipeline.commands.lofi_train.fidelity import Fidelity, low_fidelities

HEAD = GTADOptions(num_snippets=8, hidden=64, inner_bins=4, context_bins=2)
FIDELITIES = tuple(low_fidelities(Fidelity(8, 64, 64)).values())


def build(*, batch_norm_frozen: bool = True, chunk: int | None = None) -> EndToEnd:
    torch.manual_seed(0)
    encoder = build_encoder("tsm_tiny", weights="random", num_frames=4)
    heads = build_heads(HEAD, encoder.channels, 2, [fidelity.num_snippets for fidelity in FIDELITIES])
    return EndToEnd(encoder, heads, batch_norm_frozen=batch_norm_frozen, chunk=chunk)


def test_the_head_scores_all_pairs_of_the_current_length_with_the_same_parameters() -> None:
    model = build()
    parameters = {id(parameter) for parameter in model.head_for(8).parameters()}
    for fidelity in FIDELITIES:
        num_snippets = fidelity.num_snippets
        output = model(torch.zeros(2, num_snippets, 3, 4, fidelity.size, fidelity.size, dtype=torch.uint8))
        assert output.start.shape == (2, num_snippets)
        assert output.iou_reg.shape == (2, num_snippets, num_snippets)
        assert {id(parameter) for parameter in model.head_for(num_snippets).parameters()} == parameters
    assert len(parameters) > 0


@pytest.mark.parametrize(("num_snippets", "limits"), [(8, (6, 5)), (4, (3, 3)), (2, (2, 2))])
def test_a_limit_of_the_anchors_stays_as_long_in_time(num_snippets: int, limits: tuple[int, int]) -> None:
    head = build_head(replace(HEAD, max_duration=6, longest_proposal=5), 16, 2, num_snippets)
    assert (head.max_duration, head.longest_proposal) == limits


@pytest.mark.parametrize("chunk", [None, 3])
def test_features_of_a_video_go_to_the_head_in_order(chunk: int | None) -> None:
    model = build(chunk=chunk)
    clips = torch.randint(256, (2, 4, 3, 4, 45, 45), dtype=torch.uint8)
    features_BCT = torch.stack([torch.cat([model.encoder(clip[None]) for clip in video]) for video in clips]).mT
    torch.testing.assert_close(model(clips).start, model.head_for(4)(features_BCT).start)


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_normalisation_is_frozen_whatever_mode_the_rest_is_in(frozen: bool) -> None:
    model = build(batch_norm_frozen=frozen)
    for training in (True, False, True):
        model.train(training)
        modes = {module.training for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)}
        assert modes == {training and not frozen}
        assert model.encoder.network.training == training


def test_shared_parameters_learn_together() -> None:
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    share_parameters(one, other)
    with torch.no_grad():
        one.weight.fill_(3.0)
    assert (other.weight == 3.0).all()
    assert other.bias is one.bias
