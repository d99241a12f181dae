"""What a rank leaves behind when it fails."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from conf import schema
from infra import errors, store
from models.evaluate import _check_interrupted
from models.training.supervision.preemption import Preemption
from models.training.supervision.progress import Progress
from models.worker import Worker, _forget_failure, _record_failure, _refuse_ended_job


def job() -> schema.Job:
    return schema.Job(kind="train", data_name="x", manifest_uri="s3://b/m", manifest_sha256="0" * 64)


def failure_of(job: str) -> dict[str, object]:
    return dict(store.read_json(f"{job}/failure.json"))


def test_the_first_rank_that_fails_in_the_latest_attempt_names_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = f"file://{tmp_path}/job"
    _record_failure(job, None, errors.LostError("another rank is gone"))
    _record_failure(job, None, errors.JobError("too late"))
    first = {"error": "another rank is gone", "exit_code": 75, "kind": "LostError", "attempt": 0}
    assert failure_of(job) == first
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    _record_failure(job, None, errors.DataError("a shard is damaged"))
    _record_failure(job, None, errors.LostError("another rank is gone"))
    assert failure_of(job) == {"error": "a shard is damaged", "exit_code": 3, "kind": "DataError", "attempt": 1}


def test_a_requeued_job_forgets_why_it_ended_before_but_restarted_ranks_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = f"file://{tmp_path}/job"
    _record_failure(job, None, errors.LostError("another rank is gone"))
    _forget_failure(job, "1")
    monkeypatch.setenv("EFFNET_ROUND", "1")
    _forget_failure(job, "0")
    assert failure_of(job)["error"] == "another rank is gone"
    monkeypatch.setenv("EFFNET_ROUND", "0")
    _forget_failure(job, "0")
    assert not store.exists(f"{job}/failure.json")


@pytest.mark.parametrize(
    ("code", "name", "kind"),
    [
        (75, "", errors.TransientError),
        (75, "TransientError", errors.TransientError),
        (75, "LostError", errors.LostError),
        (75, "of a later version", errors.TransientError),
        (9, "HungError", errors.HungError),
        (1, "", errors.JobError),
        (99, "LostError", errors.JobError),
    ],
)
def test_an_error_is_known_again_by_code_and_name(code: int, name: str, kind: type[errors.EffnetError]) -> None:
    assert errors.kind_of(code, name) is kind


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"attempt": "x"}', "{"])
def test_a_damaged_failure_is_replaced_and_stops_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    job = f"file://{tmp_path}/job"
    store.write(f"{job}/failure.json", text.encode())
    _record_failure(job, None, errors.DataError("a shard is damaged"))
    assert failure_of(job)["error"] == "a shard is damaged"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    store.write(f"{job}/failure.json", b'{"exit_code": 3}')
    with pytest.raises(errors.DataError, match=r"recorded in .*failure\.json"):
        _refuse_ended_job(job)


def test_an_evaluation_reports_that_it_lives(tmp_path: Path) -> None:
    """Or one longer than launch.stall_timeout_s would be ended as dead, and repeated in vain."""
    progress = Progress(job := f"file://{tmp_path}/job")
    beats: list[bool] = []
    context = SimpleNamespace(
        progress=progress, watchdog=SimpleNamespace(beat=lambda: beats.append(True)), preemption=Preemption()
    )
    before = time.time()
    assert not _check_interrupted(cast(Worker, context))
    assert beats == [True]
    progress.finish()
    status = dict(store.read_json(f"{job}/status.json"))
    assert status["state"] == "running"
    assert status["time"] >= before
