"""Set-up shared by all flows: configuration, logging and run name, in a terminal and on a worker.

A worker passes its settings to its flow runs in the environment variable ``EFFNET_SETTINGS``, a JSON list of
overrides. A deployment's run composes them below its own overrides, so that ``effnet up storage=s3://bucket`` applies
to every run that the UI or the schedule starts.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import compose, schema
from conf.overrides import change_value, expand_home
from conf.text import logger
from flows import form
from infra import machine
from infra.errors import ConfigError
from infra.services.programs import FLOW_LOGS

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

VARIABLE = "EFFNET_SETTINGS"
_SECRET = re.compile(r"nightly(\.alerts)?(\.(webhook|heartbeat)=|=.*(webhook|heartbeat))")
_PASSWORD = re.compile(r"://[^/?#@:\s]*:[^/?#@\s]*@")
_LISTS_OF_FILES = ("photographs.images", "gate.weights")
SERVICE_VARIABLES = {"s3": "AWS_ENDPOINT_URL_S3", "prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI"}


def configure(
    overrides: list[str],
    *,
    profile: str | None = None,
    model: str | None = None,
    data: str | None = None,
    epochs: int | None = None,
) -> tuple[schema.Config, list[str]]:
    """Composes a flow's configuration and enables its log.

    Args:
        overrides: Parameter of the flow.
        profile: Field of Prefect's form (``flows/form.py``), as are ``model``, ``data`` and ``epochs``.
        model: A network, or a registered model.
        data: A data set.
        epochs: Number of epochs.

    Returns:
        The configuration, and the overrides that it was made of.

    Raises:
        OverrideError: Unknown key, option or value.
        ConfigError: The processes cannot share a batch, or a deployment names services or a run folder that its worker
            does not use, or exceeds ``budget``.
    """
    from tasks.batches import check_batches

    log = logger()
    if log.level == logging.NOTSET:  # on a worker; the terminal's display has set it
        log.setLevel(logging.INFO)
    verb = _flow_name()
    fields = {"profile": profile, "model": model, "data": data, "epochs": epochs}
    overrides = merge(form.to_overrides(verb, fields), overrides)
    merged = merge(settings_of_this_run(), overrides)
    config = compose.compose(merged)
    check_batches(verb, config)
    if deployment_run() is not None:
        _refuse_other_services(overrides, config)
        _refuse_above_budget(merged, config)
        # Beside the caches of its jobs, as a command in a terminal; a process runs one flow.
        os.environ["EFFNET_CACHE"] = os.environ.get("EFFNET_CACHE") or str(Path(config.run_dir).resolve() / "cache")
    if verb:
        os.environ[machine.COMMAND] = describe_command(verb, merged)  # a process runs one flow
    return config, merged


def describe_command(verb: str, words: Sequence[str]) -> str:
    """A command as MLflow and the report show it: without addresses of alerts, which often are secrets, and passwords.

    Args:
        verb: Verb of the command.
        words: Its overrides.
    """
    kept = [word for word in words if not ("://" in word and _SECRET.match(word))]
    return shlex.join(["effnet", verb, *(_PASSWORD.sub("://***@", word) for word in kept)])


def name_runs_by(describe: Callable[[schema.Config], str]) -> Callable[[], str]:
    """A ``flow_run_name`` for Prefect, made of the flow's configuration.

    Args:
        describe: Function from the configuration to the name.
    """

    def name() -> str:
        from prefect.context import FlowRunContext

        context = FlowRunContext.get()
        if context is None or context.flow is None:
            return "flow"
        parameters = context.parameters or {}
        overrides = merge(form.to_overrides(context.flow.name, parameters), parameters.get("overrides", []))
        try:
            return describe(compose.compose(merge(settings_of_this_run(), overrides)))
        except (ValueError, KeyError):  # the flow itself reports what is wrong with its parameters
            return context.flow.name

    return name


def config_of_run(verb: str, parameters: Mapping[str, Any]) -> schema.Config:
    """Returns the configuration of a flow run of a deployment, outside of that run: on its worker."""
    overrides = merge(form.to_overrides(verb, parameters), parameters.get("overrides", []))
    return compose.compose(merge(worker_settings(), overrides))


def compose_valid(
    verb: str, settings: Sequence[str], parameters: Mapping[str, Any], keys: Sequence[str]
) -> schema.Config:
    """Returns the configuration of some settings of a flow run, as far as they are valid.

    For the alert about a run whose settings are wrong: its receivers may be among them.

    Args:
        verb: Name of the flow.
        settings: Settings of the worker; all of them if they are valid, otherwise as those of the run.
        parameters: Parameters of the flow run.
        keys: Settings of the run to take, each with those below it; those that are wrong are omitted.
    """
    overrides = merge(form.to_overrides(verb, parameters), parameters.get("overrides", []))
    config, kept = compose.compose([]), list[str]()
    try:
        config, kept = compose.compose(settings), list(settings)
        parts: list[Sequence[str]] = [overrides]
    except ValueError:
        parts = [settings, overrides]
    for words in ([word for word in part if _is_below(word, key)] for part in parts for key in keys):
        try:
            config, kept = compose.compose(merge(kept, words)), merge(kept, words)
        except ValueError:
            continue
    return config


def _is_below(word: str, key: str) -> bool:
    return _key(word) == key or _key(word).startswith(f"{key}.")


def now() -> str:
    """The current time in minutes, to distinguish the runs of one flow."""
    return time.strftime("%Y-%m-%d %H:%M")


def worker_environment(config: schema.Config, words: Sequence[str]) -> dict[str, str]:
    """Variables that a worker needs besides those of the services: its settings, and effnet's log in Prefect's.

    Args:
        config: Configuration of the command that starts the worker.
        words: Overrides that become the defaults of the worker's flow runs.
    """
    kept = [_with_absolute_path(word) for word in words if _key(word) != "run_dir"]
    return {
        VARIABLE: json.dumps([*kept, f"run_dir={Path(config.run_dir).resolve()}"]),
        **FLOW_LOGS,
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }


def select_places(overrides: Sequence[str]) -> list[str]:
    """Overrides that set locations (storage, services), not the work."""
    return [word for word in overrides if _key(word) == "storage" or _key(word).startswith("services.")]


def settings_of_worker_runs(overrides: Sequence[str]) -> list[str]:
    """Overrides for the runs of a deployment: with absolute paths, without the services and the run folder."""
    kept = (word for word in overrides if _key(word) != "run_dir" and not _key(word).startswith("services."))
    return [_with_absolute_path(word) for word in kept]


def worker_settings() -> list[str]:
    """Settings of the worker that this process runs on; empty if it has none."""
    return list(json.loads(os.environ.get(VARIABLE, "[]")))


def kept_settings(run_dir: Path) -> str:
    """A line about a worker that was started earlier with other settings than this process has for it, or nothing."""
    kept = embedded_worker_settings(run_dir)
    if kept is None or kept == worker_settings():
        return ""
    return f"the worker keeps its settings, {' '.join(kept) or 'none'}; `effnet down`, then `effnet up`, changes them"


def embedded_worker_settings(run_dir: Path) -> list[str] | None:
    """Settings of the worker that runs in this run folder; None if there is none."""
    from infra.services import processes, proctable

    worker = processes.running(run_dir.resolve() / "services", "worker")
    if worker is None:
        return None
    values = [word for word in proctable.environment(worker.pid) if word.startswith(f"{VARIABLE}=".encode())]
    return list(json.loads(values[0].partition(b"=")[2])) if values else []


def merge(settings: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Overrides with the settings below them; a group that is chosen anew takes none of the settings inside it."""
    chosen = {_key(word) for word in overrides}
    groups = tuple(f"{key.rpartition('@')[2]}." for key in chosen if key in compose.GROUPS and key != "profile")
    kept = [word for word in settings if _key(word) not in chosen and not _key(word).startswith(groups)]
    return [*kept, *overrides]


def settings_of_this_run() -> list[str]:
    """Settings of the worker that count in this process: none in a terminal."""
    return worker_settings() if deployment_run() is not None else []


def _flow_name() -> str:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return context.flow.name if context is not None and context.flow is not None else ""


def deployment_run() -> FlowRun | None:
    """The flow run, where it was started from a deployment."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    return run if run is not None and run.deployment_id is not None else None


def _refuse_above_budget(overrides: Sequence[str], config: schema.Config) -> None:
    """Refuses a flow run whose estimate exceeds ``budget``: nobody can be asked."""
    from tasks.plan import exceeded_budget

    if over := exceeded_budget(config, overrides, _flow_name()):
        raise ConfigError(f"{over}; a run with a higher budget in its overrides may start")


def _refuse_other_services(overrides: Sequence[str], config: schema.Config) -> None:
    """Refuses overrides that a flow run cannot follow: it uses the services that its worker was started with."""
    worker = compose.compose(worker_settings())
    requested: Any
    for key in sorted({_key(word) for word in overrides}):
        name = key.removeprefix("services.")
        if key == "run_dir" and VARIABLE in os.environ:
            requested, used = str(Path(config.run_dir).resolve()), worker.run_dir
        elif key != name and name in SERVICE_VARIABLES:
            requested, address = getattr(config.services, name), os.environ.get(SERVICE_VARIABLES[name]) or "aws"
            used = getattr(worker.services, name) if VARIABLE in os.environ else address
            requested = used if requested.rstrip("/") == address.rstrip("/") else requested
        elif key != name and VARIABLE in os.environ:
            requested, used = getattr(config.services, name), getattr(worker.services, name)
        else:
            continue
        if requested != used:
            raise ConfigError(
                f"{key}={requested}: a deployment runs with what its worker was started with, {key}={used}; omit the "
                f"setting, or restart the worker by `effnet down` and `effnet up {key}={requested}`"
            )


def _key(word: str) -> str:
    return word.partition("=")[0]


def _with_absolute_path(word: str) -> str:
    """A worker has another working folder, and perhaps another home, than the command that starts it."""
    names_files = _key(word).endswith(("path", "class_file")) or _key(word) in _LISTS_OF_FILES
    return change_value(word, _to_absolute if names_files else expand_home)


def _to_absolute(value: str) -> str:
    """A local path as an absolute one; of several patterns of WebDataset shards, ``A::B``, each of them."""
    value = expand_home(value)
    paths = [value] if Path(value).exists() else value.split("::")
    return "::".join(path if path in ("", "null") or "://" in path else str(Path(path).resolve()) for path in paths)
