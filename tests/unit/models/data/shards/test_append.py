"""Images that are added to a sharded folder: new shards and a new manifest, over old shards that stay as they are."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash
from growing_folder import add, append_pending, refuse, shard
from matrix import with_slow_rest

from conf import compose
from conf.schema import Augment, Data
from infra import store
from infra.errors import AppendError, ConfigError, DataError, TransientError
from models.data.loading.loader import Loader
from models.data.shards import manifest as manifests
from models.data.shards import new_images, versions, writer
from models.data.shards.layout import Plans
from models.results import ShardResult
from tasks.nights.batch import RefusedDataError, _refuse_unusable
from tasks.shard import _plan, _plan_anew, _write_group, _write_manifest


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


def objects(result: ShardResult) -> dict[str, bytes]:
    return {uri: store.read(uri) for uri in store.list_uris(result.manifest_uri.rpartition("/")[0])}


def rows(result: ShardResult, *splits: str) -> set[int]:
    manifest = manifests.load_verified(result.manifest_uri, result.manifest_sha256)
    return set(manifests.Samples(manifest, splits).rows["xxh3"].tolist())


@pytest.mark.parametrize("frozen_val", with_slow_rest([None, "first"]))
@pytest.mark.parametrize("whole", [True, False], ids=["whole folder", "folder of new images"])
def test_new_images_are_added_in_new_shards_and_no_old_object_minival_or_val_changes(
    frozen_val: str | None, whole: bool, data: Data, folder: Path, storage: str, tmp_path: Path
) -> None:
    data = replace(data, frozen_val=frozen_val)
    first = shard(replace(data, append=False), storage)
    before = objects(first)
    assert shard(data, storage) == replace(first, reused=True)  # nothing to add
    new = folder if whole else tmp_path / "new"
    add(new, 100, 160)
    grown = shard(replace(data, path=str(new)), storage)

    after = objects(grown)
    assert before.items() <= after.items()
    assert grown.manifest_uri == first.manifest_uri.replace("manifest.json", "manifest-0002.json")
    assert (grown.minival, grown.val) == (first.minival, first.val)
    assert rows(grown, "minival") == rows(first, "minival")
    assert rows(grown, "val") == rows(first, "val")
    assert rows(grown, "train") > rows(first, "train")
    withheld = 60 - (grown.train - first.train)
    assert 5 < withheld < 35
    assert grown.unused == (f"{withheld} new images would be in minival or val, which data.append leaves as they are",)
    assert grown.shards == first.shards + 2
    assert rows(first, "train", "minival", "val")  # the first version is still readable
    assert shard(data, storage) == replace(grown, reused=True)

    add(folder, 160, 190)
    third = shard(data, storage)
    assert third.manifest_uri.endswith("/manifest-0003.json")
    assert rows(third, "train") > rows(grown, "train")
    assert after.items() <= objects(third).items()


def test_appended_images_are_those_that_the_whole_folder_would_have_in_train(
    data: Data, folder: Path, storage: str
) -> None:
    shard(data, storage)
    add(folder, 100, 160)
    appended = shard(data, storage)
    anew = shard(replace(data, append=False), f"{storage}-anew")
    assert rows(appended, "train") == rows(anew, "train")


def test_the_loader_reads_old_and_new_shards_of_a_version(
    data: Data, folder: Path, storage: str, tmp_path: Path
) -> None:
    shard(data, storage)
    add(folder, 100, 160)
    grown = shard(data, storage)
    manifest = manifests.load_verified(grown.manifest_uri, grown.manifest_sha256)
    reader = Loader(manifest, grown.manifest_uri, "train", 8, Augment(eval_crop_pad=0), tmp_path / "cache", 1)
    labels = np.concatenate([batch.labels.numpy() for batch in reader.eval_batches(16, 0, 1)])
    reader.close()
    assert len(labels) >= grown.train
    assert sorted(labels[: grown.train]) == sorted(manifests.Samples(manifest, ["train"]).rows["label"])


def test_a_version_that_was_interrupted_is_completed_also_on_another_machine_and_after_more_images(
    data: Data, folder: Path, storage: str
) -> None:
    shard(data, storage)
    add(folder, 100, 160)
    plan = _plan(data, storage)
    _write_group(data, plan.root, [0], plan.version)  # the process ends here
    shared = Plans().get(data, plan.root, plan.version)
    assert shared.names == writer.plan(data, storage).names
    add(folder, 160, 170)
    grown = shard(data, storage)
    anew = shard(replace(data, append=False), f"{storage}-anew")
    assert rows(grown, "train") == rows(anew, "train")


def test_of_two_processes_that_append_at_once_one_is_to_run_again(data: Data, folder: Path, storage: str) -> None:
    shard(data, storage)
    add(folder, 100, 130)
    slow = _plan(data, storage)
    for numbers in slow.groups:
        _write_group(data, slow.root, numbers, slow.version)
    add(folder, 130, 160)
    quick = shard(data, storage)
    assert _write_manifest(data, *_place(quick)) == quick  # the same version again, as by a retry
    with pytest.raises(TransientError, match="another process has appended images"):
        _write_manifest(data, slow.root, slow.version)
    assert shard(data, storage) == replace(quick, reused=True)


def test_an_image_that_was_deleted_from_the_folder_stays_which_is_said_until_the_whole_folder_is_sharded(
    data: Data, folder: Path, storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = shard(data, storage)
    for length in range(40, 60):
        (folder / "cat" / "broken.png").write_bytes((folder / "cat" / "000.png").read_bytes()[:length])
        if shard(data, storage).quarantined:  # otherwise it was drawn into val or minival
            break
    (folder / "cat" / "broken.png").unlink()  # which no shard has
    assert _plan(data, storage).absent == ""
    (folder / "cat" / "000.png").unlink()
    said = (
        "not in the folder any more, but still in the data: 1 of the 100 images that were sharded before; to remove "
        "them, shard the whole folder with data.append=false"
    )
    assert _plan(data, storage).absent == said
    assert f"pets: {said}" in caplog.text
    kept = shard(data, storage)
    assert rows(kept, "train", "minival", "val") == rows(first, "train", "minival", "val")
    anew = shard(replace(data, append=False), storage)
    assert anew.train + anew.minival + anew.val == 99
    assert _plan(data, storage).absent == ""
    assert shard(data, storage) == replace(anew, reused=True)


@pytest.mark.parametrize("val", [None, "first"])
def test_deleted_images_that_wait_for_the_next_val_are_not_said_to_be_in_the_data(
    val: str | None, data: Data, folder: Path, storage: str
) -> None:
    data = replace(data, frozen_val=val)
    first = shard(data, storage)
    if val is not None:  # a first version of other settings, with images that its val withholds
        add(folder, 100, 130)
        data = replace(data, samples_per_shard=20)
        first = shard(data, storage)
    add(folder, 130, 160)
    grown = shard(data, storage)
    for number in range(100, 160):
        (folder / ("cat", "dog")[number % 2] / f"{number}.png").unlink(missing_ok=True)
    total = grown.train + grown.minival + grown.val
    absent = total - 100
    assert 0 < absent < (60 if val else 30)
    assert f"in the data: {absent} of the {total} images" in _plan(data, storage).absent
    assert grown.train > first.train


def test_a_folder_of_new_images_alone_lacks_none(data: Data, storage: str, tmp_path: Path) -> None:
    shard(data, storage)
    add(tmp_path / "new", 100, 110)
    assert _plan(replace(data, path=str(tmp_path / "new")), storage).absent == ""


def test_what_cannot_be_appended_is_one_line_and_writes_nothing(data: Data, folder: Path, storage: str) -> None:
    first = shard(data, storage)
    before = objects(first)
    shutil.copy(folder / "cat" / "000.png", folder / "dog" / "000.png")
    with pytest.raises(AppendError, match=r"dog/000.png is in the data set as 'cat', not as 'dog'; shard the whole"):
        shard(data, storage)
    (folder / "dog" / "000.png").unlink()
    with pytest.raises(ConfigError, match=r"data\.limit and data\.append exclude each other"):
        new_images.select_new(
            replace(data, limit=10), *_source_of(data, storage), versions.Version("", 1, "", _manifest(first))
        )
    add(folder / ".." / "birds" / "x", 0, 1)
    shutil.copytree(folder / ".." / "birds" / "x" / "cat", folder / "bird")
    with pytest.raises(ConfigError, match="class 'bird' is not in the data set to append to"):
        shard(data, storage)
    shutil.rmtree(folder / "bird")
    assert objects(first) == before
    name = _manifest(first).shards[0].name
    store.delete(f"{first.manifest_uri.rpartition('/')[0]}/{name}")
    with pytest.raises(AppendError, match=f"1 shard is missing or of another size, the first is {name}"):
        shard(data, storage)


def test_a_set_in_which_an_image_has_changed_its_class_begins_anew_without_the_refused_images(
    data: Data, folder: Path, storage: str
) -> None:
    data = replace(data, frozen_val="first")
    first = shard(data, storage)
    add(folder, 100, 130)
    refuse(append_pending(data, storage), "wrong labels")
    add(folder, 130, 160)
    grown = shard(data, storage)
    val = rows(first, "val")
    moved = next(
        path for path in sorted((folder / "cat").iterdir()) if xxhash.xxh3_64_intdigest(path.read_bytes()) not in val
    )
    moved.rename(folder / "dog" / moved.name)
    with pytest.raises(AppendError):
        _plan(data, storage)
    plan = _plan_anew(data, storage)
    for numbers in plan.groups:
        _write_group(data, plan.root, numbers, plan.version)
    anew = _write_manifest(data, plan.root, plan.version)
    assert "0002-" in plan.refused[0]
    assert (rows(anew, "train"), rows(anew, "val")) == (rows(grown, "train"), val)
    add(folder, 160, 190)
    assert shard(data, storage).manifest_uri == anew.manifest_uri.replace("manifest.json", "manifest-0002.json")


def test_a_set_with_fixed_splits_cannot_be_appended_to(storage: str) -> None:
    digits = compose.compose(["data=digits", "data.append=true"]).data
    with pytest.raises(ConfigError, match=r"data\.append is for sets that grow, as data=folder"):
        writer.plan(digits, storage)


def _place(result: ShardResult) -> tuple[str, str]:
    """Folder and version of an appended data set."""
    root, _, name = result.manifest_uri.rpartition("/")
    number = name.removeprefix("manifest-").removesuffix(".json")
    return root, f"{number}-{_manifest(result).source_digest[:8]}"


def _manifest(result: ShardResult) -> manifests.Manifest:
    return manifests.load(result.manifest_uri)[1]


def _source_of(data: Data, storage: str) -> tuple[object, object]:
    source = writer.plan(replace(data, append=False), storage).source
    return source, source.content


def test_a_file_in_the_folders_of_two_classes_does_not_stop_later_appends(
    data: Data, folder: Path, storage: str
) -> None:
    shutil.copy(folder / "cat" / "000.png", folder / "dog" / "copy.png")
    first = shard(data, storage)
    assert shard(data, storage) == replace(first, reused=True)
    add(folder, 100, 140)
    assert shard(data, storage).manifest_uri.endswith("/manifest-0002.json")


def test_new_images_none_of_which_decodes_are_quarantined_once(
    data: Data, folder: Path, storage: str, tmp_path: Path
) -> None:
    first = shard(data, storage)
    for number in range(8):
        sound = (folder / "cat" / "000.png").read_bytes()
        (folder / "cat" / f"broken{number}.png").write_bytes(sound[: len(sound) // 2] + bytes([number]))
    second = shard(data, storage)
    assert (second.train, second.minival, second.val) == (first.train, first.minival, first.val)
    assert 0 < second.quarantined <= 8
    assert shard(data, storage) == replace(second, reused=True)
    manifest = manifests.load_verified(second.manifest_uri, second.manifest_sha256)
    reader = Loader(manifest, second.manifest_uri, "train", 8, Augment(eval_crop_pad=0), tmp_path / "cache", 1)
    assert sum(len(batch.labels) for batch in reader.eval_batches(1, 0, 1)) == first.train
    reader.close()


def name_of(result: ShardResult) -> str:
    root, version = _place(result)
    assert root
    return version


def test_a_version_that_was_not_accepted_is_in_no_later_one_and_is_found_by_the_same_command(
    data: Data, folder: Path, storage: str
) -> None:
    first = shard(data, storage)
    add(folder, 100, 130)
    second = append_pending(data, storage)
    assert append_pending(data, storage) == replace(second, reused=True)
    add(folder, 130, 160)
    third = append_pending(data, storage)
    assert third.manifest_uri.endswith("/manifest-0003.json")
    versions.accept(third.manifest_uri)
    anew = shard(replace(data, append=False), f"{storage}-anew")
    assert rows(third, "train") == rows(anew, "train"), "all new images, none of them twice"
    assert third.train == anew.train
    assert shard(data, storage) == replace(third, reused=True)
    assert rows(first, "train") < rows(second, "train")


def test_images_of_a_refused_version_are_withheld_while_others_are_appended(
    data: Data, folder: Path, storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = shard(data, storage)
    add(folder, 100, 130)
    bad = append_pending(data, storage)
    refuse(bad, "30 % of the labels are wrong")
    assert append_pending(data, storage) == replace(first, reused=True)
    assert f"version {name_of(bad)} was refused and its 30 images are withheld: 30 % of the labels" in caplog.text
    assert f"effnet nightly transfer.data.accept=[pets/{name_of(bad)}]" in caplog.text
    add(folder, 130, 160)
    good = append_pending(data, storage)
    versions.accept(good.manifest_uri)
    added = rows(good, "train") - rows(first, "train")
    assert added
    assert added.isdisjoint(rows(bad, "train"))
    assert shard(data, storage) == replace(good, reused=True), "effnet shard withholds them too"


@pytest.mark.parametrize("correction", ["moved", "deleted"])
def test_a_refused_version_of_which_an_image_was_corrected_is_new_again(
    correction: str, data: Data, folder: Path, storage: str
) -> None:
    first = shard(data, storage)
    add(folder, 100, 130)
    bad = append_pending(data, storage)
    refuse(bad, "wrong labels")
    if correction == "moved":
        shutil.move(folder / "cat" / "100.png", folder / "dog" / "100.png")
    else:
        (folder / "cat" / "100.png").unlink()
    corrected = append_pending(data, storage)
    versions.accept(corrected.manifest_uri)
    anew = shard(replace(data, append=False), f"{storage}-anew")
    assert corrected.manifest_uri.endswith("/manifest-0003.json")
    assert rows(corrected, "train") == rows(anew, "train")
    assert rows(corrected, "train") > rows(first, "train")


def test_a_refused_version_is_taken_by_its_name_alone_and_after_others(data: Data, folder: Path, storage: str) -> None:
    shard(data, storage)
    add(folder, 100, 130)
    refused = append_pending(data, storage)
    refuse(refused, "rare images")
    add(folder, 130, 160)
    good = append_pending(data, storage)
    versions.accept(good.manifest_uri)
    with pytest.raises(
        ConfigError, match=f"no refused version 'pets/0009-00000000'; refused are pets/{name_of(refused)}"
    ):
        shard(replace(data, accept=["pets/0009-00000000"]), storage)
    add(folder, 160, 170)
    by_name = replace(data, accept=[f"pets/{name_of(refused)}"])
    taken = append_pending(by_name, storage)
    assert rows(taken, "train") == rows(good, "train") | rows(refused, "train"), "not yet those that came last"
    assert name_of(taken).endswith(name_of(refused).partition("-")[2])
    versions.accept(taken.manifest_uri)
    last = append_pending(by_name, storage)  # the name may stay in the settings
    anew = shard(replace(data, append=False), f"{storage}-anew")
    assert rows(last, "train") == rows(anew, "train")


def test_a_name_that_stays_in_the_settings_stops_no_later_append_after_its_images_came_in_by_another_version(
    data: Data, folder: Path, storage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard(data, storage)
    add(folder, 100, 130)
    refused = append_pending(data, storage)
    refuse(refused, "rare images")
    (folder / "cat" / "100.png").rename(tmp_path / "100.png")
    others = append_pending(data, storage)  # accepted without the image that was removed
    versions.accept(others.manifest_uri)
    (tmp_path / "100.png").rename(folder / "cat" / "100.png")  # and all of the refused version are here again
    assert shard(data, storage) == replace(others, reused=True)
    assert f"version {name_of(refused)} was refused and one image of it is withheld" in caplog.text
    by_name = replace(data, accept=[f"pets/{name_of(refused)}"])
    versions.accept(append_pending(by_name, storage).manifest_uri)
    add(folder, 130, 160)
    caplog.clear()
    last = append_pending(by_name, storage)
    anew = shard(replace(data, append=False), f"{storage}-anew")
    assert rows(last, "train") == rows(anew, "train")
    assert caplog.text == ""


def test_new_images_of_which_too_many_are_broken_are_refused_withheld_and_taken_by_name(
    data: Data, folder: Path, storage: str
) -> None:
    first = shard(data, storage)
    sound = (folder / "cat" / "000.png").read_bytes()
    for number in range(60):
        (folder / "cat" / f"broken{number}.png").write_bytes(sound[: len(sound) // 2] + bytes([number]))
    with pytest.raises(writer.ManyLostError, match="images cannot be used") as lost:
        append_pending(data, storage)
    plan = _plan(data, storage)
    _refuse_unusable(data, plan, DataError("a shard is damaged"))
    with pytest.raises(RefusedDataError) as refused:
        _refuse_unusable(data, plan, lost.value)
    line = f"the data pets are refused, nothing is trained: version {plan.version} was refused and its images are "
    assert str(refused.value).startswith(f"{line}withheld: pets: ")
    assert "fetch the set again" not in str(refused.value)
    assert str(refused.value).endswith(
        f"or take it as it is: effnet nightly transfer.data.accept=[pets/{plan.version}]"
    )

    assert append_pending(data, storage) == replace(first, reused=True)
    add(folder, 100, 130)
    good = append_pending(data, storage)
    versions.accept(good.manifest_uri)
    assert good.train > first.train
    assert good.quarantined == 0
    taken = append_pending(replace(data, accept=[f"pets/{plan.version}"]), storage)
    assert (taken.train, taken.quarantined > 10) == (good.train, True)


def test_the_added_images_of_a_version_are_a_data_set_to_evaluate_on(
    data: Data, folder: Path, storage: str, tmp_path: Path
) -> None:
    first = shard(data, storage)
    add(folder, 100, 160)
    grown = append_pending(data, storage)
    uri, sha256, added = versions.write_added(grown.manifest_uri)
    assert versions.write_added(grown.manifest_uri)[:2] == (uri, sha256)
    assert (added.samples("val"), added.samples("train")) == (grown.train - first.train, 0)
    manifest = manifests.load_verified(uri, sha256)
    assert set(manifest.table["xxh3"].tolist()) == rows(grown, "train") - rows(first, "train")
    reader = Loader(manifest, uri, "val", 8, Augment(eval_crop_pad=0), tmp_path / "cache", 1)
    assert sum(len(batch.labels) for batch in reader.eval_batches(1, 0, 1)) == grown.train - first.train
    reader.close()
    assert shard(data, storage).manifest_uri == grown.manifest_uri, "it is no version"
