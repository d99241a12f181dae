"""Fused layers: networks compute the same with and without the C code; where it does not apply, torch does."""

import copy

import pytest
import torch
from matrix import with_slow_rest
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from conf import schema
from models.networks import fused, native
from models.networks.build import build_model
from models.networks.efficientnet.blocks import ConvNorm, SqueezeExcite
from models.networks.efficientnet.network import Network

pytestmark = pytest.mark.skipif(native.load() is None, reason="the C code was not built")


def network(name: str, padding: str = "symmetric", resolution: float = 0.15) -> Network:
    torch.manual_seed(0)
    model = schema.Model(name=name, width=0.25, depth=0.2, resolution=resolution, padding=padding)
    return build_model(model, 10).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]


def images(count: int, side: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, side, side, generator=generator).contiguous(memory_format=torch.channels_last)


def step(net: Network, x: Tensor) -> dict[str, Tensor]:
    """Logits, gradients and buffers after one pass."""
    torch.manual_seed(1)  # dropout and stochastic depth
    logits = net(x)
    logits.square().mean().backward()
    gradients = {f"gradient of {name}": p.grad.double() for name, p in net.named_parameters() if p.grad is not None}
    return {"logits": logits.detach().double()} | gradients | {n: b.double() for n, b in net.named_buffers()}


@pytest.mark.parametrize(
    ("name", "padding", "resolution"),
    with_slow_rest(
        [
            ("efficientnet_b0", "symmetric", 0.15),
            ("efficientnet_b0", "same", 0.15),
            ("efficientnet_b4", "symmetric", 0.15),
            ("efficientnet_lite0", "symmetric", 0.25),
        ]
    ),
)
def test_the_whole_network_is_as_close_to_float64_as_torchs_layers_are(
    name: str, padding: str, resolution: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(name, padding, resolution)
    x = images(16, net.resolution)
    exact = step(copy.deepcopy(net).double(), x.double())
    ours = step(copy.deepcopy(net), x)
    monkeypatch.setattr(native, "load", lambda: None)
    theirs = step(copy.deepcopy(net), x)
    assert ours.keys() == theirs.keys() == exact.keys()
    differs = False
    for key, expected in exact.items():
        scale = float(expected.abs().max())
        tolerance = 3 * float((theirs[key] - expected).abs().max()) + 1e-5 * scale + 1e-7
        assert float((ours[key] - expected).abs().max()) <= tolerance, key
        differs = differs or not torch.equal(ours[key], theirs[key])
    assert differs, "the C code was not used"


def test_a_step_has_the_same_bits_each_time_and_when_activations_are_recomputed() -> None:
    net = network("efficientnet_b4")
    x = images(8, net.resolution)
    first, again = step(copy.deepcopy(net), x), step(copy.deepcopy(net), x)
    recomputing = copy.deepcopy(net)
    recomputing.recompute = True
    recomputed = step(recomputing, x)
    for key, value in first.items():
        assert torch.equal(value, again[key]), key
        if "num_batches_tracked" not in key:  # a second pass counts again, as torch's own batch norm does
            assert torch.equal(value, recomputed[key]), key


def test_without_the_library_torchs_layers_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", lambda: None)
    net = network("efficientnet_b0")
    x = images(4, net.resolution)
    assert fused.usable(x) is None
    assert torch.isfinite(net(x)).all()


def test_other_devices_types_and_layouts_are_left_to_torch() -> None:
    x = images(4, 6, 8)
    assert fused.usable(x) is native.load()
    assert fused.usable(x[:1]) is None
    assert fused.usable(x.double()) is None
    assert fused.usable(x.to("meta")) is None
    assert fused.usable(x.contiguous()) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert fused.usable(x) is None
    with FakeTensorMode() as mode:
        assert fused.usable(mode.from_tensor(x)) is None


@pytest.mark.parametrize("change", ["momentum", "statistics", "affine", "subclass", "evaluation"])
def test_a_batch_norm_with_other_options_is_left_to_torch(change: str) -> None:
    layer = ConvNorm(8, 8, 3, groups=8).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    norms: dict[str, nn.Module] = {
        "momentum": nn.BatchNorm2d(8, momentum=None),  # type: ignore[arg-type]  # a cumulative mean
        "statistics": nn.BatchNorm2d(8, track_running_stats=False),
        "affine": nn.BatchNorm2d(8, affine=False),
        "subclass": nn.SyncBatchNorm(8),
        "evaluation": nn.BatchNorm2d(8).eval(),
    }
    x = images(4, 6, 8)
    assert layer.fused(x) is not None
    layer[1] = norms[change]
    assert layer.fused(x) is None


@pytest.mark.parametrize("channels", [8, 13, 96])
@pytest.mark.parametrize("limit", [0, 2**30], ids=["by torch's products", "in C"])
def test_squeeze_and_excitation_and_its_gradients_agree_with_float64(
    channels: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "SMALL_GATE_PRODUCTS", limit)
    torch.manual_seed(0)
    layer = SqueezeExcite(channels, 5).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    exact = copy.deepcopy(layer).double()
    x = images(4, 7, channels).requires_grad_()
    x64 = x.detach().double().requires_grad_()
    y, expected = layer(x), exact(x64)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    grad = images(4, 7, channels)
    y.backward(grad)
    expected.backward(grad.double())
    pairs = [(x, x64), *zip(layer.parameters(), exact.parameters(), strict=True)]
    for actual, reference in pairs:
        assert actual.grad is not None
        assert reference.grad is not None
        assert actual.grad.shape == reference.grad.shape
        torch.testing.assert_close(actual.grad.double(), reference.grad, rtol=1e-5, atol=1e-5)


def test_frozen_weights_receive_no_gradient() -> None:
    layer = ConvNorm(8, 8, 3, groups=8).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    layer[0].weight.requires_grad_(False)
    layer(images(4, 6, 8)).sum().backward()
    assert layer[0].weight.grad is None
    assert layer[1].weight.grad is not None


def test_weights_of_squeeze_and_excitation_keep_the_shape_of_convolutions() -> None:
    shapes = {name: tuple(t.shape) for name, t in SqueezeExcite(24, 4).state_dict().items()}
    assert shapes == {
        "reduce.weight": (4, 24, 1, 1),
        "reduce.bias": (4,),
        "expand.weight": (24, 4, 1, 1),
        "expand.bias": (24,),
    }


@pytest.mark.slow
def test_a_network_in_training_mode_can_be_exported() -> None:
    layer = (
        nn.Sequential(ConvNorm(8, 8, 3, groups=8), SqueezeExcite(8, 2)).to(memory_format=torch.channels_last).train()
    )  # type: ignore[call-overload]
    x = images(4, 6, 8)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-4, atol=1e-5)


def test_weights_of_another_type_are_an_error_as_with_torch() -> None:
    layer = nn.Sequential(ConvNorm(8, 8, 3, groups=8)).to(memory_format=torch.channels_last).double().train()  # type: ignore[call-overload]
    with pytest.raises(RuntimeError):
        layer(images(4, 6, 8))


def test_a_second_derivative_is_refused_instead_of_being_wrong() -> None:
    layer = ConvNorm(8, 8, 3, groups=8).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    x = images(4, 6, 8).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)
