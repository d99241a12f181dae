"""What a rank leaves behind when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import errors, store
from models.worker import _failed


def failure_of(job: str) -> dict[str, object]:
    return dict(store.read_json(f"{job}/failure.json"))


def test_the_first_rank_that_fails_in_the_latest_attempt_names_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = f"file://{tmp_path}/job"
    _failed(job, None, errors.LostError("another rank is gone"))
    _failed(job, None, errors.JobError("too late"))
    first = {"error": "another rank is gone", "exit_code": 75, "kind": "LostError", "attempt": 0}
    assert failure_of(job) == first
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    _failed(job, None, errors.DataError("a shard is damaged"))
    _failed(job, None, errors.LostError("another rank is gone"))
    assert failure_of(job) == {"error": "a shard is damaged", "exit_code": 3, "kind": "DataError", "attempt": 1}


@pytest.mark.parametrize(("code", "name", "kind"), [
    (75, "", errors.TransientError), (75, "TransientError", errors.TransientError), (75, "LostError", errors.LostError),
    (75, "of a later version", errors.TransientError), (9, "HungError", errors.HungError), (1, "", errors.JobError),
    (99, "LostError", errors.JobError),
])  # fmt: skip
def test_an_error_is_known_again_by_code_and_name(code: int, name: str, kind: type[errors.EffnetError]) -> None:
    assert errors.kind_of(code, name) is kind
