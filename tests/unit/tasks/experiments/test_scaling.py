"""The bookkeeping of the scaling study: its points as overrides, and what is refused or leaves no part."""

from __future__ import annotations

from typing import Any

import made_results
import pytest

from conf.compose import compose
from conf.schema import Config, Point
from infra.errors import ConfigError, DivergedError, TransientError
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
def test_a_study_that_cannot_be_summed_up_leaves_no_part(
    results: list[Any], raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.tracking import runs

    ended: list[str] = []
    monkeypatch.setattr(runs, "finish_run", lambda run, status, numbers: ended.append(status))
    monkeypatch.setattr(study.report_results, "publish_part", lambda *_: pytest.fail("left a part"))
    config = config_of("{network:resnet50}", "{network:resnet50,dimension:width,width:2.0}")
    with pytest.raises(raised):
        study._record(config, "run", [SHARDS], [[result] for result in results])
    assert ended == ["FAILED"]
