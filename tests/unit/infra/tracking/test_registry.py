"""The registry's calls where another process makes the same one at the same time."""

from typing import Any

import pytest

from infra.errors import PermanentError
from infra.tracking import registry, rest


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
    made: list[tuple[str, dict[str, Any]]] = []

    def post(path: str, **fields: Any) -> dict[str, Any]:
        made.append((path, fields))
        if len(made) == 1:
            raise rest.translate_error(RuntimeError(message), 400, "http://host")
        return {}

    monkeypatch.setattr(rest, "post", post)
    if calls == 1:
        with pytest.raises(PermanentError, match=message):
            registry.promote("b0", 2, "champion")
    else:
        registry.promote("b0", 2, "champion")
    assert made == [("registered-models/alias", {"name": "b0", "alias": "champion", "version": "2"})] * calls
