"""Every refusal of the search, the maps and the transfer, by the smallest input that causes it, before any job."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from made_set import MadeSet, write_set
from matrix import with_slow_rest

from conf import compose, overrides
from infra.errors import ConfigError, DataError, NotFoundError
from infra.tracking import registry
from models.data.shards import manifest as manifests
from models.networks import packaged
from models.networks.build import check_names
from models.results import ShardResult
from tasks import preflight
from tasks.shard import ShardPlan

WORDS = ["data=digits", "recipe.global_batch=64", "explain.count=2", "transfer.recipe.global_batch=64"]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[registry.Version]]:
    """Versions in the registry, by model."""
    versions: dict[str, list[registry.Version]] = {}
    monkeypatch.setattr(registry, "versions", lambda name: versions.get(name, []))
    return versions


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeSet:
    return write_set(f"file://{tmp_path_factory.mktemp('set')}", {"train": [80, 80], "minival": [10], "val": [30]})


def sharded(made: MadeSet) -> ShardResult:
    sha256, _ = manifests.load(made.uri)
    return ShardResult("made", made.uri, sha256, 10, train=160, minival=10, val=30, shards=4, reused=True)


def check(made: MadeSet, *words: str, transfer_to: MadeSet | None = None) -> None:
    config = compose.compose(overrides.replace(WORDS, words))
    check_names("variants", config.variants)
    preflight._check_networks(config, ShardPlan("", [], None, "made", made.manifest.classes))
    preflight._check(config, [config], sharded(made), [sharded(transfer_to or made)])


def test_a_reproduction_that_can_reach_its_end_is_accepted(made: MadeSet) -> None:
    check(made)
    check(made, "explain.count=99")  # fewer images than classes: a smaller gallery
    # Registered by the reproduction itself before the maps are drawn; and a recipe by which nothing is trained.
    registered = "explain.models=[{registered:efficientnet-b0@champion}]"
    check(made, registered, "explain.recipe.global_batch=192")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["variants=[b0,rsenet50]"],
            r"unknown network 'b0' \(did you mean 'efficientnet_b0'\?\), 'rsenet50' \(did you",
        ),
        (["variants=[zzzz]"], r"unknown network 'zzzz'; choices: efficientnet_b0, "),
        (["variants=[resnet50,efficientnet_b0,resnet50]"], r"^variants names 'resnet50' more than once"),
        (["variants=[efficientnet_b0,resnet50]", "model.resolution=0.02"], r"px are too few for efficientnet_b0"),
        (["recipe.global_batch=192"], r"^recipe\.global_batch 192 is larger than the 160 training samples"),
        (["search.recipe.global_batch=192"], r"^search\.recipe\.global_batch 192 is larger than the 160"),
        (["search.recipe.batch_slices=7"], r"^search\.recipe\.global_batch 64 cannot be divided"),
        (["explain.recipe.global_batch=192"], r"^explain\.recipe\.global_batch 192 is larger than the 160"),
        (["transfer.recipe.global_batch=192"], r"^transfer\.recipe\.global_batch 192 is larger than the 160"),
        (["launch.nproc_per_node=3"], r"^search\.recipe\.batch_slices 2 cannot be distributed evenly over 3"),
        (["explain.images=[7,30]"], r"made: val has no image 30; ids are 0 to 29"),
        (["explain.models=[{},{}]"], r"explain\.models names 'b0' twice"),
        (["explain.models=[{network:efficientnet_b9}]"], r"no network named 'efficientnet_b9'; did you mean"),
        (["photographs.images=[/nowhere/x.jpg]"], r"photographs\.images: no file /nowhere/x\.jpg"),
        (["photographs.images=[/a/x.jpg,/b/x.png]"], r"photographs\.images: two files have the same name"),
    ],
)
def test_what_a_later_step_would_refuse_is_refused(made: MadeSet, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(made, *words)


@pytest.mark.parametrize(("split", "called"), [("train", "train"), ("val", "test")])
def test_a_transfer_set_that_lacks_a_class_is_refused(made: MadeSet, tmp_path: Path, split: str, called: str) -> None:
    table = made.manifest.table.copy()
    rows = np.repeat([shard.split for shard in made.manifest.shards], [80, 80, 10, 30])
    table["label"][(rows == split) & (table["label"] == 4)] = 5
    root = tmp_path.as_uri()
    manifests.save(dataclasses.replace(made.manifest, table=table), root)
    lacking = dataclasses.replace(made, uri=f"{root}/{made.uri.rpartition('/')[2]}")
    with pytest.raises(DataError, match=f"made: 1 of 10 classes have no image in {called}: class 4$"):
        check(made, transfer_to=lacking)


def test_photographs_and_their_networks_are_read_before_the_first_job(
    made: MadeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.jpg").write_bytes(b"<html>")
    with pytest.raises(DataError, match="photograph x: neither JPEG nor PNG, but web page"):
        check(made, f"photographs.images=[{tmp_path}/x.jpg]")
    monkeypatch.setitem(packaged.WEIGHTS, "efficientnet_lite0", ("no_such_package", "x.pth"))
    with pytest.raises(NotFoundError, match=r"x\.pth of the Python package no_such_package is not installed"):
        check(made)


def test_an_alias_that_no_step_sets_is_looked_up(made: MadeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(ref: str) -> None:
        raise ConfigError(f"no alias: {ref}")

    monkeypatch.setattr(registry, "resolve_version", resolve)
    check(made, "explain.models=[{registered:efficientnet-b0@challenger}]")
    for ref in ("efficientnet-b0@chmpion", "efficientnet-b0/7", "resnet50@champion"):
        with pytest.raises(ConfigError, match=f"no alias: {ref}"):
            check(made, f"explain.models=[{{registered:{ref}}}]")
    with pytest.raises(ConfigError, match="no alias: efficientnet-b0@champion"):  # it will wait for an approval
        check(made, "explain.models=[{registered:efficientnet-b0@champion}]", "nightly.approval=true")


def test_a_registered_model_of_others_with_the_name_of_a_variant_is_refused(
    made: MadeSet, registered: dict[str, list[registry.Version]]
) -> None:
    registered["efficientnet-b0"] = [registry.Version("efficientnet-b0", 1, "run", ("champion",), {"theirs": "yes"})]
    with pytest.raises(ConfigError, match="MLflow has a model efficientnet-b0 that is not effnet's"):
        check(made)
    ours = registry.Version("efficientnet-b0", 2, "run", (), {registry.WEIGHTS_TAG: "0" * 64})
    registered["efficientnet-b0"].append(ours)
    check(made)


def test_a_set_of_a_single_class_is_refused_for_every_training(made: MadeSet) -> None:
    config = compose.compose(WORDS)
    single = dataclasses.replace(sharded(made), classes=1)
    with pytest.raises(ConfigError, match="made has a single class; a classifier needs two or more"):
        preflight._check(config, [config], single, [sharded(made)])
    with pytest.raises(ConfigError, match="made has a single class"):
        preflight._check(config, [config], sharded(made), [single])


STUDY = ["profile=study", "data=digits", "recipe.global_batch=64", "transfer.recipe.global_batch=64"]
STUDY += ["architecture.recipe.global_batch=64", "data.folds=1", "data.val_share=0.2"]


def check_study(made: MadeSet, tmp_path: Path, *words: str) -> None:
    config = compose.compose(overrides.replace(STUDY, [f"run_dir={tmp_path}", *words]))
    preflight._check_study(config, [sharded(made)] * 3)


def test_a_study_that_can_reach_its_end_is_accepted(made: MadeSet, tmp_path: Path) -> None:
    check_study(made, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    with_slow_rest(
        [
            (["recipe.global_batch=192"], r"^recipe\.global_batch 192 is larger than the 160 training samples"),
            (
                ["architecture.recipe.global_batch=192"],
                r"^architecture\.recipe\.global_batch 192 is larger than the 160",
            ),
            (["transfer.recipe.global_batch=192"], r"^transfer\.recipe\.global_batch 192 is larger than the 160"),
            (["architecture.target_multiply_adds=1e3"], "B0's own blocks break the search's constraints"),
            (["architecture.storage=nosuch://host/x"], r"^architecture\.storage=nosuch://host/x: "),
            (["latency.pairs=[{ours:efficientnet_b1,rival:resnet153}]"], "no network named 'resnet153'"),
            (
                ["scaling.points=[{network:b0,dimension:baseline}]"],
                "no network named 'b0'; did you mean 'efficientnet_b0'",
            ),
        ]
    ),
)
def test_what_a_later_part_of_a_study_would_refuse_is_refused(
    made: MadeSet, words: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_study(made, tmp_path, *words)


def test_names_need_no_service_to_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.cli import session

    monkeypatch.setattr(session.stack, "up", lambda *_, **__: pytest.fail("services started"))
    words = ["variants=[b0]", f"run_dir={tmp_path}"]
    with pytest.raises(ConfigError, match="did you mean 'efficientnet_b0'"):
        session.run("reproduce", compose.compose(words), words)
    with pytest.raises(ConfigError, match="no network named 'efficientnet_b33'; did you mean 'efficientnet_b3'"):
        session.run("train", compose.compose(words := ["data=digits", "model.name=efficientnet_b33"]), words)
