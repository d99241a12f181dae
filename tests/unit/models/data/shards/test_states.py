"""Which shards a folder has, known without reading one of its images."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from growing_folder import add, shard

from conf import schema
from infra import store
from models.data.shards import states
from models.data.shards.stored import find_last_result, find_result
from models.data.sources import catalog, listing
from models.results import ShardResult


@pytest.fixture
def data(tmp_path: Path) -> schema.Data:
    add(tmp_path / "images", 0, 60)
    return schema.Data(name="pets", source="folder", path=f"{tmp_path}/images", minival_share=0.1)


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


def find(data: schema.Data, storage: str) -> ShardResult | None:
    """As ``find_result``, which must not open the source."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(catalog, "open_source", lambda _: pytest.fail("opened the source"))
        return find_result(data, storage)


def test_a_folder_that_was_sharded_is_found_and_one_that_was_not_is_not(data: schema.Data, storage: str) -> None:
    assert find(data, storage) is None
    assert find_last_result(data, storage) is None
    done = shard(data, storage)
    assert find(data, storage) == find_last_result(data, storage) == replace(done, reused=True)
    assert find(replace(data, seed=7), storage) is None, "another split"
    other = replace(data, augment=schema.Augment(policy="none"), leave_out=[], metric="mean per class")
    assert find(other, storage) is not None, "the shards do not depend on these"


@pytest.mark.parametrize("change", ["add", "delete", "write", "touch"])
def test_after_any_change_of_its_files_only_the_last_shards_are_known(
    change: str, data: schema.Data, storage: str, tmp_path: Path
) -> None:
    done = shard(data, storage)
    image = tmp_path / "images/cat/000.png"
    if change == "add":
        add(tmp_path / "images", 60, 61)
    elif change == "delete":
        image.unlink()
    elif change == "write":
        before = image.stat()
        image.write_bytes(image.read_bytes() + b"\0")
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(image, (1, 1))
    assert find(data, storage) is None
    assert find_last_result(data, storage) == replace(done, reused=True)
    again = shard(data, storage)
    assert find(data, storage) == replace(again, reused=True)
    assert len(store.list_uris(store.join(storage, "data/pets/states"))) == 1, "the newest replaces the others"


def test_what_is_written_while_the_images_are_read_is_not_taken_for_sharded(
    data: schema.Data, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = listing.with_content

    def add_meanwhile(source: listing.Source, known: dict[int, int]) -> listing.Source:
        whole = read(source, known)
        add(tmp_path / "images", 60, 61)
        return whole

    monkeypatch.setattr(listing, "with_content", add_meanwhile)
    shard(data, storage)
    assert find(data, storage) is None


def test_shards_that_were_deleted_are_not_found(data: schema.Data, storage: str) -> None:
    done = shard(data, storage)
    store.delete(done.manifest_uri)
    assert find(data, storage) is None
    assert find_last_result(data, storage) is None


def test_a_state_that_names_no_manifest_is_ignored_and_replaced(data: schema.Data, storage: str) -> None:
    shard(data, storage)
    (uri,) = store.list_uris(store.join(storage, "data/pets/states"))
    for damaged in ({"manifest": "../../secret.json"}, {"manifest": 3}, {}):
        store.write_json(uri, damaged)
        assert find(data, storage) is None
    store.write(uri, b"{")
    assert find(data, storage) is None
    done = shard(data, storage)
    assert find(data, storage) == replace(done, reused=True)


def test_another_folder_that_is_sharded_under_the_same_name_is_counted_on_its_own(
    data: schema.Data, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = shard(data, storage)
    add(tmp_path / "others", 0, 80)
    others = replace(data, path=f"{tmp_path}/others")
    assert find_last_result(others, storage) is None
    shard(others, storage)
    monkeypatch.chdir(tmp_path)
    assert find(replace(data, path="images"), storage) == replace(done, reused=True), "the same place"


def test_links_are_followed_once_and_files_that_are_not_there_describe_nothing(
    data: schema.Data, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    before = states.describe(data)
    (images / "again").symlink_to(images)
    (images / "dead").symlink_to(tmp_path / "absent")
    assert states.describe(data) == before
    (tmp_path / "more").mkdir()
    (images / "more").symlink_to(tmp_path / "more")
    (tmp_path / "more/new.png").write_bytes(b"x")
    assert states.describe(data) != before
    assert states.describe(replace(data, path=f"{tmp_path}/absent")) == ""


def test_only_sets_of_users_that_can_be_listed_are_described(tmp_path: Path) -> None:
    assert states.describe(schema.Data(name="digits", source="digits")) == ""
    web = schema.Data(name="w", source="webdataset", path="https://example.org/train-{0..9}.tar")
    assert states.describe(web) == ""
    assert catalog.find("webdataset").grows
    (tmp_path / "train-0.tar").write_bytes(b"x")
    tars = replace(web, path=f"{tmp_path}/train-0.tar")
    before = states.describe(tars)
    assert len(before) == 16
    (tmp_path / "train-0.tar").write_bytes(b"xy")
    assert states.describe(tars) != before
