"""What provenance records of this machine, and what its jobs may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra import machine
from infra.machine import format_utc


def test_a_time_is_written_in_utc() -> None:
    assert format_utc(1_764_231_164.9) == "2025-11-27 08:12:44 UTC"


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000", 8), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)],
)
def test_a_container_has_the_cores_of_its_limit_and_no_more_than_it_may_run_on(
    limit: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads beyond the limit would be throttled: a pod of 4 cores on a machine of 128."""
    (quota := tmp_path / "cpu.max").write_text(f"{limit}\n")
    monkeypatch.setattr(machine, "QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert machine.cores() == cores


def test_without_a_control_group_the_cores_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "QUOTA", Path("/nowhere"))
    assert machine.cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("flags", "has"), [("fpu avx avx2 avx512f avx512bw", True), ("fpu avx avx2", False)])
def test_the_instructions_of_the_cores_are_those_that_linux_lists(
    flags: str, *, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CPUS", tmp_path / "cpuinfo")
    assert not machine.has_avx512(), "no such file, as on other systems"
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: {flags}\n")
    assert machine.has_avx512() is has


@pytest.mark.parametrize(("visible", "gpus"), [("", []), ("-1", []), ("1, 0", ["1", "0"]), ("0,-1,1", ["0"])])
def test_the_gpus_are_those_that_cuda_would_show(
    visible: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpus() == gpus


@pytest.mark.parametrize(
    ("line", "gpu", "driver"),
    [("NVIDIA H200, 570.86.15", "NVIDIA H200", "570.86.15"), ("GPU, of two, 1.0", "GPU, of two", "1.0")],
)
def test_the_gpu_is_named_with_the_version_of_its_driver(
    line: str, gpu: str, driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n[ $1 = --query-gpu=name,driver_version ] && echo '{line}' && echo '{line}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    facts = machine.facts.__wrapped__()
    assert (facts["gpu"], facts["driver"]) == (gpu, driver)


def test_a_machine_without_a_gpu_has_no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = machine.facts.__wrapped__()
    assert facts["gpu"] == "none"
    assert "driver" not in facts
