"""The reproduction as a flow: what a failed part takes with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from conf import compose
from flows import reproduce
from infra.errors import ConfigError, JobError
from infra.tracking import queries, runs
from models.results import GalleryResult, Summary
from tasks import reproduction
from tasks.reproduction import ReproductionRun
from tasks.shard import ShardPlan


def answers(value: object) -> Callable[..., Coroutine[Any, Any, object]]:
    async def step(*_: object) -> object:
        if isinstance(value, BaseException):
            raise value
        return value

    return step


def test_a_failed_grid_search_is_a_missing_part_and_the_family_and_the_report_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[str] = []
    published: list[Summary] = []

    async def train(_config: object, name: str, *_: object) -> None:
        trained.append(name)
        raise JobError(f"{name} is not trained in this test")

    async def publish(_config: object, summary: Summary, _run: str) -> None:
        published.append(summary)

    steps: dict[str, object] = {
        "start_reproduction": ReproductionRun("run", 0.0, None),
        "plan_shards": ShardPlan("", [], None, "made", ("ant", "bee")),
        "check_networks": None,
        "write_shards": None,
        "check_reproduction": None,
        "search_grid": ConfigError("all 9 points of the grid count too far from the budget"),
        "draw_gallery": GalleryResult(),
    }
    for name, value in steps.items():
        monkeypatch.setattr(reproduce, name, answers(value))
    monkeypatch.setattr(reproduce, "reproduce_variant", train)
    monkeypatch.setattr(reproduce, "publish", publish)
    monkeypatch.setattr(reproduction, "keep_first_duration", lambda _config, summary: summary)
    monkeypatch.setattr(reproduction, "publish_transfer", lambda _config, failed: None)
    monkeypatch.setattr(reproduction, "present_services", dict)
    monkeypatch.setattr(queries, "list_workers", lambda _: [])
    monkeypatch.setattr(runs, "finish_run", lambda *_: None)
    finish = reproduction.finish_reproduction.fn
    monkeypatch.setattr(reproduce, "finish_reproduction", finish)
    words = ["variants=[efficientnet_b0,efficientnet_b1]", "photographs.networks=[]"]
    with pytest.raises(ConfigError, match="all 9 points of the grid"):
        asyncio.run(reproduce.reproduce.fn(words))
    assert trained == list(compose.compose(words).variants)
    (summary,) = published
    assert summary.search is None
    assert summary.missing == (
        "grid search: all 9 points of the grid count too far from the budget",
        *(f"{name}: {name} is not trained in this test" for name in trained),
    )
