"""Uploads of models that another process may be making at this moment."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from infra.tracking import registration
from infra.tracking.registry import CONFIG_TAG, WEIGHTS_TAG

DIGESTS = {WEIGHTS_TAG: "0" * 64, CONFIG_TAG: "1" * 64}


class Client:
    """MLflow with logged models of one name."""

    def __init__(self, *models: SimpleNamespace) -> None:
        self.models, self.deleted = models, list[str]()

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(experiment_id="1"))

    def search_logged_models(self, experiments: list[str], same: str) -> list[Any]:
        assert experiments == ["1"]
        return [
            model for model in self.models if all(value in same for value in model.tags.values()) or "tags" not in same
        ]

    def delete_logged_model(self, model_id: str) -> None:
        self.deleted.append(model_id)


def logged(model_id: str, status: str, age_s: float, tags: dict[str, str]) -> SimpleNamespace:
    created = round(1000 * (time.time() - age_s))
    return SimpleNamespace(model_id=model_id, status=status, creation_timestamp=created, tags=tags)


def test_an_upload_of_another_process_is_not_deleted() -> None:
    client = Client(
        logged("uploading", "PENDING", 60.0, DIGESTS),
        logged("died", "PENDING", registration.ABANDONED_S + 60, {**DIGESTS, WEIGHTS_TAG: "2" * 64}),
        logged("complete", "READY", registration.ABANDONED_S + 60, DIGESTS),
        logged("of another program", "PENDING", registration.ABANDONED_S + 60, {}),
    )
    assert registration._find_complete_model(cast(Any, client), "run", "b0", DIGESTS) == "complete"
    assert client.deleted == []
    registration._delete_abandoned(cast(Any, client), "1", "b0")
    assert client.deleted == ["died"]
