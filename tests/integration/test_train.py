"""Real torchrun jobs on a store of files: resume, failure, divergence, evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from conf import compose, schema
from infra import machine, store
from infra.errors import BelowTargetError, kind_of
from infra.launch import local
from infra.launch.command import job_environment, torchrun_argv
from infra.services import proctable
from models.data.shards import writer
from models.training import per_image

pytestmark = pytest.mark.torchrun

TINY = [
    "data=digits",
    "data.limit=400",
    "data.samples_per_shard=100",
    "recipe.epochs=3",
    "recipe.checkpoint_every_steps=2",
]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"file://{tmp_path_factory.mktemp('store')}"


@pytest.fixture(scope="module")
def job(storage: str) -> schema.Job:
    config = compose.compose(TINY)
    layout = writer.plan(config.data, storage)
    for numbers in writer.groups(layout, config.data.shards_per_task):
        writer.write_group(layout, numbers)
    sha256, _ = writer.write_manifest(layout)
    return schema.Job(
        kind="train",
        model=config.model,
        data_name=config.data.name,
        manifest_uri=layout.manifest_uri,
        manifest_sha256=sha256,
        augment=config.data.augment,
        recipe=config.recipe,
    )


def start(job: schema.Job, storage: str, name: str, fault: str = "", **launch: Any) -> tuple[local.LocalJob, str]:
    job_uri = f"{storage}/jobs/{name}"
    store.write(f"{job_uri}/config.yaml", compose.to_yaml(job).encode())
    settings = schema.Launch(threads_per_proc=1, **{"nproc_per_node": 2, "max_restarts": 0, **launch})
    root = Path(storage.removeprefix("file://"))
    env = job_environment(settings, machine.cores(), str(root / "cache")) | {"FAULT": fault}
    module = f"models.{job.kind}"
    command = local.Command(torchrun_argv(settings, module, job_uri), env, root / "local" / name)
    return local.start(command), job_uri


def finish(running: local.LocalJob, within_s: float = 90) -> int:
    deadline = time.monotonic() + within_s
    while (code := local.poll(running)) is None:
        assert time.monotonic() < deadline, local.logs(running)
        time.sleep(0.05)
    local.cancel(running)
    return code


def status(job_uri: str) -> dict[str, Any]:
    uri = f"{job_uri}/status.json"
    return store.read_json(uri) if store.exists(uri) else {}


# What an outer launcher may have left in the environment, turned to nonsense: jobs never see it.
OUTER = {
    "PET_NNODES": "2",
    "PET_NPROC_PER_NODE": "5",
    "PET_RDZV_BACKEND": "static",
    "RANK": "7",
    "WORLD_SIZE": "9",
    "LOCAL_RANK": "3",
    "GROUP_RANK": "4",
    "ROLE_RANK": "4",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "1",
    "TORCHELASTIC_RESTART_COUNT": "5",
    "TORCHELASTIC_RUN_ID": "outer",
}


@pytest.fixture(scope="module")
def watched(job: schema.Job, storage: str) -> tuple[str, set[str]]:
    """An undisturbed job, started below an outer launcher; its run folder, and the addresses it listened at."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OUTER.items():
            patch.setenv(name, value)
        running, job_uri = start(job, storage, "undisturbed")
    addresses: set[str] = set()
    while local.poll(running) is None:
        addresses |= listening([pid for pid in proctable.living() if job_uri.encode() in proctable.command_line(pid)])
        time.sleep(0.05)
    assert finish(running) == 0, local.logs(running)
    return job_uri, addresses


@pytest.fixture(scope="module")
def undisturbed(watched: tuple[str, set[str]]) -> str:
    return watched[0]


def listening(pids: list[int]) -> set[str]:
    """Addresses at which these processes accept connections, in the system's own hexadecimal form."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                inodes.add(str(link.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local_address, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in inodes:
                found.add(local_address.partition(":")[0])
    return found


def test_no_process_of_a_job_listens_beyond_the_loopback_interface(watched: tuple[str, set[str]]) -> None:
    assert watched[1] == {"0100007F"}  # 127.0.0.1: the ranks' store, and gloo


def rows(job_uri: str) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Rows of the trainer's metrics with the training loss, and those of epochs."""
    lines = [json.loads(line) for line in store.read(f"{job_uri}/metrics.jsonl").splitlines()]
    return [row for row in lines if "train_loss" in row], [row for row in lines if "train_loss" not in row]


def test_a_finished_job_leaves_a_result_that_counts_every_val_sample(undisturbed: str, job: schema.Job) -> None:
    result = store.read_json(f"{undisturbed}/result.json")
    assert result["n_val"] == 120
    assert result["steps"] == 3 * (252 // 64)
    assert status(undisturbed)["state"] == "done"
    correct = per_image.read_minival(undisturbed, result)
    assert correct is not None
    assert 100 * correct.mean() == pytest.approx(result["minival_top1"])
    losses, epochs = rows(undisturbed)
    assert [row["step"] for row in losses] == [*range(1, 1 + 3 * (252 // 64))]
    assert [row["step"] for row in epochs] == [3, 6, 9]
    assert all(row["peak_memory_gb"] > 0 for row in epochs)


def test_a_job_killed_in_the_middle_of_an_epoch_resumes_to_the_same_weights(
    undisturbed: str, job: schema.Job, storage: str
) -> None:
    running, job_uri = start(job, storage, "killed", fault="step@0:5=kill")
    assert finish(running) != 0
    assert not store.exists(f"{job_uri}/result.json")
    again, _ = start(job, storage, "killed")
    assert finish(again) == 0, local.logs(again)
    assert status(job_uri)["resumed_at"] > 0
    ours, theirs = (store.read_json(f"{uri}/result.json") for uri in (job_uri, undisturbed))
    assert ours["weights_sha256"] == theirs["weights_sha256"]
    assert (ours["top1"], ours["minival_top1"]) == (theirs["top1"], theirs["minival_top1"])
    assert ours["minival_correct_sha256"] == theirs["minival_correct_sha256"]
    assert ours["minutes"] == pytest.approx(ours["steps"] * 64 / ours["images_per_s"] / 60)  # of both attempts
    curves = [[(row["step"], row["train_loss"]) for row in rows(uri)[0]] for uri in (job_uri, undisturbed)]
    assert curves[0] == curves[1]


def test_an_evaluation_of_the_weights_gives_the_accuracy_that_training_reported(
    undisturbed: str, job: schema.Job, storage: str
) -> None:
    trained = store.read_json(f"{undisturbed}/result.json")
    asked = dataclasses.replace(job, kind="evaluate", init_weights_uri=trained["weights_uri"])
    running, job_uri = start(asked, storage, "evaluate")
    assert finish(running) == 0, local.logs(running)
    same = ("top1", "top5", "class_correct", "class_total", "correct_sha256", "answers_sha256", "calibration_error")
    assert store.read_json(f"{job_uri}/result.json") == {**{key: trained[key] for key in same}, "n": 120}


@pytest.mark.slow
def test_batch_norm_groups_that_span_two_ranks_train_as_on_one(job: schema.Job, storage: str) -> None:
    """With neither dropout nor stochastic depth, whose draws depend on the pass, only the order of sums differs."""
    exact = dataclasses.replace(job, model=dataclasses.replace(job.model, survival_prob=1.0))
    ends = {}
    for name, groups, ranks in (("whole", "rank", 1), ("spanning", "sync", 2), ("halves", "rank", 2)):
        recipe = dataclasses.replace(job.recipe, dropout=0.0, bn_groups=groups, epochs=2)
        running, job_uri = start(dataclasses.replace(exact, recipe=recipe), storage, name, nproc_per_node=ranks)
        assert finish(running) == 0, local.logs(running)
        weights = safetensors.torch.load(store.read(f"{job_uri}/weights.safetensors"))
        statistics = torch.cat([weights[key].flatten() for key in sorted(weights) if "running" in key])
        ends[name] = torch.tensor([row["train_loss"] for row in rows(job_uri)[0]]), statistics
    for expected, spanning, halves in zip(*(ends[name] for name in ("whole", "spanning", "halves")), strict=True):
        distance = float((spanning - expected).norm() / expected.norm())
        assert distance < 1e-3
        assert distance < 0.1 * float((halves - expected).norm() / expected.norm()), "groups of a rank are others"


def test_a_diverging_job_says_so_and_stops(job: schema.Job, storage: str) -> None:
    wild = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, lr_per_256=1e30, warmup_epochs=0.0))
    running, job_uri = start(wild, storage, "diverging")
    assert finish(running) != 0
    assert status(job_uri)["exit_code"] == 4
    assert "lower recipe.lr_per_256" in status(job_uri)["error"]
    assert store.read_json(f"{job_uri}/failure.json")["exit_code"] == 4


@pytest.mark.slow
def test_a_job_below_its_target_ends_with_its_state_saved_and_resumes_without_the_rule(
    undisturbed: str, job: schema.Job, storage: str
) -> None:
    rule = schema.StopRule(job.model.name, job.data_name, epoch=2, top1=99.9)
    judged = dataclasses.replace(job, runtime=dataclasses.replace(job.runtime, stop_below=[rule]))
    for _ in range(2):  # the same command again trains nothing
        running, job_uri = start(judged, storage, "below")
        assert finish(running) != 0
        assert status(job_uri)["exit_code"] == 11
        assert (
            "after epoch 2, below the 99.9 % at epoch 2 of runtime.stop_below; step 6 is saved"
            in status(job_uri)["error"]
        )
        failure = store.read_json(f"{job_uri}/failure.json")
        assert kind_of(failure["exit_code"], failure["error"].partition(":")[0]) is BelowTargetError
        assert [row["step"] for row in rows(job_uri)[1]] == [3, 6]
    again, _ = start(job, storage, "below")
    assert finish(again) == 0, local.logs(again)
    ours, theirs = (store.read_json(f"{uri}/result.json") for uri in (job_uri, undisturbed))
    assert ours["weights_sha256"] == theirs["weights_sha256"]


def test_a_batch_that_does_not_fit_is_refused_before_anything_is_trained(job: schema.Job, storage: str) -> None:
    large = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, global_batch=4096))
    running, job_uri = start(large, storage, "large")
    assert finish(running) != 0
    assert status(job_uri)["exit_code"] == 2
    assert "larger than the 252 training samples" in status(job_uri)["error"]
    assert "Traceback" not in local.logs(running)


@pytest.mark.slow
def test_a_killed_rank_is_started_again_by_torchrun_and_the_weights_are_the_same(
    undisturbed: str, job: schema.Job, storage: str
) -> None:
    running, job_uri = start(job, storage, "rank-killed", fault="step@1:5=kill", max_restarts=1)
    assert finish(running) == 0, local.logs(running)
    assert status(job_uri)["restarts"] == 1
    ours, theirs = (store.read_json(f"{uri}/result.json") for uri in (job_uri, undisturbed))
    assert ours["weights_sha256"] == theirs["weights_sha256"]


def test_the_last_lines_of_a_failed_job_are_the_worker_s_own(job: schema.Job, storage: str) -> None:
    strange = dataclasses.replace(job, manifest_sha256="0" * 64)
    running, _ = start(strange, storage, "strange")
    assert finish(running) == 3
    whole = running.command.log_path.read_text()
    assert "torch/distributed/elastic" in whole, "torchrun's report is in the log, and only there"
    assert local.logs(running).splitlines()[-1].startswith("rank ")
    assert "DataError" in local.logs(running).splitlines()[-1]
    assert "torch/" not in local.logs(running)


def test_a_job_of_an_unknown_kind_ends_before_a_rank_starts(job: schema.Job, storage: str) -> None:
    running, _ = start(dataclasses.replace(job, kind="nothing"), storage, "unknown")
    assert finish(running) == 1
    assert "No module named 'models.nothing'" in local.logs(running).splitlines()[-1]
