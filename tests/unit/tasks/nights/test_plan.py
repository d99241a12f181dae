"""What a plan of a night says about its images, which it does not read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from growing_folder import add, append_pending, refuse, shard

from conf.schema import Data
from models.data.sources import listing
from tasks.nights.plan import _count_images


@pytest.fixture
def data(tmp_path: Path) -> Data:
    add(tmp_path / "images", 0, 100)
    folder = str(tmp_path / "images")
    return Data(
        name="pets", source="folder", path=folder, minival_share=0.1, samples_per_shard=30, append=True,
        frozen_val="first",
    )  # fmt: skip


def test_images_are_counted_by_the_shards_of_the_files_as_they_are(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = f"file://{tmp_path}/store"
    result = shard(data, storage)
    monkeypatch.setattr(listing, "with_content", lambda _: pytest.fail("an image was read"))
    images = _count_images(data, storage)
    assert images.shards == replace(result, reused=True)
    assert images.counts == (result.train, result.minival, result.val)


@pytest.mark.parametrize("append", [True, False])
def test_new_images_are_counted_by_their_names_without_those_that_are_withheld(
    append: bool, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, folder, data = f"file://{tmp_path}/store", tmp_path / "images", replace(data, append=append)
    first = shard(data, storage)
    if append:
        add(folder, 100, 130)
        refuse(append_pending(data, storage), "wrong labels")
        assert shard(data, storage) == replace(first, reused=True)
    add(folder, 200, 250)
    monkeypatch.setattr(listing, "with_content", lambda _: pytest.fail("an image was read"))
    images = _count_images(data, storage)
    minival = first.minival if append else first.minival + 4
    assert (images.counts, images.shards, images.classes) == ((first.train + 36, minival, first.val), None, 2)


def test_images_that_were_never_sharded_are_counted_by_the_shares(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "with_content", lambda _: pytest.fail("an image was read"))
    images = _count_images(data, f"file://{tmp_path}/store")
    assert (images.counts, images.classes) == ((72, 8, 20), 2)
