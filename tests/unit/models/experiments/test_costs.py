"""Costs before a training: images as they are sharded, speeds as they were measured."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from matrix import with_slow_rest

from conf import compose, schema
from infra import machine
from models.data.shards.split import split_indices
from models.data.sources import catalog
from models.experiments.costs import count_splits, plan_trainings
from models.experiments.processors import AVX2_CORE, CPU_CORE, Processor, cpu, gpu
from models.experiments.work import Work
from models.networks.build import compute_cost


@pytest.mark.parametrize(
    "words", with_slow_rest([["data=mnist5k"], ["data=digits"], ["data=mnist5k", "data.limit=700"]])
)
def test_the_splits_are_those_that_are_sharded(words: list[str]) -> None:
    data = compose.compose(words).data
    indices = split_indices(catalog.open_source(data), data)
    assert count_splits(data) == tuple(len(indices[split]) for split in ("train", "minival", "val"))


def test_every_image_of_a_published_set_without_a_val_is_val_in_one_fold() -> None:
    source = catalog.open_source(compose.compose(["data=digits"]).data)
    vals = []
    for fold in range(5):
        data = compose.compose(["data=digits", "data.val_share=0.2", "data.folds=5", f"data.fold={fold}"]).data
        indices = split_indices(source, data)
        whole = np.concatenate([indices[split] for split in ("train", "minival", "val")])
        assert sorted(whole.tolist()) == list(range(len(source.labels)))
        assert count_splits(data) == pytest.approx([len(indices[s]) for s in ("train", "minival", "val")], abs=1)
        vals.append(indices["val"])
    assert sorted(np.concatenate(vals).tolist()) == list(range(len(source.labels)))
    assert max(map(len, vals)) - min(map(len, vals)) <= 1


@pytest.mark.slow
def test_the_paper_s_minival_is_counted() -> None:
    assert count_splits(compose.compose(["data=imagenet"]).data) == (1_281_167 - 25_022, 25_022, 50_000)
    flowers = compose.compose(["data=flowers102"]).data
    assert count_splits(flowers) == (1_020, 1_020, 6_149)
    assert count_splits(replace(flowers, minival="cut", minival_share=0.1)) == (1_836, 204, 6_149)
    assert count_splits(compose.compose(["data=folder"]).data) is None


def test_the_speeds_are_those_of_the_networks_that_were_measured() -> None:
    laptop = compose.compose(["profile=laptop"]).model
    small = [compute_cost(replace(laptop, name=f"efficientnet_{name}"), 10)[1] for name in ("b0", "b4", "b7")]
    large = [compute_cost(schema.Model(name=f"efficientnet_{name}"), 1000)[1] for name in ("b0", "b3", "b4")]
    b7 = compute_cost(schema.Model(name="efficientnet_b7", resolution=160 / 600), 1000)[1]
    for core in (CPU_CORE, AVX2_CORE):
        assert [size for size, _ in core.speeds] == [*small, *large[:2], b7]
    assert [gpu().images_per_s(size) for size in (large[0], large[2])] == pytest.approx([4930, 736])
    for processor in (CPU_CORE, AVX2_CORE, gpu()):
        for size, speed in processor.speeds:
            assert processor.images_per_s(size) == pytest.approx(speed)


@pytest.mark.parametrize(("has_avx512", "core"), [(True, CPU_CORE), (False, AVX2_CORE)])
def test_the_cores_of_this_machine_have_the_speeds_of_their_kind(
    has_avx512: bool, core: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_avx512", lambda: has_avx512)
    monkeypatch.setattr(machine, "cores", lambda: 6)
    assert cpu() == replace(core, count=6)


def test_between_measured_sizes_the_speed_falls_and_beyond_them_it_is_not_better_than_measured() -> None:
    (small, fast), (second, slower) = gpu().speeds[:2]
    largest, slowest = gpu().speeds[-1]
    assert gpu().images_per_s(round((small * second) ** 0.5)) == pytest.approx((fast * slower) ** 0.5, rel=1e-6)
    assert gpu().images_per_s(small // 100) == fast
    assert gpu().images_per_s(10 * largest) == pytest.approx(slowest / 10)
    sizes = [CPU_CORE.images_per_s(10**exponent) for exponent in range(4, 12)]
    assert all(first >= second for first, second in itertools.pairwise(sizes))
    assert Work("", 1, 1, 9860, 0, small, 0).seconds(gpu()) == pytest.approx(2.0)


def test_a_reproduction_is_its_search_its_variants_and_their_transfer() -> None:
    config = compose.compose(["profile=laptop", "variants=[efficientnet_b0,efficientnet_b7]"])
    planned = plan_trainings(config, [config.transfer.data])
    works = planned.works
    assert [(work.name, work.jobs, work.steps) for work in works] == [
        ("grid search", 5, 1350),
        ("train efficientnet_b0", 1, 432),
        ("train efficientnet_b7", 1, 432),
        ("transfer efficientnet_b0", 1, 102),
        ("transfer efficientnet_b7", 1, 102),
        ("activation maps", 5, 810),
    ]
    assert planned.unknown == ()
    seeded = plan_trainings(replace(config, search=replace(config.search, seeds=3)), []).works
    assert (seeded[0].jobs, seeded[0].steps) == (15, 3 * 1350)
    assert works[1].stored == 4 * 126_822 * (config.recipe.keep_checkpoints * 4 + 2)


def test_a_search_that_would_be_refused_is_named_and_the_rest_is_counted() -> None:
    config = compose.compose(["search.tolerance=0.0001", "variants=[efficientnet_b0]"])
    planned = plan_trainings(config, [])
    assert [work.name for work in planned.works] == ["train efficientnet_b0", "activation maps"]
    assert planned.unknown[0].startswith("grid search: no point of the grid has alpha*beta^2*gamma^2 within 0.0001")


def test_the_scaling_study_at_equal_cost_counts_that_cost() -> None:
    words = ["scaling.points=[{network:efficientnet_b0},{network:efficientnet_b0,dimension:width,width:2}]"]
    config = compose.compose([*words, "scaling.seeds=3", "scaling.equal_cost=4"])
    [work] = plan_trainings(config, [], "scaling").works
    baseline = compute_cost(config.model, 10)[1]
    assert (work.jobs, work.multiply_adds) == (6, pytest.approx(baseline * 5 / 2, rel=0.05))
