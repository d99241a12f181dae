"""What a night refused stays refused, wherever the set is sharded next, until it is corrected or accepted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from growing_folder import add, append_pending, refuse, shard
from matrix import with_slow_rest

from conf.schema import Data
from infra import store
from infra.tracking import queries
from infra.tracking.registry import Version
from models.data.shards import acceptance, frozen_val, versions, writer
from models.data.shards import manifest as manifests
from models.results import ShardResult
from tasks.nights.batch import RefusedDataError, _refuse_unusable, refuse_data
from tasks.shard import _plan


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


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> list[Version]:
    """The versions in the registry."""
    versions: list[Version] = []
    monkeypatch.setattr(queries, "list_models", lambda: versions)
    return versions


def rows(result: ShardResult, *splits: str) -> set[int]:
    manifest = manifests.load_verified(result.manifest_uri, result.manifest_sha256)
    return set(manifests.Samples(manifest, splits).rows["xxh3"].tolist())


def name_of(result: ShardResult) -> str:
    mark = acceptance.find(result.manifest_uri)
    assert mark is not None
    return mark.version


def judge(data: Data, storage: str) -> str:
    """Refuses the data as a night does; returns what it says."""
    plan = _plan(data, storage)
    with pytest.raises(RefusedDataError) as refused:  # noqa: PT012 - as the flow calls both
        try:
            refuse_data(data, append_pending(data, storage), ["PSI 0.3"])
        except writer.ManyLostError as error:
            _refuse_unusable(data, plan, error)
    return str(refused.value)


def test_a_refused_batch_stays_refused_when_the_set_is_sharded_under_other_settings(
    data: Data, folder: Path, storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = shard(data, storage)
    add(folder, 100, 130)
    bad = append_pending(data, storage)
    refuse(bad, "wrong labels")
    add(folder, 130, 140)
    others = replace(data, samples_per_shard=20), replace(data, seed=7, frozen_val="second")
    for count, other in zip((10, 20), others, strict=True):
        anew = append_pending(other, storage)
        assert anew.manifest_uri.endswith("/manifest.json")
        added = rows(anew, "train", "minival", "val") - rows(first, "train", "minival", "val")
        assert len(added) == count, "the images that came after the refused ones"
        assert f"version {name_of(bad)} was refused and its 30 images are withheld" in caplog.text
        versions.accept(anew.manifest_uri)
        caplog.clear()
        assert append_pending(other, storage) == replace(anew, reused=True)
        assert "its 30 images are withheld" in caplog.text
        add(folder, 140, 150)
    taken = append_pending(replace(other, accept=[f"pets/{name_of(bad)}"]), storage)
    assert name_of(taken).partition("-")[2] == name_of(bad).partition("-")[2]
    versions.accept(taken.manifest_uri)
    assert acceptance.find(bad.manifest_uri) is None, "what one version contains is refused nowhere"


def test_a_folder_that_was_sharded_anew_with_refused_images_is_none_to_append_to(
    data: Data, folder: Path, storage: str
) -> None:
    first = shard(data, storage)
    add(folder, 100, 130)
    bad = append_pending(data, storage)
    refuse(bad, "wrong labels")
    add(folder, 130, 131)
    whole = shard(replace(data, append=False), storage)
    assert rows(whole, "train") >= rows(bad, "train"), "the user has said so"
    clean = append_pending(data, storage)
    assert clean.manifest_uri not in (first.manifest_uri, whole.manifest_uri)
    assert rows(clean, "train").isdisjoint(rows(bad, "train") - rows(first, "train"))
    versions.accept(clean.manifest_uri)
    assert append_pending(data, storage) == replace(clean, reused=True)
    by_name = replace(data, accept=[f"pets/{name_of(bad)}"])
    assert rows(append_pending(by_name, storage), "train") == rows(whole, "train")


@pytest.mark.parametrize("fault", with_slow_rest(["limits of the data", "broken images"]))
def test_a_first_version_can_be_refused_and_the_set_begins_anew_with_the_corrected_folder(
    fault: str, data: Data, folder: Path, storage: str
) -> None:
    data = replace(data, frozen_val="first")
    sound = (folder / "cat" / "000.png").read_bytes()
    broken = [folder / "cat" / f"broken{number}.png" for number in range(60 if fault == "broken images" else 1)]
    for number, path in enumerate(broken):
        path.write_bytes(sound[: len(sound) // 2] + bytes([number]))
    plan = _plan(data, storage)
    for _ in range(2):  # the next night refuses the same folder again
        said = judge(data, storage)
        assert f"version {plan.version_name}, the first, was refused: " in said
        assert said.endswith(
            f"correct the folder, or take it as it is: effnet nightly transfer.data.accept=[pets/{plan.version_name}]"
        )
    taken = append_pending(replace(data, accept=[f"pets/{plan.version_name}"]), storage)
    assert taken.manifest_uri == f"{plan.root}/manifest.json"
    judge(data, storage)

    for path in broken:
        path.unlink()
    for name in ("000", "002", "004", "006", "008", "010", "012", "014", "016", "018"):  # some are drawn into val
        (folder / "cat" / f"{name}.png").rename(folder / "dog" / f"{name}.png")
    begun = append_pending(data, storage)
    assert begun.manifest_uri.rpartition("/")[0] != plan.root
    assert begun.quarantined == 0
    versions.accept(begun.manifest_uri)
    add(folder, 100, 130)
    assert append_pending(data, storage).manifest_uri == begun.manifest_uri.replace(".json", "-0002.json")
    assert frozen_val.load(f"{storage}/data/pets", "first") is not None


def test_the_val_of_a_refused_first_version_is_drawn_anew_though_the_folder_was_sharded_without_it_before(
    data: Data, folder: Path, storage: str
) -> None:
    shard(replace(data, append=False), storage)
    data = replace(data, frozen_val="first")
    judge(data, storage)
    for path in (folder / "cat").iterdir():  # some are in val
        path.unlink()
    add(folder, 100, 200)
    assert append_pending(data, storage).manifest_uri.endswith("/manifest.json")


@pytest.mark.parametrize("state", ["promoted", "refused"])
def test_the_val_of_a_line_is_kept_when_a_first_version_of_other_settings_is_refused(
    state: str, data: Data, storage: str, registered: list[Version]
) -> None:
    data = replace(data, frozen_val="first")
    shard(data, storage)
    val = frozen_val.load(f"{storage}/data/pets", "first")
    assert val is not None
    registered.append(Version("b0-pets", 1, "", (), {"promotion": state, "val_sha256": val.sha256}))
    judge(replace(data, samples_per_shard=20), storage)
    kept = frozen_val.load(f"{storage}/data/pets", "first")
    assert kept == (val if state == "promoted" else None)


def test_a_first_version_that_counts_already_is_not_refused_and_the_message_says_what_to_do(
    data: Data, folder: Path, storage: str
) -> None:
    first = shard(data, storage)
    with pytest.raises(RefusedDataError, match=r"PSI 0\.3; they are in the data set already: correct the folder"):
        refuse_data(data, first, ["PSI 0.3"])
    add(folder, 100, 130)
    assert append_pending(data, storage).manifest_uri.endswith("/manifest-0002.json")


def test_of_two_versions_of_one_number_that_one_is_refused_whose_images_were(
    data: Data, folder: Path, storage: str
) -> None:
    shard(data, storage)
    add(folder, 100, 130)
    slow = _plan(data, storage)
    acceptance.mark_pending(slow.root, slow.version_name)  # of a night that has not written its manifest yet
    add(folder, 130, 140)
    other = name_of_next(data, storage)
    acceptance.mark_pending(slow.root, other)
    assert acceptance.refuse(slow.root, slow.version_name, "wrong labels") is not None
    acceptance.accept(slow.root, other)
    (mark,) = acceptance.load(slow.root, [uri.rpartition("/")[2] for uri in store.list_uris(slow.root)])
    assert (mark.version, mark.state) == (slow.version_name, "refused")


def test_a_version_is_not_taken_for_that_of_another_process_with_the_same_number(
    data: Data, folder: Path, storage: str, tmp_path: Path
) -> None:
    first = shard(data, storage)
    theirs = replace(data, path=str(tmp_path / "theirs"))
    add(tmp_path / "theirs", 100, 130)
    acceptance.mark_pending(first.manifest_uri.rpartition("/")[0], f"0002-{_plan(theirs, storage).version_name[-8:]}")
    add(folder, 130, 160)
    name = f"0002-{_plan(data, storage).version_name[-8:]}"
    acceptance.mark_pending(first.manifest_uri.rpartition("/")[0], name)
    ours = append_pending(data, storage)  # resumed: it was the first to write its manifest
    assert ours.manifest_uri.endswith("/manifest-0002.json")
    other = append_pending(theirs, storage)
    assert other.manifest_uri.endswith("/manifest-0003.json")
    assert rows(other, "train").isdisjoint(rows(ours, "train") - rows(first, "train"))
    assert append_pending(theirs, storage) == replace(other, reused=True)


def name_of_next(data: Data, storage: str) -> str:
    """The name that another process, which does not know of the mark yet, gives to what it appends."""
    return f"0002-{_plan(data, storage).version_name.partition('-')[2]}"


def test_names_of_versions_of_other_data_sets_do_not_count(data: Data, folder: Path, storage: str) -> None:
    shard(data, storage)
    add(folder, 100, 130)
    refuse(append_pending(data, storage), "rare images")
    before = append_pending(data, storage)
    assert append_pending(replace(data, accept=["products/0002-00000000"]), storage) == before
    with pytest.raises(ValueError, match=r"as a night names them, DATA/0002-5f0c9a31, not '0002-5f0c9a31'"):
        replace(data, accept=["0002-5f0c9a31"])


def test_the_mark_of_an_earlier_effnet_still_refuses(data: Data, folder: Path, storage: str) -> None:
    first = shard(data, storage)
    add(folder, 100, 130)
    bad = append_pending(data, storage)
    name = refuse(bad, "wrong labels")
    root = first.manifest_uri.rpartition("/")[0]
    store.write_json(f"{root}/unaccepted-0002.json", store.read_json(f"{root}/unaccepted-{name}.json"))
    store.delete(f"{root}/unaccepted-{name}.json")
    assert append_pending(data, storage) == replace(first, reused=True)
    acceptance.accept(root, name)
    assert not any("unaccepted" in uri for uri in store.list_uris(root))
