"""The flow of one job on a worker: what it refuses before it starts anything."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from flows import job
from flows.job import check_code
from infra import machine
from infra.errors import ConfigError
from infra.launch import lease


def test_a_worker_with_other_training_code_than_the_flow_refuses_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lease.WORKER, "one")
    check_code("train b0", machine.training_code())
    with pytest.raises(ConfigError) as refused:
        check_code("train b0", "0" * 16)
    assert str(refused.value) == (
        f"train b0: worker one has another version of effnet (training code {machine.training_code()}) than the flow "
        f"({'0' * 16}); install the same one on both"
    )


def test_the_supervisor_reads_a_refusal_in_the_message_of_the_flow_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lease.WORKER, "one")
    monkeypatch.chdir(tmp_path)
    state = asyncio.run(job.job.fn("train-b0-1", f"file://{tmp_path}", "engine: workpool", "train b0", "0" * 16))
    assert state.is_failed()
    assert state.message.startswith("refused: train b0: worker one has another version of effnet")
