"""The registry's calls where another process makes the same one at the same time."""

from types import SimpleNamespace
from typing import Any

import pytest

from infra.tracking import registry


class MlflowError(Exception):
    """Stands for MLflow's own exception."""


@pytest.mark.parametrize(
    ("message", "calls"),
    [
        ("UNIQUE constraint failed: registered_model_aliases.name", 2),
        ('duplicate key value violates unique constraint "registered_model_aliases_pk"', 2),
        ("no such version", 1),
    ],
)
def test_an_alias_that_another_process_creates_meanwhile_is_moved(
    monkeypatch: pytest.MonkeyPatch, message: str, calls: int
) -> None:
    made: list[tuple[Any, ...]] = []

    def set_registered_model_alias(*call: Any) -> None:
        made.append(call)
        if len(made) == 1:
            raise MlflowError(message)

    monkeypatch.setattr(registry, "library", lambda: SimpleNamespace(MlflowException=MlflowError))
    client: Any = SimpleNamespace(set_registered_model_alias=set_registered_model_alias)
    if calls == 1:
        with pytest.raises(MlflowError):
            registry.set_alias(client, "b0", "champion", "2")
    else:
        registry.set_alias(client, "b0", "champion", "2")
    assert made == [("b0", "champion", "2")] * calls
