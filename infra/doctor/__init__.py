"""Is this machine fit, and do the services answer? One line a check; every bad line says what to do.

It looks and changes nothing: all that it writes is one small object in the store and one nameless file in
the run folder, both gone at the end. Checks run side by side, so a silent service costs ``PATIENCE_S`` once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from conf.schema import Config, Data
from conf.text import printable
from infra.doctor import host, service_checks
from infra.doctor.finding import FAIL, WARN, Finding
from infra.errors import EffnetError
from infra.services import processes, stack

PATIENCE_S = 8.0
Check = Callable[[], list[Finding]]


def main(config: Config, decoders: dict[str, str]) -> int:
    """Prints all findings; 0 when all is well, 1 with warnings only, 2 with a failure.

    ``decoders``: each way to decode images, best first, with ``ok`` or why it does not work here; they live above us.
    """
    run_dir = Path(config.run_dir).resolve()
    os.environ.update(_s3_environment(config, run_dir))  # before the threads: boto3 reads it there
    found = _side_by_side(_checks(config, run_dir, decoders))
    for finding in found:
        print(printable(f"{finding.mark:5} {finding.topic:9} {finding.text}"))
    marks = [finding.mark for finding in found]
    print(f"\n{len(found)} findings: {marks.count(FAIL)} FAIL, {marks.count(WARN)} warn")
    return 2 if FAIL in marks else 1 if WARN in marks else 0


def _transfer_data(config: Config) -> dict[str, Data]:
    wanted = config.transfer
    return {"transfer": replace(wanted.data, path=wanted.path)} if wanted.sets else {"transfer.data": wanted.data}


def _checks(config: Config, run_dir: Path, decoders: dict[str, str]) -> dict[str, Check]:
    """What there is to check with this configuration, by topic, in the order of the output."""
    services_dir = run_dir / "services"
    checks: dict[str, Check] = {
        "python": host.python,
        "packages": host.packages,
        "machine": partial(host.capacity, config.launch.nproc_per_node),
        "disk": partial(host.disk, run_dir),
        "decoder": partial(host.decoder, decoders),
        "data": partial(host.data, {"data": config.data, **_transfer_data(config)}),
        "services": partial(service_checks.status, run_dir, config.services),
        "prefect": partial(service_checks.health, "prefect", config.services.prefect),
        "mlflow": partial(service_checks.health, "mlflow", config.services.mlflow),
    }
    ours = config.services.s3 == "embedded"
    if ours:
        checks |= {"secrets": partial(host.secrets, services_dir), "programs": partial(host.programs, services_dir)}
    remote_store = config.storage.startswith("s3://")
    if not (ours and remote_store and processes.running(services_dir, "s3") is None):  # else told under services
        checks["storage"] = partial(service_checks.storage, config.storage, ours=ours and remote_store)
        if remote_store:
            checks["clock"] = service_checks.clock
    return checks


def _side_by_side(checks: dict[str, Check]) -> list[Finding]:
    """Runs every check in a thread of its own; the findings come in the order of ``checks``."""
    results: dict[str, list[Finding]] = {}

    def run(topic: str, check: Check) -> None:
        try:
            results[topic] = check()
        except EffnetError as error:
            results[topic] = [Finding(FAIL, topic, str(error))]

    # Daemons: one that waits for a dead server must not keep the command from ending.
    threads = [threading.Thread(target=run, args=each, daemon=True) for each in checks.items()]
    deadline = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"no answer within {PATIENCE_S:.0f} s; see whether address, network and firewall are right"
    return [finding for topic in checks for finding in results.get(topic, [Finding(FAIL, topic, late)])]


def _s3_environment(config: Config, run_dir: Path) -> dict[str, str]:
    """What leads ``infra.store`` to the configured object store; nothing where ours does not run."""
    if config.services.s3 == "embedded":
        running = processes.running(run_dir / "services", "s3") is not None
        return stack.environment(run_dir, config.services) if running else {}
    return {} if config.services.s3 == "aws" else {"AWS_ENDPOINT_URL_S3": config.services.s3}
