"""MLflow runs: find or create, log, finish. The model registry is next door, in ``registry.py``.

The one writer of a run is the supervising task, and several of them work in one process. So there is no
active run here, only run ids; every call may be made again after a crash; and an MLflow that does not answer
is a ``TransientError`` within seconds, which a caller replays later: tracking never stops a training.
The address is ``MLFLOW_TRACKING_URI``; credentials are MLflow's own variables.
"""

from __future__ import annotations

import functools
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from conf.text import escaped
from infra.errors import ConfigError
from infra.tracking.client import address, connection, library

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KEY_TAG = "effnet.key"  # what the run was asked for; one run for each
ROWS_TAG = "effnet.rows"  # how many epochs of the trainer's log the run has
COMMIT_TAG = "mlflow.source.git.commit"
MAX_PARAM_KEY, MAX_PARAM_VALUE = 250, 6000  # MLflow's limits; it refuses the whole batch beyond them
MAX_BATCH_PARAMS, MAX_BATCH_METRICS = 100, 999  # 1000 entries a request, and one of ours is a tag

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
    """Finds the run that was asked for by ``key``, or creates it; a failed or killed one runs again.

    Args:
        experiment: name of the experiment, created on need.
        name: what people see.
        key: digest of what is asked for; never two runs for one key in an experiment.
        parent: id of the run that this one is shown under.
        params: what it was asked to do, nested or flat; the first value of a parameter stays.
        tags: free; given again they are written again.

    Returns:
        The run id.

    Raises:
        TransientError: MLflow does not answer.
        ConfigError: MLflow refuses the credentials, or the experiment was deleted.
    """
    if "'" in key or '"' in key:
        raise ConfigError(f"a run key must be without quotes, is {key!r}")
    with connection() as client, _FIND_OR_CREATE:
        experiment_id = _experiment(client, experiment)
        run = _find(client, experiment_id, key)
        if run is None:
            links = {"mlflow.parentRunId": parent} if parent else {}
            own = {COMMIT_TAG: _commit(), **tags, **links, KEY_TAG: key}
            shown = {k: escaped(v) for k, v in own.items() if v}
            made = client.create_run(experiment_id, run_name=escaped(name), tags=shown)
            run = _find(client, experiment_id, key) or made
            if run.info.run_id != made.info.run_id:  # another process was first, our lock does not hold it
                client.delete_run(made.info.run_id)
        _complete(client, run, params, tags)
        run_id: str = run.info.run_id
        return run_id


def log_epochs(run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Logs the rows that the run has not got yet.

    A crash between MLflow's two tables is harmless too: a metric is stored under its name, step, time and
    value, so the same row logged twice is one row.

    Args:
        run_id: of an existing run.
        rows: all of the trainer's log so far, oldest first; ``step``, ``time`` in unix seconds, and numbers.
    """
    with connection() as client:
        from mlflow.entities import Metric, RunTag

        done = int(client.get_run(run_id).data.tags.get(ROWS_TAG, "0"))
        batch: list[Metric] = []
        for count, row in enumerate(rows[done:], start=done + 1):
            at_ms, step = round(row["time"] * 1000), int(row["step"])
            new = [Metric(k, float(v), at_ms, step) for k, v in row.items() if _is_metric(k, v)]
            if len(batch) + len(new) > MAX_BATCH_METRICS:
                client.log_batch(run_id, metrics=batch, tags=[RunTag(ROWS_TAG, str(count - 1))])
                batch = []
            batch += new
        if len(rows) > done:
            client.log_batch(run_id, metrics=batch, tags=[RunTag(ROWS_TAG, str(len(rows)))])


def finish_run(run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"], metrics: Mapping[str, float]) -> None:
    """Logs the final numbers and ends the run; a second call changes nothing."""
    with connection() as client:
        from mlflow.entities import Metric

        run = client.get_run(run_id)
        now_ms = round(time.time() * 1000)
        new = [Metric(k, float(v), now_ms, 0) for k, v in metrics.items() if run.data.metrics.get(k) != v]
        if new:
            client.log_batch(run_id, metrics=new)
        if run.info.status != status:
            client.set_terminated(run_id, status)


def log_text(run_id: str, text: str, path: str) -> None:
    """Writes a text as the run's artifact ``path``, over an older one."""
    with connection() as client:
        client.log_text(run_id, text, path)


def log_file(run_id: str, local_path: Path, folder: str) -> None:
    """Uploads a file into the folder ``folder`` of the run's artifacts, over an older one."""
    with connection() as client:
        client.log_artifact(run_id, str(local_path), folder or None)


def run_url(run_id: str) -> str:
    """Where a person sees the run."""
    with connection() as client:
        return f"{address()}/#/experiments/{client.get_run(run_id).info.experiment_id}/runs/{run_id}"


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            created: str = client.create_experiment(name)
        except library().MlflowException as error:  # another process was first
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return _experiment(client, name)
        return created
    if found.lifecycle_stage != "active":
        raise ConfigError(f"the MLflow experiment {name!r} was deleted: restore it or set another `experiment`")
    experiment_id: str = found.experiment_id
    return experiment_id


def _find(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """The oldest run of that key, so that two processes which both created one agree."""
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    runs = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", order_by=order, max_results=1)
    return runs[0] if runs else None


def _complete(client: MlflowClient, run: Run, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    """Writes what a creation that crashed, or an earlier try, left out."""
    from mlflow.entities import Param, RunTag

    if run.info.status in ("FAILED", "KILLED"):
        client.update_run(run.info.run_id, status="RUNNING")
    new = [Param(k, v) for k, v in _flat(params) if k not in run.data.params]
    shown = {k: escaped(v) for k, v in tags.items()}
    fresh = [RunTag(k, v) for k, v in shown.items() if run.data.tags.get(k) != v]
    for start in range(0, len(new), MAX_BATCH_PARAMS):
        client.log_batch(run.info.run_id, params=new[start : start + MAX_BATCH_PARAMS])
    if fresh:
        client.log_batch(run.info.run_id, tags=fresh)


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"[:MAX_PARAM_KEY], escaped(str(value))[:MAX_PARAM_VALUE]


def _is_metric(key: str, value: object) -> bool:
    return key not in ("step", "time") and isinstance(value, int | float) and not isinstance(value, bool)


@functools.cache
def _commit() -> str:
    """The commit of this code, or nothing where it was installed without git."""
    argv = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
