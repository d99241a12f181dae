"""A shard that is damaged in the store: rewritten with identical bytes, or excluded and recorded."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch
from made_set import write_set
from PIL import Image

from conf import compose
from conf.schema import Augment, Config, Data, Recipe
from flows.cli.summary import describe_result
from infra import store
from infra.errors import ConfigError
from models.data.loading.loader import Loader
from models.data.shards import manifest as manifests
from models.data.shards import writer
from tasks.jobs import evaluate_job, train_job
from tasks.shard import ShardPlan, _plan, _write_group, _write_manifest


@pytest.fixture
def data(tmp_path: Path) -> Data:
    for number in range(40):
        path = tmp_path / "images" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return Data(name="made", source="folder", path=str(tmp_path / "images"), samples_per_shard=8, minival_share=0.1)


def written(data: Data, plan: ShardPlan) -> int:
    return sum(_write_group(data, plan.root, numbers) for numbers in plan.groups)


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_a_lost_shard_is_rewritten_with_identical_bytes(damage: str, data: Data, tmp_path: Path) -> None:
    storage = f"file://{tmp_path}/store"
    first = _plan(data, storage)
    assert written(data, first) == 6
    done = _write_manifest(data, first.root)
    lost = f"{first.root}/train-00001-of-00004.tar"
    before = {uri: store.read(uri) for uri in store.list_uris(first.root)}
    if damage == "deleted":
        store.delete(lost)
    else:
        store.write(lost, before[lost][:1024])
    again = _plan(data, storage)
    assert again.done is None
    assert again.groups == [[1]]
    assert written(data, again) == 1
    assert _write_manifest(data, again.root).manifest_sha256 == done.manifest_sha256
    assert {uri: store.read(uri) for uri in store.list_uris(first.root)} == before
    plan = _plan(data, storage)
    assert plan.done is not None
    assert plan.done.reused


def test_a_loader_that_excludes_a_shard_reads_every_other_sample_once(tmp_path: Path) -> None:
    made = write_set(f"file://{tmp_path}/set", {"train": [8, 6, 9], "val": [5]})
    name = "train-00001-of-00003.tar"
    store.delete(f"file://{tmp_path}/set/{name}")
    rest = manifests.exclude_shards(made.manifest, [name])
    assert (len(rest.table), rest.samples("train"), rest.samples("val")) == (22, 17, 5)
    assert rest.missing == (f"{name} is excluded: 6 samples",)
    with closing(Loader(rest, made.uri, "train", 16, Augment(), tmp_path / "cache", 2)) as loader:
        batches = list(loader.eval_batches(8, 0, 1))
    labels = torch.cat([batch.labels for batch in batches]).tolist()
    assert labels == [number % 10 for number in (*range(8), *range(14, 23))]


def test_excluding_an_unknown_shard_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    made = write_set(f"file://{tmp_path}/set", {"train": [8, 6], "val": [5]})
    with pytest.raises(
        ConfigError, match=r"made has no shard 'train-0000.tar'; did you mean 'train-0000\d-of-00002.tar'\?"
    ):
        manifests.exclude_shards(made.manifest, ["train-0000.tar"])


def test_jobs_that_exclude_a_shard_have_another_key_and_record_it(data: Data, tmp_path: Path) -> None:
    storage = f"file://{tmp_path}/store"
    plan = _plan(data, storage)
    written(data, plan)
    whole = _write_manifest(data, plan.root)
    _, manifest = manifests.load(whole.manifest_uri)
    sizes = {shard.name: shard.samples for shard in manifest.shards}
    data.leave_out = ["val-00000-of-00001.tar", "train-00002-of-00004.tar"]
    rest = _plan(data, storage).done
    assert rest is not None
    assert (rest.train, rest.minival, rest.val) == (whole.train - sizes[rest.left_out[0]], whole.minival, 0)
    assert rest.left_out == ("train-00002-of-00004.tar", "val-00000-of-00001.tar")
    config = Config(profile="paper", storage=storage, data=data)
    recipe = Recipe(global_batch=4, batch_slices=1)
    first, second = (train_job(config, data, recipe, shards, None) for shards in (whole, rest))
    assert first.key != second.key
    assert second.job.leave_out == list(rest.left_out)
    assert evaluate_job(config, config.model, rest, ("file:///w", "1" * 64), "m/1").job.leave_out == list(rest.left_out)
    lines = describe_result(rest, compose.compose([]))
    assert lines[2:] == [f"missing    {name} is excluded: {sizes[name]} samples" for name in rest.left_out]
    assert writer.plan(data, storage).root == plan.root
