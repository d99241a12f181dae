"""Lists and cancels the flow runs of a Prefect server, wherever they run."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra.errors import ConfigError, TransientError
from infra.services import proctable
from infra.services.prefect_api import PrefectApi, call

ACTIVE = ("RUNNING", "PENDING", "CANCELLING", "PAUSED")
HOST_TAG, PROCESS_TAG = "host:", "process:"  # tags of a flow that a command runs itself
_PAGE = 200  # the server's largest page
_POLL_S = 0.5


@dataclass(frozen=True)
class FlowRun:
    """A flow run in Prefect; ``started`` is in unix seconds, ``deployed`` tells whether a worker runs it."""

    id: str
    name: str
    state: str
    started: float | None
    deployed: bool
    tags: tuple[str, ...]


def process_tags() -> list[str]:
    """Tags by which another command finds this process."""
    return [f"{HOST_TAG}{socket.gethostname()}", f"{PROCESS_TAG}{os.getpid()}"]


def active(api: PrefectApi, states: Collection[str] = ACTIVE) -> list[FlowRun]:
    """Returns the flow runs in the given states, the newest first.

    Raises:
        TransientError: The server does not answer, or refuses.
    """
    query = {"flow_runs": {"state": {"type": {"any_": [*states]}}}, "sort": "EXPECTED_START_TIME_DESC", "limit": _PAGE}
    status, answer = call(api, "POST", "/flow_runs/filter", query)
    if status != 200:
        raise TransientError(f"Prefect at {api.url} does not list its flow runs: {status}")
    return [_to_flow_run(entry) for entry in answer]


def _to_flow_run(entry: dict[str, Any]) -> FlowRun:
    started = entry.get("start_time")
    return FlowRun(
        entry["id"],
        entry["name"],
        str(entry.get("state_type") or ""),
        datetime.fromisoformat(started).timestamp() if started else None,
        entry.get("deployment_id") is not None,
        tuple(entry.get("tags") or ()),
    )


def cancel(api: PrefectApi, run: FlowRun, patience_s: float) -> str:
    """Ends a flow run, whose jobs first save their state; returns its state after at most ``patience_s``.

    A worker ends the runs of deployments; the run of a command in a terminal is ended by SIGTERM to that command.

    Raises:
        ConfigError: The run belongs to a command on another machine.
        TransientError: Prefect does not accept the cancellation.
    """
    process = _process(run)
    if not run.deployed and process is not None:
        os.kill(process, signal.SIGTERM)
    else:
        # A command that was killed leaves its run as Running; nothing would answer a request to end it.
        state = {"type": "CANCELLING" if run.deployed else "CANCELLED", "message": "effnet cancel"}
        status, _ = call(api, "POST", f"/flow_runs/{run.id}/set_state", {"state": state, "force": not run.deployed})
        if status not in (200, 201):
            raise TransientError(f"Prefect at {api.url} does not cancel {run.name}: {status}")
    deadline = time.monotonic() + patience_s
    while True:
        status, entry = call(api, "GET", f"/flow_runs/{run.id}")
        current = str(entry.get("state_type")) if status == 200 else run.state
        is_gone = process is not None and proctable.born(process) is None
        if current not in ACTIVE or is_gone or time.monotonic() > deadline:
            return current
        time.sleep(_POLL_S)


def _process(run: FlowRun) -> int | None:
    """Id of the living process of a command on this machine that runs the flow.

    Raises:
        ConfigError: The command runs on another machine.
    """
    host = next((tag.removeprefix(HOST_TAG) for tag in run.tags if tag.startswith(HOST_TAG)), None)
    number = next((tag.removeprefix(PROCESS_TAG) for tag in run.tags if tag.startswith(PROCESS_TAG)), "")
    if host is None or not number.isdecimal():
        return None
    if host != socket.gethostname():
        raise ConfigError(f"{run.name} is run by process {number} on {host}: cancel it there, or stop that process")
    # The number may meanwhile be that of another process, which must not be stopped.
    is_ours = any(b"effnet" in word or word == b"flows" for word in proctable.command_line(int(number)))
    return int(number) if is_ours and proctable.born(int(number)) is not None else None
