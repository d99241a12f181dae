"""A folder that was read before: only its new and changed images are read."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from growing_folder import add, shard

from conf import schema
from infra import store
from infra.errors import DataError
from models.data.shards import layout
from models.data.sources import catalog, listing
from models.data.sources.files import walk
from models.data.sources.files.reader import Reader


@pytest.fixture
def data(tmp_path: Path) -> schema.Data:
    add(tmp_path / "images", 0, 60)
    return schema.Data(name="pets", source="folder", path=f"{tmp_path}/images", minival_share=0.1)


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are read; files count as old as soon as they are written."""
    names: list[str] = []
    into = Reader.into

    def record(self: Reader, index: int, target: memoryview) -> None:
        names.append(os.fsdecode(bytes(self.paths[index])))
        into(self, index, target)

    monkeypatch.setattr(Reader, "into", record)
    monkeypatch.setattr(walk, "RECENT_S", 0.0)
    return names


def plan(data: schema.Data, storage: str, reads: list[str]) -> tuple[str, list[str]]:
    """Digest of the source, and the images that were read for it; it is that of the same folder read as a whole."""
    reads.clear()
    digest, names = layout.plan(data, storage).source.digest, sorted(reads)
    assert digest == listing.with_content(catalog.open_source(data)).digest
    return digest, names


def test_an_unchanged_folder_is_not_read_again(data: schema.Data, storage: str, reads: list[str]) -> None:
    digest, names = plan(data, storage, reads)
    assert len(names) == 60
    assert plan(data, storage, reads) == (digest, [])
    data.val_share = 0.3
    assert plan(data, storage, reads) == (digest, []), "whatever the settings"


def test_new_changed_and_renamed_images_are_read_alone(
    data: schema.Data, storage: str, reads: list[str], tmp_path: Path
) -> None:
    first, _ = plan(data, storage, reads)
    add(tmp_path / "images", 60, 62)
    digest, names = plan(data, storage, reads)
    assert (len(names), digest != first) == (2, True)
    image = sorted((tmp_path / "images").rglob("*.png"))[0]
    image.rename(image.with_name("renamed.png"))
    assert plan(data, storage, reads)[1] == [f"{image.parent.name}/renamed.png"]
    shutil.rmtree(image.parent)
    assert plan(data, storage, reads)[1] == []


def test_an_image_that_is_written_again_with_its_size_and_time_is_read(
    data: schema.Data, storage: str, reads: list[str], tmp_path: Path
) -> None:
    first, _ = plan(data, storage, reads)
    image = sorted((tmp_path / "images").rglob("*.png"))[0]
    before, old = image.stat(), image.read_bytes()
    image.write_bytes(old[:-1] + bytes([old[-1] ^ 1]))
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    digest, names = plan(data, storage, reads)
    assert names == [f"{image.parent.name}/{image.name}"]
    assert digest != first


def test_what_was_written_just_before_it_was_read_is_read_again(
    data: schema.Data, storage: str, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "RECENT_S", 3600.0)
    assert len(plan(data, storage, reads)[1]) == 60
    assert len(plan(data, storage, reads)[1]) == 60


def test_threads_share_the_images_and_read_many_at_a_time(
    data: schema.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 200 images, too: an object store answers each after a while."""
    handed: list[object] = []

    class Pool(ThreadPoolExecutor):
        def submit(self, *given: Any, **how: Any) -> Any:
            handed.append(given)
            return super().submit(*given, **how)

    add(tmp_path / "images", 60, 200)
    source = catalog.open_source(data)
    monkeypatch.setattr(listing, "ThreadPoolExecutor", Pool)
    whole = listing.with_content(source)
    assert len(handed) == 17  # 12 images each for 16 threads, and the rest
    assert whole.content is not None
    assert whole.content.tolist() == [listing.content_digest(source.read(index)) for index in range(200)]


def test_a_damaged_table_is_replaced(data: schema.Data, storage: str, reads: list[str]) -> None:
    digest, _ = plan(data, storage, reads)
    (uri,) = store.list_uris(f"{storage}/data/pets/contents")
    table = store.read(uri)
    for damaged in (b"", b"no table", table[: len(table) // 2]):
        store.write(uri, damaged)
        again, names = plan(data, storage, reads)
        assert (again, len(names)) == (digest, 60)
        assert plan(data, storage, reads) == (digest, [])


def test_two_folders_of_one_name_have_a_table_each(
    data: schema.Data, storage: str, reads: list[str], tmp_path: Path
) -> None:
    plan(data, storage, reads)
    shutil.copytree(tmp_path / "images", tmp_path / "copy")
    other = schema.Data(name="pets", source="folder", path=f"{tmp_path}/copy", minival_share=0.1)
    assert len(plan(other, storage, reads)[1]) == 60
    assert plan(other, storage, reads)[1] == plan(data, storage, reads)[1] == []


def test_an_image_that_changes_after_its_split_was_chosen_is_refused_and_the_next_command_reads_all(
    data: schema.Data, storage: str, reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = sorted((tmp_path / "images").rglob("*.png"))[0]
    read = listing.with_content

    def change_afterwards(source: listing.Source, known: dict[int, int]) -> listing.Source:
        whole = read(source, known)
        old = image.read_bytes()
        image.write_bytes(old[:-1] + bytes([old[-1] ^ 1]))
        return whole

    monkeypatch.setattr(listing, "with_content", change_afterwards)
    with pytest.raises(DataError, match=rf"{image.name} has changed since its split was chosen; repeat the command"):
        shard(data, storage)
    monkeypatch.setattr(listing, "with_content", read)
    assert store.list_uris(f"{storage}/data/pets/contents") == []
    assert not shard(data, storage).reused
