"""Shards in a folder store, read back by plain webdataset and by their offsets."""

import dataclasses
import io
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
import xxhash
from blake3 import blake3
from PIL import Image
from torch.utils.data import DataLoader

from conf.schema import Data
from infra import store
from infra.errors import ConfigError, DataError, NotFoundError
from models.data.shards import chunks, writer
from models.data.shards import layout as layouts
from models.data.shards import manifest as manifests
from models.data.shards.image_check import ImageInfo, check_image
from models.data.shards.layout import Plans, ShardLayout
from models.data.shards.manifest import Manifest
from models.data.shards.split import split_indices
from models.data.sources import class_remarks
from models.data.sources.listing import MINIVAL, TRAIN, VAL

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's reader does not close it


def picture(seed: int, suffix: str) -> bytes:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (rng.integers(8, 20), rng.integers(8, 20), 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, {"jpg": "JPEG", "JPEG": "JPEG", "png": "PNG"}[suffix])
    return buffer.getvalue()


def fill(folder: Path, seed: int, count: int = 12) -> None:
    """Writes ``count`` images per class of two classes, JPEG and PNG mixed."""
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            suffix = ("jpg", "png", "JPEG")[i % 3]
            (folder / name / f"{i:02d}.{suffix}").write_bytes(picture(seed + 100 * label + i, suffix))
    (folder / "dog" / "readme.txt").write_text("not an image")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    fill(folder, 0)
    return folder


def folder_data(path: Path, **changes: Any) -> Data:
    settings: dict[str, Any] = {"val_share": 0.25, "minival_share": 0.2, "samples_per_shard": 4} | changes
    return Data(name="pets", source="folder", path=str(path), **settings)


def write_all(data: Data, root: Path) -> tuple[str, Manifest]:
    """Plans and writes the whole data set; returns the uri of its folder and the manifest."""
    storage = f"file://{root}"
    layout = writer.plan(data, storage)
    for numbers in writer.groups(layout, data.shards_per_task):
        writer.write_group(layout, numbers)
    sha256, manifest = writer.write_manifest(layout)
    assert manifests.load_verified(layout.manifest_uri, sha256) == manifest
    return layout.root, manifest


def read_by_webdataset(path: Path) -> list[dict[str, Any]]:
    return list(webdataset.WebDataset(str(path), shardshuffle=False))


def keys_by_split(root: str, manifest: Manifest) -> dict[str, list[int]]:
    """Returns the source indices per split as read by webdataset."""
    folder = Path(root.removeprefix("file://"))
    return {
        split: [
            int(s["__key__"])
            for shard in manifest.shards
            if shard.split == split
            for s in read_by_webdataset(folder / shard.name)
        ]
        for split in manifests.SPLITS
    }


def test_webdataset_reads_the_images_and_labels_that_were_written(images: Path, tmp_path: Path) -> None:
    root, manifest = write_all(folder_data(images), tmp_path)
    files = sorted(p for p in images.glob("*/*") if p.suffix != ".txt")
    seen = 0
    for shard in manifest.shards:
        for sample in read_by_webdataset(Path(root.removeprefix("file://")) / shard.name):
            origin = files[int(sample["__key__"])]
            suffix = "png" if origin.suffix == ".png" else "jpg"
            assert sample[suffix] == origin.read_bytes()
            assert manifest.classes[int(sample["cls"])] == origin.parent.name
            seen += 1
    assert seen == len(files) == 24


def test_a_dataloader_of_torch_reads_the_shards_in_batches(images: Path, tmp_path: Path) -> None:
    root, manifest = write_all(folder_data(images), tmp_path)
    folder = Path(root.removeprefix("file://"))
    train = [str(folder / shard.name) for shard in manifest.shards if shard.split == "train"]
    dataset = webdataset.WebDataset(train, shardshuffle=False).map(
        lambda sample: (sample.get("jpg") or sample["png"], int(sample["cls"]))
    )
    batches = list(DataLoader(dataset, batch_size=4, collate_fn=lambda batch: list(zip(*batch, strict=True))))
    read = {
        image: manifest.classes[label]
        for images_, labels in batches
        for image, label in zip(images_, labels, strict=True)
    }
    by_bytes = {path.read_bytes(): path.parent.name for path in images.glob("*/*")}
    assert len(read) == manifest.samples("train") > 4
    assert read.items() <= by_bytes.items()


def test_offsets_and_sizes_locate_the_exact_image(images: Path, tmp_path: Path) -> None:
    root, manifest = write_all(folder_data(images), tmp_path)
    by_bytes = {p.read_bytes(): p.parent.name for p in images.glob("*/*")}
    samples = manifests.Samples(manifest, manifests.SPLITS)
    for number, row in zip(samples.shard_numbers(np.arange(len(samples))), samples.rows, strict=True):
        image = store.read_range(f"{root}/{samples.shards[number].name}", int(row["offset"]), int(row["size"]))
        assert by_bytes[image] == manifest.classes[row["label"]]
        assert xxhash.xxh3_64_intdigest(image) == row["xxh3"]
        assert Image.open(io.BytesIO(image)).size == (row["width"], row["height"])
    assert len(samples) == 24


def test_size_and_digest_of_every_shard_match_the_store(images: Path, tmp_path: Path) -> None:
    root, manifest = write_all(folder_data(images), tmp_path)
    for shard in manifest.shards:
        data = store.read(f"{root}/{shard.name}")
        assert (len(data), blake3(data).hexdigest()) == (shard.bytes, shard.blake3)


def test_writing_to_another_store_gives_equal_bytes(images: Path, tmp_path: Path) -> None:
    def everything(root: Path) -> dict[str, bytes]:
        write_all(folder_data(images), root)
        paths = [path for path in root.rglob("*") if path.is_file() and path.parent.name != "contents"]  # of old images
        return {str(path.relative_to(root)): path.read_bytes() for path in paths}

    first, second = everything(tmp_path / "a"), everything(tmp_path / "b")
    assert first == second
    assert len(first) == 2 * 6 + 2  # six shards and their indices, the table and the manifest


def test_every_split_is_divided_into_equal_shards(images: Path) -> None:
    layout = writer.plan(folder_data(images, samples_per_shard=3), "file:///nowhere")
    sizes = [(split, len(members)) for split, members in zip(layout.splits, layout.members, strict=True)]
    # 24 images: 16 train, 4 minival, 4 val, by their content
    assert sizes == [*[("train", n) for n in (3, 3, 3, 3, 2, 2)], *[("minival", 2)] * 2, *[("val", 2)] * 2]
    assert layout.names[:2] == ["train-00000-of-00006.tar", "train-00001-of-00006.tar"]
    assert writer.groups(layout, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_splits_are_disjoint_and_complete(images: Path, tmp_path: Path) -> None:
    keys = keys_by_split(*write_all(folder_data(images), tmp_path))
    assert {split: len(ids) for split, ids in keys.items()} == {"train": 16, "minival": 4, "val": 4}
    assert sorted(keys["train"] + keys["minival"] + keys["val"]) == list(range(24))


def splits_by_image(path: Path, **changes: Any) -> dict[bytes, str]:
    """The split of each image of a folder, by its bytes."""
    layout = writer.plan(folder_data(path, **changes), "file:///nowhere")
    members = zip(layout.splits, layout.members, strict=True)
    return {layout.source.read(index): split for split, indices in members for index in indices.tolist()}


@pytest.mark.slow
def test_a_folder_that_grows_moves_no_image_between_splits(tmp_path: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for number in range(450):  # classes interleave with the new ones below
            (tmp_path / name / f"{number:03}.png").write_bytes(picture(1000 * label + number, "png"))
    every = sorted(tmp_path.glob("*/*.png"), key=lambda path: (path.name, path.parent.name))
    contents = {path: path.read_bytes() for path in every}
    for path in every[600:]:
        path.unlink()
    before = splits_by_image(tmp_path)
    assert len(before) == 600
    shares = {split: list(before.values()).count(split) / 600 for split in manifests.SPLITS}
    assert shares == pytest.approx({"train": 0.6, "minival": 0.15, "val": 0.25}, abs=0.06)  # 3 standard errors
    (tmp_path / "bird").mkdir()  # a class in front of the others, so that labels and names change too
    (tmp_path / "bird" / "new.png").write_bytes(picture(99_999, "png"))
    one_more = splits_by_image(tmp_path)
    assert len(one_more) == 601
    for path in every[600:]:
        path.write_bytes(contents[path])
    many_more = splits_by_image(tmp_path)
    assert len(many_more) == 901
    assert {image: one_more[image] for image in before} == before
    assert {image: many_more[image] for image in one_more} == one_more
    assert splits_by_image(tmp_path, seed=1) != many_more


def fold_of(path: Path, number: int, folds: int = 3, **changes: Any) -> dict[bytes, str]:
    return splits_by_image(path, folds=folds, fold=number, val_share=1 / folds, **changes)


def test_every_image_of_a_folder_is_val_in_one_fold_and_stays_so_while_the_folder_grows(tmp_path: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for number in range(150):
            (tmp_path / name / f"{number:03}.png").write_bytes(picture(1000 * label + number, "png"))
    folds = [fold_of(tmp_path, number) for number in range(3)]
    vals = [{image for image, split in fold.items() if split == "val"} for fold in folds]
    assert sum(map(len, vals)) == len(set.union(*vals)) == 300
    assert [len(val) / 300 for val in vals] == pytest.approx([1 / 3] * 3, abs=0.09)  # 3 standard errors
    assert all(len({fold[image] for fold in folds} - {"val"}) == 1 for image in folds[0]), "minival or train in both"
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "new.png").write_bytes(picture(99_999, "png"))
    grown = fold_of(tmp_path, 1)
    assert len(grown) == 301
    assert {image: grown[image] for image in folds[1]} == folds[1]


def test_a_folder_with_its_own_val_has_it_in_every_fold(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(30):
                seed = 1000 * label + 100 * (split == "val") + number
                (tmp_path / split / name / f"{number:03}.png").write_bytes(picture(seed, "png"))
    plans = [
        writer.plan(folder_data(tmp_path, folds=folds, fold=fold, val_share=1 / max(2, folds)), "file:///nowhere")
        for folds, fold in ((1, 0), (2, 0), (2, 1))
    ]
    assert len({plan.root for plan in plans}) == 1


def test_a_limit_of_a_growing_folder_moves_no_image_either(images: Path) -> None:
    whole, part = splits_by_image(images), splits_by_image(images, limit=18)
    assert len(part) == 18
    assert part == {image: whole[image] for image in part}


def test_identical_images_are_in_one_split_whatever_their_names_and_classes(tmp_path: Path) -> None:
    fill(tmp_path, 0, count=40)
    for path in sorted((tmp_path / "cat").iterdir()):
        (tmp_path / "dog" / f"copy-{path.name}").write_bytes(path.read_bytes())
    layout = writer.plan(folder_data(tmp_path, allow_partial=True), "file:///nowhere")
    splits: dict[bytes, set[str]] = {}
    for split, indices in zip(layout.splits, layout.members, strict=True):
        for index in indices.tolist():
            splits.setdefault(layout.source.read(index), set()).add(split)
    assert len(splits) == 80
    assert len(np.concatenate(layout.members)) == 120
    assert all(len(of) == 1 for of in splits.values())


def test_an_image_replaced_by_another_of_equal_name_and_size_changes_the_address(tmp_path: Path) -> None:
    fill(tmp_path, 0)
    before = writer.plan(folder_data(tmp_path), "file:///nowhere").root
    path = tmp_path / "cat" / "00.jpg"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert writer.plan(folder_data(tmp_path), "file:///nowhere").root != before


def test_classes_without_images_in_a_split_are_named(images: Path) -> None:
    layout = writer.plan(folder_data(images), "file:///nowhere")
    assert layouts.find_uncovered(layout) == {}
    without_dogs = [part[layout.source.labels[part] == 0] for part in layout.members]
    members = [
        part if of == "train" else cats
        for part, of, cats in zip(layout.members, layout.splits, without_dogs, strict=True)
    ]
    uncovered = layouts.find_uncovered(dataclasses.replace(layout, members=members))
    assert uncovered == {"val": ("dog",)}
    assert class_remarks.describe_uncovered(uncovered["val"], 2, "val") == "1 of 2 classes have no image in val: dog"


def test_an_official_val_is_kept_and_minival_comes_from_train(tmp_path: Path) -> None:
    fill(tmp_path / "images" / "train", 0)
    fill(tmp_path / "images" / "val", 500, count=5)
    data = folder_data(tmp_path / "images")
    layout = writer.plan(data, f"file://{tmp_path}/store")
    source = layout.source
    assert source.own_val
    members: dict[str, set[int]] = {split: set() for split in manifests.SPLITS}
    for split, indices in zip(layout.splits, layout.members, strict=True):
        members[split] |= set(indices.tolist())
    own_val = set(np.flatnonzero(source.split == VAL).tolist())
    assert members["val"] == own_val
    assert len(own_val) == 10
    assert members["train"] | members["minival"] == set(range(34)) - own_val
    assert len(members["minival"]) == 7  # of 24, by their content; 24 * 0.2 are expected
    assert members["train"].isdisjoint(members["minival"])


def test_an_official_validation_part_is_minival_or_joins_train_when_minival_is_cut(images: Path) -> None:
    source = writer.plan(folder_data(images), "file:///nowhere").source
    parts = np.array([TRAIN, MINIVAL, VAL] * 8, np.int8)
    source = dataclasses.replace(source, split=parts, own_val=True, content=None)  # a published set does not grow
    official = split_indices(source, folder_data(images))
    assert {split: set(parts[ids]) for split, ids in official.items()} == {
        "train": {TRAIN},
        "minival": {MINIVAL},
        "val": {VAL},
    }
    cut = split_indices(source, folder_data(images, minival="cut"))
    assert {split: len(ids) for split, ids in cut.items()} == {"train": 13, "minival": 3, "val": 8}
    assert set(parts[cut["train"]]) == {TRAIN, MINIVAL}
    assert sorted(np.concatenate(list(cut.values())).tolist()) == list(range(24))


def test_limit_takes_the_first_samples_after_the_shuffle(images: Path) -> None:
    layout = writer.plan(folder_data(images, limit=10, minival_share=0.3), "file:///nowhere")
    chosen = np.concatenate(layout.members)
    assert len(set(chosen.tolist())) == 10
    labels = layout.source.labels[chosen]
    assert set(labels.tolist()) == {0, 1}  # not the first ten files, which are all cats


def test_another_seed_gives_another_shuffle_under_another_address(images: Path) -> None:
    first, second = (writer.plan(folder_data(images, seed=seed), "file:///nowhere") for seed in (0, 1))
    assert first.root != second.root
    assert np.concatenate(first.members).tolist() != np.concatenate(second.members).tolist()


def test_another_file_in_the_folder_changes_the_address(tmp_path: Path) -> None:
    fill(tmp_path, 0)
    before = writer.plan(folder_data(tmp_path), "file:///nowhere").root
    (tmp_path / "cat" / "new.png").write_bytes(picture(77, "png"))
    assert writer.plan(folder_data(tmp_path), "file:///nowhere").root != before


def dying_at(layout: ShardLayout, number: int) -> ShardLayout:
    """Returns the layout with a source that fails in the middle of a shard, like a killed task."""
    last = int(layout.members[number][-1])

    def read(index: int) -> bytes:
        if index == last:
            raise KeyboardInterrupt
        return layout.source.read(index)

    return dataclasses.replace(layout, source=dataclasses.replace(layout.source, read=read))


def test_an_interrupted_group_resumes_without_rewriting_finished_shards(images: Path, tmp_path: Path) -> None:
    data, storage = folder_data(images), f"file://{tmp_path}"
    layout = writer.plan(data, storage)
    group = writer.groups(layout, 100)[0]
    with pytest.raises(KeyboardInterrupt):
        writer.write_group(dying_at(layout, 2), group)
    tars = {tar.name for tar in tmp_path.rglob("*.tar")}
    assert layout.names[0] in tars
    assert layout.names[2] not in tars  # the partially written third does not exist
    assert {path.name.removesuffix(".json") for path in tmp_path.rglob("index/*.json")} == tars
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}

    assert writer.write_group(layout, group) == len(group) - len(tars)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert writer.write_group(layout, group) == 0
    _, resumed = writer.write_manifest(writer.plan(data, storage))
    assert resumed == write_all(data, tmp_path / "at-once")[1]


def test_another_process_writes_from_the_saved_index_without_reopening_the_source(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, storage = folder_data(images), f"file://{tmp_path}"
    planned = writer.plan(data, storage)
    Plans().share(planned)
    monkeypatch.setattr(layouts.catalog, "open_source", lambda _: pytest.fail("opened again"))
    elsewhere = Plans()
    shared = elsewhere.get(data, planned.root)
    assert (shared.root, shared.names) == (planned.root, planned.names)
    assert elsewhere.get(data, planned.root) is shared
    assert writer.write_group(shared, [0]) == 1
    monkeypatch.undo()
    assert writer.write_group(planned, [0]) == 0
    assert writer.write_group(planned, range(len(planned.names))) == len(planned.names) - 1
    assert writer.write_manifest(planned)[1] == write_all(data, tmp_path / "at-once")[1]


def test_a_plan_that_was_never_shared_or_of_other_settings_is_refused(images: Path, tmp_path: Path) -> None:
    data = folder_data(images)
    planned = writer.plan(data, f"file://{tmp_path}")
    with pytest.raises(NotFoundError):
        Plans().get(data, planned.root)
    Plans().share(planned)
    with pytest.raises(DataError, match="start again"):
        Plans().get(folder_data(images, seed=5), planned.root)


def test_max_side_reencodes_larger_images_and_is_recorded_in_the_manifest(tmp_path: Path) -> None:
    fill(tmp_path / "images", 0)
    large = Image.linear_gradient("L").convert("RGB").resize((200, 100))
    large.save(tmp_path / "images" / "cat" / "large.png")
    root, manifest = write_all(folder_data(tmp_path / "images", max_side=64), tmp_path / "store")
    assert manifest.encoding == "max_side=64"
    assert (64, 32) in set(zip(manifest.table["width"].tolist(), manifest.table["height"].tolist(), strict=True))
    assert max(manifest.table["width"].max(), manifest.table["height"].max()) == 64
    plain, _ = write_all(folder_data(tmp_path / "images"), tmp_path / "store")
    assert plain != root


def test_a_banner_is_excluded_from_the_height_of_crops(images: Path, tmp_path: Path) -> None:
    layout = writer.plan(folder_data(images), f"file://{tmp_path}")
    with_banner = dataclasses.replace(layout, source=dataclasses.replace(layout.source, crop_bottom=2))
    heights = [writer.write_shard(one, 0, io.BytesIO())["height"] for one in (layout, with_banner)]
    assert [height - 2 for height in heights[0]] == list(heights[1])


def test_a_shard_of_another_size_than_its_index_stops_the_manifest(images: Path, tmp_path: Path) -> None:
    data, storage = folder_data(images), f"file://{tmp_path}"
    layout = writer.plan(data, storage)
    writer.write_group(layout, range(len(layout.names)))
    tar = Path(layout.root.removeprefix("file://")) / layout.names[3]
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(DataError, match=rf"{layout.names[3]} has \d+ bytes, its index says \d+"):
        writer.write_manifest(layout)
    assert not store.exists(layout.manifest_uri)


def test_a_manifest_without_all_its_shards_is_not_written(images: Path, tmp_path: Path) -> None:
    data, storage = folder_data(images), f"file://{tmp_path}"
    layout = writer.plan(data, storage)
    writer.write_group(layout, [0, 1])
    with pytest.raises(NotFoundError, match=layout.names[2]):
        writer.write_manifest(layout)
    assert not store.exists(layout.manifest_uri)


@pytest.mark.slow
def test_the_digits_are_stored_with_their_original_pixels(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    data = Data(name="digits", source="digits", limit=40, minival_share=0.2, samples_per_shard=20)
    root, manifest = write_all(data, tmp_path)
    digits = load_digits()
    assert manifest.classes == tuple(str(d) for d in range(10))
    for shard in manifests.Samples(manifest, ["val"]).shards:
        for sample in read_by_webdataset(Path(root.removeprefix("file://")) / shard.name):
            index = int(sample["__key__"])
            assert int(sample["cls"]) == digits.target[index]
            pixels = np.asarray(Image.open(io.BytesIO(sample["jpg"])), float)
            assert np.abs(pixels - digits.images[index] * 255 / 16).mean() < 4  # JPEG of quality 95


def test_images_that_do_not_decode_are_excluded_and_listed(tmp_path: Path) -> None:
    fill(tmp_path / "images", 0)
    whole = (tmp_path / "images/cat/00.jpg").read_bytes()
    (tmp_path / "images/cat/00.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "images/dog/00.jpg").write_bytes(b"no image at all")
    _, manifest = write_all(folder_data(tmp_path / "images"), tmp_path / "store")
    assert {note.name for note in manifest.quarantine} == {"cat/00.jpg", "dog/00.jpg"}
    assert len(manifest.table) + len(manifest.quarantine) == 24
    assert all(note.what for note in manifest.quarantine)


def test_an_oversized_image_is_excluded_and_listed_without_reading_it(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MAX_IMAGE_BYTES", 10_000)
    fill(tmp_path / "images", 0)
    (tmp_path / "images/cat/03.jpg").write_bytes(bytes(20_000))
    monkeypatch.setattr(chunks, "check_image", partial(_unread, check_image, 20_000))
    _, manifest = write_all(folder_data(tmp_path / "images"), tmp_path / "store")
    assert [(note.name, note.what) for note in manifest.quarantine] == [("cat/03.jpg", "20000 bytes, more than 10000")]
    assert len(manifest.table) == 23


def _unread(judge: Callable[..., ImageInfo], size: int, data: bytes, name: str, *, decode: bool) -> ImageInfo:
    assert len(data) != size
    return judge(data, name, decode=decode)


def test_a_split_that_lost_all_its_images_stops_the_manifest(tmp_path: Path) -> None:
    fill(tmp_path / "images", 0)
    for path in (tmp_path / "images").glob("*/*"):
        path.write_bytes(b"no image at all: " + path.name.encode())
    with pytest.raises(
        DataError, match=r"no image of split 'train' can be used; the first is \w+/\d+.\w+: neither JPEG nor PNG"
    ):
        write_all(folder_data(tmp_path / "images"), tmp_path / "store")


def test_images_larger_than_a_chunk_and_shrinking_chunks_are_written_intact(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write_all(folder_data(images), tmp_path / "plain")[1]
    monkeypatch.setattr(chunks, "PIECE_BYTES", 700)
    monkeypatch.setattr(writer, "PIECE_BYTES", 700)
    assert write_all(folder_data(images), tmp_path / "small")[1] == plain


def test_a_png_with_a_jpeg_suffix_is_stored_as_png_and_noted(tmp_path: Path) -> None:
    fill(tmp_path / "images", 0)
    (tmp_path / "images/cat/03.jpg").write_bytes(picture(9, "png"))
    root, manifest = write_all(folder_data(tmp_path / "images"), tmp_path / "store")
    assert ("cat/03.jpg", "PNG named .jpg") in {(note.name, note.what) for note in manifest.unusual}
    stored = [
        s for shard in manifest.shards for s in read_by_webdataset(Path(root.removeprefix("file://")) / shard.name)
    ]
    assert picture(9, "png") in [sample.get("png") for sample in stored]


def test_a_split_without_samples_is_refused(images: Path) -> None:
    with pytest.raises(DataError, match=r"split 'minival' of 24 in all; raise data\.minival_share, or"):
        writer.plan(folder_data(images, minival_share=0.001), "file:///nowhere")
    with pytest.raises(DataError, match=r"no samples left for split '\w+' of 24 in all and data\.limit=1; "):
        writer.plan(folder_data(images, limit=1), "file:///nowhere")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tmp: Data(name="x", source="folder"), "needs data.path="),
        (lambda tmp: folder_data(tmp / "missing"), "missing' does not exist"),
        (lambda tmp: folder_data(tmp), "no usable images in .*top folder contains nothing"),
        (lambda tmp: Data(name="x", source="cifar"), "'cifar' is unknown; choices: mnist5k, digits, folder"),
    ],
)
def test_a_missing_source_is_a_config_error(make: Callable[[Path], Data], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        writer.plan(make(tmp_path), f"file://{tmp_path}/store")


def test_the_result_does_not_depend_on_the_order_of_files_on_disk(tmp_path: Path) -> None:
    names = [f"{i:02d}.png" for i in range(12)]
    layouts = []
    for attempt in range(2):
        random.Random(attempt).shuffle(names)
        for name in names:
            path = tmp_path / str(attempt) / "only" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(int(name[:2]), "png"))
        layouts.append(writer.plan(folder_data(tmp_path / str(attempt)), "file:///nowhere"))
    assert layouts[0].root == layouts[1].root


@pytest.mark.parametrize("count", [4, 12])
def test_formats_that_are_not_read_are_said_before_the_splits_that_lack_images(count: int, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for seed in range(count):
            image = Image.fromarray(
                np.random.default_rng(seed + 99 * (name == "b")).integers(0, 256, (48, 48, 3), np.uint8)
            )
            image.save(tmp_path / name / f"{seed}.jpg", "BMP" if name == "a" else "TIFF")
    with pytest.raises(ConfigError, match=rf"{count} BMP files \(data\.convert=true .*{count} TIFF files"):
        writer.plan(folder_data(tmp_path, minival_share=0.001), "file:///nowhere")
    with pytest.raises(DataError, match="no samples left for split 'minival'"):
        writer.plan(folder_data(tmp_path, minival_share=0.001, convert=True), "file:///nowhere")


def test_a_set_that_is_only_evaluated_has_val_alone(images: Path, tmp_path: Path) -> None:
    _, manifest = write_all(folder_data(images, val_folders=["."]), tmp_path / "store")
    assert [manifest.samples(split) for split in ("train", "minival", "val")] == [0, 0, 24]
    layout = writer.plan(folder_data(images, val_folders=["."]), f"file://{tmp_path}/store")
    assert layouts.find_uncovered(layout) == {}
