"""Block strings: the official notation, parsed by effnet and by another implementation."""

import pytest
import torch
from efficientnet_lite_pytorch.utils import BlockDecoder
from torch import nn

from conf import compose, schema
from infra.errors import ConfigError
from models.networks.build import build_model, compute_cost, resolve_architecture
from models.networks.efficientnet.block_strings import decode, encode
from models.networks.efficientnet.blocks import FusedMBConv, MBConv
from models.networks.efficientnet.variants import B0_STAGES, Stage

# The table of the official efficientnet_builder.py.
B0 = [
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
]
OTHER = ["r1_k3_s11_e1_i32_o24_f1", "r3_k5_s22_e3_i24_o32_se0.25_noskip", "r2_k3_s22_e6_i32_o64"]


def test_b0_s_table_is_written_as_the_official_code_prints_it() -> None:
    assert encode(B0_STAGES) == B0
    assert decode(B0) == B0_STAGES


def test_every_kind_of_stage_comes_back() -> None:
    stages = decode(OTHER)
    assert stages == (
        Stage(1, 3, 1, 24, 1, se_ratio=0, fused=True),
        Stage(3, 5, 2, 32, 3, skip=False),
        Stage(6, 3, 2, 64, 2, se_ratio=0),
    )
    assert encode(stages) == OTHER


@pytest.mark.parametrize("text", [*B0, *OTHER])
def test_another_implementation_reads_the_same(text: str) -> None:
    theirs = BlockDecoder._decode_block_string(text)
    chain = [*B0[: B0.index(text)], text] if text in B0 else OTHER[: OTHER.index(text) + 1]
    ours = decode(chain)[-1]
    assert (theirs.num_repeat, theirs.kernel_size, theirs.expand_ratio, theirs.output_filters, theirs.id_skip) == (
        ours.repeats,
        ours.kernel,
        ours.expand_ratio,
        ours.channels,
        ours.skip,
    )
    assert (theirs.se_ratio or 0, theirs.stride[0]) == (ours.se_ratio, ours.stride)


def test_what_the_official_encoder_writes_is_read() -> None:
    assert decode(["r1_k3_s11_e1_i32_o16_c0_f0_p0_se0.25"]) == B0_STAGES[:1]


def test_b0_s_blocks_are_b0_to_the_last_bit() -> None:
    networks = []
    for model in (schema.Model(width=0.25, depth=0.2), schema.Model(width=0.25, depth=0.2, blocks=B0)):
        torch.manual_seed(0)
        networks.append(build_model(model, 10).state_dict())
    assert networks[0].keys() == networks[1].keys()
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_blocks_are_scaled_as_the_family_is() -> None:
    assert resolve_architecture(schema.Model(name="efficientnet_b3", blocks=B0)) == resolve_architecture(
        schema.Model(name="efficientnet_b3")
    )


def test_a_searched_network_has_the_parameters_and_multiply_adds_worked_out_by_hand() -> None:
    # Stem 3x3x3x32 at 112 px, then a plain 3x3 convolution 32 -> 32 and 1x1 32 -> 24, head 1x1 24 -> 1280, classifier.
    convolutions = [(27 * 32, 112), (9 * 32 * 32, 112), (32 * 24, 112), (24 * 1280, 112)]
    norms = 2 * (32 + 32 + 24 + 1280)
    params, multiply_adds, _ = compute_cost(schema.Model(blocks=OTHER[:1]), 10)
    assert params == sum(weights for weights, _ in convolutions) + norms + 1280 * 10 + 10
    assert multiply_adds == sum(weights * side**2 for weights, side in convolutions) + 1280 * 10


def test_without_se_ratio_there_is_no_gate_and_with_noskip_no_residual() -> None:
    network = build_model(schema.Model(blocks=OTHER), 10, device="meta")
    kinds = [(type(block), isinstance(block.se, nn.Identity), block.has_skip) for block in network.blocks]
    assert kinds == [
        (FusedMBConv, True, False),
        (MBConv, False, False),
        (MBConv, False, False),
        (MBConv, False, False),
        (MBConv, True, False),
        (MBConv, True, True),
    ]


def test_a_plain_convolution_block_adds_its_input() -> None:
    torch.manual_seed(0)
    block = FusedMBConv(8, 8, 3, 1, 1, 0.25, 1.0).eval()
    x = torch.randn(2, 8, 5, 5)
    nn.init.zeros_(block.project[1].weight)
    assert torch.equal(block(x), x)
    assert block.conv[0].weight.shape == (8, 8, 3, 3)
    assert block.se.reduce.out_channels == 2


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        (["r1_k3"], "block 1 is 'r1_k3', expected the form r1_k3_s11"),
        (["r1_k4_s11_e1_i32_o16"], "k4: kernels are odd"),
        (["r1_k3_s12_e1_i32_o16"], "s12: strides are 11 or 22"),
        (["r0_k3_s11_e1_i32_o16"], "at least 1"),
        (["r1_k3_s11_e1_i32_o16_se1.5"], "at most 1"),
        (["r1_k3_s11_e1_i32_o16_c1"], "expected the form"),
        (["r1_k3_s11_e1_i16_o16"], "expects i16 input channels, but the stem outputs 32"),
        ([B0[0], B0[2]], r"block 2 \(r2_k5_s22_e6_i24_o40_se0.25\) expects i24 input channels, but block 1 outputs 16"),
    ],
)
def test_blocks_that_are_no_network_are_refused_in_one_line(blocks: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        resolve_architecture(schema.Model(blocks=blocks))
    assert "\n" not in str(caught.value)


def test_blocks_come_from_the_command_line_and_survive_the_job_s_file() -> None:
    model = compose.compose([f"model.blocks=[{','.join(OTHER)}]"]).model
    assert model.blocks == OTHER
    assert compose.from_yaml(schema.Model, compose.to_yaml(model)) == model
