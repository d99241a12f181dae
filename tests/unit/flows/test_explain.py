"""The gallery of maps as a flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from conf import schema
from conf.compose import compose
from flows import evaluate, explain
from flows.evaluate import MatchedVersion
from infra.errors import TransientError
from models.results import EvalResult, GalleryNetwork, ShardResult
from tasks.experiments.explain import Candidate

ASSUMED = "class names unknown: assumed in the order of made"


def returns(value: Any) -> Callable[..., Awaitable[Any]]:
    async def answer(*_: object) -> Any:
        return value

    return answer


def test_what_is_assumed_about_the_classes_of_imported_weights_is_kept_with_their_maps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shards = ShardResult("made", "file:///manifest.json", "0" * 64, 10, 20, 2, 12, 3, reused=True)
    model, weights = schema.Model(), ("s3://b/weights", "1" * 64)
    recorded: list[GalleryNetwork] = []

    async def record(_config: object, _shards: object, _run: object, _candidates: object, done: Any) -> None:
        recorded.extend(done)

    answers = {
        "list_candidates": [Candidate("public/1", "baseline", model, "public/1")],
        "plan_shards": None,
        "write_shards": shards,
        "fetch_registered": (model, weights, "public/1"),
        "match_version": MatchedVersion(model, weights, "public/1", schema.Augment(), ASSUMED),
        "start_gallery": "run",
    }
    result = EvalResult("job", "public/1", "made", 50.0, 90.0, 12)
    monkeypatch.setattr(evaluate, "evaluate_task", returns(result))
    for name, value in answers.items():
        monkeypatch.setattr(explain, name, returns(value))
    monkeypatch.setattr(explain, "record_gallery", record)
    asyncio.run(explain.draw_gallery.fn(compose(["data=digits"]), []))
    assert [(network.name, network.assumed) for network in recorded] == [("public/1", ASSUMED)]


def test_a_gallery_without_any_network_ends_with_the_error_of_the_first_and_records_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shards = ShardResult("made", "file:///manifest.json", "0" * 64, 10, 20, 2, 12, 3, reused=True)
    model = schema.Model()
    candidates = [Candidate(name, "baseline", model, None) for name in ("one", "other")]

    async def fail(_config: object, candidate: Candidate, *_: object) -> GalleryNetwork:
        raise TransientError(f"{candidate.name}: the store does not answer")

    answers = {"list_candidates": candidates, "plan_shards": None, "write_shards": shards, "start_gallery": ""}
    for name, value in answers.items():
        monkeypatch.setattr(explain, name, returns(value))
    monkeypatch.setattr(explain, "obtain_network", fail)
    monkeypatch.setattr(explain, "record_gallery", lambda *_: pytest.fail("recorded"))
    with pytest.raises(TransientError, match="one: the store does not answer"):
        asyncio.run(explain.draw_gallery.fn(compose(["data=digits"]), []))
