"""A network cut over two processes trains to the bits of the whole one, and can be stopped and resumed as that."""

from __future__ import annotations

import pytest
from training_rig import Rig, assert_exactly_once, make_rig, with_runtime

pytestmark = [pytest.mark.torchrun, pytest.mark.services]


@pytest.fixture(scope="module")
def rig(object_store: str, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return make_rig(f"{object_store}/pipeline", tmp_path_factory.mktemp("pipeline"))


@pytest.mark.slow
def test_two_stages_come_to_the_bits_of_one(rig: Rig) -> None:
    """Mixup, erasing, dropout and stochastic depth are on; statistics are those of batch slices."""
    whole = rig.run("whole", ranks=1)
    assert whole.code == 0, whole.log
    cut = with_runtime(rig.job, pipeline_stages=2)
    stopped = rig.run("cut", cut, fault="step@0:40=term")
    assert stopped.object("status.json")["state"] == "preempted", stopped.log
    resumed = rig.run("cut", cut)
    assert resumed.code == 0, resumed.log
    assert resumed.object("status.json")["resumed_at"] in (40, 41)
    assert resumed.sha256 == whole.sha256
    assert resumed.ledger == whole.ledger
    assert_exactly_once(resumed.ledger)
