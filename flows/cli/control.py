"""The verbs about what runs: status, cancel, rerun."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from conf.overrides import replace
from conf.text import did_you_mean, format_duration
from flows.cli.command import Command, show
from flows.cli.services import connect
from infra.errors import ConfigError, EffnetError
from infra.services import flow_runs, prefect_api, stack

CANCEL_S = 90.0  # a job saves its state within 20 s and is killed after 45
SILENT_S = 60.0  # a status older than this is not shown as progress


@dataclass(frozen=True)
class RunningJob:
    """A job that has not ended: its run in MLflow, the last status of its trainer, and the line that is printed."""

    run: str
    key: str
    name: str
    status: Mapping[str, Any]
    line: str


def status(command: Command) -> int:
    """Prints the services, the flows that run, and the progress of their jobs with the time left."""
    services = stack.status(command.run_dir, command.config.services)
    flows: list[flow_runs.FlowRun] = []
    jobs: list[RunningJob] = []
    if services["prefect"].startswith(("running", "yours")):
        connect(command)
        flows = flow_runs.active(prefect_api.from_environment(os.environ))
    if all(services[name].startswith(("running", "yours")) for name in ("mlflow", "s3")):
        connect(command)
        jobs = _running_jobs(command.config.experiment)
    # A job does not name its flow: with several flows, what their jobs have done is not subtracted.
    left = {run.id: _time_left(command, run, jobs if len(flows) == 1 else []) for run in flows}
    if command.json:
        listed = [{**asdict(run), "left_s": left[run.id]} for run in flows]
        shown = {"services": services, "flows": listed, "jobs": [asdict(job) for job in jobs]}
        print(json.dumps(shown, indent=2))
        return 0
    for name, state in services.items():
        show(f"{name:8} {state}")
    for run in flows:
        since = f" for {format_duration(time.time() - run.started)}" if run.started else ""
        seconds = left[run.id]
        remaining = "" if seconds is None else f", about {format_duration(seconds)} left"
        show(f"flow     {run.name}: {run.state.lower()}{since}{remaining}")
    for job in jobs:
        show(f"job      {job.line}")
    if not flows and not jobs:
        show("nothing runs")
    return 0


def _time_left(command: Command, run: flow_runs.FlowRun, jobs: Sequence[RunningJob]) -> float | None:
    """Seconds that a flow still takes, as ``effnet plan`` estimates them; None where it cannot.

    Args:
        command: The command ``effnet status``.
        run: The flow run, whose name begins with its verb.
        jobs: Jobs of the flow that run.
    """
    from conf.compose import OverrideError, compose
    from flows import configure, form
    from tasks.plan import time_left

    verb = run.name.partition(" ")[0]
    worker = configure.embedded_worker_settings(command.run_dir) if run.deployed else []
    if worker is None:  # its settings are known on its machine only
        return None
    try:
        words = configure.merge(form.to_overrides(verb, run.parameters), run.parameters.get("overrides") or [])
        words = configure.merge(worker, words)
        config = dataclasses.replace(compose(words), run_dir=str(command.run_dir), services=command.config.services)
        return time_left(config, words, verb, [job.status for job in jobs])
    except (OverrideError, EffnetError):
        return None


def _running_jobs(experiment: str) -> list[RunningJob]:
    """The jobs whose MLflow run has not ended, with the last status that their trainer has written."""
    from infra import store
    from infra.store.json_objects import read_object
    from infra.tracking import queries
    from tasks.supervise import progress_line

    jobs = []
    for run in queries.list_runs(experiment, queries.SEARCHED_RUNS):
        if run.status != "RUNNING" or "job_uri" not in run.tags:
            continue
        last: dict[str, Any] = {}
        with suppress(EffnetError):  # it has not begun
            last = read_object(store.join(run.tags["job_uri"], "status.json"))
        line = f"{run.name}: {last.get('state', 'starts or waits for a slot')}"
        with suppress(KeyError, TypeError, ValueError):  # only a part of the fields is there before the first step
            line = progress_line(run.name, last)
        silent_s = time.time() - last["time"] if isinstance(last.get("time"), int | float) else 0.0
        if silent_s > SILENT_S:
            line += f"; no news for {format_duration(silent_s)}"
        jobs.append(RunningJob(run.id, run.key, run.name, last, line))
    return jobs


def cancel(command: Command) -> int:
    """Ends a flow run; its jobs save their state, and the same command resumes them."""
    connect(command, "prefect")
    api, word = prefect_api.from_environment(os.environ), command.objects[0]
    runs = flow_runs.active(api)
    matches = [run for run in runs if word == run.name or run.id.startswith(word)]
    if not matches:
        names = [run.name for run in runs]
        which = f"those that run: {', '.join(map(repr, names))}" if names else "none runs"
        raise ConfigError(f"no flow {word!r} runs; {' '.join(filter(None, [did_you_mean(word, names), which]))}")
    if len({run.id for run in matches}) > 1:
        ids = ", ".join(run.id[:8] for run in matches)
        raise ConfigError(f"{len(matches)} flows {word!r} run: name one by its id, {ids}")
    state = flow_runs.cancel(api, matches[0], CANCEL_S)
    if state in flow_runs.ACTIVE:
        ended = f"is still {state.lower()} after {CANCEL_S:.0f} s: `effnet status` shows when it has ended"
    else:
        ended = "has ended; the same command resumes from what is saved"
    show(f"{matches[0].name} {ended}")
    return 0


def rerun(command: Command) -> int:
    """Runs the command of a run again; what is done is taken from the store, and what is missing is made."""
    connect(command, "mlflow")
    from flows import configure
    from flows.cli.verbs import VERBS
    from infra import machine
    from infra.tracking import queries

    run = queries.find_run(command.config.experiment, command.objects[0])
    recorded = run.tags.get(machine.COMMAND_TAG, "")
    verb, *words = shlex.split(recorded.removeprefix("effnet ")) or [""]
    if verb not in VERBS or not VERBS[verb].flow:
        raise ConfigError(f"{run.name} has no command recorded: it was made by an earlier version, or by Python code")
    commit = run.tags.get("mlflow.source.git.commit", "")
    if commit and commit != machine.commit():
        sys.stderr.write(f"note: {run.name} was made by commit {commit[:12]}, this is {machine.commit()[:12]}\n")
    words = replace(words, [])  # a command of an earlier version may give a setting twice: the last counted
    again = [verb, *configure.merge(words, command.overrides)]
    show(shlex.join(["effnet", *again]))
    environment = {**os.environ, **machine.import_path()}
    os.execve(sys.executable, [sys.executable, "-m", "flows", *again], environment)  # noqa: S606 - an argv list
