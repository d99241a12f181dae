"""What a plan of a night says about its images, which it does not read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from growing_folder import add, append_pending, refuse, shard

from conf.schema import Data
from models.data.sources import listing
from tasks.nights.plan import NightPlan, _count_images, describe


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


def test_a_plan_says_what_is_expected_what_is_known_and_why_nothing_is_trained() -> None:
    night = NightPlan("b0-pets", "b0-pets/3", True, "pets", 1200, 100, 300, is_exact=True, change=0)
    assert list(describe(night))[1:] == [
        "data       pets: 1,200 images of train, 100 of minival, 300 of val, as many as b0-pets/3 was trained on",
        "training   none: no new data, b0-pets/3 was trained on the same images",
    ]
    trained = replace(
        night, is_exact=False, change=40, trains=True, network="b0", epochs=1, steps=18, global_batch=64,
        images_per_s=100.4, takes_s=60.0, processes=2, processor="CPU core", speeds="a table",
    )  # fmt: skip
    lines = list(describe(trained))
    assert lines[1].startswith("data       pets: about 1,200 images of train, ")
    assert lines[1].endswith(", +40 since b0-pets/3")
    assert lines[2:5] == [
        "training   b0: 1 epoch, 18 steps of 64 images, about 100 images/s",
        "evaluation champion and challenger on the same 300 images of val",
        "takes      1 min 0 s on 2 x CPU core",
    ]
    assert list(describe(replace(trained, job="finetune-1")))[2] == "training   none: finetune-1 is stored"
    assert list(describe(replace(night, continues=False)))[1].endswith(", the first of the line")
