"""Which versions of a data set nothing points to, and which of their objects may be deleted."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from growing_folder import add, append_pending, refuse, shard

from conf.schema import Data
from infra import store
from models.data.shards import acceptance, versions
from models.data.shards import manifest as manifests
from models.data.shards.writer import ManyLostError
from models.results import ShardResult
from tasks.nights.batch import RefusedDataError, _refuse_unusable
from tasks.registry.prune import _stage
from tasks.registry.unused_versions import drop_marks, find_unused, find_unused_sets
from tasks.shard import _plan, _write_group

NOW = 1e12  # later than everything


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add(tmp_path / "images", 0, 100)
    return tmp_path / "images"


@pytest.fixture
def data(folder: Path) -> Data:
    return Data(name="pets", source="folder", path=str(folder), minival_share=0.1, samples_per_shard=30, append=True)


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


def unused(result: ShardResult, *referenced: str, limit: float = NOW) -> set[str]:
    root = result.manifest_uri.rpartition("/")[0]
    return {
        entry.uri.removeprefix(f"{root}/") for entry in find_unused(root, store.list_entries(root), referenced, limit)
    }


def unused_sets(
    storage: str, *referenced: str, digests: tuple[str, ...] = (), limit: float = NOW, keep: int = 2
) -> set[str]:
    """Folders of whole data sets that can be deleted."""
    data: dict[str, list[store.Entry]] = {}
    for entry in store.list_entries(f"{storage}/data"):
        data.setdefault("/".join(entry.uri.removeprefix(storage).split("/")[:4]), []).append(entry)
    found = find_unused_sets({f"{storage}{key}": of for key, of in data.items()}, referenced, set(digests), limit, keep)
    return set(found)


def test_of_whole_data_sets_of_a_name_the_newest_stay_and_those_that_something_points_to(
    data: Data, folder: Path, storage: str
) -> None:
    data, sets = replace(data, append=False), []
    for number in range(5):
        add(folder, 100 + 10 * number, 110 + 10 * number)
        sets.append(shard(data, storage))
        for path in (Path(one.manifest_uri.removeprefix("file://")).parent for one in sets[-1:]):
            for file in path.rglob("*"):
                os.utime(file, (1000 * number, 1000 * number))
    roots = [one.manifest_uri.rpartition("/")[0] for one in sets]
    assert unused_sets(storage) == set(roots[:3])
    assert unused_sets(storage, keep=5) == set()
    assert unused_sets(storage, limit=500.0) == {roots[0]}, "the others were written lately"
    moved = sets[0].manifest_uri.replace("file:///", "s3://elsewhere/")
    assert unused_sets(storage, moved) == set(roots[1:3])
    assert unused_sets(storage, digests=(sets[1].manifest_sha256,)) == {roots[0], roots[2]}
    (state,) = store.list_uris(f"{storage}/data/pets/states")
    store.write_json(state, {"manifest": f"{roots[2].rpartition('/')[2]}/manifest.json"})
    assert unused_sets(storage) == set(roots[:2]), "that of the present files"
    acceptance.mark_pending(roots[0], "0002-5f0c9a31")
    acceptance.refuse(roots[0], "0002-5f0c9a31", "wrong labels")
    for file in Path(roots[0].removeprefix("file://")).rglob("*"):
        os.utime(file, (0, 0))
    assert unused_sets(storage) == {roots[1]}, "by the other one images are withheld"


def test_the_first_and_the_newest_version_and_those_of_jobs_stay(data: Data, folder: Path, storage: str) -> None:
    first = shard(data, storage)
    grown = []
    for last in (120, 140, 160):
        add(folder, last - 20, last)
        grown.append(shard(data, storage))
    table = manifests.load(grown[0].manifest_uri)[0]
    assert table
    names = unused(first)
    assert {name for name in names if name.startswith("manifest")} == {"manifest-0002.json", "manifest-0003.json"}
    assert not any(name.endswith(".tar") or name.startswith("source") for name in names), "the newest has all shards"
    assert len([name for name in names if name.startswith("samples-")]) == 2
    moved = grown[0].manifest_uri.replace("file:///", "s3://elsewhere/")
    assert "manifest-0002.json" not in unused(first, moved), "the store was moved"
    assert unused(first, *(one.manifest_uri for one in grown)) == set()
    assert unused(first, limit=0.0) == set(), "written lately"
    for name in names:
        store.delete(f"{first.manifest_uri.rpartition('/')[0]}/{name}")
    assert shard(data, storage) == replace(grown[2], reused=True)
    add(folder, 160, 180)
    assert shard(data, storage).manifest_uri.endswith("/manifest-0005.json")


def test_of_a_refused_version_the_shards_go_and_the_refusal_stays(data: Data, folder: Path, storage: str) -> None:
    first = shard(data, storage)
    add(folder, 100, 130)
    refused = append_pending(data, storage)
    versions.write_added(refused.manifest_uri)
    refuse(refused, "wrong labels")
    names = unused(first)
    assert {"manifest-0002.json", "added-0002.json"} <= names
    root = first.manifest_uri.rpartition("/")[0]
    added = {shard.name for shard in manifests.load(refused.manifest_uri)[1].shards} - {
        shard.name for shard in manifests.load(first.manifest_uri)[1].shards
    }
    assert {name for name in names if name.endswith(".tar")} == added
    assert {f"index/{name}.json" for name in added} <= names
    before = acceptance.find(refused.manifest_uri)
    for name in names:
        store.delete(f"{root}/{name}")
    assert shard(data, storage) == replace(first, reused=True), "its images are still withheld"
    assert before is not None
    taken = append_pending(replace(data, accept=[f"pets/{before.version}"]), storage)
    assert taken.train == refused.train, "the images of the folder are written again"
    assert manifests.load(taken.manifest_uri)[1].samples("train") == refused.train


def test_what_an_interrupted_deletion_has_left_is_deleted_by_the_next(data: Data, folder: Path, storage: str) -> None:
    first = shard(data, storage)
    root = first.manifest_uri.rpartition("/")[0]
    before = set(store.list_uris(root))
    add(folder, 100, 130)
    refuse(append_pending(data, storage), "wrong labels")
    kept = {uri for uri in store.list_uris(root) if "source-0002" in uri or "unaccepted-" in uri}
    entries = sorted(find_unused(root, store.list_entries(root), [], NOW), key=_stage)
    assert len(entries) == 4, "manifest, index, shard and table"
    for entry in entries:
        store.delete(entry.uri)  # the process ends here
        present = {uri.removeprefix(f"{root}/") for uri in store.list_uris(root)}
        shards = {name.removeprefix("index/").removesuffix(".json") for name in present if name.startswith("index/")}
        assert shards <= present, "an index stands for a shard that is there"
        assert entry is entries[-1] or unused(first), "the next call finds the rest"
    assert set(store.list_uris(root)) == before | kept


def test_shards_of_a_night_that_ended_before_its_manifest_are_deleted_once_they_are_old(
    data: Data, folder: Path, storage: str
) -> None:
    first = shard(data, storage)
    add(folder, 100, 130)
    plan = _plan(data, storage)
    _write_group(data, plan.root, [0], plan.version)
    assert unused(first, limit=0.0) == set()
    assert {name.partition("-")[0] for name in unused(first)} == {"train", "index/train"}


def test_the_name_of_a_refused_first_version_without_a_manifest_stays_known(
    data: Data, folder: Path, storage: str
) -> None:
    sound = (folder / "cat" / "000.png").read_bytes()
    for number in range(60):
        (folder / "cat" / f"broken{number}.png").write_bytes(sound[: len(sound) // 2] + bytes([number]))
    plan = _plan(data, storage)
    with pytest.raises(ManyLostError) as lost:
        append_pending(data, storage)
    with pytest.raises(RefusedDataError):
        _refuse_unusable(data, plan, lost.value)
    for entry in (removed := drop_marks(store.list_entries(plan.root))):
        store.delete(entry.uri)
    assert len(removed) > 1
    assert drop_marks(store.list_entries(plan.root)) == ()
    for path in folder.glob("cat/broken*.png"):
        path.unlink()
    named = replace(data, accept=[f"pets/{plan.version_name}"])
    versions.accept(append_pending(named, storage).manifest_uri)
    add(folder, 100, 130)
    assert append_pending(named, storage).manifest_uri.endswith("/manifest-0002.json")
