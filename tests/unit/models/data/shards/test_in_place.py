"""Shards of others that are read in place: what is indexed, what is refused, and what changes afterwards."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from made_archives import data_settings, photo, write_archive
from matrix import with_slow_rest
from PIL import Image

from conf import schema
from infra.errors import ConfigError, DataError
from models.data.loading import selection
from models.data.shards import in_place
from models.data.shards import manifest as manifests
from models.data.shards.in_place import _cut, _Sample
from models.data.shards.manifest import Manifest, shard_uri
from models.data.sources.files.container import Container
from models.results import ShardResult
from tasks.shard import _plan, _write_group, _write_manifest

CLASSES = 4


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "download"))


def samples(first: int, count: int, kind: str = "JPEG", suffix: str = "jpg") -> list[tuple[str, bytes]]:
    made = []
    for number in range(first, first + count):
        made += [(f"{number:06d}.cls", b"%d" % (number % CLASSES)), (f"{number:06d}.{suffix}", photo(number, kind))]
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        write_archive(tmp_path / "set" / f"train-{number}.tar", samples(40 * number, 40))
    write_archive(tmp_path / "set" / "val-0.tar", samples(500, 16))
    return tmp_path / "set"


def settings(path: Path | str, **changes: Any) -> schema.Data:
    return data_settings("webdataset", Path(path), **{"shards": "in_place", "minival_share": 0.2} | changes)


def shard(data: schema.Data, storage: str) -> ShardResult:
    plan = _plan(data, storage)
    for numbers in plan.groups:
        _write_group(data, plan.root, numbers)
    return plan.done or _write_manifest(data, plan.root)


def load(result: ShardResult) -> Manifest:
    return manifests.load_verified(result.manifest_uri, result.manifest_sha256)


def contents(manifest: Manifest, uri: str, split: str) -> list[tuple[int, bytes]]:
    chosen = selection.read(manifest, uri, split, range(manifest.samples(split)))
    return sorted(zip(chosen.labels, chosen.blobs, strict=True))


@pytest.mark.parametrize("kind", ["in_place", "rewritten"])
def test_shards_of_a_single_class_are_refused_before_anything_is_written(kind: str, tmp_path: Path) -> None:
    members = [
        (f"{i:03d}.{suffix}", photo(i) if suffix == "jpg" else b"3") for i in range(60) for suffix in ("cls", "jpg")
    ]
    write_archive(tmp_path / "one" / "0.tar", members)
    data, storage = settings(tmp_path / "one", shards=kind), f"file://{tmp_path}/store"
    with pytest.raises(ConfigError, match=r"^webdataset has a single class; a classifier needs two or more$"):
        _plan(data, storage, fewest_classes=2)
    assert not list((tmp_path / "store").rglob("*.tar")) + list((tmp_path / "store").rglob("manifest.json"))
    assert _plan(data, storage).done is None


def test_the_samples_of_each_split_are_those_of_the_rewritten_shards(folder: Path, tmp_path: Path) -> None:
    here, there = (
        shard(settings(folder, shards=kind), f"file://{tmp_path}/store") for kind in ("in_place", "rewritten")
    )
    assert here.manifest_uri != there.manifest_uri
    for split in manifests.SPLITS:
        assert contents(load(here), here.manifest_uri, split) == contents(load(there), there.manifest_uri, split) != []
    assert not list(Path(here.manifest_uri.removeprefix("file://")).parent.glob("*.tar"))  # nothing is copied


def test_a_hard_link_is_read_where_the_member_is_that_it_names(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(folder / "train-2.tar", "a") as archive:
        for name, target in (("700000.cls", "000081.cls"), ("700000.jpg", "000081.jpg")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            archive.addfile(info)
    kinds = ("in_place", "rewritten")
    here, there = (shard(settings(folder, shards=kind), f"file://{tmp_path}/store") for kind in kinds)
    read = [
        [sample for split in manifests.SPLITS for sample in contents(load(one), one.manifest_uri, split)]
        for one in (here, there)
    ]
    assert read[0] == read[1]
    assert read[0].count((81 % CLASSES, photo(81))) == 2


def test_a_shard_names_its_tar_with_size_and_digest(folder: Path, tmp_path: Path) -> None:
    result = shard(settings(folder), f"file://{tmp_path}/store")
    for one in load(result).shards:
        tar = Path(shard_uri("", one).removeprefix("file://"))
        assert tar.parent == folder
        assert (one.bytes, one.blake3) == (tar.stat().st_size, blake3(tar.read_bytes()).hexdigest())
    assert shard(settings(folder), f"file://{tmp_path}/store") == dataclasses.replace(result, reused=True)


def test_the_shards_of_a_tar_are_in_one_group_and_read_it_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = _plan(data := settings(folder, shards_per_task=2), f"file://{tmp_path}/store")
    assert [len(numbers) for numbers in plan.groups] == [4, 3]  # train and minival of two tars; the third one, and val
    read, ranges = in_place.store.read_range, []
    monkeypatch.setattr(
        in_place.store,
        "read_range",
        lambda uri, start, size: ranges.append((uri, start, size)) or read(uri, start, size),
    )
    for numbers in plan.groups:
        _write_group(data, plan.root, numbers)
    sizes = {f"file://{path}": path.stat().st_size for path in folder.iterdir()}
    assert {uri: sum(size for of, _, size in ranges if of == uri) for uri in sizes} == sizes


def test_pieces_cover_a_tar_once_and_contain_whole_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_place, "_PIECE_BYTES", 1000)
    rng = np.random.default_rng(0)
    for _ in range(200):
        position, images = 0, []
        for number in range(rng.integers(0, 12)):
            gap, size = (int(rng.choice([0, 10, 900, 1000, 5000])) for _ in range(2))
            images.append(_Sample(0, number, position + gap, size))
            position += gap + size
        end = position + int(rng.choice([1, 1024, 4000]))
        pieces = list(_cut(images, end))
        assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
        assert pieces[-1].end == end
        assert [sample for piece in pieces for sample in piece.samples] == images
        for piece in pieces:
            assert all(piece.start <= one.offset and one.offset + one.size <= piece.end for one in piece.samples)
            assert piece.end - piece.start <= 1000 + max([one.size for one in piece.samples], default=0)


def test_images_that_do_not_decode_are_excluded_and_many_are_refused(folder: Path, tmp_path: Path) -> None:
    broken = [(name, data[:-40] if name.endswith("jpg") else data) for name, data in samples(200, 2)]
    write_archive(folder / "train-3.tar", [*samples(300, 60), *broken])
    result = shard(settings(folder), f"file://{tmp_path}/store")
    assert [note.name for note in load(result).quarantine] == ["train-3/000200.jpg", "train-3/000201.jpg"]
    write_archive(
        folder / "train-4.tar",
        [(f"{name}", data[:-40]) if "jpg" in name else (name, data) for name, data in samples(700, 20)],
    )
    with pytest.raises(DataError, match="22 of 218 images cannot be used, the first is"):
        shard(settings(folder), f"file://{tmp_path}/store")


def test_an_image_above_the_limit_is_excluded_without_being_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = photo(900) + bytes(5000)
    write_archive(folder / "train-3.tar", [("900.cls", b"0"), ("900.jpg", large), *samples(300, 60)])
    monkeypatch.setattr(in_place, "MAX_IMAGE_BYTES", 4000)
    result = shard(settings(folder), f"file://{tmp_path}/store")
    assert [(note.name, note.what) for note in load(result).quarantine] == [
        ("train-3/900.jpg", f"{len(large)} bytes, more than 4000")
    ]


def test_a_tar_that_is_written_after_it_was_indexed_is_indexed_again(folder: Path, tmp_path: Path) -> None:
    storage = f"file://{tmp_path}/store"
    first = shard(settings(folder), storage)
    tar = folder / "train-1.tar"
    os.utime(tar, (1, 1))  # the same bytes
    assert shard(settings(folder), storage) == first
    members = samples(40, 40)
    pixels = np.asarray(Image.open(io.BytesIO(members[1][1])))
    for quality in range(20, 100):  # another image of the same size
        Image.fromarray(255 - pixels).save(buffer := io.BytesIO(), "JPEG", quality=quality)
        other = buffer.getvalue()
        if len(other) <= len(members[1][1]):
            members[1] = (members[1][0], other.ljust(len(members[1][1]), b"\0"))
    write_archive(tar, members)
    os.utime(tar, (2, 2))
    assert shard(settings(folder), storage).manifest_sha256 != first.manifest_sha256


@pytest.mark.parametrize("kind", with_slow_rest(["in_place", "rewritten"]))
def test_tars_that_were_not_written_since_are_not_read_again(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with tarfile.open(folder / "train-0.tar", "a") as writer:  # a sample without a label
        info = tarfile.TarInfo("unlabelled.jpg")
        info.size = len(photo(7))
        writer.addfile(info, io.BytesIO(photo(7)))
    store = f"file://{tmp_path}/store"
    first = shard(settings(folder, shards=kind), store)
    reads: list[str] = []
    read = Container.read
    monkeypatch.setattr(Container, "read", lambda self, *at: reads.append(self.location) or read(self, *at))
    caplog.clear()
    caplog.set_level("INFO", "effnet")
    assert shard(settings(folder, shards=kind), store) == dataclasses.replace(first, reused=True)
    assert _plan(settings(folder, shards=kind, seed=1), store).done is None  # of the same index
    assert reads == []
    assert "no tar was written since the last command, which indexed 136 samples" in caplog.text
    assert "1 samples without a label in cls" in caplog.text

    class_file = tmp_path / "names.txt"
    class_file.write_text("a\nb\nc\nd\n")
    for changes in ({"class_file": str(class_file)}, {"allow_partial": True}, {"label_field": "cls"}):
        reads.clear()
        shard(settings(folder, **changes), store)
        assert reads, changes
    os.utime(folder / "train-1.tar", (1, 1))
    reads.clear()
    shard(settings(folder, label_field="cls"), store)
    assert len(set(reads)) == 4
    assert len(list((tmp_path / "store/data/webdataset/tars").iterdir())) == 1


def test_tars_that_are_moved_are_another_data_set(folder: Path, tmp_path: Path) -> None:
    first = shard(settings(folder), f"file://{tmp_path}/store")
    moved = folder.rename(tmp_path / "moved")
    assert shard(settings(moved), f"file://{tmp_path}/store").manifest_uri != first.manifest_uri


def test_what_cannot_be_read_in_place_is_refused_with_the_way_that_can(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"not at https://, as https://h/a-0\.tar; copy them there, or data\.shards=rewritten "
    ):
        shard(dataclasses.replace(settings(folder), path="https://h/a-0.tar"), f"file://{tmp_path}/store")
    (folder / "train-3.tar.gz").write_bytes(gzip.compress((folder / "train-0.tar").read_bytes()))
    with pytest.raises(
        ConfigError, match=r"1 of 5 shards are compressed, as train-3\.tar\.gz \(gzip\): data\.shards=rewr"
    ):
        shard(settings(folder), f"file://{tmp_path}/store")
    (folder / "train-3.tar.gz").unlink()
    write_archive(folder / "train-3.tar", samples(200, 20, "WEBP", "webp"))
    with pytest.raises(ConfigError, match=r"20 WebP images \(data\.shards=rewritten data\.convert=true converts them"):
        shard(settings(folder), f"file://{tmp_path}/store")


@pytest.mark.parametrize("changes", [{"convert": True}, {"max_side": 64}, {"append": True}])
def test_settings_that_change_images_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^data\.{next(iter(changes))} needs data\.shards=rewritten"):
        settings(Path("x"), **changes)
    with pytest.raises(ValueError, match="is for data=webdataset, not for folder"):
        data_settings("folder", Path("x"), shards="in_place")


def test_a_missing_tar_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "train-1.tar").unlink()
    data = settings(f"{folder}/train-{{0..2}}.tar")
    with pytest.raises(DataError, match=r"1 of 3 are damaged or missing; train-1\.tar"):
        shard(data, f"file://{tmp_path}/store")


def test_excluding_a_shard_excludes_the_other_splits_of_its_tar(folder: Path, tmp_path: Path) -> None:
    result = shard(settings(folder), f"file://{tmp_path}/store")
    whole = load(result)
    kept = manifests.exclude_shards(whole, ["train-00001-of-00004.tar"])
    assert {one.name for one in whole.shards} - {one.name for one in kept.shards} == {
        "train-00001-of-00004.tar",
        "minival-00001-of-00004.tar",
    }
    assert len(kept.table) == len(whole.table) - 40 == sum(one.samples for one in kept.shards)
    assert len(kept.missing) == 2


def test_tars_that_are_sorted_by_class_are_reported(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard(settings(folder), f"file://{tmp_path}/store")
    assert "classes on average" not in caplog.text
    for label in range(CLASSES):
        members = [(name, b"%d" % label if name.endswith("cls") else data) for name, data in samples(40 * label, 40)]
        write_archive(tmp_path / "sorted" / f"{label}.tar", members)
    shard(settings(tmp_path / "sorted"), f"file://{tmp_path}/store")
    assert "its tars hold 1.0 classes on average, 4.0 if they were shuffled" in caplog.text


@pytest.mark.parametrize("address", ["http://h/a.tar", "file:///a/../b.tar", "s3://b", "relative.tar"])
def test_a_manifest_with_another_kind_of_address_is_refused(address: str, folder: Path, tmp_path: Path) -> None:
    manifest = load(shard(settings(folder), f"file://{tmp_path}/store"))
    first = dataclasses.replace(manifest.shards[0], address=address)
    manifests.save(dataclasses.replace(manifest, shards=(first, *manifest.shards[1:])), f"file://{tmp_path}/other")
    with pytest.raises(DataError, match="invalid address"):
        manifests.load(f"file://{tmp_path}/other/manifest.json")


def test_a_tar_that_shrinks_while_it_is_read_is_refused(folder: Path, tmp_path: Path) -> None:
    plan = _plan(data := settings(folder), f"file://{tmp_path}/store")
    with (folder / "train-0.tar").open("r+b") as stream:
        stream.truncate(2048)
    with pytest.raises(DataError, match=r"train-0\.tar has 2048 bytes, its headers stated \d+ or more"):
        _write_group(data, plan.root, plan.groups[0])


def test_a_tar_that_changed_unnoticed_is_refused_and_read_by_the_next_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size and time are those of its index, as after two writes in the same second."""
    storage = f"file://{tmp_path}/store"
    data = settings(folder, shards="rewritten")
    _plan(data, storage)
    tar, before = folder / "train-0.tar", (folder / "train-0.tar").stat()
    content = bytearray(tar.read_bytes())
    at = content.index(b"\xff\xd9")  # the end of an image
    content[at - 1] ^= 1
    tar.write_bytes(content)
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match="has changed since its split was chosen; repeat the command"):
        shard(data, storage)
    assert not shard(data, storage).reused
