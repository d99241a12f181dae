"""Real torchrun jobs that are asked to end, as Slurm, Kubernetes and the clouds do before they take a machine away."""

from __future__ import annotations

import asyncio
import time

import pytest
from training_rig import End, Rig, assert_same, finish, with_runtime

from conf import schema
from infra import store
from infra.launch import local
from tasks import supervise

pytestmark = [pytest.mark.torchrun, pytest.mark.services, pytest.mark.fault]

PHASES = ("startup", "save", "step", "eval", "last")  # in the order of their steps
SIGTERMS = {  # who gets it, and in which phases
    "agent": {
        "startup": "start@0:0=ask",
        "save": "save-state-open@0:30=ask",
        "step": "step@0:47=ask",
        "eval": "eval@0:64=ask",
    },
    "rank": {
        "startup": "start@1:0=term",
        "save": "save-state-open@0:30=term",
        "step": "step@1:47=term",
        "eval": "eval@1:64=term",
        "last": "save-state-open@0:96=slow;last-eval@1:96=term",
    },
    "group": {
        "startup": "start@*:0=term",
        "save": "save-state-open@0:30=term;step@1:30=term",
        "step": "step@*:47=term",
        "eval": "eval@*:64=term",
        "last": "last-eval@*:96=term",
    },
}
JOBS = [  # who gets it in each phase, and the loader's threads: every receiver in every phase
    ({"startup": "agent", "save": "rank", "step": "group", "eval": "agent", "last": "rank"}, 1),
    ({"startup": "rank", "save": "group", "step": "agent", "eval": "rank", "last": "group"}, 2),
    ({"startup": "group", "save": "agent", "step": "rank", "eval": "group", "last": "rank"}, 2),
]


@pytest.mark.slow  # in a plain run: SIGTERM to the command, in tests/e2e
@pytest.mark.parametrize(("receivers", "threads"), JOBS, ids=["agent-first", "rank-first", "group-first"])
def test_a_job_preempted_in_every_phase_saves_the_last_step_each_time_and_comes_to_the_same_bits(
    receivers: dict[str, str], threads: int, rig: Rig, reference: End, request: pytest.FixtureRequest
) -> None:
    """One job, because each start costs seconds: it is preempted, resumed and preempted again, phase by phase."""
    name = f"preempted-{request.node.callspec.id}"
    job = with_runtime(rig.job, loader_threads=threads)
    for phase in PHASES:
        whom = receivers[phase]
        assert_preempted(rig, name, job, phase, SIGTERMS[whom][phase], late=12 if whom == "agent" else 0)
    assert_same(rig.run(name, job), reference)


def assert_preempted(rig: Rig, name: str, job: schema.Job, phase: str, fault: str, late: int) -> None:
    """Runs the job up to the SIGTERM.

    Args:
        rig: where it runs.
        name: name of its run folder.
        job: what is trained.
        phase: phase in which the signal is sent.
        fault: whom it is sent to, and when.
        late: steps that may follow, because torchrun passes on what it received later: it looks ten times a second.
    """
    end = rig.run(name, job, fault=fault, max_restarts=0)
    assert end.seconds < 45
    status = end.object("status.json")
    assert (status["state"], status["exit_code"]) == ("preempted", 8), end.log
    assert not end.object("failure.json")
    saved = end.steps_saved()[-1]
    assert f"saved after step {saved}" in status["error"]
    # A signal that comes while a step is computed is passed on with the next one.
    expected = {
        "startup": range(1 + late),
        "save": range(30, 33 + late),
        "step": range(47, 49 + late),
        "eval": range(64, 65 + late),
        "last": [96],
    }
    assert saved in expected[phase]


@pytest.mark.slow
def test_a_rank_that_has_nothing_to_write_does_not_end_the_one_that_writes(rig: Rig, reference: End) -> None:
    """Asked 5 s before the step ends, so that torchrun's signal would be the second; the write takes 5 s more."""
    slow = "step@1:47=term;step@*:48=slow;save-state-open@0:46=slow!"
    end = rig.run("slow-save", fault=slow, max_restarts=0)
    status = end.object("status.json")
    assert (status["state"], status["exit_code"]) == ("preempted", 8), end.log
    assert 47 <= end.steps_saved()[-1] <= 49
    assert_same(rig.run("slow-save"), reference)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_preemption_uses_up_no_retry(rig: Rig, reference: End) -> None:
    run, config = rig.supervised("asked-often", relaunches=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULT", "step@1:5=term;step@0:50=term")
        result = asyncio.run(supervise.run_job(run, config, ""))
    assert result["state_sha256"] == reference.sha256
