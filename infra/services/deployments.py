"""What a fresh Prefect server is told: the work pool, the limit ``accelerator`` and our deployments."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from infra.errors import ConfigError, TransientError
from infra.services.http import call
from infra.services.processes import log_path, log_tail
from infra.services.programs import WORK_POOL, WORKER

HOME = Path(__file__).resolve().parents[2]  # the checkout: prefect.yaml names flows relative to it
_FILE = "infra/prefect.yaml"
_DEPLOY_TIMEOUT_S = 180.0


def set_limits(api: str, jobs_at_once: int) -> None:
    """Makes the work pool and sets the concurrency limit ``accelerator``; both may be there already.

    Raises:
        TransientError: the server refuses.
    """
    # The worker fills in the pool's job template when it starts; `deploy` only wants the pool to exist.
    _post(f"{api}/work_pools/", {"name": WORK_POOL, "type": "process"})
    limits = f"{api}/v2/concurrency_limits/"
    made = _post(limits, {"name": "accelerator", "limit": jobs_at_once, "slot_decay_per_second": 0})
    if not made:
        status, answer = call("PATCH", f"{limits}accelerator", {"limit": jobs_at_once})
        if status not in (200, 204):
            raise TransientError(f"Prefect at {api} does not set the limit accelerator: {status} {answer}")


def _post(url: str, body: dict[str, object]) -> bool:
    """True when it was made, False when it was there."""
    status, answer = call("POST", url, body, timeout_s=30.0)
    if status not in (200, 201, 409):
        raise TransientError(f"{url} answers {status} {answer}")
    return status != 409


def deploy(folder: Path, environment: dict[str, str]) -> bool:
    """Registers the deployments of ``infra/prefect.yaml``; False when this database has just these already.

    Raises:
        ConfigError: `prefect deploy` failed; with its last lines.
    """
    record = folder / "prefect" / "deployed.sha256"  # beside the database: gone when that is gone
    digest = hashlib.sha256((HOME / _FILE).read_bytes() + str(HOME).encode()).hexdigest()
    if record.exists() and record.read_text() == digest:
        return False
    argv = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", _FILE]
    with log_path(folder, "deploy").open("wb") as output:
        try:
            done = subprocess.run(
                argv, cwd=HOME, env={**environment, "EFFNET_HOME": str(HOME)}, timeout=_DEPLOY_TIMEOUT_S,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise TransientError(f"`prefect deploy` took more than {_DEPLOY_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        raise ConfigError(f"`prefect deploy --prefect-file {_FILE}` failed:\n{log_tail(folder, 'deploy')}")
    record.write_text(digest)
    return True


def worker_answers(api: str, since: float = 0.0) -> bool:
    """Whether the server heard from our worker after ``since`` (seconds of the wall clock) and lately."""
    status, found = call("POST", f"{api}/work_pools/{WORK_POOL}/workers/filter", {})
    for worker in found if status == 200 else []:
        heard = datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp()
        if worker["name"] == WORKER and worker["status"] == "ONLINE":
            return heard > max(since, time.time() - 120.0)  # it beats every 30 s
    return False
