"""Lists and cancels the flow runs of a Prefect server, wherever they run."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from infra.errors import ConfigError
from infra.services import proctable
from infra.services.prefect_api import PrefectApi, call, request

ACTIVE = ("RUNNING", "PENDING", "CANCELLING", "PAUSED")
# Labels of a flow that a command runs itself; not tags, which Prefect's pages show beside each of its task runs.
HOST, PROCESS, STARTED = "effnet.host", "effnet.process", "effnet.process_started"
_PAGE = 200  # the server's largest page
_POLL_S = 0.5


@dataclass(frozen=True)
class FlowRun:
    """A flow run in Prefect.

    Attributes:
        started: Unix seconds; None before its start.
        deployed: Whether a worker runs it.
        parameters: Those of its flow.
    """

    id: str
    name: str
    state: str
    started: float | None
    deployed: bool
    labels: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def process_labels() -> dict[str, str]:
    """Labels of a flow that this process runs, by which another command finds the process."""
    process = os.getpid()
    return {HOST: socket.gethostname(), PROCESS: str(process), STARTED: str(proctable.born(process))}


def label(api: PrefectApi, run_id: str) -> None:
    """Adds ``process_labels`` to a flow run.

    Raises:
        ConfigError: The server refuses the request.
        TransientError: The server does not answer.
    """
    request(api, "PATCH", f"/flow_runs/{run_id}/labels", process_labels())


def active(api: PrefectApi) -> list[FlowRun]:
    """Returns the flow runs that have not ended, the newest first.

    Raises:
        TransientError: The server does not answer, or refuses.
    """
    query = {"flow_runs": {"state": {"type": {"any_": ACTIVE}}}, "sort": "EXPECTED_START_TIME_DESC", "limit": _PAGE}
    _, answer = request(api, "POST", "/flow_runs/filter", query)
    return [_to_flow_run(entry) for entry in answer]


def _to_flow_run(entry: dict[str, Any]) -> FlowRun:
    started = entry.get("start_time")
    return FlowRun(
        entry["id"],
        entry["name"],
        str(entry.get("state_type") or ""),
        datetime.fromisoformat(started).timestamp() if started else None,
        entry.get("deployment_id") is not None,
        entry.get("labels") or {},
        entry.get("parameters") or {},
    )


def cancel(api: PrefectApi, run: FlowRun, patience_s: float) -> str:
    """Ends a flow run, whose jobs first save their state; returns its state after at most ``patience_s``.

    A worker ends the runs of deployments; the run of a command in a terminal is ended by SIGTERM to that command.

    Raises:
        ConfigError: The run belongs to a command on another machine, of another user, or to another program.
        TransientError: Prefect does not accept the cancellation.
    """
    process = _process(run)
    if process is not None:
        _terminate(run, process)
    else:
        # A command that was killed leaves its run as Running; nothing would answer a request to end it.
        state = {"type": "CANCELLING" if run.deployed else "CANCELLED", "message": "effnet cancel"}
        request(api, "POST", f"/flow_runs/{run.id}/set_state", {"state": state, "force": not run.deployed})
    deadline = time.monotonic() + patience_s
    while True:
        status, entry = call(api, "GET", f"/flow_runs/{run.id}")
        current = str(entry.get("state_type")) if status == 200 else run.state
        if current in ACTIVE and process is not None and _process(run) is None:
            return "CANCELLED"  # Prefect did not hear of the end, e.g. because it ended with the command
        if current not in ACTIVE or time.monotonic() > deadline:
            return current
        time.sleep(_POLL_S)


def _terminate(run: FlowRun, process: int) -> None:
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:  # it has just ended
        return
    except PermissionError as error:
        raise ConfigError(f"{run.name} is run by process {process} of another user, who can cancel it") from error


def _process(run: FlowRun) -> int | None:
    """Id of the living process of a command on this machine that runs the flow; None if a worker does, or it is gone.

    Raises:
        ConfigError: The command runs on another machine, or is not effnet's.
    """
    if run.deployed:
        return None
    host, number, born = (str(run.labels.get(key, "")) for key in (HOST, PROCESS, STARTED))
    if not number.isdecimal():
        raise ConfigError(f"{run.name} was not started by a command of effnet: end the process that runs it")
    if host != socket.gethostname():
        raise ConfigError(f"{run.name} is run by process {number} on {host}: cancel it there, or stop that process")
    # The number may meanwhile be that of another process, which must not be stopped.
    return int(number) if proctable.born(int(number)) == born else None
