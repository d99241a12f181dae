"""One command's life: services up, flow run, everything of ours down again if it is broken off."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conf import schema
from infra import local

log = logging.getLogger("effnet")

# Prefect speaks through the same log as we do; its own console lines would say everything twice. The API
# handler stays on, so the UI shows both.
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "effnet",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def run(verb: str, config: schema.Config, overrides: list[str], **parameters: Any) -> Any:
    """Runs one flow on its services and returns its result.

    The services that this call started are stopped again if it is interrupted; after a good or a failed run
    they stay, so that a person can look.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; nothing of ours runs any more.
        EffnetError: what the flow or a service said.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_dir = Path(config.run_dir).resolve()
    os.environ.update(local.environment(run_dir, config.services) | QUIET)
    started: list[str] = []
    try:
        flow = _start_services_and_import(verb, config, run_dir, started)
        return asyncio.run(flow(overrides=overrides, **parameters))
    except (KeyboardInterrupt, asyncio.CancelledError):
        log.info("interrupted: stopping what this command started")
        local.down(run_dir, only=started)
        raise KeyboardInterrupt from None


def _start_services_and_import(
    verb: str, config: schema.Config, run_dir: Path, started: list[str]
) -> Callable[..., Any]:
    """Imports the flow while the services start; both take seconds of their own."""
    failures: list[BaseException] = []

    def start() -> None:
        try:
            up = local.up(run_dir, config.services, jobs_at_once=config.launch.jobs_at_once, say=log.info)
            started.extend(up.names)
        except BaseException as error:  # noqa: BLE001 - carried into the main thread
            failures.append(error)

    thread = threading.Thread(target=start, name="services")
    thread.start()
    try:
        flow: Callable[..., Any] = getattr(importlib.import_module(f"flows.{verb}"), verb)
    finally:
        thread.join()
    if failures:
        raise failures[0]
    return flow
