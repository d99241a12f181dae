"""Official splits that lists beside the images state."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_archives import counts, matlab_file, open_tree, photo

from infra.errors import ConfigError
from models.data.sources.listing import MINIVAL, TRAIN, VAL, Source

IMAGES = [f"{label}/{label}_{i:04d}.jpg" for label in ("ant", "bee", "cat") for i in range(12)]
FILES = {f"images/{name}": photo(i) for i, name in enumerate(IMAGES)}


def text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def lists(train: str, test: str, name: Callable[[str], str] = str, shift: int = 0) -> dict[str, bytes]:
    """A list of two thirds of the images, and one of the others."""
    rows = [(name(image), (i + shift) % 3) for i, image in enumerate(IMAGES)]
    return {train: text([row for row, rest in rows if rest]), test: text([row for row, rest in rows if not rest])}


TRAINED = [name for i, name in enumerate(IMAGES) if i % 3]


def as_json(content: object) -> bytes:
    return json.dumps(content).encode()


def by_class(names: list[str]) -> dict[str, list[str]]:
    return {word: [name for name in names if name.startswith(word)] for word in ("ant", "bee", "cat")}


def column(train: str, held_out: str) -> dict[str, bytes]:
    """A table with a column of splits by these words."""
    rows = [f"{name},{train if i % 3 else held_out}" for i, name in enumerate(IMAGES)]
    return {"labels.csv": text(["image,split", *rows])}


def names_of(source: Source, part: int) -> set[str]:
    return {name.decode().removeprefix("images/") for name in source.names[source.split == part].tolist()}


@pytest.mark.parametrize(
    "files",
    [
        lists("meta/train.txt", "meta/test.txt", lambda name: name.removesuffix(".jpg")),  # Food-101
        {
            name: content + text([f"dog/{i}.jpg" for i in range(99)])
            for name, content in lists("train.txt", "test.txt").items()
        },  # of a whole set, of which these images are a part
        lists("TrainImages.txt", "TestImages.txt"),  # MIT Indoor
        lists("Partitions/Training_01.txt", "Partitions/Testing_01.txt", lambda name: f"/{name}"),
        lists("trainlist01.txt", "testlist01.txt", lambda name: f"{name} 1"),
        lists("train.csv", "validation.csv", lambda name: f"7,{name},0,a b"),  # EuroSAT of Kaggle
        {"test.txt": lists("train.txt", "test.txt")["test.txt"]},
        lists("trainval.txt", "test.txt"),
        {"split.csv": b"image,is_train\n" + text([f"{name},{bool(i % 3)}" for i, name in enumerate(IMAGES)])},
        {"labels.csv": b"name,is_valid\n" + text([f"{name},{i % 3 == 0}" for i, name in enumerate(IMAGES)])},  # fastai
        {"partition.csv": text([f"{name},{'test' if i % 3 == 0 else 'train'}" for i, name in enumerate(IMAGES)])},
        {
            "images.txt": text([f"{i} {name}" for i, name in enumerate(IMAGES)]),
            "train_test_split.txt": text([f"{i} {min(i % 3, 1)}" for i in range(len(IMAGES))]),
            "image_class_labels.txt": text([f"{i} {i // 12 + 1}" for i in range(len(IMAGES))]),
            "classes.txt": b"1 ant\n2 bee\n3 cat\n",
        },  # CUB-200-2011
        {
            "split_zhou.json": json.dumps(
                {
                    "train": [[name, 0, "a"] for i, name in enumerate(IMAGES) if i % 3],
                    "test": [[name, 0, "a"] for i, name in enumerate(IMAGES) if not i % 3],
                }
            ).encode()
        },
        {
            f"{split}2018.json": json.dumps(
                {
                    "images": [
                        {"id": i, "file_name": name} for i, name in enumerate(IMAGES) if (i % 3 > 0) == is_train
                    ],
                    "annotations": [
                        {"image_id": i, "category_id": i // 12} for i in range(len(IMAGES)) if (i % 3 > 0) == is_train
                    ],
                    "categories": [{"id": i, "name": f"species {i}"} for i in range(3)],
                }
            ).encode()
            for split, is_train in (("train", True), ("val", False))
        },  # iNaturalist
        {"meta/train.json": as_json(TRAINED), "meta/val.json": as_json(IMAGES[::3])},
        {"splits.json": as_json({"name": "made", "classes": ["ant"], "train": TRAINED, "val": IMAGES[::3]})},
        {"dataset.json": as_json({"version": 1, "splits": {"train": TRAINED, "test": IMAGES[::3]}})},
        {"splits.json": as_json({"train": by_class(TRAINED), "val": by_class(IMAGES[::3])})},
        {
            "splits.json": as_json(
                {
                    word: {"train": names, "test": by_class(IMAGES[::3])[word]}
                    for word, names in by_class(TRAINED).items()
                }
            )
        },
        lists("train.jsonl", "val.jsonl", json.dumps),
        lists("splits/train", "splits/test"),
        lists("train.list", "test.names"),
        lists("train.txt", "test.txt", str.upper),
        {"train.txt": repr(TRAINED).encode(), "test.txt": repr(IMAGES[::3]).encode()},
        lists("train/files.txt", "test/files.txt"),
        column("tr", "te"),
        column("train_set", "test_set"),
        column("Training", "PublicTest"),
        column("train", "held-out"),
        lists("train.yaml", "test.yaml", lambda name: f"- {name}"),
        {"train.txt": " ".join(TRAINED).encode(), "test.txt": ",".join(IMAGES[::3]).encode()},
    ],
)
def test_lists_beside_folders_of_classes_state_the_splits(files: dict[str, bytes], tmp_path: Path) -> None:
    source = open_tree(tmp_path, FILES | files)
    assert (source.classes, counts(source)) == (("ant", "bee", "cat"), [24, 0, 12])
    assert names_of(source, VAL) == set(IMAGES[::3])
    assert "the splits" in source.class_differences[0]
    assert counts(open_tree(tmp_path, {}, train_folders=["."])) == [36, 0, 0]


def test_the_first_of_numbered_divisions_counts_and_the_others_are_said(tmp_path: Path) -> None:
    """As in the Describable Textures Dataset, of whose ten divisions the protocols of transfer take the first."""
    files = {
        f"labels/{split}{fold}.txt": text([name for i, name in enumerate(IMAGES) if (i + fold) % 3 == rest])
        for fold in (1, 2, 12)
        for rest, split in enumerate(("train", "val", "test"))
    }
    source = open_tree(tmp_path, FILES | files)
    assert names_of(source, TRAIN) == set(IMAGES[2::3])
    assert names_of(source, MINIVAL) == set(IMAGES[::3])
    said = "labels/test1.txt, labels/train1.txt, labels/val1.txt state the splits, the first of 3 divisions"
    assert source.class_differences == (said,)


def test_the_val_list_is_no_part_of_train_where_one_of_both_is_there(tmp_path: Path) -> None:
    files = lists("trainval.txt", "test.txt") | {"val.txt": text(IMAGES[1::3])}
    assert counts(open_tree(tmp_path, FILES | files)) == [12, 12, 12]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"train.txt": text(IMAGES[:20]), "test.txt": text(IMAGES[19:])},
            r"bee/bee_0007.jpg is in test and in train by test.txt, train.txt; keep it in one of them; data.train_fold",
        ),
        (
            lists("a_train.txt", "a_test.txt") | lists("b_train.txt", "b_test.txt", shift=1),
            r"a_test.txt, a_train.txt state other splits than b_test.txt, b_train.txt: keep those that count",
        ),
        (
            {"train.txt": text(IMAGES[:20])},
            r"train.txt names 20 of 36 images, and no list names the held-out ones; add",
        ),
        (
            {"train.txt": text(IMAGES[::4]), "test.txt": text(IMAGES[1::4])},
            r"18 of 36 files would not be used: 18 images that no list of a split names, first ant/ant_0002",
        ),
    ],
)
def test_lists_that_contradict_each_other_or_lack_images_are_refused(
    files: dict[str, bytes], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        open_tree(tmp_path, FILES | files)


def test_matlab_lists_state_the_splits(tmp_path: Path) -> None:
    """As in Stanford Dogs."""
    files = {
        f"lists/{name}_list.mat": matlab_file(
            file_list=some,
            annotation_list=[image.removesuffix(".jpg") for image in some],
            labels=np.arange(len(some))[:, None],
        )
        for name, some in (
            ("file", IMAGES),
            ("train", [image for i, image in enumerate(IMAGES) if i % 3]),
            ("test", IMAGES[::3]),
        )
    }
    source = open_tree(tmp_path, FILES | files)
    assert (counts(source), names_of(source, VAL)) == ([24, 0, 12], set(IMAGES[::3]))
    assert source.class_differences == ("lists/test_list.mat, lists/train_list.mat state the splits",)


def test_matlab_files_with_numbers_of_images_state_their_classes_and_splits(tmp_path: Path) -> None:
    """As in Oxford Flowers-102."""
    images = {f"jpg/image_{i:05d}.jpg": photo(i) for i in range(1, 31)}
    parts = {name: np.arange(first, 31, 3)[None] for first, name in enumerate(("trnid", "valid", "tstid"), 1)}
    files = {"imagelabels.mat": matlab_file(labels=np.arange(30)[None] // 10 + 1), "setid.mat": matlab_file(**parts)}
    source = open_tree(tmp_path, images | files)
    assert (source.classes, counts(source)) == (("1", "2", "3"), [10, 10, 10])
    known = dict(zip(source.names.tolist(), source.labels.tolist(), strict=True))
    assert [known[name.encode()] for name in sorted(images)] == [i // 10 for i in range(30)]
    assert names_of(source, MINIVAL) == set(sorted(images)[1::3])


def test_matlab_records_have_the_class_and_the_split_of_an_image(tmp_path: Path) -> None:
    """As in Stanford Cars."""
    records = np.zeros((1, 30), [("relative_im_path", object), ("class", object), ("test", object)])
    for i in range(30):
        records[0, i] = (f"car_ims/{i:06d}.jpg", i % 2 + 1, int(i % 3 == 0))
    images = {f"car_ims/{i:06d}.jpg": photo(i) for i in range(30)}
    files = {"a.mat": matlab_file(annotations=records, class_names=["Audi", "BMW"])}
    source = open_tree(tmp_path, images | files)
    assert (source.classes, counts(source)) == (("1", "2"), [20, 0, 10])


@pytest.mark.parametrize("name", ["lists/train_list.mat", "train.npy", "annotations/val.json"])
def test_a_list_that_is_not_read_is_said(name: str, tmp_path: Path) -> None:
    source = open_tree(tmp_path, FILES | {name: b"\0" * 999})
    assert counts(source) == [36, 0, 0]
    assert f"splits are drawn, not those of files that are not read: {name}" in source.class_differences


def test_a_column_of_splits_that_are_not_known_is_said(tmp_path: Path) -> None:
    words = ("train", "query", "gallery")
    rows = text([f"{name},{words[i % 3]}" for i, name in enumerate(IMAGES)])
    source = open_tree(tmp_path, FILES | {"list.csv": b"image,evaluation_status\n" + rows})
    assert counts(source) == [36, 0, 0]
    assert source.class_differences == ("splits are drawn, not those of the column evaluation_status of list.csv",)


@pytest.mark.parametrize("has_test", [False, True])
def test_one_of_the_folds_of_a_column_is_val_where_settings_divide_into_as_many(has_test: bool, tmp_path: Path) -> None:
    rows = text([f"{name.rpartition('/')[2]},{name[:3]},{i % 4}" for i, name in enumerate(IMAGES)])
    files = {f"train/{name.rpartition('/')[2]}": photo(i) for i, name in enumerate(IMAGES)}
    files |= {f"test/{i}.jpg": photo(90 + i) for i in range(6 * has_test)}
    source = open_tree(tmp_path, files | {"train.csv": b"image_id,label,fold\n" + rows})
    settings = "data.folds=4 data.val_share=0.25 data.fold=0"
    said = f"splits are drawn, not those of the column fold of train.csv; {settings} takes its first fold as val"
    assert (counts(source), source.class_differences[1:]) == ([36, 0, 0], (said,))
    vals = [names_of(open_tree(tmp_path, {}, folds=4, val_share=0.25, fold=fold), VAL) for fold in range(4)]
    assert vals == [{f"train/{name.rpartition('/')[2]}" for name in IMAGES[fold::4]} for fold in range(4)]


def test_names_of_images_may_state_the_splits(tmp_path: Path) -> None:
    """As in RAF-DB."""
    files = {
        f"{label}/{kind}_{i}.jpg": photo(i) for label in ("ant", "bee") for kind in ("train", "test") for i in range(6)
    }
    source = open_tree(tmp_path, files)
    assert (counts(source), source.class_differences) == ([12, 0, 12], ("the names of the images state the splits",))
    assert counts(open_tree(tmp_path, {"ant/tree_0.jpg": photo(9)})) == [25, 0, 0]


@pytest.mark.parametrize("content", [b"A readme about training.\n" * 9, text(IMAGES), b"12\n"])
def test_a_text_that_lists_no_part_of_the_images_is_no_list(content: bytes, tmp_path: Path) -> None:
    source = open_tree(tmp_path, FILES | {"train.txt": content})
    assert (counts(source), source.class_differences) == ([36, 0, 0], ())


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_the_partition_of_celeba_divides_the_images_of_a_column(kind: str, tmp_path: Path) -> None:
    """The headers of the official texts have none for the names of the images."""
    names = [f"{i:06d}.jpg" for i in range(30)]
    marks = [(name, 2 * (i % 2) - 1, 2 * (i % 3 > 0) - 1) for i, name in enumerate(names)]
    separator = " " if kind == "txt" else ","
    header = "30\nMale Smiling\n" if kind == "txt" else "image_id,Male,Smiling\n"
    partition = "" if kind == "txt" else "image_id,partition\n"
    files = {f"img_align_celeba/{name}": photo(i) for i, name in enumerate(names)} | {
        f"list_attr_celeba.{kind}": header.encode() + text([separator.join(map(str, row)) for row in marks]),
        f"list_eval_partition.{kind}": partition.encode()
        + text([f"{name}{separator}{min(i // 10, 2)}" for i, name in enumerate(names)]),
        "identity_CelebA.txt": text([f"{name} {i % 6}" for i, name in enumerate(names)]),
    }
    with pytest.raises(ConfigError, match=rf"list_attr_celeba.{kind} names the images and has the columns Male, Smili"):
        open_tree(tmp_path, files)
    source = open_tree(tmp_path, {}, label_field="Male")
    assert (source.classes, counts(source)) == (("-1", "1"), [10, 10, 10])


def test_lists_divide_the_images_of_a_table_of_labels(tmp_path: Path) -> None:
    labels = b"image,label\n" + text([f"{name},{name[:3]}" for name in IMAGES])
    flat = {f"images/{name.rpartition('/')[2]}": photo(i) for i, name in enumerate(IMAGES)}
    files = lists("train.txt", "test.txt", lambda name: name.rpartition("/")[2])
    assert counts(open_tree(tmp_path, flat | files | {"labels.csv": labels})) == [24, 0, 12]


@pytest.mark.parametrize(("val", "test"), [("val", "eval"), ("validation", "evaluation"), ("dev", "eval")])
@pytest.mark.parametrize("form", ["lists", "json", "tables", "column", "names"])
def test_an_evaluation_beside_a_validation_is_test(form: str, val: str, test: str, tmp_path: Path) -> None:
    kinds = ["train"] * 8 + [val] * 2 + [test] * 2
    names = {f"{label}{i}.jpg": kind for label in ("ant", "bee") for i, kind in enumerate(kinds)}
    if form == "names":
        names = {f"{kind}_{name}": kind for name, kind in names.items()}
    words = {name: "ant" if "ant" in name else "bee" for name in names}
    are_divided = form in ("lists", "json", "column")
    files = {f"{words[name] if are_divided else 'images'}/{name}": photo(i) for i, name in enumerate(names)}
    if form == "column":
        files["all.csv"] = text(["name,split", *(f"{name},{kind}" for name, kind in names.items())])
    if form == "names":
        files["all.csv"] = text(["name,label", *(f"{name},{words[name]}" for name in names)])
    for kind in set(kinds):
        some = [name for name, one in names.items() if one == kind]
        files |= {
            "lists": {f"{kind}.txt": text(some)},
            "json": {f"{kind}.json": json.dumps([[name, words[name]] for name in some]).encode()},
            "tables": {f"{kind}.csv": text(["name,label", *(f"{name},{words[name]}" for name in some)])},
        }.get(form, {})
    source = open_tree(tmp_path, files)
    assert (source.classes, counts(source)) == (("ant", "bee"), [16, 4, 4])


def test_an_evaluation_beside_a_test_is_val(tmp_path: Path) -> None:
    kinds = {"train": range(8), "eval": range(8, 10), "test": range(10, 12)}
    files = {f"{label}/{label}{i}.jpg": photo(i) for label in ("ant", "bee") for i in range(12)}
    lists = {f"{kind}.txt": text([f"{c}{i}.jpg" for c in ("ant", "bee") for i in some]) for kind, some in kinds.items()}
    source = open_tree(tmp_path, files | lists)
    assert counts(source) == [16, 4, 4]
    assert names_of(source, MINIVAL) == {f"{label}/{label}{i}.jpg" for label in ("ant", "bee") for i in (8, 9)}


def voc(**more: bytes) -> dict[str, bytes]:
    """A tree as of Pascal VOC, whose lists for segmentation divide a few images in another way."""
    files = {f"JPEGImages/{i:06d}.jpg": photo(i) for i in range(36)}
    files |= {f"SegmentationClass/{i:06d}.png": photo(100 + i, "PNG") for i in range(4)}
    for place, train, val in (("Main", range(0, 36, 2), range(1, 36, 2)), ("Segmentation", (1, 2), (0, 3))):
        files[f"ImageSets/{place}/train.txt"] = text([f"{i:06d}" for i in train])
        files[f"ImageSets/{place}/val.txt"] = text([f"{i:06d}" for i in val])
    return files | more


def test_the_lists_of_pascal_voc_count_where_the_folder_of_its_images_is_named(tmp_path: Path) -> None:
    rows = text(["image,label", *(f"{i:06d}.jpg,{'cat' if i % 3 else 'dog'}" for i in range(36))])
    source = open_tree(tmp_path, voc(**{"labels.csv": rows}), train_folders=["JPEGImages"])
    assert counts(source) == [18, 0, 18]
    assert source.class_differences[1:] == ("ImageSets/Main/train.txt, ImageSets/Main/val.txt state the splits",)
    assert all(int(name[-10:-4]) % 2 for name in source.names[source.split == VAL].tolist())


def test_lists_of_one_class_each_state_the_splits_of_a_folder_that_is_named(tmp_path: Path) -> None:
    lists_of_classes = {
        f"ImageSets/Main/{word}_{split}.txt": text(
            [f"{i:06d}  {1 if (i % 3 == 0) == (word == 'cat') else -1}" for i in range(first, 36, 2)]
        )
        for word in ("cat", "dog")
        for split, first in (("train", 0), ("val", 1))
    }
    source = open_tree(tmp_path, voc(**lists_of_classes), train_folders=["JPEGImages"])
    assert (source.classes, counts(source)) == (("cat", "dog"), [18, 0, 18])


def test_lists_that_would_be_refused_are_said_where_the_folder_of_train_is_named(tmp_path: Path) -> None:
    files = {"train.txt": text(IMAGES[:20]), "test.txt": text(IMAGES[19:]), "more/x.txt": b"more"}
    source = open_tree(tmp_path, FILES | files, train_folders=["images"])
    assert counts(source) == [36, 0, 0]
    assert "splits are drawn, not those of lists: " in source.class_differences[0]
    assert "bee/bee_0007.jpg is in test and in train by" in source.class_differences[0]


def test_lists_that_name_no_image_are_said(tmp_path: Path) -> None:
    files = lists("train.txt", "test.txt", lambda name: f"{zlib.crc32(name.encode()):08x}")
    source = open_tree(tmp_path, FILES | files | {"train.py": b"train()\n", "test.py": b"test()\n"})
    assert counts(source) == [36, 0, 0]
    assert source.class_differences == (
        "splits are drawn: test.txt, train.txt name none of the images, or several by one name",
    )


def rows_of(row: Callable[[int, str], str]) -> bytes:
    return text([row(number, name) for number, name in enumerate(IMAGES)])


def is_test(number: int) -> bool:
    return number % 3 == 0


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (
            lists("train.txt", "test.txt", lambda name: name.replace("_", "-")),
            "'ant/ant-0001.jpg' resembles images/ant/an",
        ),
        (
            lists("train.txt", "test.txt", lambda name: name.replace("/", "_")),
            "'ant_ant_0001.jpg' resembles images/ant/an",
        ),
        (
            lists("train.txt", "test.txt", lambda name: f"x_{name[4:]}"),
            "'x_ant_0001.jpg' resembles images/ant/ant_0001",
        ),
        (
            lists("train.txt", "test.txt", lambda name: f"{name[:3]}/{name[-6:]}"),
            "'ant/01.jpg' resembles images/ant/ant_",
        ),
        (
            lists("train.txt", "test.txt", lambda name: str(IMAGES.index(name))),
            "its lines are numbers, as '1', and not n",
        ),
        (
            {name: rows_of(lambda i, one: one if i % 2 else f"{i:08x}.jpg") for name in ("train.txt", "test.txt")},
            "18 of 36 lines name no image, as '00000000.jpg'",
        ),
        (
            {"split.csv": text(["path,group"]) + rows_of(lambda i, one: f"{one},{'AB'[is_test(i)]}")},
            "names an image and none",
        ),
        (
            {"split.csv": text(["path,split"]) + rows_of(lambda i, one: f"{one},{1 + is_test(i)}")},
            "names an image and none",
        ),
        (
            {"split.csv": text(["id,split"]) + rows_of(lambda i, _: f"{i},{'test' if is_test(i) else 'train'}")},
            "has a number",
        ),
        (
            {"split.csv": text(["train,test"]) + rows_of(lambda i, one: f"{one},{IMAGES[i - 1]}")},
            "names several images",
        ),
        ({"splits.txt": text(["train:"]) + rows_of(lambda _, one: one)}, "names an image and none of these splits"),
        (
            {"split.yaml": text(["train:"]) + rows_of(lambda _, one: f"- {one}")},
            "names an image and none of these splits",
        ),
        (
            {"split.json": as_json({"train": list(range(24)), "test": list(range(24, 36))})},
            "train has '0', which names no",
        ),
    ],
)
def test_lists_that_name_the_images_in_a_form_that_is_not_read_are_refused(
    files: dict[str, bytes], why: str, tmp_path: Path
) -> None:
    """The splits were drawn, and a warning said so: held-out images of the set were in train."""
    named = "train.txt, test.txt state" if len(files) == 2 else f"{min(files)} states"
    with pytest.raises(ConfigError, match=rf"{named} splits in a form .*{re.escape(why)}") as refusal:
        open_tree(tmp_path, FILES | files)
    assert "Read are lists train, val and test with one name" in str(refusal.value)
    assert counts(open_tree(tmp_path, {}, train_folders=["."])) == [36, 0, 0]


def test_images_of_one_name_in_lists_without_folders_are_refused(tmp_path: Path) -> None:
    files = {f"{label}/{i}.jpg": photo(i) for label in ("ant", "bee") for i in range(12)}
    named = {"train.txt": text([f"{i}.jpg" for i in range(8)]), "val.txt": text([f"{i}.jpg" for i in range(8, 12)])}
    with pytest.raises(ConfigError, match=r"'0\.jpg' names several images: write the folders, too"):
        open_tree(tmp_path, files | named)


@pytest.mark.parametrize(
    "files",
    [
        {"train.txt": b"epoch 1 loss 0.3\n" * 40, "test.txt": b"epoch 1 loss 0.3\n" * 40},
        {"train.csv": b"epoch,loss\n1,2\n2,3\n" * 9, "val.csv": b"epoch,loss\n1,2\n2,3\n" * 9},
        {"split.txt": b"The splits are drawn with seed 1.\n" * 9},
        {"README.txt": rows_of(lambda _, one: one)},
        {"split.py": b"import random\n" * 40},
        {"split_sizes.csv": b"split,images\ntrain,ant_0001\nval,ant_0002\n"},
    ],
)
def test_logs_and_texts_are_no_lists(files: dict[str, bytes], tmp_path: Path) -> None:
    assert counts(open_tree(tmp_path, FILES | files)) == [36, 0, 0]


def test_lists_of_few_of_the_images_among_others_are_said(tmp_path: Path) -> None:
    strangers = text([f"dog/{i}.jpg" for i in range(99)])
    files = {name: content + strangers for name, content in lists("train.txt", "test.txt").items()}
    files = {name: b"".join(content.splitlines(keepends=True)[6:]) for name, content in files.items()}
    source = open_tree(tmp_path, FILES | files)
    assert source.class_differences == (
        "splits are drawn: test.txt, train.txt name 24 of 36 images, among lines that name none",
    )


@pytest.mark.parametrize("name", ["train.txt.gz", "splits.npz", "split.pkl", "splits.xml", "fold0.txt", "folds.json"])
def test_files_that_may_have_the_splits_and_are_not_read_are_named(name: str, tmp_path: Path) -> None:
    source = open_tree(tmp_path, FILES | {name: b"x" * 500})
    assert counts(source) == [36, 0, 0]
    assert source.class_differences == (f"splits are drawn, not those of files that are not read: {name}",)


@pytest.mark.parametrize("names", [("tr.txt", "te.txt"), ("lists/trn.csv", "lists/tst.csv")])
def test_lists_with_short_names_of_splits_state_them(names: tuple[str, str], tmp_path: Path) -> None:
    source = open_tree(tmp_path, FILES | lists(*names))
    assert (counts(source), source.class_differences[0]) == (
        [24, 0, 12],
        f"{', '.join(sorted(names))} state the splits",
    )


@pytest.mark.parametrize(
    "names", [("treino.txt", "teste.txt"), ("meta/known.csv", "meta/new.csv"), ("训练.txt", "测试.txt")]
)
def test_lists_of_other_names_that_divide_the_images_are_named(names: tuple[str, str], tmp_path: Path) -> None:
    source = open_tree(tmp_path, FILES | lists(*names))
    said = f"splits are drawn, not those of {', '.join(sorted(names))}, which divide the images: if they are splits, n"
    assert source.class_differences[0].startswith(said)


def test_lists_of_the_images_of_a_class_each_are_no_splits(tmp_path: Path) -> None:
    texts = {f"{label}.txt": text([one for one in IMAGES if one.startswith(label)]) for label in ("ant", "bee", "cat")}
    assert open_tree(tmp_path, FILES | texts).class_differences == ()


@pytest.mark.parametrize(
    ("header", "train", "test"),
    [
        ("is_test_image", "0", "1"),
        ("is_training", "yes", "no"),
        ("in_train", "True", "False"),
        ("Test", "N", "Y"),
        ("validation flag", "no", "yes"),
    ],
)
def test_a_column_that_states_by_yes_and_no_whether_an_image_is_in_a_split_is_read(
    header: str, train: str, test: str, tmp_path: Path
) -> None:
    rows = [f"{name.rpartition('/')[2]},{'ab'[i % 2]},{train if i % 3 else test}" for i, name in enumerate(IMAGES)]
    images = {f"images/{name.rpartition('/')[2]}": photo(i) for i, name in enumerate(IMAGES)}
    source = open_tree(tmp_path, images | {"labels.csv": text([f"image,label,{header}", *rows])})
    assert (source.classes, counts(source)) == (("a", "b"), [24, 0, 12])


def test_a_column_named_set_with_numbers_is_named(tmp_path: Path) -> None:
    rows = [f"{name.rpartition('/')[2]},{'ab'[i % 2]},{1 + i % 3}" for i, name in enumerate(IMAGES)]
    images = {f"images/{name.rpartition('/')[2]}": photo(i) for i, name in enumerate(IMAGES)}
    source = open_tree(tmp_path, images | {"labels.csv": text(["image,label,set", *rows])})
    assert source.class_differences[1:] == ("splits are drawn, not those of the column set of labels.csv",)


def test_a_list_of_test_is_about_the_folder_test_where_names_are_equal(tmp_path: Path) -> None:
    """As in sets of Kaggle whose images are numbered from 0 in both folders; test has no labels."""
    files = {f"{folder}/{i}.jpg": photo(100 * k + i) for k, folder in enumerate(("train", "test")) for i in range(12)}
    tables = {
        "train.csv": text(["id,label", *(f"{i},{'ab'[i % 2]}" for i in range(12))]),
        "test.csv": text(["id", *map(str, range(12))]),
    }
    source = open_tree(tmp_path, files | tables)
    assert (source.classes, counts(source)) == (("a", "b"), [12, 0, 0])
    assert names_of(source, TRAIN) == {f"train/{i}.jpg" for i in range(12)}


def folds(column: str) -> list[str]:
    """Returns a row for each image in each of three folds, of which one has it in test."""
    rows = [(fold, image, (i + fold) % 3) for fold in (1, 2, 3) for i, image in enumerate(IMAGES)]
    return [f"{fold},40,{'train' if rest else 'test'},images/{image}"[2 * (not column) :] for fold, image, rest in rows]


@pytest.mark.parametrize(
    ("column", "remedy"),
    [("fold,", "its column fold numbers 3 divisions, .* those with 1"), ("", "keep one row of each image")],
)
def test_a_table_with_train_and_test_of_an_image_is_refused(column: str, remedy: str, tmp_path: Path) -> None:
    """As ``Folds.csv`` of BreakHis, with a row for each image and fold."""
    table = text([f"{column}mag,grp,filename", *folds(column)])
    said = rf"Folds\.csv contradicts itself: its column grp has several splits of 36 of 36 images, .*; {remedy}"
    with pytest.raises(ConfigError, match=said):
        open_tree(tmp_path, FILES | {"Folds.csv": table})
    assert counts(open_tree(tmp_path, {}, train_folders=["."])) == [36, 0, 0]


@pytest.mark.parametrize(("names", "is_refused"), [(("a.csv", "b.csv"), True), (("s10.csv", "s2.csv"), False)])
def test_tables_with_other_columns_of_splits_are_refused_unless_numbered(
    names: tuple[str, str], is_refused: bool, tmp_path: Path
) -> None:
    tables = {
        name: text(["file,split", *(f"{image},{'train' if (i + j) % 3 else 'test'}" for i, image in enumerate(IMAGES))])
        for j, name in enumerate(names)
    }
    if is_refused:
        with pytest.raises(ConfigError, match=r"a\.csv states other splits than b\.csv: keep that which counts"):
            open_tree(tmp_path, FILES | tables)
    else:
        source = open_tree(tmp_path, FILES | tables)
        assert source.class_differences == ("s2.csv states the splits, the first of 2 divisions",)
        assert b"ant/ant_0002.jpg" in source.names[source.split == VAL].tolist()
