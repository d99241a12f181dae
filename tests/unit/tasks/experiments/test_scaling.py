"""The bookkeeping of the scaling study: its points as overrides, and what is refused or leaves no part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import made_results
import pytest

from conf.compose import compose
from conf.schema import Config, Point
from flows import scaling
from infra.errors import ConfigError, DivergedError, TransientError
from infra.tracking import runs
from models.experiments.scaling_study import network_of, title
from models.results import ShardResult, TrainResult
from tasks.experiments import scaling as study

pytest.importorskip("pytorchcv", reason="the related work's networks: pip install --no-deps pytorchcv==0.0.74")

SHARDS = ShardResult("digits", "file:///m", "0", 10, 800, 100, 120, 5, reused=True)


def test_a_point_s_multipliers_come_on_top_of_the_profile_s() -> None:
    config = compose(["model.width=0.5", "model.depth=0.2", "model.resolution=0.25"])
    point = Point("resnet50", "compound", width=1.2, depth=1.5, resolution=2.0)
    again = study.point_config(config, point).model
    assert again == network_of(config.model, point)
    assert (again.name, again.width, again.resolution) == ("resnet50", 0.6, 0.5)
    assert again.depth == pytest.approx(0.3)
    assert title(point) == "resnet50 compound d1.5 w1.2 r2"


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("[]", "is empty"),
        ("[{network:resnet51}]", "no network named 'resnet51'; did you mean 'resnet50'"),
        ("[{network:resnet50,dimension:resolution,resolution:0.5}]", "12 px are too few for resnet50"),
    ],
)
def test_a_study_that_cannot_be_is_refused_before_anything_is_begun(points: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study._start(compose([f"scaling.points={points}"]))


def config_of(*points: str) -> Config:
    return compose([f"scaling.points=[{','.join(points)}]"])


def trained(top1: float) -> TrainResult:
    return made_results.trained(top1=top1, top5=99.0, n_val=120)


@pytest.mark.parametrize(
    ("results", "raised"),
    [
        ([trained(91.5), TransientError("the store does not answer")], TransientError),  # of all points, not of one
        ([DivergedError("first"), DivergedError("second")], DivergedError),
    ],
)
def test_a_study_that_cannot_be_summed_up_ends_with_the_error_and_records_nothing(
    results: list[Any], raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the flow: Prefect would repeat a task after an error that the trainings have been repeated after already."""
    trainings, ended = iter(results), []
    config = config_of("{network:resnet50}", "{network:resnet50,dimension:width,width:2.0}")

    async def train(*_: object) -> TrainResult:
        if isinstance(one := next(trainings), BaseException):
            raise one
        return one

    def step(answer: object) -> Callable[..., Coroutine[Any, Any, object]]:
        async def run(*_: object) -> object:
            return answer

        return run

    async def record(*_: object) -> None:
        pytest.fail("recorded")

    steps = {"start_scaling": step("run"), "link_run": step(None), "ensure_folds": step([SHARDS])}
    steps |= {"match_costs": step(config), "train_network": train, "record_scaling": record}
    for name, function in steps.items():
        monkeypatch.setattr(scaling, name, function)
    monkeypatch.setattr(runs, "finish_run", lambda run, status, _: ended.append(f"{run} {status}"))
    with pytest.raises(raised):
        asyncio.run(scaling.study_scaling.fn(config))
    assert ended == ["run FAILED"]
