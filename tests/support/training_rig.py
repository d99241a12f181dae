"""The rig of the fault tests: a small real job whose every bit is known, and ways to break it.

2,048 made-up 32 px JPEGs in 16 shards in the real object store; EfficientNet-B0 at width and depth 0.1 with all of
the paper's recipe on; two gloo ranks of one thread; global batch 64 = 2 batch slices; 3 epochs of 32 steps; a
checkpoint every 10 steps. The undisturbed run's sha256 of weights, average and optimizer is what every disturbed run
must come to, with a ledger in which each sample of each epoch stands once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from made_set import write_set

from conf import compose, schema
from infra import machine, store
from infra.launch import local
from infra.launch.command import job_environment, torchrun_argv
from infra.services import proctable
from tasks.jobs import JobRun

STEPS, EPOCH, SAMPLES = 96, 32, 2048


@dataclass
class End:
    """How a job ended."""

    code: int
    job_uri: str
    seconds: float
    log: str
    tail: str  # what a person is shown of it

    def object(self, name: str) -> dict[str, Any]:
        """A JSON object of the run folder; empty where there is none."""
        uri = f"{self.job_uri}/{name}"
        return dict(store.read_json(uri)) if store.exists(uri) else {}

    @property
    def sha256(self) -> str:
        """Of the final state."""
        return str(self.object("result.json")["state_sha256"])

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """Its lines but the first."""
        first, *lines = store.read(f"{self.job_uri}/ledger.jsonl").splitlines()
        assert json.loads(first) == {"state_sha256": self.sha256}
        return [json.loads(line) for line in lines]

    def steps_saved(self) -> list[int]:
        """Of the checkpoints that are there."""
        names = (u.rpartition("/")[2] for u in store.list_uris(f"{self.job_uri}/checkpoints"))
        return sorted(int(n.split("-")[1]) for n in names if n.startswith("step-") and n.endswith(".json"))


@dataclass
class Rig:
    """The data set in a store, and where jobs run."""

    job: schema.Job
    storage: str
    folder: Path

    def command(
        self, name: str, fault: str = "", ranks: int = 2, folder: str = "", **launch: Any
    ) -> tuple[local.Command, str]:
        """A job's command, and its run folder; ``folder`` is another one on this machine, for a second node."""
        job_uri = f"{self.storage}/jobs/{name}"
        asked = schema.Launch(nproc_per_node=ranks, threads_per_proc=1, **{"max_restarts": 1, **launch})
        env = job_environment(asked, machine.cores(), str(self.folder / "cache")) | {"FAULT": fault}
        argv = torchrun_argv(asked, "models.train", job_uri)
        return local.Command(argv, env, self.folder / (folder or name)), job_uri

    def start(self, name: str, job: schema.Job | None = None, **how: Any) -> tuple[local.LocalJob, str]:
        """Starts a job, or starts it again."""
        command, job_uri = self.command(name, **how)
        store.write(f"{job_uri}/config.yaml", compose.to_yaml(job or self.job).encode())
        store.delete(f"{job_uri}/failure.json")  # as the supervisor does
        store.delete(f"{job_uri}/status.json")
        return local.start(command), job_uri

    def run(self, name: str, job: schema.Job | None = None, within_s: float = 150, **how: Any) -> End:
        """Runs a job to its end."""
        began = time.monotonic()
        running, job_uri = self.start(name, job, **how)
        return finish(running, job_uri, began, within_s)

    def supervised(self, name: str, **launch: Any) -> tuple[JobRun, schema.Config]:
        """The job for ``tasks.supervise.run_job``, without restarts of torchrun's own."""
        run = JobRun(self.job, name, f"{self.storage}/jobs/{name}", name)
        config = compose.compose(["profile=laptop", f"run_dir={self.folder}/supervised", "launch.max_restarts=0"])
        config.launch = dataclasses.replace(config.launch, **launch)
        return run, config

    def with_other_data(self) -> schema.Job:
        """The job on a data set with other images."""
        made = write_set(f"{self.storage}/other", {"train": [SAMPLES // 16 + 1] * 16, "minival": [64], "val": [70]})
        return dataclasses.replace(self.job, manifest_uri=made.uri, manifest_sha256=sha256_of(made.uri))


def finish(running: local.LocalJob, job_uri: str, began: float, within_s: float = 150) -> End:
    """Waits for a job; afterwards none of its processes may be left."""
    while (code := local.poll(running)) is None:
        assert time.monotonic() - began < within_s, local.logs(running)
        time.sleep(0.05)
    seconds = time.monotonic() - began
    local.cancel(running)
    assert processes_of(job_uri) == []
    return End(code, job_uri, seconds, running.command.log_path.read_text(errors="replace"), local.logs(running))


def processes_of(job_uri: str) -> list[int]:
    """Ids of all processes that have the run folder on their command line."""
    return [pid for pid in proctable.living() if job_uri.encode() in proctable.command_line(pid)]


def make_rig(storage: str, folder: Path) -> Rig:
    """Writes the data set and describes the job."""
    made = write_set(f"{storage}/data", {"train": [SAMPLES // 16] * 16, "minival": [64], "val": [70]})
    config = compose.compose(["data=digits", "recipe.lr_per_256=0.02"])
    recipe = dataclasses.replace(
        config.recipe,
        epochs=3,
        global_batch=64,
        batch_slices=2,
        checkpoint_every_steps=10,
        keep_checkpoints=2,
        dropout=0.2,
        warmup_epochs=0.5,
    )
    job = schema.Job(
        kind="train",
        model=schema.Model(width=0.1, depth=0.1, resolution=32 / 224),
        data_name="made",
        manifest_uri=made.uri,
        manifest_sha256=sha256_of(made.uri),
        augment=schema.Augment(eval_crop_pad=0, erase_prob=0.1, mixup_alpha=0.2),
        recipe=recipe,
        runtime=schema.Runtime(loader_threads=1, ledger=True, compile="off"),
    )
    return Rig(job, storage, folder)


def sha256_of(uri: str) -> str:
    """Of an object."""
    return hashlib.sha256(store.read(uri)).hexdigest()


def with_recipe(job: schema.Job, **changes: Any) -> schema.Job:
    """The job under another recipe."""
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, **changes))


def with_runtime(job: schema.Job, **changes: Any) -> schema.Job:
    """The job under other limits."""
    return dataclasses.replace(job, runtime=dataclasses.replace(job.runtime, **changes))


def assert_exactly_once(ledger: list[dict[str, Any]]) -> None:
    """Each step once and in order, each sample of each epoch once."""
    assert [line["step"] for line in ledger] == list(range(1, STEPS + 1))
    for epoch in range(STEPS // EPOCH):
        lines = ledger[epoch * EPOCH : (epoch + 1) * EPOCH]
        read = Counter(i for line in lines for shard in line["ids"] for i in shard)
        assert set(read) == set(range(SAMPLES))
        assert set(read.values()) == {1}


def assert_same(end: End, reference: End) -> None:
    """The job came to the undisturbed run's bits, and read what that read."""
    assert end.code == 0, end.log
    assert end.sha256 == reference.sha256
    assert end.object("result.json")["weights_sha256"] == reference.object("result.json")["weights_sha256"]
    assert end.ledger == reference.ledger
