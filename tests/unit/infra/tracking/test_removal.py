"""What is deleted of a version, also after a deletion that was interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from infra.tracking import client, removal


class Registry:
    """MLflow's registry with one version, which lists what is deleted of it."""

    def __init__(self, fault: str | None) -> None:
        self.fault = fault
        self.deleted: list[str] = []

    def get_model_version(self, _name: str, _number: str) -> Any:
        return SimpleNamespace(source="models:/m-1")

    def delete_logged_model(self, model_id: str) -> None:
        self.deleted.append(model_id)

    def delete_model_version(self, name: str, number: str) -> None:
        self.deleted.append(f"{name}/{number}")

    def delete_artifacts(self) -> None:
        self.deleted.append("files")

    def open_files(self, *_: object) -> Registry:
        if self.fault is not None:
            from mlflow.protos import databricks_pb2

            raise client.library().MlflowException("no such model", error_code=getattr(databricks_pb2, self.fault))
        return self


def connect(monkeypatch: pytest.MonkeyPatch, fault: str | None) -> Registry:
    registry = Registry(fault)

    @contextmanager
    def connection() -> Iterator[Registry]:
        yield registry

    monkeypatch.setattr(removal, "connection", connection)
    monkeypatch.setattr(removal, "_open_files", registry.open_files)
    return registry


def test_the_files_of_a_version_are_deleted_last(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = connect(monkeypatch, None)
    removal.delete_version("b0", 3)
    assert registry.deleted == ["m-1", "b0/3", "files"]


@pytest.mark.slow
def test_a_version_whose_files_were_deleted_before_an_interruption_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = connect(monkeypatch, "RESOURCE_DOES_NOT_EXIST")
    removal.delete_version("b0", 3)
    assert registry.deleted == ["b0/3"]


def test_a_version_whose_files_cannot_be_opened_is_not_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = connect(monkeypatch, "PERMISSION_DENIED")
    with pytest.raises(client.library().MlflowException):
        removal.delete_version("b0", 3)
    assert registry.deleted == []
