"""The probe of this machine's training speed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conf import compose, schema
from models.networks.build import compute_cost
from models.networks.memory import passes_per_step
from models.training import probe


@pytest.mark.slow
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
    ("groups", "replicas", "at_most", "images", "passes"),
    [
        ("slice", 8, 10**6, 64, 8),  # of 4,096 images in 64 slices, eight for each replica
        ("slice", 8, 200, 64, 3),
        ("slice", 8, 50, 50, 1),
        ("rank", 8, 10**6, 512, 1),
        ("rank", 128, 10**6, 64, 1),  # which no command would start
    ],
)
def test_a_probed_step_has_the_passes_of_one_process(
    groups: str, replicas: int, at_most: int, images: int, passes: int
) -> None:
    recipe = probe.probed_recipe(schema.Recipe(bn_groups=groups), replicas, at_most)
    assert (recipe.batch_slices, recipe.global_batch) == (passes, images * passes)
    assert passes_per_step(recipe, 1) == passes


def test_a_recomputed_step_counts_as_one_that_keeps_its_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan adds the time of recomputation to the speed, so it must not be in it."""
    recomputed = []
    monkeypatch.setattr(probe, "_STEPS_S", 0.0)  # one step after the first
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=iter([10.0, 12.0, 14.0] * 2).__next__))
    step = probe.Stepper.step

    def record(stepper: probe.Stepper, *arguments: Any) -> None:
        recomputed.append(stepper.state.network.recompute)
        step(stepper, *arguments)

    monkeypatch.setattr(probe.Stepper, "step", record)
    config = compose.compose(["data=digits"])
    speeds = [
        probe.measure(replace(config, recipe=replace(config.recipe, recompute=flag)), [config.model], 10).speeds[0][1]
        for flag in (False, True)
    ]
    assert recomputed == [False, False, True, True]
    assert speeds[1] == pytest.approx(speeds[0] * 4 / 3)


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
