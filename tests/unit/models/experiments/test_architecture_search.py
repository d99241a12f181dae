"""The architecture search: its constraints, and the best trial compared with B0's own blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conf.compose import compose
from conf.schema import Architecture
from models.experiments.architecture_search import B0_BLOCKS, broken, verdict, why
from models.results import ArchitectureTrial


def test_a_network_is_told_by_how_much_it_breaks_each_limit() -> None:
    wanted = Architecture(max_cost=1.5, target_multiply_adds=1000.0, max_params=10)
    assert broken(wanted, 10, 1500) == {}
    excess = broken(wanted, 15, 3000)
    assert excess == {"multiply_adds": 1.0, "params": 0.5}
    assert why(wanted, 15, 3000, excess) == (
        "3,000 multiply-adds are more than 1.5 times the target 1,000; 15 parameters are more than 10"
    )


@pytest.mark.parametrize("profile", ["laptop", "study", "paper", "imagenette"])
def test_b0_s_own_blocks_meet_every_profile_s_constraints(profile: str) -> None:
    from models.networks.build import compute_cost

    wanted = compose([f"profile={profile}"]).architecture
    classes = 1000 if profile == "paper" else 10
    params, multiply_adds, _ = compute_cost(replace(wanted.model, blocks=B0_BLOCKS), classes)
    assert 0.95 < multiply_adds / wanted.target_multiply_adds < 1
    assert broken(wanted, params, multiply_adds) == {}


def test_the_verdict_sets_the_best_beside_b0_in_words() -> None:
    size: dict[str, Any] = {"blocks": (), "params": 1, "multiply_adds": 2, "state": "complete"}
    ours = ArchitectureTrial(number=0, reward=80.0, accuracy=80.0, standard_error=2.0, n=400, **size)
    better = ArchitectureTrial(number=3, reward=81.0, accuracy=82.0, standard_error=2.0, n=400, **size)
    assert verdict(better, ours, 9).endswith("1.00 above B0's own blocks, not more than one standard error (1.98)")
    assert verdict(replace(better, reward=83.0), ours, 9).endswith("blocks, more than one standard error (2.02)")
    assert verdict(ours, ours, 9).endswith("(reward 80.00, 80.00 ± 2.00 % of 400 minival images): B0's own blocks")
    assert verdict(better, None, 9).endswith("B0's own blocks did not train")
