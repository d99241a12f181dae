"""Checks this machine and the services. Prints one line per finding; every warning and failure names the remedy.

The checks change nothing: they write one small object to the store and one unnamed file to the run folder and
delete both. They run concurrently, so unresponsive services cost ``PATIENCE_S`` only once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from conf.schema import Config, Data
from conf.text import first_line, printable
from infra.doctor import host, service_checks
from infra.doctor.finding import FAIL, WARN, Finding
from infra.errors import EffnetError
from infra.services import processes, stack

PATIENCE_S = 8.0
WORKER_PATIENCE_S = 60.0  # nobody waits for a worker, which may start beside the jobs of another one
Check = Callable[[], list[Finding]]


def examine(config: Config, decoders: dict[str, str], packaged: frozenset[str]) -> list[Finding]:
    """Returns all findings.

    Args:
        config: The composed configuration.
        decoders: State of every image decoder, best first: ``ok`` or why it does not work. A parameter, because
            the decoders are in ``models``, which this layer may not import.
        packaged: Data sources that need no folder, also known to ``models``.
    """
    run_dir = Path(config.run_dir).resolve()
    _connect_store(config, run_dir)  # before the threads start: boto3 reads it in them
    return _run_concurrently(_checks(config, run_dir, decoders, packaged), PATIENCE_S)


def print_findings(findings: Sequence[Finding]) -> None:
    """Prints one line per finding, and how many fail or warn."""
    for finding in findings:
        print(printable(f"{finding.mark:5} {finding.topic:9} {finding.text}"))
    marks = [finding.mark for finding in findings]
    print(f"\n{len(findings)} findings: {marks.count(FAIL)} FAIL, {marks.count(WARN)} warn")


def exit_code(findings: Sequence[Finding]) -> int:
    """Returns 0 if all checks pass, 1 with warnings only, 2 with a failure."""
    marks = {finding.mark for finding in findings}
    return 2 if FAIL in marks else 1 if WARN in marks else 0


def check_worker(config: Config, decoders: dict[str, str]) -> list[Finding]:
    """Checks what a worker needs of its machine and of the services, whose addresses are in ``os.environ``.

    Args:
        config: Configuration of the worker; the addresses of its services are external.
        decoders: As for ``examine``.
    """
    checks: dict[str, Check] = {
        "python": host.python,
        "packages": host.packages,
        "machine": partial(host.capacity, config.launch),
        "disk": partial(host.disk, Path(config.run_dir).resolve()),
        "decoder": partial(host.decoder, decoders),
        "prefect": partial(service_checks.health, "prefect", config.services.prefect),
        "mlflow": partial(service_checks.health, "mlflow", config.services.mlflow),
        "storage": partial(service_checks.storage, config.storage, ours=False),
    }
    if config.storage.startswith("s3://"):
        checks["clock"] = service_checks.clock
    return _run_concurrently(checks, WORKER_PATIENCE_S)


def _transfer_data(config: Config) -> dict[str, Data]:
    transfer = config.transfer
    if transfer.sets:
        return {"transfer": replace(transfer.data, path=transfer.path)}
    return {"transfer.data": transfer.data}


def _checks(config: Config, run_dir: Path, decoders: dict[str, str], packaged: frozenset[str]) -> dict[str, Check]:
    """Returns the checks for this configuration by topic, in the order of the output."""
    services_dir = run_dir / "services"
    checks: dict[str, Check] = {
        "python": host.python,
        "packages": host.packages,
        "shell": host.variables,
        "machine": partial(host.capacity, config.launch),
        "disk": partial(host.disk, run_dir),
        "decoder": partial(host.decoder, decoders),
        "data": partial(host.data, {"data": config.data, **_transfer_data(config)}, packaged),
        "services": partial(service_checks.status, run_dir, config.services),
        "prefect": partial(service_checks.health, "prefect", config.services.prefect),
        "mlflow": partial(service_checks.health, "mlflow", config.services.mlflow),
    }
    embedded_s3 = config.services.s3 == "embedded"
    if embedded_s3:
        checks |= {"secrets": partial(host.secrets, services_dir), "programs": partial(host.programs, services_dir)}
    remote_store = config.storage.startswith("s3://")
    if not (embedded_s3 and remote_store and processes.running(services_dir, "s3") is None):  # else see services
        checks["storage"] = partial(service_checks.storage, config.storage, ours=embedded_s3 and remote_store)
        if remote_store:
            checks["clock"] = service_checks.clock
    return checks


def _run_concurrently(checks: dict[str, Check], patience_s: float) -> list[Finding]:
    """Runs every check in a separate thread; returns the findings in the order of ``checks``."""
    results: dict[str, list[Finding]] = {}

    def run(topic: str, check: Check) -> None:
        try:
            results[topic] = check()
        except EffnetError as error:
            results[topic] = [Finding(FAIL, topic, str(error))]
        except Exception as error:  # noqa: BLE001 - of a thread, whose error would read as "no answer"
            results[topic] = [Finding(FAIL, topic, f"{type(error).__name__}: {first_line(error)}")]

    # Daemon threads: a check that waits for a dead server must not prevent the command from ending.
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in checks.items()]
    deadline = time.monotonic() + patience_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"no answer within {patience_s:.0f} s; check the address, the network and the firewall"
    return [finding for topic in checks for finding in results.get(topic, [Finding(FAIL, topic, late)])]


def _connect_store(config: Config, run_dir: Path) -> None:
    """Makes this process use the configured object store, unless it is the embedded one and does not run."""
    if config.services.s3 == "embedded":
        if processes.running(run_dir / "services", "s3") is not None:
            stack.connect(run_dir, config.services)
    elif config.services.s3 != "aws":
        os.environ["AWS_ENDPOINT_URL_S3"] = config.services.s3
