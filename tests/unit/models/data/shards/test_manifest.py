"""The manifest: damage and unsafe names are refused; samples are located by id."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra import store
from infra.errors import DataError, NotFoundError
from models.data.shards import manifest
from models.data.shards.manifest import TABLE, ImageNote, Manifest, Samples, Shard

SHA = "ab" * 32
SHARDS = (
    Shard("train-0.tar", "train", 3, 4096, SHA),
    Shard("train-1.tar", "train", 1, 2048, SHA),
    Shard("val-0.tar", "val", 2, 2048, SHA),
)
ROWS = np.array(
    [
        (512, 10, 0, 8, 8, 1),
        (2048, 20, 1, 8, 9, 2),
        (3072, 30, 0, 9, 8, 3),
        (512, 40, 1, 8, 8, 4),
        (512, 50, 1, 8, 8, 5),
        (1536, 60, 0, 8, 8, 6),
    ],
    TABLE,
)
MANIFEST = Manifest("pets", ("cat", "dog"), "digest", "original", SHARDS, ROWS, (ImageNote("x.jpg", "val", "cut"),))


def saved(folder: Path, what: Manifest = MANIFEST, **changes: Any) -> str:
    """Writes a manifest with changed keys in its JSON; returns its uri."""
    manifest.save(what, f"file://{folder}")
    uri = f"file://{folder}/manifest.json"
    if changes:
        store.write(uri, json.dumps({**store.read_json(uri), **changes}).encode())
    return uri


def test_a_saved_manifest_loads_unchanged(tmp_path: Path) -> None:
    sha256 = manifest.save(MANIFEST, f"file://{tmp_path}")
    digest, loaded = manifest.load(f"file://{tmp_path}/manifest.json")
    assert (digest, loaded) == (sha256, MANIFEST)
    assert np.array_equal(loaded.table, ROWS)


def test_remarks_on_the_source_are_stored_only_if_there_are_any(tmp_path: Path) -> None:
    remarks = {"unused": ("1 WebP files",), "class_differences": ("val has no",), "duplicates": ("2 images",)}
    fuller = dataclasses.replace(MANIFEST, **remarks)
    assert manifest.load(saved(tmp_path / "a", fuller))[1] == fuller
    assert store.read_json(saved(tmp_path / "b")).keys().isdisjoint(remarks)


def test_equal_manifests_have_equal_bytes(tmp_path: Path) -> None:
    assert manifest.save(MANIFEST, f"file://{tmp_path}/a") == manifest.save(MANIFEST, f"file://{tmp_path}/b")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "effnet-manifest/1"},
        {"shards": ["train-0.tar"]},
        {"shards": None},
        {"table": "xyz"},
        {"colour": 1},
        {"table": "cd" * 32},
        {"classes": None},
        {"classes": ["cat"]},
        {"classes": [1, 2]},
        {"name": None},
        {"source_digest": 3},
    ],
    ids=str,
)
def test_an_invalid_manifest_is_refused_with_its_address(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        manifest.load(saved(tmp_path, **changes))


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff\xfe", b'{"format": "other/1"}'])
def test_objects_that_are_not_manifests_are_refused(text: bytes, tmp_path: Path) -> None:
    store.write(f"file://{tmp_path}/manifest.json", text)
    with pytest.raises(DataError, match=str(tmp_path)):
        manifest.load(f"file://{tmp_path}/manifest.json")


@pytest.mark.parametrize(
    "name",
    [
        "../train.tar",
        "/etc/passwd",
        "pipe:touch x",
        "http://169.254.169.254/x.tar",
        "file:///etc/passwd",
        "a/b.tar",
        "",
        "train-0.pkl",
        "Train.tar",
        "train\n.tar",
    ],
)
def test_a_shard_name_outside_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    evil = dataclasses.replace(MANIFEST, shards=(dataclasses.replace(SHARDS[0], name=name), *SHARDS[1:]))
    with pytest.raises(DataError, match="invalid shard name"):
        manifest.load(saved(tmp_path, evil))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("offset", 4090, "outside its 4096 bytes"),
        ("offset", 2**63 - 5, "outside its"),
        ("offset", -1, "outside its"),
        ("size", -5, "outside its"),
        ("label", 2, "outside the 2 classes"),
        ("label", -1, "outside the 2 classes"),
    ],
)
def test_a_row_outside_its_shard_or_the_classes_is_refused(
    column: str, value: int, message: str, tmp_path: Path
) -> None:
    rows = ROWS.copy()
    rows[column][0] = value
    with pytest.raises(DataError, match=message):
        manifest.load(saved(tmp_path, dataclasses.replace(MANIFEST, table=rows)))


@pytest.mark.parametrize("rows", [ROWS[:-1], np.concatenate([ROWS, ROWS[:1]]), np.zeros(6), ROWS.reshape(2, 3)])
def test_a_table_that_does_not_match_the_shards_is_refused(rows: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        manifest.load(saved(tmp_path, dataclasses.replace(MANIFEST, table=rows)))


@pytest.mark.parametrize("number", [2**70, float("nan"), float("inf"), 4096.0, "4096", True, -1])
@pytest.mark.parametrize("field", ["bytes", "samples"])
def test_a_shard_of_an_impossible_size_is_refused(field: str, number: Any, tmp_path: Path) -> None:
    evil = dataclasses.replace(SHARDS[0], **{field: number})
    with pytest.raises(DataError, match=r"manifest\.json: shard train-0\.tar says .* samples and .* bytes$"):
        manifest.load(saved(tmp_path, dataclasses.replace(MANIFEST, shards=(evil, *SHARDS[1:]))))


def test_a_shard_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    twice = dataclasses.replace(MANIFEST, shards=(SHARDS[0], *SHARDS), table=np.concatenate([ROWS[:3], ROWS]))
    with pytest.raises(DataError, match=r"shard train-0\.tar is listed more than once"):
        manifest.load(saved(tmp_path, twice))


def test_a_table_of_pickled_objects_is_refused(tmp_path: Path) -> None:
    uri = saved(tmp_path)
    np.save(tmp_path / "samples.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DataError):
        manifest.load(uri)


def test_splits_are_counted() -> None:
    assert [MANIFEST.samples(split) for split in manifest.SPLITS] == [4, 0, 2]


def test_an_id_is_mapped_to_its_shard_and_row() -> None:
    samples = Samples(MANIFEST, ["train"])
    assert [samples.shards[i].name for i in samples.shard_numbers(np.arange(4))] == ["train-0.tar"] * 3 + [
        "train-1.tar"
    ]
    assert samples.rows["size"].tolist() == [10, 20, 30, 40]
    assert Samples(MANIFEST, ["val"]).rows["size"].tolist() == [50, 60]
    assert len(Samples(MANIFEST, ["minival"])) == 0


def test_a_manifest_with_another_digest_is_refused(tmp_path: Path) -> None:
    sha256 = manifest.save(MANIFEST, f"file://{tmp_path}")
    uri = f"file://{tmp_path}/manifest.json"
    assert manifest.load_verified(uri, sha256) == MANIFEST
    store.write(uri, store.read(uri).replace(b'"pets"', b'"cars"'))
    with pytest.raises(DataError, match=f"the job was made for {sha256[:12]}"):
        manifest.load_verified(uri, sha256)


def test_a_missing_manifest_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        manifest.load(f"file://{tmp_path}/manifest.json")
