"""The verb worker: runs jobs of ``launch.engine=workpool`` on this machine."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import replace

from conf import schema
from flows import configure
from flows.cli import signals
from flows.cli.command import Command, show
from flows.cli.services import connect
from infra import doctor, machine
from infra.doctor.finding import FAIL, OK
from infra.environment import check_torch
from infra.errors import ConfigError, LostError
from infra.launch import devices, lease
from infra.services import pool_worker, prefect_api, processes, stack
from infra.services.programs import WORK_POOL


def worker(command: Command) -> int:
    """Checks the machine, joins the work pool, and runs jobs until it is stopped.

    Raises:
        ConfigError: A check failed, a GPU is missing, or the server is not set up.
        LostError: The worker's process ended.
    """
    from models.data.loading import decode

    check_torch(os.environ)  # its flows and jobs inherit its variables
    config, gpus = command.config, devices.choose(machine.gpus(), command.options.get("gpus", ""))
    jobs = devices.count_jobs(gpus, config.launch.nproc_per_node, without=config.launch.jobs_at_once)
    services = _resolve_services(command)
    name, pool = command.options.get("name", socket.gethostname()), command.options.get("pool", WORK_POOL)
    pool_worker.check(prefect_api.from_environment(os.environ), pool)
    findings = doctor.check_worker(replace(config, services=services), decode.backends())
    for finding in findings:
        if finding.mark != OK:
            show(f"{finding.mark:5} {finding.topic:9} {finding.text}")
    if failed := [finding.topic for finding in findings if finding.mark == FAIL]:
        raise ConfigError(f"this machine cannot be a worker: {', '.join(failed)}")
    flows = "flows" in command.switches
    environment = _environment(command, services) | {devices.VARIABLE: ",".join(gpus), lease.WORKER: name}
    if not gpus:  # with --gpus none, jobs would otherwise find those of the machine
        environment["CUDA_VISIBLE_DEVICES"] = ""
    folder = command.run_dir / "worker"
    pool_worker.start(folder, name, pool, None if flows else jobs, environment)
    on = f"GPUs {', '.join(gpus)}" if gpus else "CPU"
    what = "whole flows" if flows else f"jobs, {jobs} concurrently on {on}"
    show(f"worker {name} takes {what}, from pool {pool} of {services.prefect}; Ctrl-C ends it")
    try:
        while processes.running(folder, pool_worker.NAME) is not None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        with signals.deferred():
            sys.stderr.write("ending the jobs, which save their state\n")
            pool_worker.stop(folder)
        raise
    raise LostError(f"worker {name} ended; its log ends with: {processes.log_tail(folder, pool_worker.NAME, 3)}")


def _resolve_services(command: Command) -> schema.Services:
    """Addresses of the services: those of the settings, else of the environment, else the embedded ones that run.

    Raises:
        ConfigError: A service has no address.
    """
    services = replace(command.config.services)
    given = {name: os.environ.get(variable, "") for name, variable in configure.SERVICE_VARIABLES.items()}
    unset = {name for name in given if getattr(services, name) == "embedded"}
    if unset and not any(given[name] for name in unset):
        return _embedded(command, sorted(unset))
    for name in sorted(unset):
        if not given[name]:
            variable = configure.SERVICE_VARIABLES[name]
            raise ConfigError(f"no address of {name}: set services.{name}=URL or the variable {variable}")
        setattr(services, name, given[name])
    os.environ.update(stack.environment(command.run_dir, services))
    return services


def _embedded(command: Command, names: list[str]) -> schema.Services:
    connect(command, *names)
    addresses, services = stack.prepare(command.run_dir, command.config.services), replace(command.config.services)
    for name in names:
        setattr(services, name, getattr(addresses, name))
    return services


def _environment(command: Command, services: schema.Services) -> dict[str, str]:
    """Variables of the worker's flow runs: its settings, with the addresses in full."""
    addresses = [f"services.{name}={getattr(services, name)}" for name in configure.SERVICE_VARIABLES]
    words = configure.merge(command.overrides, addresses)
    return configure.worker_environment(command.config, words)
