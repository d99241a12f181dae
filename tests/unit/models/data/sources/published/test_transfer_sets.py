"""The transfer sets except CIFAR: real subsets in official layouts, and synthetic archives for the rest."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import REAL_DATA
from made_archives import data_settings, set_counts, write_archive, write_tree
from matrix import with_slow_rest
from PIL import Image

from infra.errors import ConfigError, DataError
from models.data.sources.catalog import open_source
from models.data.sources.listing import MINIVAL, TRAIN, VAL, Source

REAL = REAL_DATA / "transfer"
real_images = pytest.mark.skipif(not REAL.is_dir(), reason="no real images: ../shared/data is absent")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))


def rows(source: Source) -> dict[str, tuple[str, int, bytes]]:
    """Returns class, part and bytes by name."""
    return {
        name.decode(): (source.classes[source.labels[i]], int(source.split[i]), source.read(i))
        for i, name in enumerate(source.names.tolist())
    }


@real_images
@pytest.mark.parametrize(
    ("name", "archive", "counts", "classes", "missing"),
    with_slow_rest(
        [
            (
                "food101",
                "food-101-10x40.tar",
                [270, 0, 130],
                10,
                ("train: 270 of 75,750 images", "val or test: 130 of 25,250 images", "classes with images: 10 of 101"),
            ),
            (
                "pets",
                "oxford-iiit-pet-37x10.tar",
                [370, 0, 0],
                37,
                ("train: 370 of 3,680 images", "val or test: 0 of 3,669 images"),
            ),
            (
                "cars",
                "stanford-cars-10cls.tar",
                [420, 0, 0],
                196,
                ("train: 420 of 8,144 images", "val or test: 0 of 8,041"),
            ),
        ]
    ),
)
def test_real_subsets_open_with_their_missing_counts(
    name: str, archive: str, counts: list[int], classes: int, missing: tuple[str, ...]
) -> None:
    source = open_source(data_settings(name, REAL / archive, allow_partial=True))
    assert np.bincount(source.split, minlength=3).tolist() == counts
    assert (len(source.classes), source.own_val) == (classes, counts[2] > 0)
    assert all(line.startswith(start) for line, start in zip(source.missing, missing, strict=False))
    for index in range(0, len(source.labels), 37):
        Image.open(io.BytesIO(source.read(index))).load()
    with pytest.raises(DataError, match=f"{name} at .* is incomplete: {missing[0]}"):
        open_source(data_settings(name, REAL / archive))


@real_images
def test_the_names_of_real_images_agree_with_their_labels() -> None:
    food = rows(open_source(data_settings("food101", REAL / "food-101-10x40.tar", allow_partial=True)))
    assert all(name.split("/")[0] == label for name, (label, _, _) in food.items())
    pets = rows(open_source(data_settings("pets", REAL / "oxford-iiit-pet-37x10.tar", allow_partial=True)))
    assert all(name.rpartition("_")[0] == label for name, (label, _, _) in pets.items())


@real_images
@pytest.mark.parametrize("name", ["flowers102", "birdsnap", "food101"])
def test_annotations_without_images_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no image of the data set; train: 0 of"):
        open_source(data_settings(name, REAL / "annotations.tar.xz", allow_partial=True))


def test_food_splits_by_its_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_counts(monkeypatch, "food101", {TRAIN: 202, VAL: 101})
    classes = [f"dish_{n:03d}" for n in range(101)]
    lists = {
        "classes": classes,
        "train": [f"{one}/{n}" for one in classes for n in (1, 2)],
        "test": [f"{one}/3" for one in classes],
    }
    files = {f"meta/{name}.txt": "\n".join(lines).encode() for name, lines in lists.items()}
    files |= {f"images/{one}/{n}.jpg": f"{one} {n}".encode() for one in classes for n in (1, 2, 3, 4)}
    write_archive(tmp_path / "food-101.tar.gz", {f"food-101/{name}": data for name, data in files.items()})
    source = open_source(data_settings("food101", tmp_path))
    entries = rows(source)
    assert len(entries) == 303  # image 4 is in no list
    assert source.unused == (
        "101 images that the lists of the set do not have, first food-101/images/dish_000/4.jpg",
        "3 files that are no images, first food-101/meta/classes.txt",
    )
    for name, (label, part, data) in entries.items():
        assert (label, part) == (name.split("/")[0], VAL if name.endswith("/3.jpg") else TRAIN)
        assert data.decode() == f"{label} {name[-5]}"


def pets(breeds: int = 37) -> dict[str, bytes]:
    names = [f"Breed_{n:02d}" for n in range(breeds)]
    trainval = "".join(f"{name}_1 {label} 1 1\n" for label, name in enumerate(names, 1))
    test = "#Image CLASS-ID SPECIES BREED ID\n" + "".join(
        f"{name}_2 {label} 1 1\n" for label, name in enumerate(names, 1)
    )
    images = {f"images/{name}_{n}.jpg": f"{name} {n}".encode() for name in names for n in (1, 2)}
    return images | {
        "annotations/trainval.txt": trainval.encode(),
        "annotations/test.txt": test.encode(),
        "annotations/._test.txt": b"shadow",
        "images/Breed_01.mat": b"unrelated",
    }


def test_pets_open_from_two_archives_and_from_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_counts(monkeypatch, "pets", {TRAIN: 37, VAL: 37})
    files = pets()
    for part in ("images", "annotations"):
        mine = {name: data for name, data in files.items() if name.startswith(part)}
        write_archive(tmp_path / "packed" / f"{part}.tar.gz", mine)
    write_tree(tmp_path / "tree" / "oxford-iiit-pet", files)
    one, other = (open_source(data_settings("pets", tmp_path / kind)) for kind in ("packed", "tree"))
    assert rows(one) == rows(other)
    assert one.digest == other.digest
    assert rows(one)["Breed_07_2.jpg"] == ("Breed_07", VAL, b"Breed_07 2")


def test_a_subset_of_pets_keeps_the_numbers_of_its_breeds_and_may_be_in_doubled_folders(tmp_path: Path) -> None:
    kept = ("Breed_00", "Breed_01", "Breed_05")
    files = {
        name: b"\n".join(line for line in data.splitlines() if line.decode().startswith(kept))
        if name.endswith(".txt")
        else data
        for name, data in pets().items()
        if name.endswith(".txt") or name.rpartition("/")[2].startswith(kept)
    }
    doubled = {f"{name.partition('/')[0]}/{name}": data for name, data in files.items() if "._" not in name}
    source = open_source(data_settings("pets", write_tree(tmp_path, doubled), allow_partial=True))
    assert source.classes == kept
    assert {name: label for name, (label, _, _) in rows(source).items()} == {
        f"{one}_{n}.jpg": one for one in kept for n in (1, 2)
    }


def test_pets_without_a_list_file_are_refused_with_its_name(tmp_path: Path) -> None:
    write_archive(
        tmp_path / "images.tar.gz", {name: data for name, data in pets().items() if name.startswith("images")}
    )
    with pytest.raises(ConfigError, match=r"has no annotations/trainval\.txt"):
        open_source(data_settings("pets", tmp_path))


def test_a_list_with_other_lines_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, pets() | {"annotations/test.txt": b"Breed_01_2 one 1 1\n"})
    with pytest.raises(DataError, match="lines other than ID CLASS SPECIES BREED"):
        open_source(data_settings("pets", tmp_path, allow_partial=True))


def test_aircraft_has_three_parts_and_a_banner_at_the_lower_edge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_counts(monkeypatch, "aircraft", {TRAIN: 100, MINIVAL: 100, VAL: 100})
    variants = [f"Model {n} with spaces/{n}" for n in range(100)]
    files = {"variants.txt": "\n".join(variants).encode()}
    for number, part in enumerate(("train", "val", "test")):
        lines = [f"{label * 10 + number:07d} {name}" for label, name in enumerate(variants)]
        files[f"images_variant_{part}.txt"] = "\n".join(lines).encode()
        files[f"images_family_{part}.txt"] = b"other labels"
        files |= {f"images/{line[:7]}.jpg": line.encode() for line in lines}
    write_archive(
        tmp_path / "fgvc-aircraft-2013b.tar.gz", {f"fgvc-aircraft-2013b/data/{n}": d for n, d in files.items()}
    )
    source = open_source(data_settings("aircraft", tmp_path))
    assert source.crop_bottom == 20
    assert np.bincount(source.split).tolist() == [100, 100, 100]
    for name, (label, part, data) in rows(source).items():
        assert data.decode() == f"{name[:7]} {label}"
        assert part == int(name[6])


def birds(with_list: bool) -> dict[str, bytes]:
    species = [f"{n}\tBird {n}\tAvis {n}\tbird_{n}" for n in range(1, 501)]
    files = {"species.txt": "\n".join(["id\tcommon\tscientific\tdir", *species]).encode()}
    paths = [f"Bird_{n}/{k}.jpg" for n in range(1, 501) for k in (1, 2)]
    files["test_images.txt"] = "\n".join(["path", *paths[1::2]]).encode()
    if with_list:
        lines = [f"http://x\tmd5\t{path}\t{path.split('/')[0][5:]}\t0\t0\t1\t1" for path in paths]
        files["images.txt"] = "\n".join(["url\tmd5\tpath\tspecies_id\tbb_x1\tbb_y1\tbb_x2\tbb_y2", *lines]).encode()
    return files | {f"download/images/{path}": path.encode() for path in paths}


@pytest.mark.parametrize("with_list", [True, False])
def test_birdsnap_consists_of_the_downloaded_images(
    with_list: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_counts(monkeypatch, "birdsnap", {TRAIN: 500, VAL: 500})
    source = open_source(data_settings("birdsnap", write_tree(tmp_path, birds(with_list))))
    assert source.classes[:2] == ("Bird 1", "Bird 2")
    for name, (label, part, data) in rows(source).items():
        assert data.decode() == name
        assert (label.replace(" ", "_"), part) == (name.split("/")[0], VAL if name.endswith("2.jpg") else TRAIN)


@real_images
@pytest.mark.slow
def test_the_real_lists_of_birdsnap_name_their_species_and_test_images(tmp_path: Path) -> None:
    with tarfile.open(REAL / "annotations.tar.xz") as archive:
        members = [one for one in archive if one.name.startswith("birdsnap/") and one.isfile()]
        read = {one.name: archive.extractfile(one).read() for one in members}  # type: ignore[union-attr]
    images = read["birdsnap/all-ims"].decode().split()
    write_archive(tmp_path / "x.tar", read | {f"birdsnap/{name}": b"" for name in images})
    source = open_source(data_settings("birdsnap", tmp_path / "x.tar"))
    assert (len(source.classes), np.bincount(source.split).tolist()) == (500, [47_386, 0, 2_443])
    assert source.missing == ()


def mat(**variables: Any) -> bytes:
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=True)
    return buffer.getvalue()


def records(fields: list[str], lines: list[tuple[Any, ...]]) -> Any:
    table = np.empty((1, len(lines)), [(field, object) for field in fields])
    for number, line in enumerate(lines):
        table[0, number] = line
    return table


CARS = [f"Make {n} 2012" for n in range(1, 197)]
META = np.array(CARS, object)


def cars_in_two_folders() -> dict[str, bytes]:
    files = {"devkit/cars_meta.mat": mat(class_names=META)}
    for folder, name in (
        ("cars_train", "devkit/cars_train_annos.mat"),
        ("cars_test", "cars_test_annos_withlabels.mat"),
    ):
        lines = [(1, 2, 3, 4, n, f"{n:05d}.jpg") for n in range(1, 197)]
        files[name] = mat(annotations=records(["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"], lines))
        files |= {f"{folder}/{n:05d}.jpg": f"{folder} {n}".encode() for n in range(1, 197)}
    return files


def cars_in_one_folder() -> dict[str, bytes]:
    lines = [(f"car_ims/{part * 196 + n:06d}.jpg", 1, 2, 3, 4, n, part) for part in (0, 1) for n in range(1, 197)]
    fields = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
    files = {"cars_annos.mat": mat(annotations=records(fields, lines), class_names=META)}
    return files | {line[0]: f"car_ims {line[5]}".encode() for line in lines}


@pytest.mark.parametrize("layout", with_slow_rest([cars_in_two_folders, cars_in_one_folder]))
@pytest.mark.parametrize("kind", ["archives", "tree"])
def test_cars_open_in_both_layouts(
    layout: Callable[[], dict[str, bytes]], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_counts(monkeypatch, "cars", {TRAIN: 196, VAL: 196})
    files = layout()
    if kind == "tree":
        write_tree(tmp_path, {f"stanford_cars/{name}": data for name, data in files.items()})
    else:
        tops = {"cars_train": "cars_train", "cars_test": "cars_test", "devkit": "car_devkit", "car_ims": "car_ims"}
        for top, archive in tops.items():
            if mine := {name: data for name, data in files.items() if name.startswith(f"{top}/")}:
                write_archive(tmp_path / f"{archive}.tgz", mine)
        write_tree(tmp_path, {name: data for name, data in files.items() if "/" not in name})
    source = open_source(data_settings("cars", tmp_path))
    assert source.classes == tuple(CARS)
    assert np.bincount(source.split).tolist() == [196, 0, 196]
    for label, part, data in rows(source).values():
        folder, number = data.decode().split()
        assert label == CARS[int(number) - 1]
        assert folder in ("car_ims", "cars_test" if part == VAL else "cars_train")


def test_cars_without_test_labels_are_refused_with_the_name_of_their_file(tmp_path: Path) -> None:
    files = cars_in_two_folders()
    del files["cars_test_annos_withlabels.mat"]
    with pytest.raises(ConfigError, match=r"has no cars_test_annos_withlabels\.mat"):
        open_source(data_settings("cars", write_tree(tmp_path, files)))


def flowers() -> dict[str, bytes]:
    numbers = np.arange(1, 307)
    files = {f"jpg/image_{n:05d}.jpg": f"flower {n}".encode() for n in numbers.tolist()}
    files["imagelabels.mat"] = mat(labels=((numbers - 1) % 102 + 1).astype(np.uint8))
    parts = {"trnid": numbers[:102], "valid": numbers[102:204], "tstid": numbers[204:]}
    return files | {"setid.mat": mat(**{key: value.astype(np.uint16) for key, value in parts.items()})}


def test_flowers_have_an_official_validation_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_counts(monkeypatch, "flowers102", {TRAIN: 102, MINIVAL: 102, VAL: 102})
    files = flowers()
    write_archive(tmp_path / "102flowers.tgz", {name: data for name, data in files.items() if name.startswith("jpg")})
    write_tree(tmp_path, {name: data for name, data in files.items() if name.endswith(".mat")})
    source = open_source(data_settings("flowers102", tmp_path))
    for label, part, data in rows(source).values():
        number = int(data.split()[1])
        assert int(label) == (number - 1) % 102 + 1
        assert part == (TRAIN, MINIVAL, VAL)[(number - 1) // 102]


@pytest.mark.slow
@real_images
def test_the_real_lists_of_flowers_are_the_official_parts(tmp_path: Path) -> None:
    with tarfile.open(REAL / "annotations.tar.xz") as archive:
        for name in ("setid.mat", "imagelabels.mat"):
            write_tree(tmp_path, {name: archive.extractfile(f"flowers-102/{name}").read()})  # type: ignore[union-attr]
    write_archive(tmp_path / "102flowers.tgz", {f"jpg/image_{n:05d}.jpg": b"%d" % n for n in range(1, 8190)})
    source = open_source(data_settings("flowers102", tmp_path))
    assert np.bincount(source.split).tolist() == [1_020, 1_020, 6_149]
    assert np.bincount(source.labels[source.split == TRAIN]).tolist() == [10] * 102
    assert rows(source)["image_06765.jpg"] == ("1", TRAIN, b"6765")  # the first of trnid is of class 1


def test_a_flower_number_beyond_the_labels_is_refused(tmp_path: Path) -> None:
    files = flowers() | {"setid.mat": mat(trnid=[400, 401], valid=[1], tstid=[2])}
    with pytest.raises(DataError, match=r"setid\.mat names image 400, but imagelabels\.mat has 306 labels"):
        open_source(data_settings("flowers102", write_tree(tmp_path, files), allow_partial=True))


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0", mat(other=1), mat(labels="text")])
def test_damaged_matlab_files_are_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"imagelabels\.mat"):
        open_source(
            data_settings(
                "flowers102", write_tree(tmp_path, flowers() | {"imagelabels.mat": content}), allow_partial=True
            )
        )


def test_an_archive_of_another_name_is_named_where_the_lists_lack(tmp_path: Path) -> None:
    (tmp_path / "food-101.zip").write_bytes(b"PK\3\4")
    with pytest.raises(
        ConfigError, match=r"has no meta/classes\.txt; .*; food-101\.zip in it is no official archive and"
    ):
        open_source(data_settings("food101", tmp_path))
