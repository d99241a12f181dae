"""Numbered classes that a list beside them names, in the order of the numbers; lists that do not fit are named."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from made_archives import flat, open_tree, tree

from models.data.sources.listing import Source

NAMES = ("pear", "ant", "zebra", "bee", "cat", "owl", "dog", "fox", "yak", "elk", "hen")  # in no order of the alphabet
LINES = "\n".join(NAMES).encode()


def class_by_folder(source: Source) -> dict[str, str]:
    names = (name.decode().split("/")[-2] for name in source.names.tolist())
    return dict(zip(names, (source.classes[label] for label in source.labels.tolist()), strict=True))


@pytest.mark.parametrize(
    ("first", "width", "name", "content"),
    [
        (0, 1, "classes.txt", LINES),
        (1, 1, "classes.txt", LINES),
        (0, 3, "meta/class_names.txt", LINES),
        (1, 1, "cat_to_name.json", json.dumps({str(i + 1): name for i, name in enumerate(NAMES)}).encode()),
        (1, 1, "labels.txt", "".join(f"{i + 1} {name}\n" for i, name in enumerate(NAMES)).encode()),
        (0, 1, "class_to_idx.json", json.dumps({name: i for i, name in enumerate(NAMES)}).encode()),
        (0, 1, "data_classes.yaml", f"names: [{', '.join(NAMES)}]".encode()),
        (0, 1, "data.yaml", f"path: .\ntrain: images\nnames: [{', '.join(NAMES)}]".encode()),
        (0, 5, "signnames.csv", ("ClassId,SignName\n" + "".join(f"{i},{n}\n" for i, n in enumerate(NAMES))).encode()),
    ],
)
def test_folders_of_numbers_have_the_names_of_a_list_in_the_order_of_the_numbers(
    first: int, width: int, name: str, content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As text 10 precedes 2, which would give it the name of 2."""
    folders = [f"{number:0{width}d}" for number in range(first, first + len(NAMES))]
    with caplog.at_level(logging.INFO, "effnet"):
        source = open_tree(tmp_path, tree(dict.fromkeys(folders, 2)) | {name: content})
    assert source.classes == NAMES
    assert class_by_folder(source) == dict(zip(folders, NAMES, strict=True))
    assert f"{name} names the 11 numbered classes: {folders[0]} is pear, {folders[1]} is ant, " in caplog.text


def test_a_list_with_numbers_names_a_part_of_the_classes_too(tmp_path: Path) -> None:
    files = {"train/4": 3, "train/10": 3, "val/10": 2, "val/4": 2}
    content = json.dumps({str(i): name for i, name in enumerate(NAMES)}).encode()
    source = open_tree(tmp_path, tree(files) | {"classes.json": content})
    assert (source.classes, class_by_folder(source)) == (("cat", "hen"), {"4": "cat", "10": "hen"})


def test_numbers_of_a_table_have_the_names_of_a_list(tmp_path: Path) -> None:
    """As in Cassava Leaf Disease Classification, whose train.csv has numbers."""
    table = "image_id,label\n" + "".join(f"{i}.jpg,{i % 3}\n" for i in range(12))
    files = {
        "train.csv": table.encode(),
        "label_num_to_disease_map.json": b'{"0": "rot", "1": "mosaic", "2": "healthy"}',
    }
    source = open_tree(tmp_path, flat("images/") | files)
    assert source.classes == ("rot", "mosaic", "healthy")
    rows = zip(source.names.tolist(), source.labels.tolist(), strict=True)
    assert all(int(Path(name.decode()).stem) % 3 == label for name, label in rows)


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"classes.txt": b"a\nb\nc"}, "classes.txt (3 names) does not fit them"),
        ({"classes.txt": b"a\nb\nc\nd\ne"}, "classes.txt (5 names) does not fit them"),
        ({"classes.txt": b"a\nb\nc\na"}, "classes.txt (4 names) does not fit them"),
        ({"classes.json": b'{"1": "a", "2": "b", "3": "c", "4": "d"}'}, "classes.json (4 names) does not fit them"),
        (
            {"classes.txt": b"a\nb\nc\nd", "names.txt": b"d\nc\nb\na"},
            "classes.txt, names.txt differ in how they name them",
        ),
    ],
)
def test_a_list_that_does_not_fit_is_named_and_not_used(lists: dict[str, bytes], said: str, tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree(dict.fromkeys("0123", 3)) | lists)
    assert source.classes == ("0", "1", "2", "3")
    assert source.class_differences == (f"classes keep the names 0, 1, 2, 3: {said}",)


@pytest.mark.parametrize(
    "lists",
    [
        {"README.txt": b"a\nb\nc\nd"},
        {"labels.txt": b"0.jpg\n1.jpg\n2.jpg\n3.jpg"},
        {"labels.txt": b"3\n1\n0\n2"},
        {"0/names.txt": b"a\nb\nc\nd"},
    ],
)
def test_other_texts_name_no_classes(lists: dict[str, bytes], tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree(dict.fromkeys("0123", 3)) | lists)
    assert (source.classes, source.class_differences) == (("0", "1", "2", "3"), ())


def test_words_keep_their_names_beside_a_list(tmp_path: Path) -> None:
    assert open_tree(tmp_path, tree({"b": 3, "a": 3}) | {"classes.txt": b"x\ny"}).classes == ("a", "b")


def test_a_table_of_labels_is_no_list_of_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = "image,label\n" + "".join(f"{i}.jpg,{i % 3}.0\n" for i in range(12))
    source = open_tree(tmp_path, flat("images/") | {"labels.csv": table.encode(), "classes.txt": b"ant\nbee\ncat"})
    labels, names = source.class_differences
    assert (source.classes, labels) == (
        ("ant", "bee", "cat"),
        "the classes of 12 images are those of labels.csv, label",
    )
    assert (names.startswith("classes.txt names the 3 numbered classes: 0 is ant"), source.unused) == (True, ())
    assert "names are of several classes" not in caplog.text
