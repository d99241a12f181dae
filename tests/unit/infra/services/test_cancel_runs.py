"""Which flow runs end with the embedded worker, by the answers of a stand-in for Prefect."""

from __future__ import annotations

from typing import Any

import pytest

from infra.services import deployments
from infra.services.prefect_api import PrefectApi


def flow_run(name: str, worker: str | None, state: str = "RUNNING") -> dict[str, Any]:
    labels = {} if worker is None else {"prefect.worker.name": worker}
    return {"id": name, "name": name, "state_type": state, "labels": labels}


def test_only_the_runs_of_the_embedded_worker_are_cancelled_and_the_others_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = {
        run["id"]: run
        for run in (
            flow_run("flow", "embedded"),
            flow_run("job", "embedded-jobs"),
            flow_run("just-taken", None, "PENDING"),
            flow_run("far", "gpu2"),
            flow_run("ending", "gpu3", "CANCELLING"),  # by its own flow
        )
    }
    cancelled: list[str] = []

    def call(_: PrefectApi, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/flow_runs/filter":
            return 200, list(runs.values())
        cancelled.append(path.split("/")[2])
        runs.pop(cancelled[-1])
        assert body == {"state": {"type": "CANCELLING"}}
        return 201, {}

    monkeypatch.setattr(deployments, "call", call)
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert deployments.cancel_runs(PrefectApi("http://127.0.0.1:1/api")) == ["far on worker gpu2"]
    assert cancelled == ["flow", "job", "just-taken"]
