"""The verbs about services: up, down, open, env, doctor."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict

from flows.cli.command import Command, print_json, show
from infra.environment import check_torch
from infra.errors import ConfigError
from infra.services import stack

_OF_SERVICES = ("AWS_", "MLFLOW_", "PREFECT_")


def up(command: Command) -> int:
    """Starts the embedded services, or finds them, and prints their addresses."""
    from flows import configure
    from flows.cli import summary

    check_torch(os.environ)  # the worker's flows and jobs inherit its variables
    config, run_dir = command.config, command.run_dir
    stack.connect(run_dir, config.services)
    os.environ.update(configure.worker_environment(config, command.overrides))
    stack.up(run_dir, config.services, jobs_at_once=config.launch.jobs_at_once, say=show)
    if line := configure.kept_settings(run_dir):
        show(line)
    print(summary.services(stack.prepare(run_dir, config.services), config.services, config.run_dir))
    return 0


def down(command: Command) -> int:
    """Stops the embedded services; names the jobs that continue on other workers."""
    stopped = stack.down(command.run_dir, say=show)
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
    return 0


def open_page(command: Command) -> int:
    """Opens Prefect or MLflow in a browser."""
    for line in stack.open_in_browser(command.run_dir, command.config.services, command.objects[0]).splitlines():
        show(line)
    return 0


def print_environment(command: Command) -> int:
    """Prints what makes Prefect, MLflow and boto3 of a shell use our services: ``eval "$(effnet env)"``."""
    from flows import configure

    before = set(os.environ)
    environment = connect(command, "s3", "prefect", "mlflow")
    environment |= configure.worker_environment(command.config, command.overrides)
    for name in sorted(before - set(os.environ)):
        if name.startswith(_OF_SERVICES):  # as AWS_PROFILE: no profile exists without ~/.aws/config
            print(f"unset {name}")
    for name, value in sorted(environment.items()):
        print(f"export {name}={shlex.quote(value)}")
    return 0


def connect(command: Command, *names: str) -> dict[str, str]:
    """Sets and returns the variables of running services.

    Raises:
        ConfigError: One of the services ``names`` does not run.
    """
    states = stack.status(command.run_dir, command.config.services)
    usable = ("running", "yours")
    if stopped := [name for name in names if not states[name].startswith(usable)]:
        raise ConfigError(f"not running in {command.run_dir}: {', '.join(stopped)}; start the services by `effnet up`")
    return stack.connect(command.run_dir, command.config.services)


def doctor(command: Command) -> int:
    """Checks this machine and the services."""
    from infra import doctor
    from infra.doctor.finding import FAIL, WARN
    from models.data.loading import decode
    from models.data.sources import catalog

    findings = doctor.examine(command.config, decode.backends(), catalog.packaged())
    if command.json:
        marks = [finding.mark for finding in findings]
        rows = [{**asdict(finding), "mark": finding.mark.lower()} for finding in findings]
        print_json({"findings": rows, "failures": marks.count(FAIL), "warnings": marks.count(WARN)})
    else:
        doctor.print_findings(findings)
    return doctor.exit_code(findings)
