"""The training job of a configuration, described without starting services and without writing anything."""

from __future__ import annotations

import os
from pathlib import Path

from conf import schema
from infra import store
from infra.launch.job import JobSpec
from infra.services import processes, stack
from models.data.shards import manifest, writer
from tasks.jobs import MODULES, train_job, train_name
from tasks.supervise import build_spec

UNKNOWN = "DIGEST"  # in place of the digest of a job whose shards do not exist yet


def describe_training(config: schema.Config) -> JobSpec:
    """Returns the job that ``effnet train`` would submit; its key ends with ``UNKNOWN`` if its shards do not exist.

    Raises:
        ConfigError: The data set or a setting is wrong, or the store refuses the credentials.
        TransientError: The store does not answer.
    """
    if _connect_store(config):
        from tasks.shard import build_result

        layout = writer.plan(config.data, config.storage)
        if store.exists(layout.manifest_uri):
            sha256, complete = manifest.load(layout.manifest_uri)
            shards = build_result(config.data, layout.manifest_uri, sha256, complete, reused=True)
            return build_spec(train_job(config, config.data, config.recipe, shards, None), config)
    job = schema.Job("train", config.model, config.data.name, "", "", recipe=config.recipe)
    key = f"{train_name(job)}-{UNKNOWN}"
    uri, label = store.join(config.storage, "jobs", key), train_name(job).replace("-", " ")
    return JobSpec(key, label, MODULES["train"], uri, config.launch, Path(config.run_dir).resolve())


def _connect_store(config: schema.Config) -> bool:
    """Connects this process to the object store; False if it is the embedded one and is not running."""
    address, run_dir = config.services.s3, Path(config.run_dir).resolve()
    if config.storage.startswith("file://"):
        return True
    if address == "embedded":
        if processes.running(run_dir / "services", "s3") is None:
            return False
        stack.connect(run_dir, config.services)
    elif address != "aws":
        os.environ["AWS_ENDPOINT_URL_S3"] = address
    return True
