"""A val that stays as it is while its folder grows, until it is renewed by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from growing_folder import add, shard

from conf.schema import Data
from infra import store
from infra.errors import ConfigError, DataError, TransientError
from models.data.shards import frozen_val, writer
from models.data.shards import manifest as manifests
from models.data.shards.layout import ShardLayout
from models.results import ShardResult
from tasks.registry.finished import _find_frozen_val
from tasks.shard import _plan, _write_group, _write_manifest


@pytest.fixture
def data(tmp_path: Path) -> Data:
    add(tmp_path / "images", 0, 100)
    return Data(name="pets", source="folder", path=str(tmp_path / "images"), minival_share=0.1, frozen_val="first")


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


def images(layout: ShardLayout, split: str) -> set[bytes]:
    members = zip(layout.splits, layout.members, strict=True)
    return {layout.source.read(i) for of, indices in members if of == split for i in indices.tolist()}


def test_a_frozen_val_keeps_its_images_and_withholds_those_that_would_join_it(data: Data, storage: str) -> None:
    before = shard(data, storage)
    first = writer.plan(data, storage)
    add(Path(str(data.path)), 100, 200)
    after = shard(data, storage)
    assert (after.val, after.manifest_sha256 != before.manifest_sha256) == (before.val, True)
    grown = writer.plan(data, storage)
    drawn = writer.plan(replace(data, frozen_val=None), storage)
    assert images(grown, "val") == images(first, "val")
    assert images(grown, "train") == images(drawn, "train") > images(first, "train")
    assert len(images(drawn, "val")) == after.val + grown.withheld
    assert grown.withheld > 5
    assert after.unused == (f"{grown.withheld} images wait for the next val; this one, 'first', is frozen",)
    renewed = shard(replace(data, frozen_val="second"), storage)
    assert (renewed.val, renewed.unused) == (after.val + grown.withheld, ())


def test_a_frozen_val_is_recognized_by_its_images_and_the_next_one_is_another(data: Data, storage: str) -> None:
    def find(result: ShardResult) -> str | None:
        manifest = manifests.load(result.manifest_uri)[1]
        return _find_frozen_val(manifest, result.manifest_uri)

    first = shard(data, storage)
    add(Path(str(data.path)), 100, 200)
    second = shard(replace(data, frozen_val="second"), storage)
    assert (find(first), find(shard(data, storage)), find(second)) == ("first", "first", "second")
    assert find(shard(replace(data, frozen_val=None, name="free"), storage)) is None
    assert frozen_val.find_name(f"{storage}/data/pets", {"cat": 1}, [(b"another image", "cat")]) is None
    assert frozen_val.find_name(f"{storage}/data/pets", {}, []) is None


def test_the_first_shards_with_a_frozen_val_have_the_manifest_of_those_without(data: Data, storage: str) -> None:
    assert shard(data, storage).manifest_sha256 == shard(replace(data, frozen_val=None), storage).manifest_sha256
    assert shard(data, storage).reused


def test_a_copy_of_an_image_of_val_is_in_no_split(data: Data, storage: str) -> None:
    shard(data, storage)
    layout = writer.plan(data, storage)
    content = sorted(images(layout, "val"))[0]
    (Path(str(data.path)) / "cat" / "copy.png").write_bytes(content)
    again = writer.plan(data, storage)
    copies = [i for part in again.members for i in part.tolist() if again.source.read(i) == content]
    assert len(copies) == 1
    assert again.withheld == 1


@pytest.mark.parametrize("change", ["deleted", "moved to another class"])
def test_an_image_of_val_that_is_gone_or_relabelled_is_refused_with_the_remedy(
    change: str, data: Data, storage: str
) -> None:
    shard(data, storage)
    layout = writer.plan(data, storage)
    lost = sorted(images(layout, "val"))[0]
    path = next(path for path in Path(str(data.path)).glob("*/*.png") if path.read_bytes() == lost)
    if change == "deleted":
        path.unlink()
    else:
        path.rename(path.parent.parent / {"cat": "dog", "dog": "cat"}[path.parent.name] / path.name)
    total = sum(len(part) for part, of in zip(layout.members, layout.splits, strict=True) if of == "val")
    with pytest.raises(DataError, match=rf"pets: 1 of {total} images of its frozen val 'first' is gone or of another"):
        writer.plan(data, storage)


def test_the_val_of_a_folder_that_is_refused_is_not_frozen(data: Data, storage: str) -> None:
    broken = sorted(Path(str(data.path)).glob("*/*.png"))[::4]
    for path in broken:
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(writer.ManyLostError):
        shard(data, storage)
    for path in broken:
        path.unlink()
    corrected = shard(data, storage)
    assert (corrected.quarantined, corrected.train + corrected.minival + corrected.val) == (0, 100 - len(broken))
    assert frozen_val.load(f"{storage}/data/pets", "first") is not None


def test_an_image_of_val_that_no_shard_has_may_be_deleted(data: Data, storage: str) -> None:
    folder = Path(str(data.path))
    broken = [folder / "cat" / f"broken{number}.png" for number in range(10)]
    for number, path in enumerate(broken):
        path.write_bytes((folder / "cat" / "000.png").read_bytes()[:50] + b"%d" % number)  # some are drawn into val
    before = shard(data, storage)
    frozen = frozen_val.load(f"{storage}/data/pets", "first")
    assert frozen is not None
    assert before.quarantined == 10 > len(frozen.unusable) > 0
    assert len(frozen.images) == before.val + len(frozen.unusable)
    for path in broken:
        path.unlink()
    after = shard(data, storage)
    assert after.quarantined == 0
    assert rows_of(after) == rows_of(before)
    sound = next(iter(images(writer.plan(data, storage), "val")))
    next(path for path in folder.glob("*/*.png") if path.read_bytes() == sound).unlink()
    with pytest.raises(DataError, match="pets: 1 of"):
        writer.plan(data, storage)


def rows_of(result: ShardResult) -> set[int]:
    """Checksums of the images of val."""
    manifest = manifests.load(result.manifest_uri)[1]
    return set(manifests.Samples(manifest, ["val"]).rows["xxh3"].tolist())


def test_a_limit_does_not_cut_the_frozen_val(data: Data, storage: str) -> None:
    whole = shard(data, storage)
    limited = writer.plan(replace(data, limit=40), storage)
    assert sum(len(part) for part, of in zip(limited.members, limited.splits, strict=True) if of == "val") == whole.val


def test_two_processes_that_freeze_different_folders_agree_on_the_first(data: Data, storage: str) -> None:
    early, planned = writer.plan(data, storage), _plan(data, storage)
    for numbers in planned.groups:
        _write_group(data, planned.root, numbers)
    add(Path(str(data.path)), 100, 120)
    late = shard(data, storage)  # freezes first
    with pytest.raises(TransientError, match="pets: another process has frozen the val 'first' of another state"):
        _write_manifest(data, planned.root)
    assert shard(data, storage) == replace(late, reused=True)
    assert early.val is not None
    folder = early.root.rpartition("/")[0]
    assert not frozen_val.freeze(folder, "first", early.val)
    stored = frozen_val.load(folder, "first")
    assert stored is not None
    assert len(stored.images) == late.val


def test_a_damaged_list_of_val_is_refused(data: Data, storage: str) -> None:
    shard(data, storage)
    store.write(f"{storage}/data/pets/val/first.json", b'{"images": [1, 2]}')
    with pytest.raises(DataError, match=r"val/first\.json is not a list of images"):
        writer.plan(data, storage)


def test_a_set_with_fixed_splits_has_no_frozen_val(storage: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.frozen_val is for sets that grow, as data=folder; the splits of d"):
        writer.plan(Data(name="digits", source="digits", frozen_val="first"), storage)


def test_the_manifest_of_a_grown_folder_verifies(data: Data, storage: str) -> None:
    shard(data, storage)
    add(Path(str(data.path)), 100, 130)
    result = shard(data, storage)
    assert manifests.load_verified(result.manifest_uri, result.manifest_sha256).samples("val") == result.val
