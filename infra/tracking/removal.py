"""Deletes versions of registered models together with their files.

MLflow keeps the files of a version that is deleted. They go last: a process that ends in between leaves files that
nothing names, which ``mlflow gc`` deletes, and no version without files.
"""

from __future__ import annotations

from typing import Any

from infra.errors import PermanentError
from infra.tracking.client import connection, library

_ABSENT = "RESOURCE_DOES_NOT_EXIST"  # MLflow's error code, also for what is marked as deleted


def measure_files(name: str, number: int) -> int:
    """Returns the bytes of the files of a version; 0 if they cannot be listed.

    Raises:
        TransientError: MLflow does not answer.
    """
    try:
        with connection() as client:
            return _measure(_open_files(client, _read_model_id(client, name, number)), None)
    except PermanentError:
        return 0


def delete_version(name: str, number: int) -> None:
    """Deletes a version and its files; does nothing if it does not exist.

    Of a version whose files MLflow counts as deleted already, after an interruption, the version alone is deleted.

    Raises:
        TransientError: MLflow does not answer.
        PermanentError: The version was not registered by effnet, or MLflow refuses to delete it.
    """
    with connection() as client:
        try:
            model_id = _read_model_id(client, name, number)
        except library().MlflowException as error:
            if error.error_code == _ABSENT:
                return
            raise
        try:
            files = _open_files(client, model_id)
            client.delete_logged_model(model_id)  # else a registration of the same weights would find it
        except library().MlflowException as error:
            if error.error_code != _ABSENT:
                raise
            files = None
        client.delete_model_version(name, str(number))
        if files is not None:
            files.delete_artifacts()


def _read_model_id(client: Any, name: str, number: int) -> str:
    """The model whose files a version has, from its source, ``models:/m-…``: MLflow's database keeps no other link."""
    source = str(client.get_model_version(name, str(number)).source)
    if not source.startswith("models:/m-"):
        raise PermanentError(f"{name}/{number} was not registered by effnet: its files are {source}")
    return source.removeprefix("models:/")


def _open_files(client: Any, model_id: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(client.get_logged_model(model_id).artifact_location)


def _measure(files: Any, folder: str | None) -> int:
    return sum(_measure(files, one.path) if one.is_dir else one.file_size or 0 for one in files.list_artifacts(folder))
