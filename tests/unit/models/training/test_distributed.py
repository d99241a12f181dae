"""What a process of a job finds on its machine."""

from __future__ import annotations

import pytest
import torch

from conf.schema import Launch
from infra.errors import ConfigError
from infra.launch.command import GPUS_PER_NODE, job_environment
from models.training import distributed


@pytest.mark.parametrize(("cuda", "cause"), [(None, "torch is the build for CPUs"), ("12.8", "torch finds none")])
def test_a_job_that_requested_gpus_does_not_train_on_cores(
    cuda: str | None, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = Launch(engine="slurm", gpus_per_node=8, nproc_per_node=8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert distributed._device().type == "cpu"
    monkeypatch.setenv(GPUS_PER_NODE, job_environment(launch, 64, "cache")[GPUS_PER_NODE])
    with pytest.raises(ConfigError, match=rf"^launch\.gpus_per_node=8, but {cause} on \S+$"):
        distributed._device()


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert distributed._device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"launch\.nproc_per_node=3 processes need as many GPUs; \S+ has 2 that this"):
        distributed._device()
