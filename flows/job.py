"""One job on the machine of a worker, as ``launch.engine=workpool`` submits it (``infra/launch/workpool.py``).

The job's description is read from its run folder. Its result, its progress and its errors are there as well, so this
flow only starts the process, waits for it, and passes on its exit code.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Failed

from conf import schema
from conf.compose import OverrideError, from_yaml
from conf.text import logger, quoted
from flows.configure import configure
from flows.failures import report_failures
from infra import machine, store
from infra.errors import ConfigError, EffnetError
from infra.launch import devices, lease, local
from infra.launch.devices import Devices
from infra.launch.job import JobSpec, read_request
from infra.launch.workpool import EXIT_CODE, REFUSED
from models.results import result_name
from tasks.jobs import MODULES, name_job
from tasks.slots import slot
from tasks.supervise import QUEUED

log = logger()
WAIT_S = 1.0  # between two looks at what a job waits for


@flow(name="job", flow_run_name="{label}")
@report_failures
async def job(key: str, storage: str, launch: str, label: str, code: str) -> Any:
    """Runs one job to its end.

    Args:
        key: Name and digest of the job.
        storage: Where its run folder is, ``STORAGE/jobs/KEY``.
        launch: Processes and machines of the job, ``schema.Launch`` as YAML.
        label: Display name.
        code: Digest of the training code of the flow that submits it (``infra.machine.training_code``).

    Returns:
        A failed state if the job was refused, or with its exit code if that is not 0.
    """
    config, _ = configure([])
    try:
        check_code(label, code)
        spec = await asyncio.to_thread(read_spec, config, key, storage, launch)
    except EffnetError as error:
        return _failed(error)
    status = store.join(spec.job_uri, "status.json")
    await asyncio.to_thread(store.write_json, status, {"state": QUEUED})  # the supervisor's patience begins later
    gpus = devices.of_worker()
    try:
        async with slot(label) if gpus is None else _gpus_of(spec, gpus) as granted:
            exit_code = await run_here(spec, granted or local.NO_DEVICES)
    except EffnetError as error:
        return _failed(error)
    return Failed(message=EXIT_CODE.format(code=exit_code)) if exit_code else None


def _failed(error: EffnetError) -> Any:
    """The final state of a job that could not be run here; ``workpool.poll`` reads its message."""
    log.error("%s", error)
    if isinstance(error, ConfigError):
        return Failed(message=f"{REFUSED}{error}")
    return Failed(message=EXIT_CODE.format(code=error.exit_code))


@asynccontextmanager
async def _gpus_of(spec: JobSpec, gpus: list[str]) -> AsyncIterator[Devices]:
    """Waits until as many GPUs of this worker are free as the job has processes, and holds them within the block.

    Raises:
        ConfigError: The worker has fewer GPUs.
    """
    while True:
        count = spec.launch.nproc_per_node if spec.launch.uses_gpus else 0
        with devices.lock(devices.machine_folder(), gpus, count) as granted:
            if granted is not None:
                yield granted
                return
        await asyncio.sleep(WAIT_S)


def check_code(label: str, code: str) -> None:
    """Checks that this worker trains with the code of the flow, because other code may come to other bits.

    Raises:
        ConfigError: It has another version.
    """
    if code != machine.training_code():
        raise ConfigError(
            f"{label}: worker {lease.worker_name()} has another version of effnet (training code "
            f"{machine.training_code()}) than the flow ({code}); install the same one on both"
        )


def read_spec(config: schema.Config, key: str, storage: str, launch: str) -> JobSpec:
    """Reads and checks a job. Whoever reaches Prefect can send its parameters, so they are not trusted.

    Raises:
        ConfigError: The run folder holds no job of this key, or one of another version of this code.
    """
    if not re.fullmatch(r"\w[\w.-]*", key):
        raise ConfigError(f"job: {key!r} is not the key of a job")
    job_uri = store.join(storage, "jobs", key)
    try:
        launched = replace(config, storage=storage, launch=replace(from_yaml(schema.Launch, launch), engine="local"))
        described = read_request(job_uri)
    except (OverrideError, ConfigError) as error:
        raise ConfigError(f"job {key}: {error}") from error
    run = name_job(launched, described, key.rpartition("-")[0])
    if run.key != key:
        raise ConfigError(
            f"job: {job_uri} holds a job whose key is {run.key} here; the flow and this worker need the same version"
        )
    return JobSpec(key, run.label, MODULES[described.kind], job_uri, launched.launch, Path(config.run_dir).resolve())


def _is_done(spec: JobSpec) -> bool:
    return store.exists(store.join(spec.job_uri, result_name(read_request(spec.job_uri))))


async def run_here(spec: JobSpec, granted: Devices) -> int:
    """Runs a job on this machine and returns its exit code; the last lines of its log follow a failure.

    Processes of the job that still run somewhere, because Prefect lost sight of them, are waited for.
    """
    while (other := await asyncio.to_thread(local.find, spec)) is not None:
        log.info("%s still runs on %s; waiting for its end", spec.label, other.place)
        while local.poll(other) is None:
            await asyncio.sleep(WAIT_S)
        if await asyncio.to_thread(_is_done, spec):
            return 0
    running = await asyncio.to_thread(local.submit, spec, granted)
    try:
        while (code := local.poll(running)) is None:
            await asyncio.sleep(local.POLL_S)
    finally:
        await asyncio.to_thread(local.cancel, running)
    if code:
        log.error("%s", quoted(local.logs(running)))
    return code
