"""The architecture search: its constraints, and the best trial compared with B0's own blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conf.compose import compose
from conf.schema import Architecture
from models.experiments.architecture_search import B0_BLOCKS, broken, verdict, why, with_lead
from models.results import ArchitectureResult, ArchitectureTrial


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
    assert verdict(better, ours, 9).endswith("1.00 above B0's own blocks, not more than chance among 9 trials (7.69)")
    assert verdict(replace(better, reward=89.0), ours, 9).endswith("blocks, more than chance among 9 trials (8.07)")
    assert verdict(ours, ours, 9).endswith("(reward 80.00, 80.00 ± 2.00 % of 400 minival images): B0's own blocks")
    assert verdict(better, None, 9).endswith("B0's own blocks did not train")


@pytest.mark.parametrize(("trials", "verb"), [(2, "beats"), (9, "is not distinguished from")])
def test_the_lead_of_the_best_is_tested_on_the_same_images_at_5_percent_over_all_trials(trials: int, verb: str) -> None:
    """Of 400 images the best gains 8 and loses one: p is 0.039, enough for one comparison and not for eight."""
    options = Architecture(exponent=0.0, target_multiply_adds=1.0)
    size: dict[str, Any] = {"blocks": (), "params": 1, "multiply_adds": 2, "state": "complete", "n": 400}
    listed = [
        ArchitectureTrial(number=i, reward=80.0, accuracy=80.0, standard_error=2.0, **size) for i in range(trials)
    ]
    best = replace(listed[1], reward=81.75, accuracy=81.75)
    searched = ArchitectureResult(trials=(listed[0], best, *listed[2:]), best=best, baseline=listed[0])
    theirs = np.arange(400) < 320
    ours = (np.arange(400) < 328) & (np.arange(400) != 0)
    compared = with_lead(options, searched, ours, theirs)
    assert compared.lead is not None
    assert compared.lead.value == pytest.approx(1.75)
    assert compared.lead.p == pytest.approx(0.0390625)
    assert f"it {verb} B0's own blocks (+1.75 points" in compared.verdict
    assert with_lead(options, searched, None, theirs) == searched, "a job without stored answers"
    own = replace(searched, best=listed[0])
    assert with_lead(options, own, theirs, theirs) == own


def test_the_lead_is_in_reward_so_a_cheaper_network_leads_with_the_same_answers() -> None:
    options = Architecture(exponent=-0.07, target_multiply_adds=100.0)
    size: dict[str, Any] = {"blocks": (), "params": 1, "state": "complete", "n": 400, "accuracy": 80.0}
    base = ArchitectureTrial(number=0, reward=80.0, multiply_adds=100, standard_error=2.0, **size)
    cheap = ArchitectureTrial(number=1, reward=80.0 * 0.5**-0.07, multiply_adds=50, standard_error=2.0, **size)
    answers = np.arange(400) < 320
    compared = with_lead(options, ArchitectureResult(trials=(base, cheap), best=cheap, baseline=base), answers, answers)
    assert compared.lead is not None
    assert compared.lead.value == pytest.approx(80.0 * 0.5**-0.07 - 80.0)
