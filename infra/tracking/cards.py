"""Publishes what a registered model is: descriptions in Markdown, files, metrics, and the data sets of a run.

Descriptions are shown on the pages of a model and of a version; a model's metrics are what MLflow's pages sort versions
by. Every call can be repeated: what is there already stays as it is.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conf.text import escaped
from infra.tracking.client import connection

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, LoggedModel

MAX_DIGEST = 36  # MLflow's limit for the digest of a data set
MAX_DESCRIPTION = 5000  # MLflow's column; card.md beside the weights has the whole text
CONTINUED = "\n\nThe other sections are in `card.md` beside the weights.\n"


@dataclass(frozen=True)
class DataSet:
    """A data set as MLflow shows it: its name, the sha256 of its manifest, and where that is."""

    name: str
    sha256: str
    uri: str


def log_dataset(run_id: str, data: DataSet, context: str) -> None:
    """Records that a run read a data set; ``context`` says for what, e.g. ``training``."""
    with connection() as client:
        client.log_inputs(run_id, [_to_input(data, context)])


def _to_input(data: DataSet, context: str) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": data.uri, "sha256": data.sha256})
    entity = Dataset(escaped(data.name), data.sha256[:MAX_DIGEST], "effnet manifest", source)
    return DatasetInput(entity, [InputTag("mlflow.data.context", context)])


def log_evaluation(run_id: str, name: str, version: int, metrics: Mapping[str, float], data: DataSet) -> None:
    """Records what a run measured of a registered version: metrics of the run and of the version's model.

    Args:
        run_id: The run of the evaluation.
        name: Name of the registered model.
        version: Number of the version.
        metrics: Metrics by name.
        data: The data set that they were measured on.

    Raises:
        TransientError: MLflow does not answer; the same call resumes later.
    """
    with connection() as client:
        from mlflow.entities import LoggedModelInput, Metric

        model_id = client.get_model_version(name, str(version)).source.removeprefix("models:/")
        measured_on = (model_id, escaped(data.name), data.sha256[:MAX_DIGEST], run_id)
        now_ms, known = round(time.time() * 1000), client.get_run(run_id).data.metrics
        new = [Metric(k, float(v), now_ms, 0, *measured_on) for k, v in metrics.items() if known.get(k) != v]
        client.log_inputs(run_id, [_to_input(data, "evaluation")], [LoggedModelInput(model_id)])
        if new:
            client.log_batch(run_id, metrics=new)


def describe_version(
    name: str, version: int, text: str, files: Mapping[str, str], metrics: Mapping[str, float], data: DataSet | None
) -> None:
    """Sets the description of a version, and the files and metrics of its model.

    Args:
        name: Name of the registered model.
        version: Number of the version.
        text: Description in Markdown; a picture that it shows by the name of one of ``files`` is shown by MLflow.
        files: Name and contents of files beside the model's own, e.g. ``card.md``.
        metrics: Metrics of the model.
        data: The data set that they were measured on.

    Raises:
        TransientError: MLflow does not answer; the same call resumes later.
    """
    with connection() as client:
        entry = client.get_model_version(name, str(version))
        model_id = entry.source.removeprefix("models:/")
        shown = shorten(_link_pictures(_without_title(text), model_id, files))
        if entry.description == shown:  # it was set last, after files and metrics
            return
        model = client.get_logged_model(model_id)
        _log_metrics(client, model, metrics, data)
        with tempfile.TemporaryDirectory(prefix="effnet-card-") as folder:
            for file, contents in files.items():
                (Path(folder) / file).write_text(contents, encoding="utf-8")
            client.log_model_artifacts(model_id, folder)
        client.update_model_version(name, str(version), shown)


def _without_title(text: str) -> str:
    """The text without its heading: the page has one, and lists of versions show the first line of a description."""
    title, _, rest = text.partition("\n")
    return rest.lstrip() if title.startswith("# ") and rest.strip() else text


def is_described(name: str, version: int) -> bool:
    """Whether ``describe_version`` has completed for a version."""
    with connection() as client:
        return bool(client.get_model_version(name, str(version)).description)


def shorten(text: str) -> str:
    """Returns the sections of a Markdown text that fit into MLflow's description, without cutting one of them."""
    if len(text) <= MAX_DESCRIPTION:
        return text
    whole = text.rfind("\n## ", 0, MAX_DESCRIPTION - len(CONTINUED))
    return text[:whole] + CONTINUED if whole > 0 else text[:MAX_DESCRIPTION]


def _link_pictures(text: str, model_id: str, files: Iterable[str]) -> str:
    """Replaces the names of files that are shown as pictures by their addresses, relative to MLflow's page."""
    for file in files:
        address = f"ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files?artifact_file_path={file}"
        text = text.replace(f"]({file})", f"]({address})")
    return text


def _log_metrics(client: MlflowClient, model: LoggedModel, metrics: Mapping[str, float], data: DataSet | None) -> None:
    from mlflow.entities import Metric

    known = {metric.key: metric.value for metric in model.metrics or ()}
    now_ms, run_id = round(time.time() * 1000), model.source_run_id
    measured_on = (None, None) if data is None else (escaped(data.name), data.sha256[:MAX_DIGEST])
    new = [
        Metric(key, float(value), now_ms, 0, model.model_id, *measured_on, run_id)
        for key, value in metrics.items()
        if known.get(key) != value
    ]
    if new:
        client.log_batch(run_id, metrics=new)
