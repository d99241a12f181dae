"""Versions are compared with a data set before it is written."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conf import compose, schema
from flows import evaluate, explain, gate, reproduce, transfer
from infra import store
from infra.errors import ConfigError, DataError
from infra.tracking import registry
from models.results import ShardResult
from tasks import classes, shard
from tasks.experiments.explain import Candidate
from tasks.reproduction import ReproductionRun

MODEL, WEIGHTS = schema.Model(), ("s3://b/weights", "1" * 64)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Images of cats and dogs."""
    noise = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(30):
            pixels = noise.integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{number}.png")
    return tmp_path / "pets"


def answers(value: Any) -> Callable[..., Awaitable[Any]]:
    async def answer(*_: object) -> Any:
        return value

    return answer


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """One version, of cars; tasks run without Prefect, and nothing may be written."""

    async def plan(data: schema.Data, storage: str, fewest_classes: int) -> shard.ShardPlan:
        return await shard.plan_shards.fn(data, storage, fewest_classes)

    async def match(*arguments: Any) -> Any:
        return await classes.match_classes.fn(*arguments)

    monkeypatch.setattr(registry, "resolve_version", lambda _: registry.Version("cars", 1, "run", (), {}))
    monkeypatch.setattr(registry, "describe", lambda _: {"class_names": ["audi", "bmw"]})
    monkeypatch.setattr(evaluate, "match_classes", match)
    for flow in (evaluate, explain, gate):
        monkeypatch.setattr(flow, "plan_shards", plan)
        monkeypatch.setattr(flow, "fetch_registered", answers((MODEL, WEIGHTS, "cars/1")))
        monkeypatch.setattr(flow, "write_shards", refuse_to_write)


async def refuse_to_write(*_: object) -> None:
    pytest.fail("the data set is written")


def configure(flow: ModuleType, monkeypatch: pytest.MonkeyPatch, config: schema.Config) -> None:
    monkeypatch.setattr(flow, "configure", lambda *_, **__: (config, []))


@pytest.mark.parametrize("verb", ["evaluate", "explain"])
def test_other_classes_are_refused_before_the_data_set_is_written(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    data, storage = schema.Data(name="pets", source="folder", path=str(pets)), f"file://{tmp_path}/store"
    config = schema.Config(profile="laptop", data=data, storage=storage, model_ref="cars/1")
    configure(evaluate, monkeypatch, config)
    monkeypatch.setattr(explain, "list_candidates", answers([Candidate("cars/1", "baseline", MODEL, "cars/1")]))
    with pytest.raises(ConfigError, match=r"cars/1 was trained on other classes than those of pets: class 0 is 'audi'"):
        asyncio.run(evaluate.evaluate.fn([]) if verb == "evaluate" else explain.draw_gallery.fn(config, []))
    assert not [uri for uri in store.list_uris(storage) if uri.endswith(".tar")]


def test_a_gate_whose_weights_cannot_be_evaluated_writes_no_data_set(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, storage = schema.Data(name="pets", source="folder", path=str(pets)), f"file://{tmp_path}/store"
    weights = schema.Gate(weights=["/nowhere/tf_efficientnet_b0_aa-00000000.pth"])
    config = schema.Config(profile="laptop", data=data, storage=storage, gate=weights)
    monkeypatch.setattr(gate, "import_published", answers(SimpleNamespace(name="cars", version=1)))
    (check,) = asyncio.run(gate.check_accuracies(config))
    assert (check.name, check.outcome) == ("weights of efficientnet_b0", "failed")
    assert check.text.startswith("cars/1 was trained on other classes than those of pets")


@pytest.mark.parametrize("verb", ["transfer", "reproduce"])
def test_a_transfer_set_that_lacks_a_class_is_refused_before_any_set_is_written(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    for part, names in {"train": ("cat", "dog"), "val": ("cat",)}.items():
        for name in names:
            shutil.copytree(pets / name, tmp_path / "split" / part / name)
    data = schema.Data(name="split", source="folder", path=str(tmp_path / "split"))
    config = compose.compose([f"storage=file://{tmp_path}/store", "transfer.sets=[]"])
    config = replace(config, data=data, transfer=replace(config.transfer, data=data))
    flow = import_module(f"flows.{verb}")
    monkeypatch.setattr(flow, "plan_shards", shard.plan_shards.fn)
    monkeypatch.setattr(flow, "write_shards", refuse_to_write)
    monkeypatch.setattr(transfer, "fetch_source", answers((MODEL, WEIGHTS, None)))
    configure(reproduce, monkeypatch, config)
    monkeypatch.setattr(reproduce, "set_configs", lambda *_: [config])
    monkeypatch.setattr(reproduce, "start_reproduction", answers(ReproductionRun("", 0.0, None)))
    monkeypatch.setattr(reproduce, "check_networks", answers(None))
    ended = transfer.transfer_network.fn(config, [config], []) if verb == "transfer" else reproduce.reproduce.fn([])
    with pytest.raises(DataError, match=r"^split: 1 of 2 classes have no image in test: dog$"):
        asyncio.run(ended)


@pytest.mark.parametrize(("is_val_drawn", "source"), [(True, "folder"), (False, "folder"), (True, "mnist5k")])
def test_a_val_that_is_drawn_from_a_folder_is_said_with_its_number(
    is_val_drawn: bool, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    shards = ShardResult("mine", "file:///manifest.json", "sha256", 2, 10, 1, 1, 3, reused=True)
    plan = shard.ShardPlan("file:///root", [], shards, "mine", ("a", "b"), is_val_drawn=is_val_drawn)
    evaluate.warn_of_drawn_val(schema.Data(name="mine", source=source, path="/images"), plan, shards)
    said = "mine has no split val: 1 of its 12 images, which are drawn, are evaluated; data.val_folders=[.] takes all"
    assert (said in caplog.text) is (is_val_drawn and source == "folder")
