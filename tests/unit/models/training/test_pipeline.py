"""One stage of a pipeline in a process alone; two of them: integration/test_pipeline.py."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from models.networks.efficientnet.block_strings import decode
from models.networks.efficientnet.network import EfficientNet
from models.networks.efficientnet.variants import Architecture
from models.training.pipeline import Stage


def test_a_later_stage_draws_the_random_numbers_of_the_whole_network_after_blocks_of_every_kind() -> None:
    blocks = decode(["r2_k3_s11_e1_i32_o8_f1", "r2_k3_s11_e2_i8_o8_se0.25", "r2_k3_s11_e2_i8_o8_f1"])
    arch = Architecture(resolution=16, dropout=0.5, stem=32, head=16, stages=blocks)
    torch.manual_seed(0)
    network = EfficientNet(arch, 3, survival_prob=0.5).train()
    inputs: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs.append(given[0].detach().contiguous())

    network.blocks[-1].register_forward_pre_hook(keep)
    images = torch.randn(16, 3, 16, 16).to(memory_format=torch.channels_last)
    torch.manual_seed(1)
    whole = network(images)
    torch.manual_seed(1)
    last = Stage(network, len(network.blocks), len(network.blocks) + 2, lambda _: nullcontext())(inputs[0])
    assert torch.equal(last, whole)
