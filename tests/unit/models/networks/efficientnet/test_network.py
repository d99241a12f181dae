"""The networks against exact counts, a plain recomputation of one block, and the official initialization.

Counts: facts, section 1.3 (timm, torchvision and an own derivation agree to the last digit).
"""

import functools
import hashlib
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from matrix import with_slow_rest
from torch import Tensor, nn

from conf import schema
from infra.errors import ConfigError
from models.networks.build import build_model, compute_cost, network_names
from models.networks.complexity import count_model
from models.networks.efficientnet.blocks import MBConv, SqueezeExcite, StochasticDepth
from models.networks.efficientnet.network import EfficientNet

# fmt: off
#        side  dropout  parameters    multiply-adds    without classifier  BN statistics  BN layers  blocks
FACTS = {
    "b0": (224, 0.2, 5_288_548,   385_814_752,     4_007_548,  42_016,    49,  16),
    "b1": (240, 0.2, 7_794_184,   686_802_832,     6_513_184,  62_048,    69,  23),
    "b2": (260, 0.3, 9_109_994,   993_561_872,     7_700_994,  67_568,    69,  23),
    "b3": (300, 0.3, 12_233_232,  1_827_141_392,   10_696_232, 87_296,    78,  26),
    "b4": (380, 0.4, 19_341_616,  4_393_771_024,   17_548_616, 125_200,   96,  32),
    "b5": (456, 0.4, 30_389_784,  10_266_384_752,  28_340_784, 172_736,   116, 39),
    "b6": (528, 0.5, 43_040_704,  19_067_593_536,  40_735_704, 224_432,   134, 45),
    "b7": (600, 0.5, 66_347_960,  37_745_884_192,  63_786_960, 310_720,   163, 55),
    "b8": (672, 0.5, 87_413_142,  62_597_461_568,  None,       380_032,   181, 61),
    "l2": (800, 0.5, 480_309_308, 475_703_653_280, None,       1_090_688, 260, 88),
}
# fmt: on
MEMBERS = tuple(FACTS)


@functools.cache
def on_meta(member: str) -> EfficientNet:
    return build_model(schema.Model(name=f"efficientnet_{member}"), 1000, device="meta")


@functools.cache
def b0() -> EfficientNet:
    torch.manual_seed(0)
    return build_model(schema.Model(), 1000)


def small() -> EfficientNet:
    """Seven blocks of the laptop's width, without randomness in training."""
    torch.manual_seed(0)
    return build_model(schema.Model(width=0.25, depth=0.2, survival_prob=1.0), 10, dropout=0.0)


def blocks_of(network: EfficientNet) -> list[MBConv]:
    return [block for block in network.blocks if isinstance(block, MBConv)]


def norms_of(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_family_is_b0_to_b8_l2_and_lite() -> None:
    lite = [f"efficientnet_lite{size}" for size in range(5)]
    family = [f"efficientnet_{member}" for member in MEMBERS] + lite
    assert list(network_names()[: len(family)]) == family


@pytest.mark.parametrize("member", with_slow_rest(MEMBERS, plain=4))
def test_parameters_and_multiply_adds_are_exact(member: str) -> None:
    side, _, params, multiply_adds, *_ = FACTS[member]
    network = on_meta(member)
    assert network.resolution == side
    assert count_model(network, side) == (params, multiply_adds)


@pytest.mark.parametrize("member", with_slow_rest(MEMBERS, plain=4))
def test_dropout_and_the_counts_of_blocks_and_batch_norm_are_exact(member: str) -> None:
    _, dropout, _, _, _, statistics, layers, blocks = FACTS[member]
    network = on_meta(member)
    norms = norms_of(network)
    assert network.dropout.p == dropout
    assert len(network.blocks) == len(blocks_of(network)) == blocks
    assert len(norms) == layers
    assert sum(n.running_mean.numel() + n.running_var.numel() for n in norms) == statistics


@pytest.mark.parametrize("member", MEMBERS[:8])
def test_parameters_without_the_classifier_are_those_of_the_transfer_table(member: str) -> None:
    network = on_meta(member)
    params = sum(p.numel() for p in network.parameters())
    assert params - sum(p.numel() for p in network.classifier.parameters()) == FACTS[member][4]


@pytest.mark.parametrize(
    ("classes", "params"),
    [
        (10, 4_020_358),
        (37, 4_054_945),
        (100, 4_135_648),
        (101, 4_136_929),
        (102, 4_138_210),
        (196, 4_258_624),
        (500, 4_648_048),
    ],
)
def test_b0_has_the_known_size_at_each_class_count(classes: int, params: int) -> None:
    network = build_model(schema.Model("efficientnet_b0"), classes, device="meta")
    assert sum(p.numel() for p in network.parameters()) == params


def test_b0_has_213_parameter_tensors() -> None:
    assert len(list(on_meta("b0").parameters())) == 213


def test_counting_leaves_the_network_as_it_is() -> None:
    network = small()
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    count_model(network, 32)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_multipliers_scale_the_configured_network() -> None:
    model = schema.Model(name="efficientnet_b7", width=0.25, depth=0.2, resolution=0.107142857)
    assert compute_cost(model, 10)[2] == 64  # 600 px * 3 / 28
    assert len(build_model(model, 10, device="meta").blocks) == 13  # as profile=laptop says


def test_an_unknown_network_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'efficientnet_b3'"):
        build_model(schema.Model("efficientnet-b3"), 1000)


def test_b0_squeezes_to_a_quarter_of_each_block_s_input() -> None:
    widths = [block.se.reduce.out_channels for block in blocks_of(on_meta("b0"))]
    assert widths == [8, 4, 6, 6, 10, 10, 20, 20, 20, 28, 28, 28, 48, 48, 48, 48]


@pytest.mark.parametrize("member", MEMBERS)
def test_batch_norm_has_the_official_momentum_and_epsilon(member: str) -> None:
    assert {(norm.momentum, norm.eps) for norm in norms_of(on_meta(member))} == {(0.01, 1e-3)}


def test_only_gate_and_classifier_have_biases() -> None:
    biased = {
        name.rpartition(".")[0]
        for name, m in on_meta("b0").named_modules()
        for key, _ in m.named_parameters(name, recurse=False)
        if key.endswith("bias") and not isinstance(m, nn.BatchNorm2d)
    }
    assert biased == {"", *(f"blocks.{i}.se" for i in range(16))}


def test_only_blocks_that_keep_stride_and_channels_have_a_skip() -> None:
    skips = [block.has_skip for block in blocks_of(on_meta("b0"))]
    n, y = False, True
    assert skips == [n, n, y, n, y, n, y, y, n, y, y, n, y, y, y, n]


@pytest.mark.parametrize(("channels_out", "stride", "skip"), [(8, 1, True), (8, 2, False), (16, 1, False)])
def test_a_block_whose_last_norm_is_zero_is_the_identity_or_nothing(channels_out: int, stride: int, skip: bool) -> None:
    block = MBConv(8, channels_out, 3, stride, 6, 0.25, 1.0)
    nn.init.zeros_(block.project[1].weight)
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(block(x), x if skip else torch.zeros(2, channels_out, 6 // stride, 6 // stride))


def by_hand(block: MBConv, x: Tensor) -> Tensor:
    """The block in evaluation, written down from the paper with plain functions."""

    def norm(y: Tensor, layer: nn.Module) -> Tensor:
        assert isinstance(layer, nn.BatchNorm2d)
        mean, var = layer.running_mean[:, None, None], layer.running_var[:, None, None]
        return (y - mean) / torch.sqrt(var + 1e-3) * layer.weight[:, None, None] + layer.bias[:, None, None]

    y = x
    if isinstance(block.expand, nn.Sequential):
        y = norm(F.conv2d(y, block.expand[0].weight), block.expand[1])
        y = y * torch.sigmoid(y)
    depthwise: Tensor = block.depthwise[0].weight
    kernel, stride = depthwise.shape[-1], block.depthwise[0].stride[0]
    y = F.conv2d(F.pad(y, [kernel // 2] * 4), depthwise, stride=stride, groups=len(depthwise))
    y = norm(y, block.depthwise[1])
    y = y * torch.sigmoid(y)
    squeezed = y.mean((2, 3)) @ block.se.reduce.weight[:, :, 0, 0].T + block.se.reduce.bias
    gate = (squeezed * torch.sigmoid(squeezed)) @ block.se.expand.weight[:, :, 0, 0].T + block.se.expand.bias
    y = y * torch.sigmoid(gate)[:, :, None, None]
    y = norm(F.conv2d(y, block.project[0].weight), block.project[1])
    return y + x if stride == 1 and y.shape[1] == x.shape[1] else y


@pytest.mark.parametrize(
    ("channels_out", "kernel", "stride", "expand"),
    [(8, 3, 1, 6), (8, 5, 1, 6), (12, 5, 2, 6), (4, 3, 1, 1), (8, 3, 1, 1)],
)
def test_a_block_computes_what_the_paper_says(channels_out: int, kernel: int, stride: int, expand: int) -> None:
    torch.manual_seed(1)
    block = MBConv(8, channels_out, kernel, stride, expand, 0.25, 0.8).eval()
    for norm in norms_of(block):
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    x = torch.randn(3, 8, 7, 7)
    with torch.no_grad():
        torch.testing.assert_close(block(x), by_hand(block, x))


def test_survival_falls_linearly_over_the_blocks_of_b0() -> None:
    probabilities = [block.drop.survival_prob for block in blocks_of(on_meta("b0"))]
    assert probabilities == pytest.approx(
        [
            1.0,
            0.9875,
            0.975,
            0.9625,
            0.95,
            0.9375,
            0.925,
            0.9125,
            0.9,
            0.8875,
            0.875,
            0.8625,
            0.85,
            0.8375,
            0.825,
            0.8125,
        ]
    )


def test_stochastic_depth_only_adds_in_evaluation_and_at_survival_one() -> None:
    x, residual = torch.randn(2, 64, 2, 3, 3)
    assert torch.equal(StochasticDepth(0.5).eval()(x, residual), residual + x)
    assert torch.equal(StochasticDepth(1.0).train()(x, residual), residual + x)


def test_stochastic_depth_drops_whole_samples_and_rescales_the_others() -> None:
    torch.manual_seed(0)
    x = torch.randn(4000, 2, 3, 3)
    out = StochasticDepth(0.8).train()(x, torch.zeros_like(x))
    kept = out.flatten(1).abs().sum(1) > 0
    torch.testing.assert_close(out[kept], x[kept] / 0.8)
    assert torch.equal(out[~kept], torch.zeros_like(out[~kept]))
    # 5 standard errors of a share of 0.8 among 4,000
    assert float(kept.float().mean()) == pytest.approx(0.8, abs=5 * math.sqrt(0.8 * 0.2 / 4000))


def test_stochastic_depth_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(20_000, 1, 1, 1)
    out = StochasticDepth(0.8).train()(x, torch.zeros_like(x))
    # each value is 0 or 1.25: standard deviation 0.5
    assert float(out.mean()) == pytest.approx(1.0, abs=5 * 0.5 / math.sqrt(20_000))


def test_stochastic_depth_scales_in_float32_also_where_the_values_are_bfloat16() -> None:
    """At 0.9875, of B0's second block, a factor in bfloat16 is 1.0156: kept branches were 0.3 % too large."""
    torch.manual_seed(0)
    x = torch.rand(512, 4, 8, 8).add_(1).bfloat16()
    out = StochasticDepth(0.9875).train()(x, torch.zeros_like(x))
    assert out.dtype == torch.bfloat16
    kept = out.flatten(1).abs().sum(1) > 0
    ratio = out[kept].double() / x[kept].double()
    assert float(ratio.mean()) == pytest.approx(1 / 0.9875, abs=5e-4)  # what rounding leaves of 128 values
    assert torch.equal(out[kept], (x[kept].float() / 0.9875).bfloat16())


def test_a_dropped_sample_passes_its_block_unchanged() -> None:
    torch.manual_seed(0)
    block = MBConv(8, 8, 3, 1, 6, 0.25, survival_prob=0.5).train()
    x = torch.randn(32, 8, 4, 4)
    same = (block(x) == x).flatten(1).all(1)
    assert 0 < int(same.sum()) < 32


def test_every_convolution_starts_at_the_official_spread() -> None:
    for name, conv in b0().named_modules():
        if isinstance(conv, nn.Conv2d):
            out = 1 if conv.groups > 1 else conv.out_channels  # a depthwise kernel's out is its multiplier
            expected = math.sqrt(2 / (conv.kernel_size[0] ** 2 * out))
            n = conv.weight.numel()
            assert float(conv.weight.detach().std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * n)), name
            assert abs(float(conv.weight.detach().mean())) < 5 * expected / math.sqrt(n), name


@pytest.mark.parametrize(("kernel", "spread"), [(3, 0.4714), (5, 0.2828)])
def test_depthwise_kernels_start_wide(kernel: int, spread: float) -> None:
    weights = [
        b.depthwise[0].weight.detach().flatten() for b in blocks_of(b0()) if b.depthwise[0].kernel_size[0] == kernel
    ]
    assert float(torch.cat(weights).std()) == pytest.approx(spread, rel=0.02)


def test_the_classifier_starts_uniform_within_the_official_bound() -> None:
    weight = b0().classifier.weight.detach()
    bound = 1 / math.sqrt(1000)
    assert 0.999 * bound < float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_biases_start_at_zero_and_batch_norm_at_the_identity() -> None:
    for name, parameter in b0().named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
    for norm in norms_of(b0()):
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert torch.equal(norm.running_mean, torch.zeros_like(norm.weight))
        assert torch.equal(norm.running_var, torch.ones_like(norm.weight))


def test_the_same_seed_gives_the_same_network() -> None:
    first, second = small().state_dict(), small().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("model", "sha256"),
    [
        (schema.Model(), "3f0803a830e334c86e71dd4872763f8f05f74e3854f8107bc8c854c14febbc81"),
        (
            schema.Model(name="efficientnet_b3", width=0.25, depth=0.5),
            "338fcc56d3dce613aaf049965f8f34ac01aabb2be6e23224d80740c2ee3bd8c8",
        ),
    ],
)
def test_names_and_first_weights_are_those_of_networks_trained_before(model: schema.Model, sha256: str) -> None:
    """Of commit c6376bc: jobs and registered models of that time are found by them."""
    torch.manual_seed(0)
    digest = hashlib.sha256()
    for name, tensor in build_model(model, 1000).state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    assert digest.hexdigest() == sha256


@pytest.mark.parametrize(("side", "last"), [(32, 1), (64, 2), (33, 2), (72, 3)])
def test_the_last_map_is_a_thirty_second_of_the_image_rounded_up(side: int, last: int) -> None:
    network = small().eval()
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        maps = network.features(images)
        assert maps.shape == (2, 320, last, last)  # 1,280 / 4
        assert network(images).shape == (2, 10)
        torch.testing.assert_close(network(images), network.classifier(maps.mean((2, 3))))


def test_every_parameter_gets_a_gradient() -> None:
    network = small().train()
    torch.manual_seed(2)
    loss = F.cross_entropy(network(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.slow
def test_the_gate_scales_each_channel_between_nothing_and_itself() -> None:
    torch.manual_seed(0)
    gate = SqueezeExcite(6, 2)
    x = torch.rand(3, 6, 4, 4) + 0.5
    ratio = gate(x) / x
    assert ((ratio > 0) & (ratio < 1)).all()
    torch.testing.assert_close(ratio, ratio.mean((2, 3), keepdim=True).expand_as(ratio))
