"""The C code for training on a CPU against torch in float64, at every width of vectors."""

import functools
import itertools
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from matrix import with_slow_rest
from torch import Tensor

from models.networks import native
from models.networks.native import ConvShape, Layers, NormShape, RMSProp
from models.training.optim import Part, TFRMSProp

LANES = (16, 8, 4, 1)


@pytest.fixture(params=LANES)
def layers(request: pytest.FixtureRequest) -> Iterator[Layers]:
    """The library, limited to one width; a narrower one computes what is left of the channels."""
    loaded = native.load()
    if loaded is None:
        pytest.skip("the C code was not built")
    loaded.use_lanes(request.param)
    yield loaded
    loaded.use_lanes(LANES[0])


def images(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the largest value."""
    one, other, tolerance = actual.double(), expected.double(), 1e-5 * float(expected.abs().max())
    if one.shape != other.shape or not torch.allclose(one, other, rtol=1e-5, atol=tolerance):  # a third of the time
        torch.testing.assert_close(one, other, rtol=1e-5, atol=tolerance)


def same(side: int, kernel: int, stride: int) -> tuple[int, int]:
    pixels = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    return pixels // 2, pixels - pixels // 2


@functools.cache  # the widths of vectors are compared with the same numbers
def convolutions(kernel: int, stride: int, tensorflow: bool) -> list[tuple[ConvShape, list[Tensor], list[Tensor]]]:
    """Shapes, float32 inputs (images, weight, gradient) and float64 outputs (convolved, both gradients)."""
    torch.manual_seed(0)
    cases = []
    for channels, height, extra in itertools.product((1, 8, 13, 48), (1, 2, 3, 5, 7, 12, 19), (0, 1)):
        width = height + extra
        rows = same(height, kernel, stride) if tensorflow else (kernel // 2, kernel // 2)
        columns = same(width, kernel, stride) if tensorflow else (kernel // 2, kernel // 2)
        x, weight = images(3, channels, height, width), torch.randn(channels, 1, kernel, kernel)
        x64, weight64 = x.double().requires_grad_(), weight.double().requires_grad_()
        expected = F.conv2d(F.pad(x64, (*columns, *rows)), weight64, None, stride, groups=channels)
        grad = images(*expected.shape)
        expected.backward(grad.double())
        assert x64.grad is not None
        assert weight64.grad is not None
        shape = ConvShape(3, height, width, channels, *expected.shape[2:], kernel, stride, rows[0], columns[0])
        cases.append((shape, [x, weight, grad], [expected.detach(), x64.grad, weight64.grad]))
    return cases


@pytest.mark.parametrize("tensorflow", [False, True], ids=["symmetric", "same"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", with_slow_rest([3, 5, 7]))
def test_a_depthwise_convolution_and_its_gradients_agree_with_float64(
    layers: Layers, kernel: int, stride: int, tensorflow: bool
) -> None:
    for shape, (x, weight, grad), (convolved, of_images, of_weight) in convolutions(kernel, stride, tensorflow):
        assert_close(layers.depthwise(shape, x, weight), convolved)
        assert_close(layers.depthwise_input(shape, grad, weight), of_images)
        assert_close(layers.depthwise_weight(shape, x, grad, weight), of_weight)


@pytest.mark.parametrize("activation", with_slow_rest([0, 1, 2], plain=4), ids=["none", "silu", "relu6"])
def test_a_batch_norm_with_its_activation_agrees_with_float64(layers: Layers, activation: int) -> None:
    torch.manual_seed(0)
    function = (lambda z: z, F.silu, F.relu6)[activation]
    for channels, side in itertools.product((1, 8, 13, 48, 100), (1, 4, 31)):
        x = images(4, channels, side, side) * 3 + 5
        gamma, beta = torch.randn(channels), torch.randn(channels) * 3
        mean, variance, batches = torch.randn(channels), torch.rand(channels), torch.tensor(7)
        leaves = [t.double().requires_grad_() for t in (x, gamma, beta)]
        mean64, variance64 = mean.double(), variance.double()
        expected = function(F.batch_norm(leaves[0], mean64, variance64, leaves[1], leaves[2], True, 0.1, 1e-3))
        grad = images(*x.shape)
        expected.backward(grad.double())
        shape = NormShape(4 * side * side, side * side, channels, activation, 1e-3, 0.1)
        y, saved = layers.norm(shape, x, (gamma, beta), (mean, variance, batches), None, None)
        assert_close(y, expected.detach())
        assert_close(mean, mean64)
        assert_close(variance, variance64)
        assert batches == 8
        for actual, leaf in zip(layers.norm_backward(shape, x, grad, (gamma, beta), saved, None), leaves, strict=True):
            assert leaf.grad is not None
            # Where the batch has four values, the gradient of the input is a difference of nearly equal ones.
            torch.testing.assert_close(actual.double(), leaf.grad, rtol=1e-4, atol=2e-5 * float(grad.abs().max()))


@pytest.mark.parametrize("has_keep", [False, True])
def test_a_dropped_branch_is_scaled_before_the_residual_is_added(layers: Layers, has_keep: bool) -> None:
    torch.manual_seed(0)
    x, residual, grad = images(6, 20, 5, 5), images(6, 20, 5, 5), images(6, 20, 5, 5)
    keep = torch.tensor([0.0, 1.25, 1.25, 0.0, 1.25, 1.25]).view(6, 1, 1, 1) if has_keep else None
    gamma, beta = torch.randn(20), torch.randn(20)
    leaves = [t.double().requires_grad_() for t in (x, gamma, beta)]
    z = F.batch_norm(leaves[0], None, None, leaves[1], leaves[2], True, 0.1, 1e-3)
    expected = (z if keep is None else z * keep.double()) + residual
    expected.backward(grad.double())
    shape = NormShape(6 * 25, 25, 20, 0, 1e-3, 0.1)
    running = (torch.zeros(20), torch.ones(20), torch.tensor(0))
    y, saved = layers.norm(shape, x, (gamma, beta), running, keep, residual)
    assert_close(y, expected.detach())
    for actual, leaf in zip(layers.norm_backward(shape, x, grad, (gamma, beta), saved, keep), leaves, strict=True):
        assert leaf.grad is not None
        assert_close(actual, leaf.grad)


def test_statistics_of_a_large_mean_keep_their_precision(layers: Layers) -> None:
    torch.manual_seed(0)
    x = images(8, 24, 40, 40) + 1000
    gamma, running = torch.ones(24), (torch.zeros(24), torch.ones(24), torch.tensor(0))
    y, _ = layers.norm(NormShape(8 * 1600, 1600, 24, 0, 1e-3, 1.0), x, (gamma, gamma * 0), running, None, None)
    expected = F.batch_norm(x.double(), None, None, training=True, eps=1e-3)
    assert float((y - expected).abs().max()) < 1e-3  # the inputs have 6e-5 between neighbours
    torch.testing.assert_close(running[1].double(), x.double().var((0, 2, 3)), rtol=1e-4, atol=0)


def test_sums_over_pixels_and_scaling_agree_with_float64(layers: Layers) -> None:
    torch.manual_seed(0)
    for channels, side in itertools.product((1, 24, 45), (1, 3, 17)):
        x, y = images(3, channels, side, side), images(3, channels, side, side)
        factor, shift = torch.randn(3, channels), torch.randn(3, channels)
        assert_close(layers.reduce(x, None, 0.5), x.double().sum((2, 3)) * 0.5)
        products = (x.double() * y).sum((2, 3))
        torch.testing.assert_close(layers.reduce(x, y, 1.0).double(), products, rtol=1e-5, atol=1e-4)
        assert_close(layers.scale(x, factor, None), x.double() * factor[:, :, None, None])
        assert_close(layers.scale(x, factor, shift), (x.double() * factor[:, :, None, None]) + shift[:, :, None, None])


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_an_update_of_rmsprop_agrees_with_torchs_operators(
    layers: Layers, weight_decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    rule = TFRMSProp()

    def part() -> Part:
        generator = torch.Generator().manual_seed(1)
        weights, gradients = torch.randn(2, 70_001, generator=generator)
        return Part(weights.clone(), gradients.clone(), weight_decay, rule.slots(weights))

    ours, theirs = part(), part()
    for _ in range(3):
        rule.update(ours, 0.1, None)
    with monkeypatch.context() as patch:
        patch.setattr(native, "load", lambda: None)
        for _ in range(3):
            rule.update(theirs, 0.1, None)
    assert_close(ours.weights, theirs.weights)
    for name in theirs.slots:
        assert_close(ours.slots[name], theirs.slots[name])
    before = ours.weights.clone()
    rule.update(ours, 0.1, torch.tensor(1.0))
    assert torch.equal(ours.weights, before)


def test_results_do_not_depend_on_the_number_of_threads(layers: Layers) -> None:
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(_everything(layers))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def _everything(layers: Layers) -> list[Tensor]:
    """Results of all functions, on tensors of several tasks."""
    torch.manual_seed(0)
    x, grad, weight = images(8, 40, 30, 30), images(8, 40, 30, 30), torch.randn(40, 1, 5, 5)
    conv, norm = ConvShape(8, 30, 30, 40, 30, 30, 5, 1, 2, 2), NormShape(7200, 900, 40, 1, 1e-3, 0.1)
    affine, running = (torch.rand(40), torch.rand(40)), (torch.zeros(40), torch.ones(40), torch.tensor(0))
    y, saved = layers.norm(norm, x, affine, running, None, None)
    strided, small = ConvShape(8, 30, 30, 40, 15, 15, 5, 2, 2, 2), images(8, 40, 15, 15)
    gates = (torch.randn(10, 40), torch.randn(10), torch.randn(40, 10), torch.randn(40))
    gated, kept = layers.gate(x, gates)
    dx, weights = layers.gate_backward(x, grad, gates[0], gates[2], kept)
    state = [torch.ones(200_000) for _ in range(4)]
    layers.rmsprop(RMSProp(*(t.data_ptr() for t in state), 0.1, 0.9, 0.9, 1e-3, 1e-5), 200_000)
    return [
        *(y, saved, *running, *layers.norm_backward(norm, x, grad, affine, saved, None)),
        *(layers.depthwise(conv, x, weight), layers.depthwise_input(conv, grad, weight)),
        *(layers.depthwise_weight(conv, x, grad, weight), layers.depthwise_input(strided, small, weight)),
        *(layers.reduce(x, grad, 1.0), layers.scale(x, saved[:1].repeat(8, 1), None), gated, dx, *weights, *state),
    ]
