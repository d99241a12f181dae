"""A champion that was trained on images of val: its answers to them prove nothing, so they are not compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import growing_folder
import numpy as np
import pytest

from conf import compose, schema
from infra import store
from infra.errors import ConfigError
from infra.tracking import queries, registry
from infra.tracking.registry import WEIGHTS_TAG, Version
from models.data.shards import frozen_val
from models.data.shards import manifest as manifests
from models.results import ShardResult
from models.training import per_image
from tasks.nights import line
from tasks.nights.start import NightStart
from tasks.registry import promote, trained_on
from tasks.registry.gate import PROMOTED, REFUSED, Verdict
from tasks.registry.verdict import VAL_SHA256

N = 800
Register = Callable[..., Version]
Shard = Callable[..., ShardResult]


@pytest.fixture
def storage(tmp_path: Path) -> str:
    (tmp_path / "store").mkdir()
    return f"file://{tmp_path}/store"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> schema.Data:
    path = tmp_path_factory.mktemp("pets")
    growing_folder.add(path, 0, N)
    return replace(schema.Data(), name="pets", source="folder", path=str(path), val_share=0.4)


@pytest.fixture(scope="module")
def shard(folder: schema.Data, tmp_path_factory: pytest.TempPathFactory) -> Shard:
    """Function that shards the folder with these settings once for all tests, which write nothing there."""
    storage = f"file://{tmp_path_factory.mktemp('store')}"

    @lru_cache(maxsize=8)
    def shard_once(changes: frozenset[tuple[str, Any]]) -> ShardResult:
        return growing_folder.shard(replace(folder, **dict(changes)), storage)

    return lambda **changes: shard_once(frozenset(changes.items()))


@pytest.fixture
def register(storage: str, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Function that adds a version, trained on the train split of some shards, to a registry in memory."""
    versions: dict[str, Version] = {}
    parents: dict[str, str] = {}

    def add_version(
        shards: ShardResult, right: int = 0, parent: str = "", start: tuple[str, str] | None = None, **tags: str
    ) -> Version:
        number = len(versions) + 1
        uri = f"{storage}/jobs/{number}"
        requested = schema.Job(
            kind="train", data_name="pets", manifest_uri=shards.manifest_uri, manifest_sha256=shards.manifest_sha256
        )
        if start is not None:
            requested.init_weights_uri, requested.init_weights_sha256 = start
        store.write(f"{uri}/config.yaml", compose.to_yaml(requested).encode())
        correct = np.arange(shards.val) < right
        result = {"weights_sha256": str(number), "class_total": [shards.val]}
        store.write_json(f"{uri}/result.json", result | {"correct_sha256": per_image.write(uri, correct)})
        made = {"job_uri": uri, "data_manifest_sha256": shards.manifest_sha256, WEIGHTS_TAG: str(number)}
        versions[f"b0/{number}"] = version = Version("b0", number, str(number), (), made | tags)
        parents[str(number)] = parent
        return version

    def read_run(run_id: str) -> queries.RunRecord:
        tags = {"parent": parents[run_id]} if parents[run_id] else {}
        return queries.RunRecord(run_id, "", "", "FINISHED", 0.0, 0.0, "", {}, {}, tags)

    def resolve(ref: str) -> Version:
        if ref not in versions:
            raise ConfigError(f"no version {ref}")
        return versions[ref]

    monkeypatch.setattr(queries, "read_run", read_run)
    monkeypatch.setattr(registry, "resolve_version", resolve)
    monkeypatch.setattr(
        registry, "find_weights", lambda sha256: [one for one in versions.values() if one.tags[WEIGHTS_TAG] == sha256]
    )
    monkeypatch.setattr(promote, "class_mismatch", lambda *_: None)
    return add_version


def count_seen(shards: ShardResult, *versions: Version, val_sha256: str | None = None) -> int:
    manifest = manifests.load(shards.manifest_uri)[1]
    return int(trained_on.find_seen(versions, shards, manifest, val_sha256).sum())


def compare(version: Version, champion: Version, shards: ShardResult) -> Verdict:
    verdict = promote._compare(version, champion, shards, schema.Nightly(), {})
    assert isinstance(verdict, Verdict), verdict
    return verdict


@pytest.mark.slow
def test_images_of_val_that_a_version_or_one_before_it_was_trained_on_are_found_by_their_content(
    shard: Shard, register: Register
) -> None:
    first, other = shard(), shard(seed=1)
    champion = register(first)
    assert count_seen(first, champion) == 0
    expected = 0.6 * other.val
    seen = count_seen(other, champion)
    assert 0.8 * expected < seen < 1.2 * expected
    grandchild = register(other, parent=f"b0/{register(other, parent='b0/1').version}")
    assert count_seen(other, grandchild) == seen, "its own train and val are apart, those of the first version are not"
    assert count_seen(other, register(other, parent="b0/99")) == 0, "a parent that was deleted"
    assert count_seen(other, Version("b0", 9, "1", (), {})) == 0, "an imported version"


@pytest.mark.slow
def test_the_lineage_of_a_version_that_no_night_has_made_is_that_of_the_weights_it_started_from(
    shard: Shard, storage: str, register: Register
) -> None:
    first, other = shard(), shard(seed=1)
    seen = count_seen(other, register(first))
    copy = f"{storage}/weights/1.safetensors"
    tuned = register(other, start=(copy, "1"))
    assert count_seen(other, tuned) == seen
    assert count_seen(other, register(other, parent=f"b0/{tuned.version}")) == seen
    unregistered = register(other, start=(f"{storage}/jobs/1/weights.safetensors", "a digest that no version has"))
    assert count_seen(other, unregistered) == seen
    assert count_seen(other, register(other, start=(copy, "of a version that was deleted"))) == 0


@pytest.mark.slow
def test_a_version_with_the_same_frozen_val_is_not_looked_up(
    shard: Shard, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = shard()
    champion = register(shard(seed=1), **{VAL_SHA256: "a"})
    assert count_seen(shards, champion, val_sha256="b") > 0
    monkeypatch.setattr(trained_on, "_load_images", lambda _: pytest.fail("its data were read"))
    assert count_seen(shards, champion, val_sha256="a") == 0


def test_only_the_images_that_neither_was_trained_on_are_compared(
    shard: Shard, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion knows the others by heart, so that the challenger would be worse on all of val."""
    earlier, shards = shard(), shard(seed=1)
    champion, challenger = register(earlier), register(shards)
    manifest = manifests.load(shards.manifest_uri)[1]
    seen = trained_on.find_seen([champion], shards, manifest, None)
    tenth, third = np.arange(shards.val) % 10, np.arange(shards.val) % 3
    ours, theirs = np.where(seen, tenth < 3, tenth > 0), seen | (third == 0)
    assert ours.mean() < theirs.mean() - 0.1
    correct = {challenger.version: ours, champion.version: theirs}
    monkeypatch.setattr(promote, "_read_correct", lambda version, *_: correct[version.version])
    monkeypatch.setattr(promote, "_read_answers", lambda *_: None)
    verdict = compare(challenger, champion, shards)
    assert verdict.outcome == PROMOTED
    rest = int((~seen).sum())
    assert rest > 100
    assert f"champion {100 * theirs[~seen].mean():.2f} % of the same {rest} images" in verdict.reason
    assert verdict.reason.endswith(
        f"; one of the two, or a version that it was fine-tuned from, was trained on {seen.sum()} of the {shards.val} "
        "images of val: these are not compared"
    )
    assert (verdict.tags["compared_n"], verdict.tags["compared_excluded"]) == (str(rest), str(seen.sum()))


@pytest.mark.slow
def test_without_enough_such_images_the_version_is_refused_by_what_can_be_done(
    shard: Shard, register: Register
) -> None:
    earlier, shards = shard(val_share=0.01), shard()
    champion, challenger = register(earlier), register(shards)
    verdict = compare(challenger, champion, shards)
    assert verdict.outcome == REFUSED
    assert verdict.reason.startswith("not promoted: one of the two, or a version that it was fine-tuned from, was trai")
    assert verdict.reason.endswith(
        "so they cannot be compared; train with the data.seed and data.val_share of version 1, or register under "
        "another name"
    )


@pytest.mark.slow
def test_a_night_that_cannot_be_compared_with_its_champion_ends_before_its_training(
    folder: schema.Data, shard: Shard, register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    data = replace(folder, frozen_val="first")
    earlier, shards = shard(val_share=0.25, seed=1), shard(frozen_val="first")
    register(earlier)
    start = NightStart("b0", "b0/1", continues=True, data=data)
    limits = schema.Nightly(max_shrink=100)
    line._check_data(start, shards, limits)
    assert "b0/1, or a version that it was fine-tuned from, was trained on " in caplog.text
    assert caplog.text.strip().endswith(" images of val of pets: only the others are compared")
    register(shard(val_share=0.01))
    with pytest.raises(ConfigError, match=r"b0/2, or .* of pets, so no version could be compared with it; take the tr"):
        line._check_data(replace(start, parent="b0/2"), shards, limits)
    line._check_data(replace(start, parent="b0/2", continues=False), shards, limits)  # with a new line nothing is
    val = frozen_val.load(shards.manifest_uri.rpartition("/data/pets")[0] + "/data/pets", "first")
    assert val is not None
    register(earlier, **{VAL_SHA256: val.sha256})
    caplog.clear()
    line._check_data(replace(start, parent="b0/3"), shards, limits)
    assert "images of val" not in caplog.text
