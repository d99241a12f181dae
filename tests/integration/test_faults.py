"""Real torchrun jobs that are broken in every way of the fault table, and come to the same bits all the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from training_rig import STEPS, End, Rig, assert_exactly_once, finish, make_rig, processes_of, with_recipe, with_runtime

from infra import store
from infra.launch import local

pytestmark = [pytest.mark.torchrun, pytest.mark.services, pytest.mark.fault]


@pytest.fixture(scope="module")
def rig(object_store: str, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return make_rig(f"{object_store}/rig", tmp_path_factory.mktemp("rig"))


@pytest.fixture(scope="module")
def reference(rig: Rig) -> End:
    end = rig.run("reference")
    assert end.code == 0, end.log
    return end


def assert_same(end: End, reference: End) -> None:
    assert end.code == 0, end.log
    assert end.sha256 == reference.sha256
    assert end.object("result.json")["weights_sha256"] == reference.object("result.json")["weights_sha256"]
    assert end.ledger == reference.ledger


def test_the_undisturbed_run_reads_every_sample_once_an_epoch(reference: End) -> None:
    assert_exactly_once(reference.ledger)
    assert reference.object("result.json")["n_val"] == 70
    assert reference.steps_saved() == [90, STEPS]


def test_one_rank_trains_to_the_same_bits_as_two(rig: Rig, reference: End) -> None:
    assert_same(rig.run("one-rank", ranks=1), reference)
