"""Weight files: the layouts that are read, and everything that is refused rather than loaded wrongly."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from reference_tsm import tsm_features
from small_encoders import IMAGENET_MEAN, IMAGENET_STD, random_clips
from torch import Tensor, nn
from torchvision.models import resnet18, resnet34

from encoders import Encoder, build_encoder
from encoders.weights import FILE_IN_FOLDER, fingerprint, load_weights, read_weights, save_weights
from pipeline.data.features import ENCODER_WEIGHTS

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """A ResNet-18 whose weights and BatchNorm statistics are all its own."""
    network = resnet18(weights=None).eval()
    generator = torch.Generator().manual_seed(5)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network


def official_tsm_state(resnet: nn.Module) -> State:
    """What the official code calls the weights: DataParallel, base_model, and `net` in every shifted convolution."""
    state = {}
    for key, tensor in resnet.state_dict().items():
        if key.startswith("layer") and ".conv1." in key:
            key = key.replace(".conv1.", ".conv1.net.")
        if not key.startswith("fc."):
            state[f"module.base_model.{key}"] = tensor
    return state | {"module.new_fc.weight": torch.zeros(400, 512), "module.new_fc.bias": torch.zeros(400)}


def build(name: str, weights: Path | str | None, allow_missing: bool = False) -> Encoder:
    return build_encoder(name, weights=weights, num_frames=3, size=32, allow_missing=allow_missing).eval()


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def assert_features_of(encoder: Encoder, resnet: nn.Module) -> None:
    clips = random_clips(encoder)
    normalised = (clips / 255 - IMAGENET_MEAN) / IMAGENET_STD
    with torch.no_grad():
        torch.testing.assert_close(encoder(clips), tsm_features(resnet, normalised), rtol=1e-4, atol=1e-4)


def test_an_official_tsm_checkpoint_gives_the_features_of_its_network(tmp_path: Path, resnet: nn.Module) -> None:
    checkpoint = {
        "epoch": 50,
        "arch": "resnet18",
        "state_dict": official_tsm_state(resnet),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(1)}}, "param_groups": [{"lr": 0.02}]},
        "best_prec1": torch.tensor(70.0),
    }
    assert_features_of(build("tsm_r18", saved(tmp_path / "ckpt.best.pth.tar", checkpoint)), resnet)


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.network.", "model.backbone."])
def test_a_plain_resnet_starts_a_tsm_whatever_wrapped_it(tmp_path: Path, resnet: nn.Module, prefix: str) -> None:
    state = {prefix + key: tensor for key, tensor in resnet.state_dict().items()}
    assert_features_of(build("tsm_r18", saved(tmp_path / "resnet.pt", state)), resnet)


def test_a_plain_resnet_fills_a_tsn(tmp_path: Path, resnet: nn.Module) -> None:
    encoder = build("tsn_r18", saved(tmp_path / "resnet.pth", resnet.state_dict()))
    expected = {key: tensor for key, tensor in resnet.state_dict().items() if not key.startswith("fc.")}
    torch.testing.assert_close(dict(encoder.network.state_dict()), expected, rtol=0, atol=0)


def test_half_precision_and_absent_step_counts_are_no_obstacle(tmp_path: Path, resnet: nn.Module) -> None:
    state = {key: t.half() for key, t in resnet.state_dict().items() if not key.endswith("num_batches_tracked")}
    encoder = build("tsn_r18", saved(tmp_path / "half.pth", state))
    assert torch.equal(encoder.network.conv1.weight, resnet.conv1.weight.half().float())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_our_own_file_brings_back_the_same_weights(tmp_path: Path, memory_format: torch.memory_format) -> None:
    encoder = build_encoder("tsm_tiny", weights="random", seed=1).to(memory_format=memory_format)
    save_weights(encoder, tmp_path / FILE_IN_FOLDER)
    assert os.listdir(tmp_path) == [FILE_IN_FOLDER]
    from_file = build_encoder("tsm_tiny", weights=tmp_path / FILE_IN_FOLDER)
    from_folder = build_encoder("tsm_tiny", weights=str(tmp_path))
    assert fingerprint(encoder) == fingerprint(from_file) == fingerprint(from_folder)


def test_a_folder_is_searched_for_what_a_feature_store_calls_its_encoder() -> None:
    assert FILE_IN_FOLDER == ENCODER_WEIGHTS


def test_weights_of_another_depth_are_refused_with_the_keys(tmp_path: Path, resnet: nn.Module) -> None:
    path = saved(tmp_path / "resnet18.pth", resnet.state_dict())
    with pytest.raises(ValueError, match=r"resnet18.pth does not fit tsm_r50: keys missing: \d+ \(layer1") as error:
        build("tsm_r50", path)
    assert "with another shape: " in str(error.value)
    with pytest.raises(ValueError, match=r"keys missing: \d\d \(layer1.2.conv1.net.weight, .*\.\.\.\)"):
        build("tsm_r34", path)


def test_weights_of_a_deeper_network_are_unexpected(tmp_path: Path) -> None:
    path = saved(tmp_path / "resnet34.pth", resnet34(weights=None).state_dict())
    with pytest.raises(ValueError, match=r"does not fit tsn_r18: keys unexpected: 96 \(layer1.2.conv1.weight, "):
        build("tsn_r18", path)


def test_weights_trained_with_shifts_do_not_pass_as_a_tsn(tmp_path: Path) -> None:
    save_weights(build("tsm_r18", "random"), tmp_path / "tsm.safetensors")
    with pytest.raises(ValueError, match=r"missing: 8 \(layer1.0.conv1.weight, .*unexpected: 8 \(layer1.0.conv1.net"):
        build("tsn_r18", tmp_path / "tsm.safetensors")


def test_allowing_missing_keys_loads_the_rest_and_says_so(tmp_path: Path, resnet: nn.Module) -> None:
    state = {key: tensor for key, tensor in resnet.state_dict().items() if not key.startswith("layer4.")}
    path = saved(tmp_path / "part.pth", state | {"extra.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"missing: 25 .*; keys unexpected: 1 .*set allow_missing"):
        build("tsn_r18", path)
    with pytest.warns(UserWarning, match=r"missing: 25 .*; keys unexpected: 1 .*The rest was loaded"):
        encoder = build("tsn_r18", path, allow_missing=True)
    assert torch.equal(encoder.network.layer3[1].conv2.weight, resnet.layer3[1].conv2.weight)


@pytest.mark.parametrize("state", [{"some.weight": torch.zeros(1)}, {"conv1.weight": torch.zeros(64, 1, 7, 7)}])
def test_allowing_missing_keys_does_not_allow_another_network(tmp_path: Path, state: State) -> None:
    with pytest.raises(ValueError, match="does not fit tsn_r18"):
        build("tsn_r18", saved(tmp_path / "other.pth", state), allow_missing=True)


def test_one_weight_under_two_prefixes_is_refused(tmp_path: Path, resnet: nn.Module) -> None:
    state = resnet.state_dict() | {"module.conv1.weight": torch.zeros(64, 3, 7, 7)}
    with pytest.raises(ValueError, match=r"holds conv1.weight more than once"):
        build("tsn_r18", saved(tmp_path / "twice.pth", state))


class Attack:
    """Unpickling it makes a folder: what a weight file must not be able to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "evil.pth", {"state_dict": {}, "attack": Attack(tmp_path / "made")})
    with pytest.raises(ValueError, match=r"evil.pth .*could run code"):
        build("tsn_r18", path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_half_a_file_is_refused_by_its_name(tmp_path: Path, suffix: str, share: float) -> None:
    encoder = build_encoder("tsm_tiny", weights="random")
    path = tmp_path / f"half{suffix}"
    if suffix == ".pth":
        saved(path, encoder.state_dict())
    else:
        save_weights(encoder, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=f"half{suffix} is "):
        load_weights(encoder, path)


def test_any_flipped_byte_gives_other_weights_or_a_refusal_by_the_files_name(tmp_path: Path) -> None:
    """torch has nothing that it would not raise."""
    path = saved(tmp_path / "flipped.pth", {"weight": torch.ones(1)})
    whole = path.read_bytes()
    refusals = []
    for position in range(0, len(whole), 4):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            read_weights(path)
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > 20
    assert all("flipped.pth" in refusal for refusal in refusals)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2), {1: torch.zeros(2)}])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(ValueError, match=r"none.pt holds no state dict"):
        build("tsn_r18", saved(tmp_path / "none.pt", content))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no weight file or folder {tmp_path}/w.pth"):
        build("tsn_r18", tmp_path / "w.pth")
    with pytest.raises(ValueError, match=f"no weight file or folder {tmp_path}/run"):
        build("tsn_r18", str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"holds no encoder.safetensors: expected a weight file, a run folder"):
        build("tsn_r18", tmp_path)
    (tmp_path / "w.h5").touch()
    with pytest.raises(ValueError, match=r"w.h5: expected a weight file that ends in .safetensors, .pth"):
        build("tsn_r18", tmp_path / "w.h5")


@pytest.mark.parametrize("name", ["tsn_r18", "tsm_r18"])
@pytest.mark.parametrize("weights", [None, "IMAGENET1K_V1"])
def test_registered_weights_are_torchvisions(
    name: str, weights: str | None, resnet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(url: str, **options: object) -> State:
        asked.append((url, options["weights_only"], options["check_hash"]))
        return resnet.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    encoder = build(name, weights)
    assert torch.equal(encoder.network.layer4[1].bn2.weight, resnet.layer4[1].bn2.weight)
    assert asked == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", True, True)]


@pytest.mark.parametrize("failure", [URLError("no route"), TimeoutError("too slow"), RuntimeError("invalid hash")])
def test_a_failed_download_says_what_to_give(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, **options: object) -> State:
        raise failure

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.raises(ValueError, match=r"could not download https://\S+resnet18\S+pth .*--weights PATH"):
        build("tsm_r18", None)


@pytest.mark.parametrize(
    ("name", "weights", "complaint"),
    [
        ("tsn_r50", "KINETICS", "'KINETICS': no such file or folder, .*resnet50 has only IMAGENET1K_V1, IMAGENET1K_V2"),
        ("tsm_tiny", None, "tsm_tiny has no registered pretrained weights: give --weights PATH, or --weights random"),
        ("tsm_tiny", "IMAGENET1K_V1", "no registered pretrained weights called 'IMAGENET1K_V1', nor is there a file"),
        ("tsn_efficientnet_lite0", "IMAGENET1K_V1", "no registered pretrained weights called 'IMAGENET1K_V1'"),
    ],
)
def test_names_that_are_not_registered_are_refused(name: str, weights: str | None, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build(name, weights)


def test_the_fingerprint_sees_names_shapes_types_and_every_bit() -> None:
    def module(name: str = "a", values: Tensor | None = None) -> nn.Module:
        holder = nn.Module()
        holder.register_buffer(name, torch.zeros(2, 3) if values is None else values)
        return holder

    one_bit = torch.zeros(2, 3)
    one_bit.view(torch.int32)[1, 2] = 1
    different = [
        module(),
        module("b"),
        module(values=torch.zeros(3, 2)),
        module(values=torch.zeros(2, 3, dtype=torch.int32)),
        module(values=one_bit),
    ]
    assert len({fingerprint(each) for each in different}) == len(different)
    assert fingerprint(module()) == fingerprint(module(values=torch.zeros(3, 2).t()))


def test_the_fingerprint_leaves_batch_norms_step_count_out() -> None:
    first, second = nn.Sequential(nn.BatchNorm2d(4)), nn.Sequential(nn.BatchNorm2d(4))
    second[0].num_batches_tracked += 5
    assert fingerprint(first) == fingerprint(second)
