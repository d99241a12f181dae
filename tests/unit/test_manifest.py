"""The manifest: canonical bytes, damage refused, and the way from a sample's number to its bytes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from infra import store
from infra.errors import DataError, NotFoundError
from models.data import manifest
from models.data.manifest import Locator, Manifest, Shard

SHARDS = [
    Shard("train-0.tar", "train", 4096, "aa", [512, 2048, 3072], [10, 20, 30], [0, 1, 0]),
    Shard("train-1.tar", "train", 2048, "bb", [512], [40], [1]),
    Shard("val-0.tar", "val", 2048, "cc", [512, 1536], [50, 60], [1, 0]),
]
MANIFEST = Manifest("pets", ["cat", "dog"], "digest", SHARDS)


def damaged(**changes: Any) -> bytes:
    return json.dumps({**json.loads(manifest.to_bytes(MANIFEST)), **changes}).encode()


def test_bytes_and_back_is_the_same_manifest() -> None:
    assert manifest.from_bytes(manifest.to_bytes(MANIFEST), "here") == MANIFEST


def test_equal_manifests_have_equal_bytes_whatever_the_order_they_were_made_in() -> None:
    again = Manifest(source_digest="digest", shards=list(SHARDS), classes=["cat", "dog"], name="pets")
    text = manifest.to_bytes(MANIFEST)
    assert manifest.to_bytes(again) == text
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("body", [
    b"", b"[]", b"\xff\xfe", manifest.to_bytes(MANIFEST)[:-1], b'{"format": "other/1"}',
    damaged(format="effnet-manifest/2"), damaged(shards=["train-0.tar"]), damaged(shards=None),
    damaged(shards=[{**json.loads(manifest.to_bytes(MANIFEST))["shards"][0], "colour": 1}]),
    json.dumps({"format": manifest.FORMAT, "shards": []}).encode(),
])  # fmt: skip
def test_what_is_no_manifest_is_refused_with_its_place(body: bytes) -> None:
    with pytest.raises(DataError, match="s3://b/pets"):
        manifest.from_bytes(body, "s3://b/pets")


@pytest.mark.parametrize("column", ["offsets", "sizes", "labels"])
def test_columns_of_different_lengths_are_refused(column: str) -> None:
    body = json.loads(manifest.to_bytes(MANIFEST))
    body["shards"][2][column].pop()
    with pytest.raises(DataError, match=r"val-0\.tar has columns of different lengths"):
        manifest.from_bytes(json.dumps(body).encode(), "here")


def test_splits_are_counted() -> None:
    assert [MANIFEST.samples(split) for split in manifest.SPLITS] == [4, 0, 2]
    assert [shard.name for shard in MANIFEST.split("train")] == ["train-0.tar", "train-1.tar"]


def test_a_sample_s_number_leads_to_its_shard_offset_size_and_label() -> None:
    locator = Locator(MANIFEST.split("train"))
    found = [(locator.shard_of(i).name, locator.offsets[i], locator.sizes[i], locator.labels[i]) for i in range(4)]
    assert found == [
        ("train-0.tar", 512, 10, 0), ("train-0.tar", 2048, 20, 1), ("train-0.tar", 3072, 30, 0),
        ("train-1.tar", 512, 40, 1),
    ]  # fmt: skip
    assert len(Locator([]).labels) == 0


def test_only_the_manifest_that_was_asked_for_is_loaded(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/manifest.json"
    data = manifest.to_bytes(MANIFEST)
    store.write(uri, data)
    sha256 = hashlib.sha256(data).hexdigest()
    assert manifest.load(uri) == (sha256, MANIFEST)
    assert manifest.load_verified(uri, sha256) == MANIFEST
    store.write(uri, data.replace(b'"pets"', b'"cars"'))
    with pytest.raises(DataError, match=f"the job was made for {sha256[:12]}"):
        manifest.load_verified(uri, sha256)


def test_a_missing_manifest_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        manifest.load(f"file://{tmp_path}/manifest.json")
