"""Real torchrun jobs that are broken in every way of the fault table, and come to the same bits all the same."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from training_rig import (
    STEPS,
    End,
    Rig,
    assert_exactly_once,
    assert_same,
    finish,
    make_rig,
    processes_of,
    with_recipe,
    with_runtime,
)

from infra import store
from infra.launch import local
from tasks import supervise

pytestmark = [pytest.mark.torchrun, pytest.mark.services, pytest.mark.fault]


def test_the_undisturbed_run_reads_every_sample_once_an_epoch(reference: End) -> None:
    assert_exactly_once(reference.ledger)
    assert reference.object("result.json")["n_val"] == 70
    assert reference.steps_saved() == [90, STEPS]


def test_one_rank_trains_to_the_same_bits_as_two(rig: Rig, reference: End) -> None:
    assert_same(rig.run("one-rank", ranks=1), reference)


def test_a_job_broken_in_several_ways_one_after_another_comes_to_the_same_bits(rig: Rig, reference: End) -> None:
    """Memory runs out, a rank is killed while it writes a checkpoint, a bit flips: one job, as each start is slow."""
    end = rig.run("broken", fault="batch@1:7=oom!;save-state-half@0:10=kill;state@1:25=flip")
    assert_same(end, reference)
    assert end.object("status.json")["restarts"] == 1
    assert "out of memory in step 7: activations are recomputed from now on" in end.log
    assert "step 30: the ranks' weights differ" in end.log
    assert "rewound to step 20" in end.log


@pytest.mark.slow
def test_ranks_killed_anywhere_cost_nothing_but_time(rig: Rig, reference: End) -> None:
    """One job, as each start is slow: in its first steps, in a checkpoint, between two and in the last step."""
    kills = [f"step@{rank}:{step}" for rank, step in ((0, 3), (1, 4), (1, 10), (0, 47), (1, 48), (1, 94), (0, 95))]
    kills.append("save-state-half@0:10")
    end = rig.run("killed", fault=";".join(f"{kill}=kill" for kill in kills), max_restarts=len(kills))
    assert_same(end, reference)
    assert end.object("status.json")["restarts"] == len(kills)


@pytest.mark.slow
def test_ranks_die_with_a_killed_agent_and_the_supervisor_starts_them_again(rig: Rig, reference: End) -> None:
    run, config = rig.supervised("agent-killed")
    spec_env = {"FAULT": "step@0:30=agent"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULT", spec_env["FAULT"])
        result = asyncio.run(supervise.run_job(run, config, ""))
    assert result["state_sha256"] == reference.sha256
    assert processes_of(run.job_uri) == []
    assert (rig.folder / "supervised/jobs" / run.key / "log.1.txt").exists()  # one start before this one
    assert not (rig.folder / "supervised/jobs" / run.key / "log.2.txt").exists()


@pytest.mark.slow
def test_no_rank_outlives_its_agent(rig: Rig) -> None:
    running, job_uri = rig.start("orphans", fault="step@0:30=agent;step@1:31=sleep", max_restarts=0)
    began = time.monotonic()
    while local.poll(running) is None:
        assert time.monotonic() - began < 60
        time.sleep(0.02)
    assert processes_of(job_uri) == []


@pytest.mark.slow
def test_a_stopped_rank_is_found_its_stacks_saved_and_the_job_started_again(rig: Rig, reference: End) -> None:
    job = with_runtime(rig.job, step_timeout_s=10.0)
    end = rig.run("stopped", job, fault="step@1:20=stop")
    assert_same(end, reference)
    failure = end.object("failure.json")
    assert failure["exit_code"] == 9
    assert "no progress in phase step for 10 s (runtime.step_timeout_s); stopped: rank 1" in failure["error"]
    assert b"step.py" in store.read(f"{end.job_uri}/stacks/rank-0.txt")
    # It has to be woken to write its stacks, so its main thread may have moved on from where it was stopped.
    assert b"most recent call first" in store.read(f"{end.job_uri}/stacks/rank-1.txt")


@pytest.mark.slow
def test_a_rank_that_is_stuck_elsewhere_is_named(rig: Rig, reference: End) -> None:
    job = with_runtime(rig.job, step_timeout_s=10.0)
    end = rig.run("stuck", job, fault="step@1:20=sleep")
    assert_same(end, reference)
    assert b"faults.py" in store.read(f"{end.job_uri}/stacks/rank-1.txt")


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_checkpoint_and_training_goes_on(rig: Rig, reference: End, tmp_path: Path) -> None:
    local_rig = make_rig(f"file://{tmp_path}/store", tmp_path / "local")
    end = local_rig.run("full", fault="save@0:30=full")
    assert end.code == 0, end.log
    assert end.sha256 == reference.sha256
    assert end.ledger == reference.ledger
    assert "checkpoint of step 30 NOT written" in end.log
    assert not list(Path(tmp_path).rglob("*.partial"))


@pytest.mark.slow
def test_three_failed_checkpoints_in_a_row_end_the_job(tmp_path: Path) -> None:
    local_rig = make_rig(f"file://{tmp_path}/store", tmp_path / "local")
    end = local_rig.run("full", fault="save@0:20=full!")
    assert end.code != 0
    assert end.object("failure.json")["exit_code"] == 2
    assert end.steps_saved() == [10]


def test_nan_for_ever_ends_as_diverged_within_ten_steps_and_keeps_the_good_checkpoint(rig: Rig) -> None:
    end = rig.run("diverged", fault="batch@1:23=nan!")
    assert end.code != 0
    assert end.object("failure.json")["exit_code"] == 4
    assert "steps in a row whose loss or gradients are not finite" in end.object("failure.json")["error"]
    assert end.steps_saved() == [10, 20]
    assert end.log.count("changed nothing") <= 2 * 10  # each of two ranks says so
    assert not end.object("result.json")


@pytest.mark.slow
def test_one_step_with_nan_changes_nothing_and_five_in_a_row_rewind_once_and_training_recovers(rig: Rig) -> None:
    end = rig.run("recovered", fault=";".join(f"batch@1:{step}=nan" for step in (12, *range(23, 28))))
    assert end.code == 0, end.log
    assert "step 12 changed nothing: loss nan" in end.log
    assert "step 27: 5 steps in a row whose loss or gradients are not finite; rewound to step 20" in end.log
    assert_exactly_once(end.ledger)


@pytest.mark.slow  # what is compared with what: tests/unit/models/training/checkpoints/test_format.py
def test_a_resume_of_another_job_is_refused_with_the_difference(rig: Rig) -> None:
    assert rig.run("changed", fault="step@0:12=term").object("status.json")["state"] == "preempted"
    seed_changed = with_recipe(rig.job, seed=5)
    changes = {
        "recipe.lr_per_256": with_recipe(rig.job, lr_per_256=0.03),
        "manifest_sha256": rig.with_other_data(),
        "recipe.seed": seed_changed,
    }
    for key, changed in changes.items():
        refused = rig.run("changed", changed)
        assert refused.code != 0
        failure = refused.object("failure.json")
        assert failure["exit_code"] == 7
        assert f"{key}: " in failure["error"]
        assert "ChangedError: checkpoint" in refused.tail
        assert "Traceback" not in refused.tail
    accepted = rig.run("changed", with_runtime(seed_changed, accept_changes=True))
    (change,) = accepted.object("result.json")["accepted_changes"]
    assert change["changes"] == ["recipe.seed: 0 -> 5"]
    assert change["step"] in (12, 13)  # the signal is passed on with this step or the next


@pytest.mark.slow
def test_two_nodes_then_one_then_two_come_to_the_same_bits(rig: Rig, reference: End) -> None:
    """Two agents over the loopback interface; one is killed in step 32, and the other one is asked to end."""
    nodes = start_nodes(rig, "nodes", fault="step@1:32=agent")
    wait_for(any, nodes)  # the killed one
    for node, _ in nodes:
        local.cancel(node)
    alone = rig.run("nodes", fault="step@0:64=term", ranks=1)
    assert alone.object("status.json")["state"] == "preempted"
    assert alone.steps_saved()[-1] == 64
    assert 20 <= alone.object("status.json")["resumed_at"] <= 31
    nodes = start_nodes(rig, "nodes")
    wait_for(all, nodes)  # one may end before the other, and both are called by the same run folder
    ends = [finish(node, job_uri, time.monotonic()) for node, job_uri in reversed(nodes)]
    assert ends[-1].object("status.json")["resumed_at"] == 64
    assert_same(ends[-1], reference)


def wait_for(
    quantifier: Callable[[Iterable[bool]], bool], nodes: list[tuple[local.LocalJob, str]], within_s: float = 60
) -> None:
    """Waits until any or all of the agents have ended."""
    began = time.monotonic()
    while not quantifier([local.poll(node) is not None for node, _ in nodes]):
        assert time.monotonic() - began < within_s, [local.logs(node) for node, _ in nodes]
        time.sleep(0.02)


def start_nodes(rig: Rig, name: str, fault: str = "") -> list[tuple[local.LocalJob, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    launch = {"ranks": 1, "nnodes": 2, "rendezvous": address, "max_restarts": 0}
    return [rig.start(name, folder=f"{name}-{node}", fault=fault, **launch) for node in range(2)]
