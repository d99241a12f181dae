"""The photographs as a flow: its runs in MLflow are below that of a reproduction."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from conf import compose
from flows import photographs
from infra.tracking import runs
from models.results import Registered
from tasks.registry import pretrained


class Started(Exception):  # noqa: N818 - no error, the end of what is tried
    """A run in MLflow was about to be started."""


def test_the_import_of_a_network_is_a_run_below_the_reproduction(monkeypatch: pytest.MonkeyPatch) -> None:
    parents: list[str | None] = []

    def start_run(*_: object, parent: str | None = None, **__: object) -> str:
        parents.append(parent)
        raise Started

    async def read(_: object) -> dict[str, bytes]:
        return {}

    async def find(*_: object) -> None:
        return None

    async def import_published(*arguments: Any) -> Registered:
        return pretrained._import(*arguments)

    monkeypatch.setattr(runs, "start_run", start_run)
    for name, function in (("read_photographs", read), ("find_drawn", find), ("import_published", import_published)):
        monkeypatch.setattr(photographs, name, function)
    config = compose.compose(["photographs.networks=[efficientnet_lite0]"])
    for parent in ("reproduction", ""):
        with pytest.raises(Started):
            asyncio.run(photographs.map_photographs.fn(config, parent))
    assert parents == ["reproduction", None]
