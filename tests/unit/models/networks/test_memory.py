"""What a step will hold, counted on the meta device: against a count by hand, and against its own parts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from matrix import with_slow_rest

from conf import compose, schema
from infra.errors import ConfigError
from models.experiments import costs
from models.networks import native
from models.networks.build import build_model, resolve_architecture
from models.networks.efficientnet.network import EfficientNet
from models.networks.efficientnet.variants import VARIANTS, Architecture, Stage
from models.networks.memory import (
    Activations,
    compute_activations,
    count_activations,
    cut_points,
    micro_batches_in_flight,
    plan,
    slices_per_pass,
)
from models.training import distributed
from models.training.distributed import Ranks
from tasks.plan import lines, transfer_sets


def test_a_small_network_counted_by_hand() -> None:
    """2 images of 32 px: stem 3 -> 8 channels at 16 px, one block (ratio 1, 8 -> 8) at 16 px, head 8 -> 16."""
    arch = Architecture(stem=8, stages=(Stage(1, 3, 1, 8, 1),), head=16, resolution=32, dropout=0.0)
    with torch.device("meta"):
        network = EfficientNet(arch, 10, survival_prob=1.0).train()
    activations = count_activations(network, images=2, dtype=torch.float32)
    pixels, image = 2 * 16 * 16, 2 * 3 * 32 * 32
    norm = 2 * 8  # mean and inverse deviation of 8 channels
    # The images, the convolution's output, its normalized values; the activation is kept by the next part.
    stem = image + 2 * 8 * pixels + norm
    # Input of the depthwise convolution, its output, its normalized values, their activation.
    depthwise = 8 * pixels * 4 + norm
    # Means of 2 images, 2 squeezed channels before and after their activation, the gate; what was gated.
    gate = 2 * 8 + 2 * 2 * 2 + 2 * 8 + 8 * pixels
    project = 8 * pixels + norm  # the convolution's output; nothing keeps its normalized values
    head = 8 * pixels + 2 * 16 * pixels + 2 * 16  # what comes in, output, normalized values
    last = 2 * 16 + 2 * 10 + 2  # means, logits are not kept, a few numbers may be
    assert activations.kept[0] == 4 * stem
    assert activations.kept[1] == 4 * (depthwise + gate + project)
    assert 0 <= activations.kept[2] - 4 * head <= 4 * last
    assert activations.inputs == (4 * image, 4 * 8 * pixels, 4 * 8 * pixels)


FEW = ("efficientnet_b0", "efficientnet_b1", "efficientnet_lite0")  # the others differ in depth and width alone
SIZES = [
    pytest.param(schema.Model(name=name), marks=() if name in FEW else pytest.mark.slow)
    for name in VARIANTS
    if name not in ("efficientnet_b8", "efficientnet_l2")
]
SEARCHED = ["r1_k3_s22_e1_i32_o16_se0.25", "r3_k5_s22_e6_i16_o24_se0_noskip", "r2_k3_s11_e4_i24_o24_se0"]


@pytest.mark.parametrize("bf16", with_slow_rest([False, True]))
@pytest.mark.parametrize(
    "model",
    with_slow_rest(
        [
            *SIZES,
            schema.Model(width=0.25, depth=0.2, resolution=24 / 224, survival_prob=1.0),
            schema.Model(name="efficientnet_b3", padding="same", resolution=0.37),
            schema.Model(name="efficientnet_b1", preprocessing="advprop"),
            schema.Model(blocks=SEARCHED, padding="same", resolution=0.5),
            schema.Model(blocks=["r2_k3_s22_e4_i32_o16_f1_se0.25", *SEARCHED[1:]]),
        ],
        plain=3,
    ),
    ids=lambda model: f"{model.name} {model.resolution:.2f} {model.padding} {len(model.blocks)}",
)
def test_the_arithmetic_gives_what_the_network_saves(model: schema.Model, bf16: bool) -> None:
    network = build_model(model, 10, device="meta").train()
    counted = count_activations(network, 3, torch.bfloat16 if bf16 else torch.float32)
    computed, channels = compute_activations(resolve_architecture(model), 3, model.survival_prob, bf16)
    assert computed == counted
    assert 2 * channels == sum(buffer.numel() for buffer in network.buffers() if buffer.is_floating_point())


@pytest.mark.skipif(native.load() is None, reason="the layers in C were not built")
@pytest.mark.parametrize(
    "model",
    with_slow_rest(
        [
            schema.Model(resolution=0.3),
            schema.Model(name="efficientnet_b2", resolution=0.2, survival_prob=1.0),
            schema.Model(name="efficientnet_b1", padding="same", resolution=0.25),
            schema.Model(width=0.25, depth=0.2, resolution=24 / 224),
        ]
    ),
    ids=lambda model: f"{model.name} {model.width} {model.padding}",
)
def test_the_layers_in_c_save_what_the_arithmetic_says(model: schema.Model) -> None:
    network = build_model(model, 10).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(4, 3, network.resolution, network.resolution).to(memory_format=torch.channels_last)
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage  # kept alive, so that no address is reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        network(x)
    architecture = resolve_architecture(model)
    computed, _ = compute_activations(architecture, 4, model.survival_prob, in_c=True)
    in_torch, _ = compute_activations(architecture, 4, model.survival_prob)
    total = sum(storage.nbytes() for storage in saved.values())
    assert sum(computed.kept) == pytest.approx(total, rel=0.02)
    assert sum(computed.kept) < 0.85 * sum(in_torch.kept)


@pytest.mark.parametrize(
    ("recompute", "passes", "expected"),
    [
        (False, 1, 10 + 40 + 30 + 5),
        (False, 2, 2 * (10 + 40 + 30 + 5)),
        (True, 1, 10 + 4 + 3 + 5 + 40),  # stem and head whole, the blocks' inputs, and the largest block again
        (True, 2, 2 * (10 + 4 + 3 + 5) + 40),
    ],
)
def test_the_peak(recompute: bool, passes: int, expected: int) -> None:
    activations = Activations(kept=(10, 40, 30, 5), inputs=(1, 4, 3, 2))
    assert activations.peak(0, 4, recompute, passes) == expected


def test_stages_share_out_what_is_kept() -> None:
    activations = Activations(kept=(10, 40, 30, 20, 20), inputs=(1,) * 5)
    assert cut_points(activations, 1) == []
    assert cut_points(activations, 2) == [2]  # 50 and 70
    assert cut_points(activations, 3) == [2, 3]  # 50, 30 and 40


@pytest.mark.parametrize(("passes", "at_most", "expected"), [(8, 4, 4), (6, 4, 3), (7, 4, 1), (2, 4, 2)])
def test_rounds_of_micro_batches_are_equal(passes: int, at_most: int, expected: int) -> None:
    assert micro_batches_in_flight(passes, at_most) == expected


def test_what_makes_it_smaller_makes_it_smaller() -> None:
    model = schema.Model(name="efficientnet_b1")
    recipe = schema.Recipe(global_batch=64, batch_slices=4)
    whole = plan(model, recipe, 1000, 1)
    half = plan(model, recipe, 1000, 1, bf16=True)
    again = plan(model, dataclasses.replace(recipe, recompute=True), 1000, 1)
    cut = plan(model, recipe, 1000, 1, stages=2, micro_batches=1)
    overlapped = plan(model, recipe, 1000, 1, stages=2)
    assert half.activations == pytest.approx(whole.activations / 2, rel=0.01)
    assert again.activations < whole.activations / 2
    assert cut.activations == pytest.approx(whole.activations / 2, rel=0.15)
    assert overlapped.activations == 2 * cut.activations
    # Weights, gradients, average, best and two slots in float32; BN statistics too.
    network = build_model(model, 1000, device="meta")
    tensors = [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]
    assert whole.state == 6 * 4 * sum(t.numel() for t in tensors)


def test_batch_slices_per_pass() -> None:
    assert slices_per_pass(schema.Recipe(batch_slices=8), 2) == 1
    assert slices_per_pass(schema.Recipe(batch_slices=8, bn_groups="rank"), 2) == 4
    assert slices_per_pass(schema.Recipe(batch_slices=8, bn_groups="rank", slices_per_pass=2), 2) == 2


def test_the_table_has_a_line_for_each_variant() -> None:
    config = compose.compose(["profile=laptop", "variants=[efficientnet_b0,efficientnet_b1]"])
    b0, b1 = list(lines(config))[4:]
    assert b0.split()[:5] == ["efficientnet_b0", "24", "126,822", "359,792", "32"]
    assert b1.startswith("efficientnet_b1")
    assert all(float(number) > 0 for number in b0.split()[5:])


@pytest.mark.slow
def test_a_plan_counts_what_transfer_to_the_official_sets_costs() -> None:
    words = ["profile=paper", "variants=[efficientnet_b0]", "transfer.sets=[cifar10,aircraft]", "model_ref=b0@champion"]
    config = compose.compose(words)
    (work,) = costs.plan_trainings(config, transfer_sets(config, words), "transfer").works
    assert (work.name, work.jobs) == ("transfer efficientnet_b0", 2 * 57)
    assert work.images == pytest.approx(2 * (17.35 + 1) * 20_000 * 256, rel=0.06)  # whole epochs, rungs on evaluations
    of_one = 385_814_752 - 1_281_000 + 1_280_000 * 0.05  # B0 without a thousand classes, with 10 and 100
    assert work.multiply_adds == pytest.approx(of_one, rel=1e-3)


@pytest.mark.parametrize(("side", "fits"), [(17, True), (16, False), (1, False)])
def test_an_image_too_small_for_the_network_is_refused(side: int, fits: bool) -> None:
    """The input of the last layer with stride 2 must have two pixels: 17, 9, 5, 3, 2."""
    model = schema.Model(resolution=side / 224)
    if fits:
        assert resolve_architecture(model).resolution == side
        return
    with pytest.raises(ConfigError, match=f"{side} px are too few for efficientnet_b0.*17 px.*resolution >= 0.0759"):
        resolve_architecture(model)


def test_processes_that_stages_do_not_divide_are_refused() -> None:
    place = Ranks(5, 6, torch.device("cpu"))
    cut = distributed.in_stages(place, 2)
    assert (cut.replicas, cut.replica, cut.stage) == (3, 2, 1)
    with pytest.raises(ConfigError, match="pipeline_stages=4 does not divide the 6 processes"):
        distributed.in_stages(place, 4)
