"""Chooses ports on 127.0.0.1 for the embedded services: the well-known ones, or the next free ones."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.errors import ConfigError, EffnetError
from infra.store import files

HOST = "127.0.0.1"
PREFERRED = {
    "s3": 8333,
    "prefect": 4200,
    "mlflow": 5000,
    "weed_master": 9333,
    "weed_filer": 8888,
    "weed_volume": 9340,
    "weed_admin": 9646,  # not 23646: its gRPC port would be in the ephemeral range
}
GRPC_OFFSET = 10000  # weed listens for gRPC this much above each of its ports
_SEARCHED = 500
_LINGERS_S = 1.5  # that a killed server may still hold its port
_CLAIM_S = 180.0  # a service binds its port within this time after the choice


def choose(previous: dict[str, int], running: Collection[str], owner: str) -> dict[str, int]:
    """Chooses a port for every key of ``PREFERRED``.

    Args:
        previous: Ports of an earlier choice, kept if they are still free.
        running: Services that are running, whose ports are therefore in use.
        owner: Key of this stack among the claims: the services folder.

    Raises:
        ConfigError: No port is free in the searched range.
    """
    # A killed server holds its port until its last thread has ended. If its successor took another port, clients that
    # are still running would lose it.
    stopped = [previous[name] for name in PREFERRED if name in previous and _service(name) not in running]
    deadline = time.monotonic() + _LINGERS_S
    while time.monotonic() < deadline and not all(map(is_free, stopped)):
        time.sleep(0.05)
    chosen: dict[str, int] = {}
    with _claims() as claims:
        taken = {port for who, claim in claims.items() if who != owner for port in claim["ports"]}
        for name, preferred in PREFERRED.items():
            of_weed = _service(name) == "s3"
            if name in previous and _service(name) in running:
                chosen[name] = previous[name]
                continue
            candidates = [previous.get(name, preferred), *range(preferred, preferred + _SEARCHED)]
            chosen[name] = _first_free(candidates, GRPC_OFFSET if of_weed else 0, taken | {*chosen.values()})
        claims[owner] = {"at": time.time(), "ports": sorted(chosen.values())}
    return chosen


def release(owner: str) -> None:
    """Gives up the choice of a stack that has stopped; otherwise its ports would count as taken for a while."""
    with _claims() as claims:
        claims.pop(owner, None)


def _service(name: str) -> str:
    return name if name in ("prefect", "mlflow") else "s3"


def _first_free(candidates: list[int], grpc_offset: int, taken: set[int]) -> int:
    for port in candidates:
        if port not in taken and is_free(port) and (not grpc_offset or is_free(port + grpc_offset)):
            return port
    raise ConfigError(f"no free port on {HOST} from {candidates[0]} to {candidates[-1]}")


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


@contextmanager
def _claims() -> Iterator[dict[str, Any]]:
    """Yields the recent port choices by run folder and writes them back at the end of the block.

    Prefect listens ten seconds after its start; two stacks that start within that time would both consider 4200
    free.
    """
    # Per machine, so in the temporary folder; per user, because no user may write another's file.
    path = Path(tempfile.gettempdir()) / f"effnet-ports-{os.getuid()}.json"
    try:
        descriptor = files.open_ours(path)
    except EffnetError:
        yield {}  # another user's file or link of that name: continue without claims
        return
    with os.fdopen(descriptor, "r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        fresh = _fresh_claims(stream.read())
        yield fresh
        stream.seek(0)
        stream.truncate()
        json.dump(fresh, stream)


def _fresh_claims(text: str) -> dict[str, Any]:
    """Returns the recent claims in the file and ignores malformed ones."""
    try:
        claims = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return {
        who: {"at": claim["at"], "ports": claim["ports"]}
        for who, claim in (claims.items() if isinstance(claims, dict) else ())
        if isinstance(claim, dict)
        and isinstance(claim.get("at"), int | float)
        and time.time() - _CLAIM_S < claim["at"] < time.time() + _CLAIM_S
        and isinstance(claim.get("ports"), list)
        and all(isinstance(port, int) for port in claim["ports"])
    }
