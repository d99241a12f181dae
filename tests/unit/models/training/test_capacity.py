"""Whether a training on a GPU recomputes its activations is decided before the first step, by planned memory."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from checkout import ROOT

from conf import compose, schema
from models.networks.memory import plan
from models.training import capacity
from models.training.distributed import Ranks

GPU = torch.device("cuda", 0)


def job(name: str, **recipe: object) -> schema.Job:
    paper = compose.compose(["profile=paper"])
    model = replace(paper.model, name=f"efficientnet_{name}")
    return schema.Job(kind="train", model=model, recipe=replace(paper.recipe, **recipe))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "gigabytes", "expected"),
    [("b6", 141, False), ("b7", 141, True), ("b7", 157, True), ("b7", 158, False), ("b4", 80, False), ("b4", 24, True)],
)
def test_what_exceeds_four_fifths_of_the_memory_is_recomputed(
    name: str, gigabytes: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planned steps of 64 images have 125.7 GB (B7) and 20 to 64 GB (B4)."""
    memory = SimpleNamespace(total_memory=gigabytes * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: memory)  # no GPU is needed
    assert capacity.must_recompute(job(name), 1000, Ranks(0, 8, GPU)) == expected


def test_the_comment_of_the_imagenette_profile_has_the_planned_memory() -> None:
    config = compose.compose(["profile=imagenette", "data.path=images"])
    words = " ".join((ROOT / "conf/profile/imagenette.yaml").read_text().replace("#", "").split())
    planned = [
        [
            round(plan(schema.Model(name=f"efficientnet_b{phi}"), recipe, 10, 1, bf16=True).total / 1e9)
            for phi in (4, 5, 6, 7)
        ]
        for recipe in (config.recipe, replace(config.recipe, recompute=True))
    ]
    assert "plans {} GB of a GPU for B4, {} for B5, {} for B6 and {} for B7".format(*planned[0]) in words
    assert "recomputed, with {}, {}, {} and {} GB".format(*planned[1]) in words


def test_a_setting_holds_anywhere_and_neither_a_cpu_nor_a_pipeline_decides_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert capacity.must_recompute(job("b0", recompute=True), 1000, Ranks(0, 8, GPU))
    assert not capacity.must_recompute(job("b7"), 1000, Ranks(0, 8, torch.device("cpu")))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=10**9))
    assert not capacity.must_recompute(job("b7"), 1000, Ranks(0, 8, GPU, stages=2))
