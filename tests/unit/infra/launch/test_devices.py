"""GPUs of a worker, as locks; no test needs a GPU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from infra.errors import ConfigError
from infra.launch import devices, local

FOUR = ["0", "1", "2", "3"]


def test_jobs_get_different_gpus_until_too_few_are_free(tmp_path: Path) -> None:
    with devices.lock(tmp_path, FOUR, 2) as first, devices.lock(tmp_path, FOUR, 1) as second:
        assert first is not None
        assert second is not None
        assert (first.gpus, second.gpus) == (("0", "1"), ("2",))
        assert first.environment == {"CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        with devices.lock(tmp_path, FOUR, 2) as third:
            assert third is None
        with devices.lock(tmp_path, FOUR, 1) as fourth:  # the failed attempt holds nothing
            assert fourth is not None
            assert fourth.gpus == ("3",)
    with devices.lock(tmp_path, FOUR, 4) as all_of_them:
        assert all_of_them is not None
        assert list(all_of_them.gpus) == FOUR


def test_a_machine_without_gpus_restricts_no_process(tmp_path: Path) -> None:
    with devices.lock(tmp_path, [], 8) as devices_of_job:
        assert devices_of_job is not None
        assert devices_of_job.environment == {}


def test_a_gpu_is_held_until_the_guard_of_its_job_has_ended(tmp_path: Path) -> None:
    with devices.lock(tmp_path / "gpus", ["7"], 1) as granted:
        assert granted is not None
        command = local.Command(["sleep", "60"], granted.environment, tmp_path / "job", granted.locks)
        job = local.start(command)
    try:
        with devices.lock(tmp_path / "gpus", ["7"], 1) as none_free:
            assert none_free is None
    finally:
        local.cancel(job)
    with devices.lock(tmp_path / "gpus", ["7"], 1) as free:
        assert free is not None


@pytest.mark.parametrize("name", ["lock", "gpu-0"])
def test_a_link_that_another_user_has_placed_in_the_folder_is_not_written_through(name: str, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("precious")
    (folder := tmp_path / "gpus").mkdir()
    (folder / name).symlink_to(victim)
    with pytest.raises(ConfigError, match="is a link or another user's file"), devices.lock(folder, FOUR, 1):
        pass
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_the_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (folder := tmp_path / "gpus").mkdir()
    os.chown(folder, 65534, 65534)
    refused = pytest.raises(ConfigError, match="gpus belongs to another user; delete it, or set TMPDIR")
    with refused, devices.lock(folder, FOUR, 1):
        pass


def test_a_job_with_more_processes_than_the_worker_has_gpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs 3 GPUs .* has 2"), devices.lock(tmp_path, FOUR[:2], 3):
        pass


def test_a_worker_takes_as_many_jobs_as_its_gpus_hold() -> None:
    assert devices.count_jobs(FOUR, 2, without=5) == 2
    assert devices.count_jobs(FOUR[:3], 2, without=5) == 1
    assert devices.count_jobs([], 2, without=5) == 5
    with pytest.raises(ConfigError, match=r"launch.nproc_per_node=8 GPUs a job, but this worker has 4"):
        devices.count_jobs(FOUR, 8, without=5)


def test_the_gpus_of_a_worker_are_all_or_those_that_are_named() -> None:
    assert devices.choose(FOUR, "") == FOUR
    assert devices.choose(FOUR, "none") == []
    assert devices.choose(FOUR, "3,1") == ["3", "1"]
    with pytest.raises(ConfigError, match=r"--gpus 4: this machine has GPUs 0, 1, 2, 3; there is no GPU 4"):
        devices.choose(FOUR, "4")
    with pytest.raises(ConfigError, match=r"--gpus 0: this machine has no GPU; there is no GPU 0"):
        devices.choose([], "0")


def test_the_locks_are_not_inherited_by_other_processes(tmp_path: Path) -> None:
    with devices.lock(tmp_path, ["0"], 1) as granted:
        assert granted is not None
        other = subprocess.Popen(["sleep", "60"])
    try:
        with devices.lock(tmp_path, ["0"], 1) as free:
            assert free is not None
    finally:
        other.kill()
        other.wait()
