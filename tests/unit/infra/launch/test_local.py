"""The processes of a job beside what this machine has, before anything starts."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from conf.schema import Launch
from infra import machine
from infra.errors import ConfigError
from infra.launch import local


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """What is logged about the processes of a job on a machine."""

    def run(launch: Launch, *, cores: int = 2, gpus: int = 0, torch: str = "2.13.0") -> list[str]:
        monkeypatch.setattr(machine, "cores", lambda: cores)
        monkeypatch.setattr(machine, "gpus", lambda: [str(number) for number in range(gpus)])
        monkeypatch.setattr(machine, "facts", lambda: {"torch": torch})
        caplog.clear()
        with caplog.at_level(logging.INFO):
            local.check(launch)
        return [f"{record.levelname}: {record.getMessage()}" for record in caplog.records]

    return run


def test_more_processes_than_cores_are_named_and_not_refused(check: Callable[..., list[str]]) -> None:
    assert check(Launch(nproc_per_node=8)) == [
        "WARNING: launch.nproc_per_node=8: the processes of a job share 2 cores and no GPU, which is slower than "
        "launch.nproc_per_node=2"
    ]
    assert "share one core and no GPU" in check(Launch(nproc_per_node=2), cores=1)[0]


def test_a_job_of_as_many_processes_as_cores_is_no_mistake_and_neither_are_two_of_them(
    check: Callable[..., list[str]],
) -> None:
    assert check(Launch(nproc_per_node=2)) == []
    assert check(Launch(nproc_per_node=2, jobs_at_once=2)) == [], "one computes while the other starts or evaluates"


def test_on_gpus_the_cores_do_not_matter_but_more_processes_than_gpus_are_refused(
    check: Callable[..., list[str]],
) -> None:
    assert check(Launch(nproc_per_node=8), gpus=8) == []
    with pytest.raises(ConfigError, match="nproc_per_node=8 needs as many GPUs, and a job may use 4 of this machine"):
        check(Launch(nproc_per_node=8), gpus=4)


def test_gpus_that_no_job_uses_are_named(check: Callable[..., list[str]]) -> None:
    assert check(Launch(nproc_per_node=2), gpus=8) == [
        "INFO: a job uses 2 of the 8 GPUs of this machine (launch.nproc_per_node)"
    ]
    assert check(Launch(nproc_per_node=2, jobs_at_once=4), gpus=8) == []


def test_by_choice_jobs_use_the_cores_beside_a_gpu(check: Callable[..., list[str]]) -> None:
    said = check(Launch(nproc_per_node=2, device="cpu"), gpus=1)
    assert said == ["INFO: jobs use the cores of this machine, not its GPUs (launch.device=cpu)"]
    assert "share 2 cores" in check(Launch(nproc_per_node=8, device="cpu"), gpus=8)[1]


def test_gpus_that_this_torch_cannot_use_do_not_count(check: Callable[..., list[str]]) -> None:
    assert check(Launch(nproc_per_node=2), gpus=8, torch="2.13.0+cpu") == []
    assert "share 2 cores" in check(Launch(nproc_per_node=8), gpus=8, torch="2.13.0+cpu")[0]
