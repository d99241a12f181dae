"""The verb deploy: makes a Prefect server ready for our flows and workers."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows import configure, form
from flows.cli import help_text, working_folder
from flows.cli.command import Command, show
from flows.cli.services import connect
from flows.cli.verbs import VERBS
from infra.errors import ConfigError
from infra.launch import devices, manifests
from infra.services import deployments, http, prefect_api
from infra.services.programs import WORK_POOL


def deploy(command: Command) -> int:
    """Creates what the server lacks, one printed line per change; a second call changes nothing."""
    changes = _plan(command)
    for change in changes:
        change.apply()
        show(change.text)
    if not changes:
        show(f"{os.environ['PREFECT_API_URL']} is configured; nothing to do")
    return 0


def show_changes(command: Command) -> int:
    """Prints the changes that ``deploy`` would make."""
    for change in _plan(command):
        show(change.text)
    show("nothing was changed")
    return 0


def _plan(command: Command) -> list[deployments.Change]:
    config, pods = command.config, _pool_of_pods(command)
    if config.services.prefect == "embedded":
        connect(command, "prefect")
        working_folder.ignore_prefect_files()  # before the flows are imported
    else:
        working_folder.check_prefect_settings(os.environ)
        os.environ["PREFECT_API_URL"] = config.services.prefect.rstrip("/")
        if not http.answers(f"{os.environ['PREFECT_API_URL']}/health"):
            raise ConfigError(f"services.prefect: {config.services.prefect} does not answer; it ends with /api")
    file = Path(command.options.get("file", deployments.FILE))
    version, pool = deployments.digest(file), command.options.get("pool", WORK_POOL)
    definitions = [
        _define(entry, version, pods.name if pods and _is_job(entry) else pool)
        for entry in deployments.read_entries(file)
    ]
    keep_limit = not any(word.startswith("launch.jobs_at_once=") for word in command.overrides)
    api = prefect_api.from_environment(os.environ)
    pools = [deployments.Pool(pool), *([pods] if pods else [])]
    return deployments.plan(api, definitions, config.launch.jobs_at_once, keep_limit=keep_limit, pools=pools)


def _is_job(entry: Mapping[str, Any]) -> bool:
    return entry.get("work_queue") == deployments.JOBS_QUEUE


def _pool_of_pods(command: Command) -> deployments.Pool | None:
    """The work pool of ``--pods``: a pod of ``launch.kubernetes`` for each job; None without this option.

    Raises:
        ConfigError: The settings of the pods are missing, or the pods would not reach a service.
    """
    config, name = command.config, command.options.get("pods")
    if name is None:
        return None
    launch, services = config.launch, config.services
    if launch.engine != "kubernetes":
        raise ConfigError(f"--pods {name} needs launch.engine=kubernetes, whose settings describe the pods")
    if name == command.options.get("pool", WORK_POOL):
        raise ConfigError(f"--pods {name} must differ from --pool, whose workers run the other flows")
    if embedded := [key for key in configure.SERVICE_VARIABLES if getattr(services, key) == "embedded"]:
        raise ConfigError(f"--pods {name}: pods do not reach embedded services; set services.{embedded[0]}=URL")
    words = configure.select_places(command.overrides)
    variables = configure.worker_environment(replace(config, run_dir=manifests.SCRATCH), words)
    gpus = ",".join(str(index) for index in range(launch.gpus_per_node))
    return deployments.Pool(name, "kubernetes", manifests.pool_template(launch, {**variables, devices.VARIABLE: gpus}))


def _define(entry: dict[str, Any], version: str, pool: str) -> dict[str, Any]:
    """The definition of a deployment; the flow is imported for its parameters.

    Raises:
        ConfigError: The entry point cannot be imported.
    """
    module, _, name = str(entry["entrypoint"]).rpartition(".")
    try:
        flow = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"deployment {entry['name']}: no flow {entry['entrypoint']}: {error}") from error
    parameters = form.describe_parameters(flow.name, flow.parameters.model_dump_for_openapi())
    described = {**entry, "description": _describe(entry, flow.name)}
    return deployments.define(described, flow.name, parameters, version, pool)


def _describe(entry: Mapping[str, Any], flow: str) -> str:
    """The description of a deployment in Markdown: what it does, its settings, and how a shell starts it."""
    text = f"{entry['description']}\n"
    if (verb := VERBS.get(flow)) is None:
        return text
    settings = help_text.describe_settings(verb, width=100)
    return (
        f"{text}\nThe same as `effnet {flow}` in a terminal: what is done already is taken from the store.\n\n"
        f"Other settings, one a line in `overrides`:\n\n```\n{settings}\n```\n\n"
        f"From a shell: `prefect deployment run {flow}/{entry['name']} --param overrides='[\"KEY=VALUE\"]'`\n"
    )
