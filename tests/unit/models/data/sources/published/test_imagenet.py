"""ImageNet's archives and layouts: labels compared with published ranks, counts with the official ones."""

import io
import random
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkout import REAL_DATA
from made_archives import data_settings, set_counts, write_archive, write_tree
from matrix import with_slow_rest
from PIL import Image

from infra.errors import ConfigError, DataError
from models.data.sources import catalog
from models.data.sources.catalog import open_source
from models.data.sources.files import archive
from models.data.sources.listing import TRAIN, VAL
from models.data.sources.published import imagenet
from models.data.sources.published.imagenet import DEVKIT_ARCHIVE, TRAIN_ARCHIVE, VAL_ARCHIVE, Devkit

REAL = REAL_DATA / "imagenet"
real_images = pytest.mark.skipif(not REAL.is_dir(), reason="no real images: ../shared/data is absent")

# Source: timm imagenet_synsets.txt, lines 1, 218, 483, 492, 498, 567, 570, 572, 575, 702 (the ten of Imagenette).
RANKS = {
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devkit]:
    if not REAL.is_dir():
        pytest.skip("no real devkit: ../shared/data is absent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield imagenet.read_devkit(archive.archive(str(REAL), DEVKIT_ARCHIVE), catalog.DATA_SETS["imagenet"])


def test_the_label_is_the_rank_of_the_sorted_wnid(devkit: Devkit) -> None:
    assert {wnid: devkit.wnids.index(wnid) for wnid in RANKS} == RANKS
    assert list(devkit.wnids) == sorted(devkit.wnids)


def test_the_devkit_has_the_official_counts(devkit: Devkit) -> None:
    assert (len(devkit.wnids), sum(devkit.train_images), len(devkit.val_labels)) == (1000, 1_281_167, 50_000)
    assert np.bincount(devkit.val_labels).tolist() == [50] * 1000


def test_a_validation_label_is_not_the_id_of_the_ground_truth(devkit: Devkit) -> None:
    # ILSVRC2012_val_00000001 is a sea snake (n01751748, rank 65 in every published list); its ID is 490.
    assert devkit.wnids[devkit.val_labels[0]] == "n01751748"
    assert devkit.val_labels[0] == 65


@real_images
def test_the_real_archives_are_read_in_place() -> None:
    source = open_source(data_settings("imagenet", REAL, allow_partial=True))
    assert (len(source.classes), source.own_val, np.bincount(source.split).tolist()) == (1000, True, [500, 0, 250])
    for index in range(0, 750, 50):
        name, wnid = source.names[index].decode(), source.classes[source.labels[index]]
        image = source.read(index)
        assert len(image) == source.sizes[index]
        assert Image.open(io.BytesIO(image)).format == "JPEG"
        if source.split[index] == TRAIN:
            assert name.startswith(f"{wnid}_")
    assert source.missing[:2] == ("train: 500 of 1,281,167 images", "val or test: 250 of 50,000 images")
    assert "classes with all their training images: 0 of 1,000 (n01440764 0 of 1,300, n0" in source.missing[2]


@real_images
def test_the_real_training_images_equal_those_of_tarfile() -> None:
    source = open_source(data_settings("imagenet", REAL, allow_partial=True))
    expected: dict[str, bytes] = {}
    with tarfile.open(REAL / TRAIN_ARCHIVE) as outer:
        for number, member in enumerate(outer):
            if number % 25 == 0:
                with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                    expected |= {one.name: inner.extractfile(one).read() for one in inner}  # type: ignore[union-attr]
    index = {name.decode(): number for number, name in enumerate(source.names.tolist())}
    assert len(expected) == 20
    assert {name: source.read(index[name]) for name in expected} == expected


@real_images
def test_an_incomplete_set_is_refused_with_the_missing_counts() -> None:
    with pytest.raises(
        DataError,
        match=r"is incomplete: train: 500 of 1,281,167 images; val or test: 250 of 50,000.*n01440764 0 of 1,300",
    ):
        open_source(data_settings("imagenet", REAL))


SIZES = [1 + rank % 3 for rank in range(1000)]  # images of each class in the archives of ``mini``


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, devkit: Devkit) -> Path:
    """Archives with the official names, of 1 to 3 tiny images per class."""
    root = tmp_path_factory.mktemp("mini")
    shutil.copy(REAL / DEVKIT_ARCHIVE, root)
    order = list(zip(devkit.wnids, SIZES, strict=True))
    random.Random(0).shuffle(order)
    write_train(root, {wnid: train_images(wnid, count) for wnid, count in order})
    write_archive(root / VAL_ARCHIVE, {f"ILSVRC2012_val_{n:08d}.JPEG": b"val %d" % n for n in range(1, 301)})
    return root


def make_official(patch: pytest.MonkeyPatch, devkit: Devkit) -> None:
    """Makes the counts of ``written`` the official ones."""
    whole = Devkit(devkit.wnids, tuple(SIZES), devkit.val_labels)
    patch.setattr(imagenet, "read_devkit", lambda *_: whole)
    set_counts(patch, "imagenet", {TRAIN: sum(SIZES), VAL: 300})


@pytest.fixture
def mini(tmp_path: Path, written: Path, devkit: Devkit, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of those archives, whose counts are made the official ones."""
    make_official(monkeypatch, devkit)
    root = tmp_path / "imagenet"
    shutil.copytree(written, root)
    return root


def train_images(wnid: str, count: int) -> dict[str, bytes]:
    return {f"{wnid}_{n}.JPEG": f"{wnid} {n}".encode() for n in range(count)}


def write_train(root: Path, classes: dict[str, dict[str, bytes]]) -> None:
    inner = {f"{wnid}.tar": write_archive(root / "inner.tar", files).read_bytes() for wnid, files in classes.items()}
    write_archive(root / TRAIN_ARCHIVE, inner)
    (root / "inner.tar").unlink()


@pytest.mark.slow
def test_complete_archives_open_without_allow_partial(mini: Path, devkit: Devkit) -> None:
    source = open_source(data_settings("imagenet", mini))
    assert source.missing == ()
    assert source.classes == devkit.wnids
    for index in random.Random(1).sample(range(len(source.labels)), 200):
        wnid, image = source.classes[source.labels[index]], source.read(index)
        if source.split[index] == TRAIN:
            assert image.split()[0] == wnid.encode()
        else:
            assert source.labels[index] == devkit.val_labels[int(image.split()[1]) - 1]


@pytest.fixture(scope="module")
def flat_tree(written: Path, tmp_path_factory: pytest.TempPathFactory, devkit: Devkit) -> Path:
    """The archives extracted, without the devkit; the validation images in one folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        make_official(patch, devkit)
        return extracted(written, tmp_path_factory.mktemp("flat") / "tree", val_in_classes=False)


def extracted(archives: Path, root: Path, val_in_classes: bool) -> Path:
    source, files = open_source(data_settings("imagenet", archives)), {}
    for index, (name, part) in enumerate(zip(source.names.tolist(), source.split.tolist(), strict=True)):
        top = "train" if part == TRAIN else "val"
        wnid = source.classes[source.labels[index]] if part == TRAIN or val_in_classes else ""
        files[f"{top}/{wnid}/{name.decode()}"] = source.read(index)
    return write_tree(root, files)


@pytest.mark.slow
def test_an_extracted_tree_is_the_same_source(mini: Path, tmp_path: Path, devkit: Devkit) -> None:
    tree = extracted(mini, tmp_path / "tree", val_in_classes=True)
    for wnid in devkit.wnids:  # labels need no devkit, but not every class has one of the 300 images
        (tree / "val" / wnid).mkdir(exist_ok=True)
    assert_same(mini, tree)


@pytest.mark.slow
def test_an_extracted_tree_with_a_flat_val_is_the_same_source(mini: Path, flat_tree: Path) -> None:
    (flat_tree / DEVKIT_ARCHIVE).symlink_to(mini / DEVKIT_ARCHIVE)
    try:
        assert_same(mini, flat_tree)
    finally:
        (flat_tree / DEVKIT_ARCHIVE).unlink()


def assert_same(mini: Path, tree: Path) -> None:
    one, other = open_source(data_settings("imagenet", mini)), open_source(data_settings("imagenet", tree))
    assert other.digest == one.digest
    assert [other.read(i) for i in range(0, 2000, 97)] == [one.read(i) for i in range(0, 2000, 97)]


@pytest.mark.slow
def test_a_flat_val_without_the_devkit_is_refused(flat_tree: Path) -> None:
    with pytest.raises(ConfigError, match=f"require {DEVKIT_ARCHIVE}"):
        open_source(data_settings("imagenet", flat_tree))


@pytest.mark.slow
def test_missing_classes_are_named(mini: Path, devkit: Devkit) -> None:
    counts = {wnid: 1 + rank % 3 for rank, wnid in enumerate(devkit.wnids)}
    classes = {wnid: train_images(wnid, count) for wnid, count in counts.items()}
    del classes["n01443537"], classes["n03888257"]["n03888257_0.JPEG"]
    write_train(mini, classes)
    with pytest.raises(
        DataError, match=r"training images: 998 of 1,000 \(n01443537 0 of 2, n03888257 2 of 3\)"
    ) as caught:
        open_source(data_settings("imagenet", mini))
    assert "allow_partial=true" in str(caught.value)
    assert len(open_source(data_settings("imagenet", mini, allow_partial=True)).missing) == 2


def test_a_truncated_train_archive_is_refused_even_with_allow_partial(mini: Path) -> None:
    path = mini / TRAIN_ARCHIVE
    path.write_bytes(path.read_bytes()[:-700_000])
    with pytest.raises(DataError, match=r"train.tar is truncated"):
        open_source(data_settings("imagenet", mini, allow_partial=True))


@pytest.mark.parametrize("name", [VAL_ARCHIVE, DEVKIT_ARCHIVE])
def test_every_absent_archive_is_named(name: str, mini: Path) -> None:
    (mini / name).unlink()
    with pytest.raises(ConfigError, match=f"has {TRAIN_ARCHIVE} but not {name}"):
        open_source(data_settings("imagenet", mini))


def test_a_validation_image_beyond_the_last_is_refused(mini: Path) -> None:
    write_archive(mini / VAL_ARCHIVE, {"ILSVRC2012_val_00050001.JPEG": b"x"})
    with pytest.raises(
        DataError, match=r"ILSVRC2012_val_00050001.JPEG is not a validation image; the last is number 50000"
    ):
        open_source(data_settings("imagenet", mini, allow_partial=True))


@real_images
def test_another_devkit_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "x"
    root.mkdir()
    shutil.copy(REAL / TRAIN_ARCHIVE, root)
    shutil.copy(REAL / VAL_ARCHIVE, root)
    name = "ILSVRC2012_devkit_t12/data"
    truth = "ILSVRC2012_validation_ground_truth.txt"
    write_archive(root / DEVKIT_ARCHIVE, {f"{name}/meta.mat": b"no matlab" * 100, f"{name}/{truth}": b"1\n"})
    with pytest.raises(DataError, match="cannot be read as MATLAB data"):
        open_source(data_settings("imagenet", root, allow_partial=True))


@pytest.mark.slow
@real_images
def test_tiny_imagenet_has_its_annotated_val() -> None:
    source = open_source(data_settings("tiny_imagenet", REAL / "tiny-imagenet-20x550.tar.xz", allow_partial=True))
    assert (len(source.classes), np.bincount(source.split).tolist()) == (20, [10_000, 0, 1_000])
    assert np.bincount(source.labels[source.split == VAL]).tolist() == [50] * 20
    assert Image.open(io.BytesIO(source.read(10_500))).size == (64, 64)
    assert source.missing[-1] == "classes with images: 20 of 200"


def tiny(wnids: list[str]) -> dict[str, bytes]:
    files = {"wnids.txt": "\n".join(wnids).encode(), "test/images/test_0.JPEG": b"unlabelled"}
    lines = []
    for label, wnid in enumerate(wnids):
        files |= {f"train/{wnid}/images/{wnid}_{n}.JPEG": f"{wnid} {n}".encode() for n in range(2)}
        files |= {f"train/{wnid}/{wnid}_boxes.txt": b"", f"val/images/val_{label}.JPEG": wnid.encode()}
        lines.append(f"val_{label}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    return {f"tiny-imagenet-200/{name}": data for name, data in files.items()} | {
        "tiny-imagenet-200/val/val_annotations.txt": "".join(lines).encode()
    }


def test_a_complete_tiny_imagenet_opens_from_its_zip_and_from_its_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    set_counts(monkeypatch, "tiny_imagenet", {TRAIN: 400, VAL: 200})
    wnids = [f"n{1000 - n:08d}" for n in range(200)]  # unsorted, as the official file
    files = tiny(wnids)
    write_tree(tmp_path / "tree", files)
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip" / "tiny-imagenet-200.zip", "w") as writer:
        for name, content in files.items():
            writer.writestr(name, content)
    one, other = (open_source(data_settings("tiny_imagenet", tmp_path / kind)) for kind in ("tree", "zip"))
    assert one.classes == tuple(sorted(wnids))
    assert one.missing == other.missing == ()
    assert one.digest == other.digest
    assert all(other.read(i).split()[0].decode() == other.classes[other.labels[i]] for i in range(600))


def ten_classes(name: str, missing: int = 0) -> dict[str, bytes]:
    files = {}
    for part, count in catalog.DATA_SETS[name].images.items():
        top = "train" if part == TRAIN else "val"
        for n in range(count - (missing if part == VAL else 0)):
            wnid = list(RANKS)[n % 10]
            files[f"{name}2-160/{top}/{wnid}/{wnid}_{n + 10_000 * part}.JPEG"] = wnid.encode()
    return files | {f"{name}2-160/noisy_{name}.csv": b"path,noisy_labels_0\n"}


@pytest.mark.slow
@pytest.mark.parametrize("name", with_slow_rest(["imagenette", "imagewoof"]))
def test_ten_classes_open_from_their_archive(name: str, tmp_path: Path) -> None:
    write_archive(tmp_path / f"{name}2-160.tgz", ten_classes(name))
    source = open_source(data_settings(name, tmp_path))
    assert source.classes == tuple(sorted(RANKS))
    assert source.own_val
    assert all(source.read(i).decode() == source.classes[source.labels[i]] for i in range(0, 12_900, 501))
    assert source.unused == (f"1 files that are no images, first {name}2-160/noisy_{name}.csv",)


@pytest.mark.slow
def test_an_incomplete_imagenette_is_refused_with_its_counts(tmp_path: Path) -> None:
    write_archive(tmp_path / "imagenette2-160.tgz", ten_classes("imagenette", missing=3))
    with pytest.raises(DataError, match="val or test: 3,922 of 3,925 images"):
        open_source(data_settings("imagenette", tmp_path))


def test_kaggles_imagenet_takes_the_labels_of_val_from_its_csv_file(tmp_path: Path) -> None:
    data, marks = "ILSVRC/Data/CLS-LOC", "ILSVRC/Annotations/CLS-LOC"
    wnids = ["n01440764", "n02102040"]
    files = {f"{data}/train/{wnid}/{wnid}_{n}.JPEG": wnid.encode() for wnid in wnids for n in range(3)}
    files |= {f"{data}/val/ILSVRC2012_val_0000000{n}.JPEG": wnids[n % 2].encode() for n in range(1, 5)}
    files |= {f"{data}/test/ILSVRC2012_test_00000001.JPEG": b"", f"{marks}/val/ILSVRC2012_val_00000001.xml": b"<a/>"}
    files |= {f"{marks}/train/{wnids[0]}/{wnids[0]}_0.xml": b"<a/>"}
    lines = [f"ILSVRC2012_val_0000000{n},{wnids[n % 2]} 1 2 3 4 {wnids[n % 2]} 5 6 7 8 " for n in range(1, 5)]
    files["LOC_val_solution.csv"] = "\n".join(["ImageId,PredictionString", *lines]).encode()
    source = open_source(data_settings("imagenet", write_tree(tmp_path, files), allow_partial=True))
    assert (source.classes, np.bincount(source.split).tolist()) == (tuple(wnids), [6, 0, 4])
    assert all(source.read(i).decode() == source.classes[source.labels[i]] for i in range(10))
