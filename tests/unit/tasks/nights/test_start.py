"""A version that became champion, however it did, brings the images that it was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from growing_folder import add, append_pending, refuse, shard
from matrix import with_slow_rest

from conf import compose, schema
from conf.schema import Data
from flows.cli import champions
from infra import store
from infra.errors import ConfigError
from infra.tracking import queries, registry
from infra.tracking.registry import Version
from models.data.shards import acceptance, frozen_val, versions
from models.results import Registered, ShardResult
from tasks.nights import batch, line, start
from tasks.nights.start import NightStart, accept_data
from tasks.registry import promote


@pytest.fixture
def data(tmp_path: Path) -> Data:
    add(tmp_path / "images", 0, 100)
    folder = str(tmp_path / "images")
    return Data(name="pets", source="folder", path=folder, minival_share=0.1, samples_per_shard=30, append=True)


@pytest.mark.parametrize(
    ("words", "appends"),
    [
        (["data@transfer.data=folder", "transfer.data.path=/images"], True),
        (["data@transfer.data=folder", "transfer.data.path=/images", "transfer.data.append=false"], False),
        (["data@transfer.data=folder", "transfer.data.path=/images", "transfer.data.limit=100"], False),
        (["data@transfer.data=webdataset", "transfer.data.path=/tars", "transfer.data.shards=in_place"], False),
        (["data@transfer.data=digits"], None),
    ],
)
def test_a_night_appends_to_a_set_that_grows_unless_it_cannot_or_may_not(
    words: list[str], appends: bool | None
) -> None:
    assert start.prepare_data(compose.compose(words)).append is appends


@pytest.fixture
def refused(data: Data, tmp_path: Path) -> ShardResult:
    """Images that a night has refused."""
    shard(data, f"file://{tmp_path}/store")
    add(Path(str(data.path)), 100, 130)
    appended = append_pending(data, f"file://{tmp_path}/store")
    refuse(appended, "b0-pets/2 was refused, which was trained on them")
    return appended


def trained_on(shards: ShardResult, tmp_path: Path, number: int = 2) -> Version:
    """A registered version that was trained on a data set."""
    job = schema.Job(
        "train", data_name="pets", manifest_uri=shards.manifest_uri, manifest_sha256=shards.manifest_sha256
    )
    store.write(f"file://{tmp_path}/jobs/{number}/config.yaml", compose.to_yaml(job).encode())
    return Version("b0-pets", number, "", (), {"job_uri": f"file://{tmp_path}/jobs/{number}"})


def test_a_version_that_a_user_promotes_has_its_refused_images_accepted_once(
    refused: ShardResult, data: Data, tmp_path: Path
) -> None:
    version = trained_on(refused, tmp_path)
    mark = acceptance.find(refused.manifest_uri)
    assert mark is not None
    said = f"its data pets/{mark.version}, which a night had refused or not judged, are accepted"
    assert [champions._accept_data(version) for _ in range(2)] == [[said], []]
    assert append_pending(data, f"file://{tmp_path}/store") == replace(refused, reused=True)


def test_a_champion_that_was_moved_by_other_means_has_its_images_accepted_by_the_next_night(
    refused: ShardResult, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = trained_on(refused, tmp_path)
    night = NightStart("b0-pets", "b0-pets/2", True, data)
    monkeypatch.setattr(start, "resolve_start", lambda _: night)
    monkeypatch.setattr(registry, "resolve_version", lambda _: version)
    assert line._find_start(compose.compose([])) == night
    assert acceptance.find(refused.manifest_uri) is None


def test_a_refused_first_version_whose_network_a_user_promotes_has_its_val_again(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "list_models", list)
    storage, data = f"file://{tmp_path}/store", replace(data, frozen_val="first")
    first = append_pending(data, storage)
    val = frozen_val.load(f"{storage}/data/pets", "first")
    night = NightStart("b0-pets", "b0/1", False, data)
    for _ in range(2):
        batch._close_batch(night, first, Registered("b0-pets", 1, (), outcome="refused"))
    assert frozen_val.load(f"{storage}/data/pets", "first") is None
    accept_data(trained_on(first, tmp_path, 1))
    assert frozen_val.load(f"{storage}/data/pets", "first") == val is not None
    assert store.list_uris(f"{storage}/data/pets/val") == [f"{storage}/data/pets/val/first.json"]
    add(Path(str(data.path)), 100, 130)
    assert append_pending(data, storage).manifest_uri == first.manifest_uri.replace(".json", "-0002.json")


@pytest.mark.parametrize("tags", [{}, {"job_uri": "file:///nowhere"}])
def test_a_champion_without_a_job_is_left_as_it_is(tags: dict[str, str]) -> None:
    assert accept_data(Version("b0", 1, "", (), tags)) == ""


def test_the_images_that_came_with_a_version_that_is_taken_back_are_withheld_until_it_is_put_back(
    data: Data, tmp_path: Path
) -> None:
    storage, folder = f"file://{tmp_path}/store", Path(str(data.path))
    before = shard(data, storage)
    old = trained_on(before, tmp_path, 1)
    add(folder, 100, 130)
    after = shard(data, storage)
    bad = trained_on(after, tmp_path, 2)
    (said,) = champions._withdraw_data(bad, old, "rollback of version 2")
    mark = acceptance.find(after.manifest_uri)
    assert mark is not None
    reason = "b0-pets/2, which was trained on them, was taken back: rollback of version 2"
    assert said.startswith(
        f"of the data pets, version {mark.version} was refused and its images are withheld: {reason}; "
    )
    assert f"transfer.data.accept=[pets/{mark.version}]" in said
    assert append_pending(data, storage) == replace(before, reused=True)

    champions._accept_data(bad)  # as another rollback does
    champions._withdraw_data(old, bad, "rollback of version 1")
    assert shard(data, storage) == replace(after, reused=True)


def test_images_stay_that_the_champion_was_trained_on_too_or_that_others_were_appended_to(
    data: Data, tmp_path: Path
) -> None:
    storage, folder = f"file://{tmp_path}/store", Path(str(data.path))
    old = trained_on(shard(data, storage), tmp_path, 1)
    add(folder, 100, 130)
    second = shard(data, storage)
    version, again = trained_on(second, tmp_path, 2), trained_on(second, tmp_path, 3)
    assert champions._withdraw_data(again, version, "rollback of version 3") == []
    add(folder, 130, 160)
    third = shard(data, storage)
    (said,) = champions._withdraw_data(version, old, "rollback of version 2")
    assert said == (
        "the images that were added for b0-pets/2 stay in the data pets, since others were appended to them: to remove "
        "them, correct the folder and run a night with transfer.data.append=false"
    )
    assert shard(data, storage) == replace(third, reused=True)
    assert champions._withdraw_data(Version("b0-pets", 4, "", (), {}), old, "imported") == []


@pytest.mark.parametrize("is_refused", with_slow_rest([False, True]))
def test_images_of_a_version_that_is_taken_back_before_they_were_accepted_are_withheld(
    is_refused: bool, data: Data, tmp_path: Path
) -> None:
    """The night was killed between the move of the alias and its end."""
    storage, folder = f"file://{tmp_path}/store", Path(str(data.path))
    before = shard(data, storage)
    add(folder, 100, 130)
    after = append_pending(data, storage)
    if is_refused:
        refuse(after, "wrong labels")
    old, new = trained_on(before, tmp_path, 1), trained_on(after, tmp_path, 2)
    (said,) = champions._withdraw_data(new, old, "rollback of version 2")
    mark = acceptance.find(after.manifest_uri)
    assert mark is not None
    reason = (
        "wrong labels" if is_refused else "b0-pets/2, which was trained on them, was taken back: rollback of versio"
    )
    assert said.startswith(
        f"of the data pets, version {mark.version} was refused and its images are withheld: {reason}"
    )
    assert append_pending(data, storage) == replace(before, reused=True)


def test_a_night_that_trained_on_images_which_were_taken_back_meanwhile_accepts_none_and_the_next_judges_its_others(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, folder = f"file://{tmp_path}/store", Path(str(data.path))
    before = shard(data, storage)
    add(folder, 100, 130)
    second = shard(data, storage)
    add(folder, 130, 160)
    third = append_pending(data, storage)  # the night trains on it
    assert batch._find_withdrawn(Registered("b0-pets", 3, ()), third) is None
    champions._withdraw_data(trained_on(second, tmp_path, 2), trained_on(before, tmp_path, 1), "wrong labels")
    mark = acceptance.find(second.manifest_uri)
    assert mark is not None
    monkeypatch.setattr(promote, "is_pending", lambda _: True)
    fault = batch._find_withdrawn(Registered("b0-pets", 3, ()), third)
    assert str(fault).startswith(f"version {mark.version} of its data was refused while it was trained: b0-pets/2, whi")
    for outcome in ("refused", "tied", "waiting"):
        ended = Registered("b0-pets", 3, (), outcome=outcome)
        assert batch._close_batch(NightStart("b0-pets", "b0-pets/2", True, data), third, ended) == ended
    assert acceptance.find(second.manifest_uri) == mark

    fourth = append_pending(data, storage)
    assert fourth.manifest_uri.endswith("/manifest-0004.json")
    assert (fourth.train - before.train, fourth.train < third.train) == (third.train - second.train, True)
    assert append_pending(data, storage) == replace(fourth, reused=True)
    versions.accept(fourth.manifest_uri)
    assert shard(data, storage) == replace(fourth, reused=True)
    assert acceptance.find(second.manifest_uri) == mark


def test_a_night_has_one_val_so_folds_are_refused() -> None:
    config = compose.compose(["data@transfer.data=folder", "transfer.data.path=x", "transfer.data.folds=5"])
    with pytest.raises(ConfigError, match=r"give transfer\.data\.folds=1"):
        start.prepare_data(config)
