"""The jobs of a configuration, described without starting services and without writing anything."""

from __future__ import annotations

from pathlib import Path

from conf import schema
from infra import store
from infra.launch.job import JobSpec
from models.data.shards import stored as stored_shards
from tasks.jobs import MODULES, train_job, train_name
from tasks.stored import connect_store
from tasks.supervise import build_spec

UNKNOWN = "DIGEST"  # in place of the digest of a job whose shards do not exist yet
KEY = "KEY"  # in place of the key of a job of a command with many


def describe_training(config: schema.Config) -> JobSpec:
    """Returns the job that ``effnet train`` would submit; its key ends with ``UNKNOWN`` if its shards do not exist.

    Raises:
        ConfigError: The data set or a setting is wrong, or the store refuses the credentials.
        TransientError: The store does not answer.
    """
    shards = stored_shards.find_result(config.data, config.storage) if connect_store(config) else None
    if shards is not None:
        return build_spec(train_job(config, config.data, config.recipe, shards, None), config)
    job = schema.Job("train", config.model, config.data.name, "", "", recipe=config.recipe)
    key = f"{train_name(job)}-{UNKNOWN}"
    uri, label = store.join(config.storage, "jobs", key), train_name(job).replace("-", " ")
    return JobSpec(key, label, MODULES["train"], uri, config.launch, Path(config.run_dir).resolve())


def describe_any(config: schema.Config, verb: str) -> JobSpec:
    """Returns any of the jobs that a verb would submit, with ``KEY`` for its key: they differ in nothing else."""
    module = MODULES["evaluate" if verb == "evaluate" else "train"]
    uri = store.join(config.storage, "jobs", KEY)
    return JobSpec(KEY, verb, module, uri, config.launch, Path(config.run_dir).resolve())
