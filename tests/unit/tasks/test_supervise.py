"""What the supervisor says of a running job, and how it judges the end of one."""

import asyncio
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from conf import compose, schema
from infra import errors, store
from infra.launch import local
from infra.launch.command import RENDEZVOUS_TOKEN
from infra.launch.job import JobSpec, write_request
from infra.launch.local import Command, LocalJob
from tasks.jobs import JobRun, name_job, stored_result
from tasks.supervise import (
    REFRESH_S,
    _check_end,
    _raise_error,
    _submit,
    _until_done,
    _Watch,
    build_spec,
    describe_progress,
    progress_line,
    report_other_worlds,
)

STATUS: dict[str, Any] = {
    "state": "running",
    "epoch": 2,
    "epochs": 8,
    "step": 110,
    "steps": 440,
    "loss": 1.23456,
    "images_per_s": 99.6,
    "eta_s": 125.4,
}


def run_in(folder: Path) -> JobRun:
    return JobRun(schema.Job(kind="train"), "train-b0-x-12ab", f"file://{folder}/jobs/train-b0-x-12ab", "train b0")


def job_in(folder: Path, log: str = "") -> LocalJob:
    job = LocalJob(Command([], {}, folder), subprocess.Popen(["true"]))
    assert job.process is not None
    job.process.wait()
    job.command.log_path.write_text(log)
    return job


def test_a_line_of_progress_tells_epoch_step_loss_speed_and_time_left() -> None:
    assert progress_line("train b0", STATUS) == (
        "train b0: epoch 2/8, step 110/440, loss 1.235, 100 images/s, 02:05 left"
    )


def test_a_page_that_shows_one_line_begins_with_the_percentage_and_the_time_left() -> None:
    assert describe_progress("b0", STATUS) == f"25 %, 02:05 left\n\n{progress_line('b0', STATUS)}"


def test_after_an_evaluation_the_line_tells_its_accuracy() -> None:
    assert ", loss 1.235, minival 45.7 %, 100 images/s" in progress_line("b0", {**STATUS, "minival_top1": 45.68})


def test_the_line_tells_what_share_of_the_time_is_spent_waiting_for_data() -> None:
    assert ", 100 images/s (waits 7 % for data), 02:05 left" in progress_line("b0", {**STATUS, "data_wait": 0.068})


def test_a_training_that_other_processes_would_resume_says_so_before_it_starts_at_step_0(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = compose.compose(["recipe.bn_groups=sync", "launch.nproc_per_node=2", f"storage=file://{tmp_path}"])
    two = name_job(config, schema.Job(kind="train", recipe=config.recipe), "train-b0-x")
    one = replace(config, launch=replace(config.launch, nproc_per_node=1))
    saved = name_job(one, two.job, "train-b0-x")
    report_other_worlds(two, config)
    assert not caplog.messages
    store.write(store.join(saved.job_uri, "checkpoints/step-00000123-1.json"), b"{}")
    report_other_worlds(two, config)
    (message,) = caplog.messages
    assert message.startswith(
        "train b0 x starts at step 0: with recipe.bn_groups=sync its result depends on the number"
    )
    assert f"on 1 it is another job, {saved.key}, which has saved step 123" in message
    store.write(store.join(two.job_uri, "checkpoints/step-00000007-1.json"), b"{}")
    caplog.clear()
    report_other_worlds(two, config)
    assert not caplog.messages, "it resumes"


@pytest.mark.parametrize(
    ("eta_s", "text"), [(0, "00:00"), (59.6, "01:00"), (3599, "59:59"), (3725, "1:02:05"), (200_000, "55:33:20")]
)
def test_the_time_left_is_right_beyond_an_hour(eta_s: float, text: str) -> None:
    assert progress_line("b0", {**STATUS, "eta_s": eta_s}).endswith(f", {text} left")


@pytest.mark.parametrize("code", [0, 1, 143])
def test_a_job_that_says_it_is_done_is_done_whatever_its_exit_code(code: int, tmp_path: Path) -> None:
    failure = {"error": "of an attempt before", "exit_code": 3}
    _raise_error(run_in(tmp_path), {"state": "done"}, failure, code, local, job_in(tmp_path))


@pytest.mark.parametrize(
    "kind", [errors.ConfigError, errors.DataError, errors.DivergedError, errors.ArtifactError, errors.TransientError]
)
def test_the_trainer_s_own_error_comes_up_as_what_it_was(kind: type[errors.EffnetError], tmp_path: Path) -> None:
    failure = {"error": "loss is nan at step 7", "exit_code": kind.exit_code}
    with pytest.raises(kind) as caught:
        _raise_error(run_in(tmp_path), {}, failure, 1, local, job_in(tmp_path))  # torchrun flattens every code to 1
    assert str(caught.value) == "train b0: loss is nan at step 7"


def test_an_adopted_job_that_its_owner_ended_may_be_tried_again(tmp_path: Path) -> None:
    adopted = LocalJob(job_in(tmp_path).command)
    with pytest.raises(errors.TransientError, match="ended it"):
        _raise_error(run_in(tmp_path), {"state": "running"}, {}, 0, local, adopted)


def test_a_job_that_another_command_had_stop_at_an_earlier_epoch_may_be_resumed(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    run = replace(run, job=replace(run.job, until_epoch=2))
    store.write_json(store.join(run.job_uri, "until-00001.json"), {"epochs": 1, "steps": 55})
    store.write_json(store.join(run.job_uri, "status.json"), {"state": "done", "exit_code": 0})
    with pytest.raises(errors.TransientError, match=r"train b0: .* stopped at another epoch"):
        _check_end(run, 0, local, LocalJob(job_in(tmp_path).command))
    store.write_json(store.join(run.job_uri, "until-00002.json"), {"epochs": 2, "steps": 110})
    _check_end(run, 0, local, LocalJob(job_in(tmp_path).command))


def test_a_rank_that_lost_its_peers_is_no_failure_of_the_store_or_the_outside(tmp_path: Path) -> None:
    failure = {"error": "another rank is gone", "exit_code": 75, "kind": "LostError"}
    with pytest.raises(errors.LostError, match="another rank is gone"):  # started again without using up a retry
        _raise_error(run_in(tmp_path), {"state": "failed"}, failure, 1, local, job_in(tmp_path))


@pytest.mark.parametrize(
    ("lost", "ends"),
    [
        (errors.LostError("killed by signal 9"), errors.JobError),
        (errors.HungError("hung"), errors.HungError),
        (errors.PreemptedError("asked to end"), errors.PreemptedError),
    ],
)
def test_a_job_that_is_lost_time_and_again_without_progress_is_given_up(
    lost: errors.EffnetError, ends: type[errors.EffnetError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []

    async def dies(*_: Any) -> None:
        starts.append(1)
        raise lost

    monkeypatch.setattr("tasks.supervise._supervise", dies)
    config = compose.compose(["launch.relaunches=2", f"run_dir={tmp_path}"])
    with pytest.raises(ends) as caught:
        asyncio.run(_until_done(run_in(tmp_path), build_spec(run_in(tmp_path), config), ""))
    assert len(starts) == 3
    # A task tries transient errors again.
    assert isinstance(caught.value, errors.TransientError) == (ends is not errors.JobError)


LOG = "".join(f"line {i}\n" for i in range(40)) + "ValueError: a bug\n"


def test_a_job_killed_from_outside_may_be_started_again(tmp_path: Path) -> None:
    with pytest.raises(
        errors.LostError, match="was killed by signal 9: by a user, or by the system for lack of memory"
    ):
        _raise_error(run_in(tmp_path), {"state": "running"}, {}, 137, local, job_in(tmp_path))


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (8, errors.PreemptedError, "preempted during start-up"),
        (143, errors.PreemptedError, "preempted during start-up"),  # before torchrun, or by way of srun
        (75, errors.LostError, "torchrun: the store at n1:29500 does not answer"),
        (139, errors.JobError, r"failed \(exit code 139, log in "),  # a fault of the program: its last lines help
    ],
)
def test_an_end_that_left_no_word_is_known_by_its_code(
    code: int, kind: type[errors.EffnetError], said: str, tmp_path: Path
) -> None:
    job = job_in(tmp_path, "a line\ntorchrun: the store at n1:29500 does not answer\n")
    with pytest.raises(kind, match=said):
        _raise_error(run_in(tmp_path), {"state": "starting"}, {}, code, local, job)


def test_the_job_s_own_word_counts_more_than_the_exit_code(tmp_path: Path) -> None:
    failure = {"error": "a shard is damaged", "exit_code": 3, "kind": "DataError"}
    with pytest.raises(errors.DataError, match="a shard is damaged"):
        _raise_error(run_in(tmp_path), {"state": "failed"}, failure, 143, local, job_in(tmp_path))


def test_the_machines_of_a_job_share_a_random_word_that_stays(tmp_path: Path) -> None:
    config = compose.compose(["launch.nnodes=2", "launch.rendezvous=n1:29500", f"run_dir={tmp_path}"])
    commands = [local.build_command(build_spec(run_in(tmp_path), config)) for _ in range(2)]
    words = [command.env[RENDEZVOUS_TOKEN] for command in commands]
    assert words[0] == words[1]
    assert len(words[0]) == 32
    assert words[0] not in " ".join(commands[0].argv)  # which every user can read


def test_a_job_that_was_asked_to_end_is_no_failure(tmp_path: Path) -> None:
    status = {"state": "preempted", "error": "asked to end; saved after step 7", "exit_code": 8}
    with pytest.raises(errors.PreemptedError, match="saved after step 7"):
        _raise_error(run_in(tmp_path), status, {}, 1, local, job_in(tmp_path))


@pytest.mark.parametrize("failure", [{}, {"error": "ValueError: a bug", "exit_code": 1}], ids=["no word", "a bug"])
def test_any_other_end_shows_the_last_lines_and_where_the_log_is(failure: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(errors.JobError) as caught:
        _raise_error(run_in(tmp_path), {"state": "running"}, failure, 1, local, job_in(tmp_path, LOG))
    first, *rest = str(caught.value).splitlines()
    assert first == f"train b0 failed (exit code 1, log in {tmp_path}/log.txt):"
    assert rest == [*(f"  | line {i}" for i in range(16, 40)), "  | ValueError: a bug"]


def test_the_last_step_is_logged_once_however_short_the_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr("tasks.supervise.log.info", lambda text, *parts, **_: messages.append(text % parts))
    watch = _Watch(run_in(tmp_path), schema.Launch(), "")
    for change in ({"step": 438}, {"step": 439}, {"step": 440}, {"step": 440, "minival_top1": 91.0}, {"state": "done"}):
        store.write_json(watch.status_uri, {**STATUS, "step": 440, **change})
        watch.poll_status()
    assert [m.partition("step ")[2].partition(",")[0] for m in messages] == ["438/440", "440/440"]


def test_a_job_without_a_sign_of_life_is_given_up_and_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("tasks.supervise.time.monotonic", lambda: now[0])
    run = run_in(tmp_path)
    watch = _Watch(run, schema.Launch(start_timeout_s=300, stall_timeout_s=60), "")
    now[0] += 299
    watch.poll_status()  # still starting
    store.write_json(watch.status_uri, STATUS)
    now[0] += 50
    watch.poll_status()
    now[0] += 59
    watch.poll_status()
    store.write_json(watch.status_uri, {**STATUS, "step": 111})
    now[0] += 59
    watch.poll_status()  # it moved
    now[0] += 61
    with pytest.raises(errors.TransientError, match=r"no status update for 60 s \(launch\.stall_timeout_s\)"):
        watch.poll_status()


def test_a_job_that_never_starts_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tasks.supervise.time.monotonic", lambda: now[0])
    watch = _Watch(run_in(tmp_path), schema.Launch(start_timeout_s=300), "")
    now[0] = 301
    with pytest.raises(errors.TransientError, match="start_timeout_s"):
        watch.poll_status()


def test_a_job_that_waits_for_a_slot_of_its_worker_may_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("tasks.supervise.time.monotonic", lambda: now[0])
    watch = _Watch(run_in(tmp_path), schema.Launch(start_timeout_s=300), "")
    store.write_json(watch.status_uri, {"state": "queued"})
    for _ in range(5):
        now[0] += 299
        watch.poll_status()
    store.delete(watch.status_uri)  # its worker is gone
    now[0] += 301
    with pytest.raises(errors.TransientError, match="start_timeout_s"):
        watch.poll_status()


@pytest.mark.parametrize(
    "poll", [_Watch.wait_longer, _Watch.poll_status], ids=["in the queue of an engine", "for a slot of its worker"]
)
def test_a_job_that_waits_keeps_its_run_folder_from_being_pruned(
    poll: Callable[[_Watch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("tasks.supervise.time.monotonic", lambda: now[0])
    run = run_in(tmp_path)
    write_request(run.job_uri, run.job)
    watch = _Watch(run, schema.Launch(), "")
    store.write_json(watch.status_uri, {"state": "queued"})

    def age_days() -> float:
        return min(time.time() - entry.modified for entry in store.list_entries(run.job_uri)) / 86400

    for path in (tmp_path / "jobs" / run.key).iterdir():
        os.utime(path, (time.time() - 40 * 86400,) * 2)
    poll(watch)
    assert age_days() == pytest.approx(40, abs=0.1), "it is not written at every poll"
    now[0] += REFRESH_S + 1
    poll(watch)
    assert age_days() < 0.1
    assert store.read(f"{run.job_uri}/config.yaml") == compose.to_yaml(run.job).encode()


def test_a_job_that_waits_says_why_once_until_the_reason_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, lines = [0.0], []
    monkeypatch.setattr("tasks.supervise.time.monotonic", lambda: now[0])
    monkeypatch.setattr("tasks.supervise.log.info", lambda text, *words: lines.append(text % words))
    watch = _Watch(run_in(tmp_path), schema.Launch(engine="slurm"), "")
    for reason in ("Priority", "Priority", "", "Resources"):
        watch.wait_longer(reason)
        now[0] += 4
    assert lines == ["train b0: waits in the queue of launch.engine=slurm: Resources"], "not in the first seconds"
    for reason in ("Resources", "", "ReqNodeNotAvail"):
        watch.wait_longer(reason)
    assert len(lines) == 2


def test_a_resumed_job_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr("tasks.supervise.log.info", lambda text, *parts, **_: messages.append(text % parts))
    watch = _Watch(run_in(tmp_path), schema.Launch(), "")
    for step in (111, 112):
        store.write_json(watch.status_uri, {**STATUS, "resumed_at": 110, "step": step})
        watch.poll_status()
    assert [m for m in messages if "resumed" in m] == ["train b0: resumed at step 110, no sample lost"]
    assert sum("images/s" in m for m in messages) == 1  # one line an epoch; the bars get the rest


def test_a_finished_job_is_found_by_its_result(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    assert stored_result(run) is None
    store.write(f"{run.job_uri}/result.json", json.dumps({"top1": 77.1}).encode())
    assert stored_result(run) == {"top1": 77.1}


def test_jobs_beyond_what_a_scheduler_accepts_are_submitted_one_by_one_as_others_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []
    room, lock = 2, threading.Lock()

    class Scheduler:
        """Accepts two jobs, and another one at every third attempt."""

        def submit(self, spec: JobSpec) -> str:
            nonlocal room
            with lock:
                attempts.append(spec.key)
                room += len(attempts) % 3 == 0
                if room == 0:
                    raise errors.QueueFullError("your limit of submitted jobs is reached")
                room -= 1
            return spec.key

    monkeypatch.setattr("tasks.supervise.QUEUE_FULL_S", 0.01)
    runs = [replace(run_in(tmp_path), key=f"job-{n}", job_uri=f"file://{tmp_path}/jobs/job-{n}") for n in range(5)]
    config = compose.compose([f"run_dir={tmp_path}"])

    async def submit_all() -> list[str]:
        scheduler: Any = Scheduler()
        return list(await asyncio.gather(*(_submit(scheduler, run, build_spec(run, config)) for run in runs)))

    assert asyncio.run(submit_all()) == [run.key for run in runs]
    again = [key for number, key in enumerate(attempts) if key in attempts[:number]]  # first attempts are simultaneous
    turns = [key for key, _ in groupby(again)]
    assert len(turns) == len(set(turns)), "one of the refused jobs after the other tries again"
