"""The source of a transfer: a registered network brings its evaluation crop and interpolation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from conf import compose, schema
from flows import transfer
from infra.errors import TransientError
from tasks.shard import ShardPlan


def test_a_set_is_read_as_the_registered_network_was_unless_the_command_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered = schema.Augment(eval_crop_pad=7, eval_interpolation="bilinear")

    async def read(ref: str, augment: schema.Augment, key: str, overrides: Sequence[str]) -> schema.Augment:
        assert (ref, key, augment) == ("b1/2", "transfer.data.augment", config.transfer.data.augment)
        return augment if "transfer.data.augment.eval_crop_pad=1" in overrides else registered

    monkeypatch.setattr(transfer, "registered_input", read)
    config, model = compose.compose([]), schema.Model(name="efficientnet_b1")
    taken = asyncio.run(transfer.with_source(config, model, "b1/2", []))
    assert (taken.model, taken.transfer.data.augment) == (model, registered)
    assert taken.data == config.data
    kept = asyncio.run(transfer.with_source(config, model, "b1/2", ["transfer.data.augment.eval_crop_pad=1"]))
    assert kept.transfer == config.transfer
    trained_here = asyncio.run(transfer.with_source(config, model, None, []))
    assert trained_here.transfer == config.transfer


def test_a_data_set_that_fails_is_recorded_once_and_its_error_ends_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[object] = []

    def step(answer: object) -> Callable[..., Coroutine[Any, Any, object]]:
        async def run(*_: object) -> object:
            return answer

        return run

    async def fail(*_: object) -> None:
        raise TransientError("the store does not answer")

    async def record(_config: object, command: object, _plans: object, results: Sequence[object]) -> None:
        recorded.extend([command, *results])

    config = compose.compose([])
    steps = {"fetch_source": step((config.model, ("s3://b/weights", "1" * 64), "b0/1")), "with_source": step(config)}
    steps["plan_shards"] = step(ShardPlan("", [], None, "made", ("ant", "bee")))
    steps |= {name: step(None) for name in ("write_shards", "ensure_folds", "plan_transfer")}
    steps |= {"fine_tune": fail, "record_transfer": record}
    for name, function in steps.items():
        monkeypatch.setattr(transfer, name, function)
    monkeypatch.setattr(transfer, "announce", lambda _: None)
    words = ["model=b3", "nightly.alerts.webhook=https://hooks.example/S3CRET"]  # the second is the worker's
    with pytest.raises(TransientError):
        asyncio.run(transfer.transfer_network.fn(config, [config], words))
    assert [str(one) for one in recorded] == ["effnet transfer model=b3", "the store does not answer"]
