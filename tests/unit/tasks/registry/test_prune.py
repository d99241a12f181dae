"""A removal that fails does not keep the others from being deleted."""

from __future__ import annotations

import pytest

from conf import compose
from infra.errors import PermanentError
from infra.store import Entry
from tasks.registry import prune
from tasks.registry.prune import UNUSED_VERSION, Removal


def test_what_cannot_be_deleted_is_named_at_the_end_and_the_rest_is_deleted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entries = (Entry("models:/b0/1", 5, 0.0),)
    removals = [Removal(f"models:/b0/{number}", UNUSED_VERSION, entries, entries) for number in (1, 2, 3)]
    deleted: list[str] = []

    def remove(removal: Removal) -> bool:
        if removal == removals[0]:
            raise PermanentError("MLflow refuses")
        deleted.append(removal.folder)
        return True

    monkeypatch.setattr(prune, "plan_removals", lambda *_: removals)
    monkeypatch.setattr(prune, "_remove", remove)
    with pytest.raises(PermanentError, match="1 of 3 could not be deleted, the first is models:/b0/1: MLflow refuses"):
        prune.remove(removals, compose.compose([]), 0.0)
    assert deleted == ["models:/b0/2", "models:/b0/3"]
    assert "models:/b0/1 could not be deleted: MLflow refuses" in caplog.text
