"""The probe of this machine's training speed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conf import compose
from models.networks.build import compute_cost
from models.training import probe


def test_the_smallest_the_middle_and_the_largest_network_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_STEPS_S", 0.02)
    config = compose.compose(["data=digits"])
    models = [replace(config.model, name=f"efficientnet_b{number}") for number in (0, 4, 5, 7)]
    threads = torch.get_num_threads()
    measured = probe.measure(config, models, 10)
    assert [size for size, _ in measured.speeds] == [compute_cost(models[index], 10)[1] for index in (0, 2, 3)]
    assert measured.speeds[0][1] > measured.speeds[-1][1] > 0
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA L40S", "L40S"),
    ],
)
def test_a_gpu_has_the_name_of_its_model(name: str, short: str) -> None:
    assert probe.shorten(name) == short
