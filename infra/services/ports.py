"""Which ports on 127.0.0.1 the embedded services get: the well-known ones, or the next free ones."""

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
    "weed_admin": 9646,  # not 23646: its gRPC twin would lie among the ports that the system hands out
}
GRPC_OFFSET = 10000  # weed listens for gRPC this much above each of its ports
_SEARCHED = 500
_LINGERS_S = 1.5
_CLAIM_S = 180.0  # a service binds within this time after its port was chosen


def choose(known: dict[str, int], running: Collection[str], owner: str) -> dict[str, int]:
    """A port for every key of ``PREFERRED``.

    Args:
        known: what was chosen before; kept where it is still free.
        running: services that hold their ports right now, so that busy is right.
        owner: names us among the claims; the services folder.

    Raises:
        ConfigError: no free port in reach.
    """
    # A server that was killed a moment ago holds its port until its last thread has ended; one that moves for this
    # is lost to the clients that survived it.
    ours = [known[name] for name in PREFERRED if name in known and _service(name) not in running]
    deadline = time.monotonic() + _LINGERS_S
    while time.monotonic() < deadline and not all(map(is_free, ours)):
        time.sleep(0.05)
    chosen: dict[str, int] = {}
    with _claims() as claims:
        taken = {port for who, claim in claims.items() if who != owner for port in claim["ports"]}
        for name, preferred in PREFERRED.items():
            of_weed = _service(name) == "s3"
            if name in known and _service(name) in running:
                chosen[name] = known[name]
                continue
            candidates = [known.get(name, preferred), *range(preferred, preferred + _SEARCHED)]
            chosen[name] = _first_free(candidates, GRPC_OFFSET if of_weed else 0, taken | {*chosen.values()})
        claims[owner] = {"at": time.time(), "ports": sorted(chosen.values())}
    return chosen


def _service(name: str) -> str:
    return name if name in ("prefect", "mlflow") else "s3"


def _first_free(candidates: list[int], twin: int, taken: set[int]) -> int:
    for port in candidates:
        if port not in taken and is_free(port) and (not twin or is_free(port + twin)):
            return port
    raise ConfigError(f"no free port on {HOST} from {candidates[0]} to {candidates[-1]}")


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: old connections are fine
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


@contextmanager
def _claims() -> Iterator[dict[str, Any]]:
    """Which run folder chose which ports in the last minutes; written back when the block ends.

    Prefect takes ten seconds from its start to its first listen; two stacks started in that time would both
    find 4200 free.
    """
    # About the machine, so in the temporary folder; per user, because nobody may write another's file.
    path = Path(tempfile.gettempdir()) / f"effnet-ports-{os.getuid()}.json"
    try:
        descriptor = files.open_ours(path)
    except EffnetError:
        yield {}  # a stranger's file or link of that name: then without claims
        return
    with os.fdopen(descriptor, "r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        fresh = _fresh_claims(stream.read())
        yield fresh
        stream.seek(0)
        stream.truncate()
        json.dump(fresh, stream)


def _fresh_claims(text: str) -> dict[str, Any]:
    """The claims of the last minutes in the file; what is not of their form counts as rubbish."""
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
