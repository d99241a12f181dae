"""Starts the embedded services in order and waits until each of them is healthy."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from conf.text import quoted
from infra import store
from infra.errors import ConfigError, TransientError
from infra.services import databases, deployments, http, keys, leases, login, processes, programs
from infra.services.ports import HOST, PREFERRED
from infra.services.prefect_api import PrefectApi, from_environment
from infra.services.processes import Program
from infra.services.programs import TITLES

_TIMEOUT_S = 180.0  # a first start takes about 20 s on two idle cores, and much longer on busy ones


@dataclass(frozen=True)
class Stack:
    """The services of one run folder.

    ``env`` holds the variables that clients of the services need; with ``embedded_s3`` MLflow's artifacts go to the
    embedded store; with ``auth`` Prefect and MLflow require a password. ``database`` is ``services.database``.
    """

    folder: Path
    ports: dict[str, int]
    env: dict[str, str]
    embedded_s3: bool
    auth: bool
    database: str


def url(ports: dict[str, int], name: str) -> str:
    """Returns the address of the service; for the worker, that of its server."""
    return f"http://{HOST}:{ports['prefect' if name == 'worker' else name]}"


def answers(base: str, name: str, api: PrefectApi, since: float = 0.0) -> bool:
    """Whether the service at ``base`` reports that it is healthy (the worker: sent a heartbeat after ``since``)."""
    if name == "worker":
        return deployments.worker_answers(api, since)
    pages = {"s3": "/status", "prefect": "/api/health", "mlflow": "/health"}
    return http.answers(base + pages[name])


def bring_up(stack: Stack, requested: Collection[str], jobs_at_once: int, say: Callable[[str], None]) -> list[str]:
    """Starts the ``requested`` services that are not running and waits for all ``requested`` services.

    Returns:
        Names of the services that this call started; they are stopped again if anything fails.

    Raises:
        ConfigError: A service died at its start.
        TransientError: A service was not healthy in time.
    """
    missing = [name for name in requested if processes.running(stack.folder, name) is None]
    started: list[str] = []
    try:
        if missing:
            say(f"starting {', '.join(TITLES[name] for name in missing)}")
        if {"prefect", "mlflow"} & set(missing) and (created := databases.create_missing(stack.database)):
            say(f"databases created: {', '.join(created)}")
        for name in ("s3", "prefect", "mlflow"):
            if name in missing:
                _start(stack, name, say, started)
        if "s3" in requested:
            _wait(stack, "s3")
            _test_store()
        if "prefect" in requested:
            _wait(stack, "prefect")
        elif "worker" in requested and not http.answers(f"{url(stack.ports, 'prefect')}/api/health"):
            raise ConfigError("the Prefect worker needs the embedded Prefect, which is not running")
        if {"prefect", "worker"} & {*requested}:
            api = from_environment(stack.env)
            deployments.set_limits(api, jobs_at_once)  # the worker takes as many jobs
            leases.reconcile(api, stack.folder / "prefect", say)
        if "worker" in requested:
            _bring_up_worker(stack, "worker" in missing, say, started)
        if "mlflow" in requested:
            _wait(stack, "mlflow")
        for name in ("prefect", "mlflow"):
            if name in requested and (line := login.warning(url(stack.ports, name), name, stack.auth)):
                say(line)
    except BaseException:
        processes.stop(stack.folder, started)
        raise
    return started


def _bring_up_worker(stack: Stack, missing: bool, say: Callable[[str], None], started: list[str]) -> None:
    since = time.time() if missing else 0.0
    if missing:
        _start(stack, "worker", say, started)
    # Deploys while the worker starts, which takes as long.
    api = from_environment(stack.env)
    if deployments.deploy(api, stack.folder, _program(stack, "worker").env):
        say("deployments of infra/prefect.yaml registered")
    deployments.lift_limit_of_jobs(api)
    _wait(stack, "worker", since)


def _start(stack: Stack, name: str, say: Callable[[str], None], started: list[str]) -> None:
    port, preferred = stack.ports.get(name), PREFERRED.get(name)
    if port != preferred:
        say(f"port {preferred} is taken, {TITLES[name]} uses {port}")
    started.append(name)  # before the start, so that Ctrl-C in between stops it
    processes.start(stack.folder, _program(stack, name))


def _program(stack: Stack, name: str) -> Program:
    if name == "s3":
        secret, certificate = keys.credentials(stack.folder), keys.certificate(stack.folder)
        return programs.object_store(stack.folder, stack.ports, secret, certificate)
    if name == "prefect":
        password = keys.credentials(stack.folder)["prefect_password"] if stack.auth else ""
        database = databases.url(stack.database, name, "asyncpg")
        return programs.prefect_server(stack.folder, stack.ports[name], password, database)
    if name == "mlflow":
        aws = {key: value for key, value in stack.env.items() if key.startswith("AWS_")}
        secret = keys.credentials(stack.folder)
        return programs.mlflow_server(
            stack.folder,
            stack.ports[name],
            aws if stack.embedded_s3 else None,
            secret["mlflow_password"] if stack.auth else "",
            secret["mlflow_session_key"],
            databases.url(stack.database, name, "psycopg2"),
        )
    return programs.prefect_worker(stack.folder, stack.env)


def _wait(stack: Stack, name: str, since: float = 0.0) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    api = from_environment(stack.env)
    while not (answers(base := url(stack.ports, name), name, api, since) and _is_ours(stack, name, base)):
        if processes.running(stack.folder, name) is None:
            tail = processes.log_tail(stack.folder, name)
            raise ConfigError(f"{TITLES[name]} died at its start; its log ends with:{quoted(tail)}")
        if time.monotonic() > deadline:
            log = processes.log_path(stack.folder, name)
            raise TransientError(f"{TITLES[name]} did not answer within {_TIMEOUT_S:.0f} s; see {log}")
        time.sleep(0.1)


def _is_ours(stack: Stack, name: str, base: str) -> bool:
    """Whether no server of somebody else took the port between the choice and the start; ours then ends by itself."""
    return not stack.auth or name not in login.PAGES or not login.refuses_password(stack.folder, base, name)


def _test_store() -> None:
    """Writes and reads an object: ``/status`` and listing work seconds before reading does."""
    uri = f"s3://{programs.BUCKET}/.canary"
    token = secrets.token_bytes(16)
    deadline = time.monotonic() + 60.0
    while True:
        try:
            store.ensure_root(uri)
            store.write(uri, token)
            if store.read(uri) == token:
                return
        except TransientError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)
