"""MLflow runs: find or create, log, finish. See ``registry.py`` for the model registry.

The supervising task is the only writer of a run, and several such tasks share one process. Functions therefore
take run ids instead of using MLflow's active run. Every call can be repeated after a crash. If MLflow does not
answer, a call raises ``TransientError`` within seconds and the caller replays it later: tracking never stops a
training. The address is ``MLFLOW_TRACKING_URI``; credentials are MLflow's environment variables.
"""

from __future__ import annotations

import getpass
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from conf import compose
from conf.text import escaped
from infra import machine
from infra.errors import ConfigError
from infra.tracking import rest
from infra.tracking.client import connection, library

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KEY_TAG = "effnet.key"  # digest of the run's request; one run per key
ROWS_TAG = "effnet.rows"  # number of rows of the trainer's metrics in the run
WORKER_TAG = "worker"  # name of the machine or worker that ran the job
COMMIT_TAG, SOURCE_TAG = "mlflow.source.git.commit", "mlflow.source.name"
MAX_PARAM_KEY, MAX_PARAM_VALUE = 250, 6000  # MLflow's limits; it refuses the whole batch beyond them
MAX_BATCH_PARAMS, MAX_BATCH_METRICS = 100, 999  # 1000 entries per request, one of which is a tag

_FIND_OR_CREATE = threading.Lock()


def start_run(
    experiment: str,
    name: str,
    key: str,
    *,
    parent: str | None = None,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
) -> str:
    """Finds the run of ``key``, or creates it; sets a failed or killed run to running.

    Args:
        experiment: Name of the experiment, created if missing.
        name: Display name of the run.
        key: Digest of the request; an experiment never has two runs of one key.
        parent: Id of the run under which this one is displayed.
        params: Parameters, nested or flat; the first value of a parameter is kept.
        tags: Additional tags; overwritten by later calls.

    Returns:
        The run id.

    Raises:
        TransientError: MLflow does not answer.
        ConfigError: MLflow refuses the credentials, or the experiment was deleted.
    """
    if "'" in key or '"' in key:
        raise ConfigError(f"a run key must not contain quotes: {key!r}")
    command = os.environ.get(machine.COMMAND, "")
    tags = {machine.COMMAND_TAG: command, **tags}
    with connection() as client, _FIND_OR_CREATE:
        experiment_id = _find_or_create_experiment(client, experiment)
        run = _find_run(client, experiment_id, key)
        if run is None:
            links = {"mlflow.parentRunId": parent} if parent else {}
            all_tags = {COMMIT_TAG: machine.commit(), **_origin(command), **tags, **links, KEY_TAG: key}
            shown = {k: escaped(v) for k, v in all_tags.items() if v}
            created = client.create_run(experiment_id, run_name=escaped(name), tags=shown)
            run = _find_run(client, experiment_id, key) or created
            if run.info.run_id != created.info.run_id:  # another process was first; the lock is per process
                client.delete_run(created.info.run_id)
        _complete(client, run, params, tags)
        run_id: str = run.info.run_id
        return run_id


def _origin(command: str) -> dict[str, str]:
    """Tags that MLflow's pages show as source and creator of a run: the verb, and the user."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number without a name
        user = ""
    return {SOURCE_TAG: " ".join(command.split()[:2]), "mlflow.source.type": "LOCAL", "mlflow.user": user}


def find_finished(experiment: str, key: str) -> str | None:
    """Returns the id of the finished run of a key; None if there is none.

    Raises:
        TransientError: MLflow does not answer.
    """
    with connection() as client:
        existing = client.get_experiment_by_name(experiment)
        run = _find_run(client, existing.experiment_id, key) if existing is not None else None
        return run.info.run_id if run is not None and run.info.status == "FINISHED" else None


def log_rows(run_id: str, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    """Logs the rows that the run does not have yet.

    A crash between MLflow's two tables is harmless: a metric is stored by name, step, time and value, so a row
    that is logged twice is stored once.

    Args:
        run_id: Id of an existing run.
        rows: The trainer's metrics so far, oldest first: ``step``, ``time`` in unix seconds, and numbers.
        names: Name in MLflow of each key that is logged; others are not.
    """
    with connection() as client:
        from mlflow.entities import Metric, RunTag

        done = int(client.get_run(run_id).data.tags.get(ROWS_TAG, "0"))
        batch: list[Metric] = []
        for count, row in enumerate(rows[done:], start=done + 1):
            at_ms, step = round(row["time"] * 1000), int(row["step"])
            new = [Metric(names[k], float(v), at_ms, step) for k, v in row.items() if k in names and _is_number(v)]
            if len(batch) + len(new) > MAX_BATCH_METRICS:
                client.log_batch(run_id, metrics=batch, tags=[RunTag(ROWS_TAG, str(count - 1))])
                batch = []
            batch += new
        if len(rows) > done:
            client.log_batch(run_id, metrics=batch, tags=[RunTag(ROWS_TAG, str(len(rows)))])


def finish_run(
    run_id: str,
    status: Literal["FINISHED", "FAILED", "KILLED"],
    metrics: Mapping[str, float],
    tags: Mapping[str, str] | None = None,
) -> None:
    """Logs the final metrics and tags and ends the run; idempotent."""
    with connection() as client:
        from mlflow.entities import Metric, RunTag

        run = client.get_run(run_id)
        now_ms = round(time.time() * 1000)
        new = [Metric(k, float(v), now_ms, 0) for k, v in metrics.items() if run.data.metrics.get(k) != v]
        changed = [RunTag(k, escaped(v)) for k, v in (tags or {}).items() if run.data.tags.get(k) != v]
        if new or changed:
            client.log_batch(run_id, metrics=new, tags=changed)
        if run.info.status != status:
            client.set_terminated(run_id, status)


def log_text(run_id: str, text: str, path: str) -> None:
    """Writes a text to the run's artifact ``path``, replacing an older one."""
    with connection() as client:
        client.log_text(run_id, text, path)


def log_file(run_id: str, local_path: Path, folder: str) -> None:
    """Uploads a file into the folder ``folder`` of the run's artifacts, replacing an older one."""
    with connection() as client:
        client.log_artifact(run_id, str(local_path), folder or None)


def run_url(run_id: str) -> str:
    """Returns the address of the run's page."""
    experiment_id = rest.get("runs/get", run_id=run_id)["run"]["info"]["experiment_id"]
    return f"{rest.address()}/#/experiments/{experiment_id}/runs/{run_id}"


def comparison_link(run_ids: Sequence[str]) -> str:
    """Returns the link to the page that shows runs of one experiment side by side.

    It is relative to MLflow's pages, so that it stays right in a description when the address of the server changes.
    """
    experiment_id = rest.get("runs/get", run_id=run_ids[0])["run"]["info"]["experiment_id"]
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in ([*run_ids], [experiment_id]))
    return f"#/compare-runs?runs={runs}&experiments={experiments}"


def _find_or_create_experiment(client: MlflowClient, name: str) -> str:
    existing = client.get_experiment_by_name(name)
    if existing is None:
        try:
            created: str = client.create_experiment(name)
        except library().MlflowException as error:  # another process was first
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return _find_or_create_experiment(client, name)
        return created
    if existing.lifecycle_stage != "active":
        raise ConfigError(f"the MLflow experiment {name!r} was deleted: restore it or set another `experiment`")
    experiment_id: str = existing.experiment_id
    return experiment_id


def _find_run(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """Returns the oldest run of the key, so that two processes that both created one agree."""
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    runs = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", order_by=order, max_results=1)
    return runs[0] if runs else None


def _complete(client: MlflowClient, run: Run, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    """Adds the parameters and tags that are missing after a crash or an earlier call."""
    from mlflow.entities import Param, RunTag

    if run.info.status in ("FAILED", "KILLED"):
        client.update_run(run.info.run_id, status="RUNNING")
    texts = {k[:MAX_PARAM_KEY]: escaped(str(v))[:MAX_PARAM_VALUE] for k, v in compose.flatten(params).items()}
    new = [Param(k, v) for k, v in texts.items() if k not in run.data.params]
    shown = {k: escaped(v) for k, v in tags.items()}
    fresh = [RunTag(k, v) for k, v in shown.items() if v and run.data.tags.get(k) != v]
    for start in range(0, len(new), MAX_BATCH_PARAMS):
        client.log_batch(run.info.run_id, params=new[start : start + MAX_BATCH_PARAMS])
    if fresh:
        client.log_batch(run.info.run_id, tags=fresh)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
