"""Real torchrun jobs that are asked to end, as Slurm, Kubernetes and the clouds do before they take a machine away."""

from __future__ import annotations

import asyncio
import time

import pytest
from training_rig import End, Rig, assert_same, finish, with_runtime

from infra import store
from infra.launch import local
from tasks import supervise

pytestmark = [pytest.mark.torchrun, pytest.mark.services, pytest.mark.fault]

ASKED = {  # who gets the SIGTERM
    "agent": {
        "startup": "start@0:0=ask",
        "step": "step@0:47=ask",
        "eval": "eval@0:64=ask",
        "save": "save-state-open@0:30=ask",
    },
    "rank": {
        "startup": "start@1:0=term",
        "step": "step@1:47=term",
        "eval": "eval@1:64=term",
        "save": "save-state-open@0:30=term",
        "last": "save-state-open@0:96=slow;last-eval@1:96=term",
    },
    "group": {
        "startup": "start@*:0=term",
        "step": "step@*:47=term",
        "eval": "eval@*:64=term",
        "save": "save-state-open@0:30=term;step@1:30=term",
        "last": "last-eval@*:96=term",
    },
}
ALWAYS = {
    "agent-step-1",
    "agent-save-2",
    "rank-step-2",
    "rank-eval-1",
    "rank-last-1",
    "group-startup-2",
    "group-eval-2",
    "group-save-1",
}
PREEMPTIONS = [f"{whom}-{phase}-{threads}" for whom in ASKED for phase in ASKED[whom] for threads in (1, 2)]


@pytest.mark.parametrize(
    "case", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in PREEMPTIONS]
)
def test_a_preempted_job_saves_the_last_step_and_goes_on_to_the_same_bits(case: str, rig: Rig, reference: End) -> None:
    whom, phase, threads = case.split("-")
    name = f"preempted-{case}"
    job = with_runtime(rig.job, loader_threads=int(threads))
    began = time.monotonic()
    end = rig.run(name, job, fault=ASKED[whom][phase], max_restarts=0)
    assert time.monotonic() - began < 45
    status = end.object("status.json")
    assert (status["state"], status["exit_code"]) == ("preempted", 8), end.log
    assert not end.object("failure.json")
    saved = end.steps_saved()[-1]
    assert f"saved after step {saved}" in status["error"]
    # A signal that comes while a step is computed is passed on with the next one.
    # Torchrun passes on what it was asked a little later: it looks up ten times a second.
    late = 12 if whom == "agent" else 0
    expected = {
        "startup": range(1 + late),
        "step": range(47, 49 + late),
        "eval": range(64, 65 + late),
        "save": range(30, 33 + late),
        "last": [96],
    }
    assert saved in expected[phase]
    assert_same(rig.run(name, job), reference)


@pytest.mark.slow
def test_a_rank_that_has_nothing_to_write_does_not_end_the_one_that_writes(rig: Rig, reference: End) -> None:
    """Asked 5 s before the step ends, so that torchrun's signal would be the second; the write takes 5 s more."""
    slow = "step@1:47=term;step@*:48=slow;save-state-open@0:46=slow!"
    end = rig.run("slow-save", fault=slow, max_restarts=0)
    status = end.object("status.json")
    assert (status["state"], status["exit_code"]) == ("preempted", 8), end.log
    assert 47 <= end.steps_saved()[-1] <= 49
    assert_same(rig.run("slow-save"), reference)


def test_the_agent_may_be_asked_to_end_and_all_is_saved_within_twenty_seconds(rig: Rig, reference: End) -> None:
    running, job_uri = rig.start("agent-asked")
    while "step" not in (store.read_json(u) if store.exists(u := f"{job_uri}/status.json") else {}):
        time.sleep(0.02)
    began = time.monotonic()
    local.cancel(running)
    assert time.monotonic() - began < 20
    end = finish(running, job_uri, began)
    assert end.object("status.json")["state"] == "preempted"
    assert_same(rig.run("agent-asked"), reference)


def test_a_preemption_uses_up_no_retry(rig: Rig, reference: End) -> None:
    run, config = rig.supervised("asked-often", relaunches=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULT", "step@1:5=term;step@0:50=term")
        result = asyncio.run(supervise.run_job(run, config, ""))
    assert result["state_sha256"] == reference.sha256
