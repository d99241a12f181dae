"""Four logical shards on one, two and four processes: equal up to the order of a sum, and how much that is."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from training_rig import Rig, make_rig, with_recipe

from conf import schema
from infra import store

pytestmark = [pytest.mark.torchrun, pytest.mark.services]


@pytest.fixture(scope="module")
def rig(object_store: str, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    made = make_rig(f"{object_store}/elastic", tmp_path_factory.mktemp("elastic"))
    # Without mixup, whose pairs are drawn within a logical shard too, nothing would be easier; it stays on.
    return dataclasses.replace(made, job=with_recipe(made.job, logical_shards=4, epochs=1))


def trained(rig: Rig, name: str, ranks: int, **recipe: Any) -> tuple[Tensor, list[dict[str, Any]]]:
    """All chosen weights in a row, and what was read when."""
    job: schema.Job = with_recipe(rig.job, **recipe)
    end = rig.run(name, job, ranks=ranks)
    assert end.code == 0, end.log
    weights = safetensors.torch.load(store.read(f"{end.job_uri}/weights.safetensors"))
    return torch.cat([w.double().flatten() for _, w in sorted(weights.items())]), end.ledger


def distance(a: Tensor, b: Tensor) -> float:
    """Relative, in the Euclidean norm."""
    return float((a - b).norm() / a.norm())


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 3e-2)])
def test_the_world_size_changes_the_result_by_rounding_alone(precision: str, tolerance: float, rig: Rig) -> None:
    """After 32 steps. Two seeds differ by far more, so the bound says something."""
    one, read = trained(rig, f"{precision}-1", 1, precision=precision)
    for ranks in (2, 4):
        other, also_read = trained(rig, f"{precision}-{ranks}", ranks, precision=precision)
        assert also_read == read
        print(precision, ranks, distance(one, other))
        assert distance(one, other) < tolerance
    stranger, _ = trained(rig, f"{precision}-seed", 2, precision=precision, seed=1)
    print(precision, "seed", distance(one, stranger))
    assert distance(one, stranger) > 10 * tolerance
