"""Arithmetic counts of an architecture against the network built from it and run on the meta device."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import with_slow_rest
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from conf import schema
from models.networks.build import build_model, compute_cost
from models.networks.complexity import count_model
from models.networks.efficientnet.block_strings import encode
from models.networks.efficientnet.variants import VARIANTS, Stage

SMALL = schema.Model(width=0.25, depth=0.2, resolution=33 / 224)
FEW = ("efficientnet_b0", "efficientnet_b1", "efficientnet_b7")  # each of the others takes seconds


def of_the_network(model: schema.Model, classes: int) -> tuple[int, int, int]:
    network = build_model(model, classes, device="meta")
    return (*count_model(network, network.resolution), network.resolution)


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]
)
def test_every_member_is_counted_as_its_network_is(name: str) -> None:
    assert compute_cost(schema.Model(name=name), 1000) == of_the_network(schema.Model(name=name), 1000)


@pytest.mark.parametrize(
    "name", with_slow_rest(["efficientnet_b0", "mobilenetv1_100", "legacy_senet154", "shufflenet_g3_w1"], plain=2)
)
def test_a_count_is_half_that_of_torch(name: str) -> None:
    network = build_model(schema.Model(name=name, width=0.25, depth=0.2, resolution=33 / 224), 10).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 33, 33))
    assert count_model(network, 33)[1] == counter.get_total_flops() / 2 > 0


def test_a_count_does_not_compute_what_it_does_not_count() -> None:
    network = build_model(SMALL, 10, device="meta")
    passed: list[bool] = []
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.SiLU)):
            module.register_forward_hook(lambda module, inputs, output: passed.append(output is inputs[0]))
    count_model(network, network.resolution)
    assert passed
    assert all(passed)


STAGES = st.builds(
    Stage,
    expand_ratio=st.sampled_from([1, 2, 6]),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    channels=st.sampled_from([8, 24, 33]),
    repeats=st.integers(1, 3),
    se_ratio=st.sampled_from([0, 0.01, 0.25, 1]),
    skip=st.booleans(),
    fused=st.booleans(),
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    stages=st.lists(STAGES, min_size=1, max_size=3),
    width=st.sampled_from([0.1, 1.0, 1.37]),
    depth=st.sampled_from([0.3, 1.0, 2.2]),
    side=st.integers(33, 90),
    padding=st.sampled_from(["symmetric", "same"]),
    preprocessing=st.sampled_from(["imagenet", "advprop", "lite"]),
    classes=st.sampled_from([1, 37]),
)
def test_any_table_of_blocks_is_counted_as_its_network_is(
    stages: list[Stage], width: float, depth: float, side: int, padding: str, preprocessing: str, classes: int
) -> None:
    model = schema.Model(
        blocks=encode(stages),
        width=width,
        depth=depth,
        resolution=side / 224,
        padding=padding,
        preprocessing=preprocessing,
    )
    assert compute_cost(model, classes) == of_the_network(model, classes)


def test_a_count_of_the_family_imports_no_compiler_of_torch() -> None:
    """It would cost each command and each job more than a second."""
    code = (
        "import sys; from conf import schema; from models.networks.build import compute_cost\n"
        "compute_cost(schema.Model(), 10); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
