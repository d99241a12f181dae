"""What is said about labels that may be no single class, and about rows of a table that are not used."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_archives import counts, flat, open_tree

from models.data.sources.class_remarks import describe_labels


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (
            ("rust", "rust|scab", "scab"),
            "1 classes look like several labels of one image and count as classes, as 'rust|s",
        ),
        (("['a', 'b']", "['a']", "['b']"), "1 classes look like several labels of one image"),
        (("['a', 'b']", "['a', 'c']"), "2 classes look like several labels of one image and count as classes, as "),
        (("['red fox']", "['red wolf']"), ""),
        (("ant|ill", "bee|ill"), "2 classes look like several labels of one image"),
        (("0,1", "1,2", "2,0"), "3 classes look like several labels of one image and count as classes, as '0,1'"),
        (("None", "ant", "bee"), "the class None may stand for images without a label, and counts as a class"),
        (("-1", "0", "1"), "the class -1 may stand for images without a label, and counts as a class"),
        (("-1", "1"), ""),
        (("red fox", "red panda", "arctic fox"), ""),
        (("Smith, J.", "Miller, K."), ""),
        (
            ("ant", "dog", "ant dog"),
            "1 classes look like several labels of one image and count as classes, as 'ant dog'",
        ),
        (("bear", "polar bear"), ""),
        *(
            (("ant", "dog", f"ant{separator}dog"), "1 classes look like several labels of one image")
            for separator in ("|", ";", ",", ", ", "/", "+", " & ", " and ")
        ),
    ],
)
def test_labels_that_may_be_no_single_class_are_said(classes: tuple[str, ...], said: str) -> None:
    lines = describe_labels(classes)
    assert (len(lines), "".join(lines).startswith(said)) == (bool(said), True)


def test_the_marks_of_missing_values_are_no_classes(tmp_path: Path) -> None:
    marks = ("N/A", "NULL", "null", "<NA>", "nan")
    rows = [f"{i}.jpg,{marks[i] if i < 5 else 'ab'[i % 2]}\n" for i in range(12)]
    source = open_tree(tmp_path, flat("images/") | {"labels.csv": ("image,label\n" + "".join(rows)).encode()})
    assert (source.classes, counts(source)) == (("a", "b"), [7, 0, 0])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("".join(f"{i}.jpg,a\n" for i in range(90, 95)), "labels.csv: 5 of 17 rows name no image that is here"),
        ("", "labels.csv: 6 rows have more columns than the header, first that of 0.jpg: quote texts with separators"),
    ],
)
def test_rows_that_name_no_image_or_have_more_columns_are_said(
    more: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = "a" if more else "a, red"
    rows = [f"{i}.jpg,{'b' if i % 2 else first}\n" for i in range(12)]
    text = "image,label\n" + "".join(rows) + more
    source = open_tree(tmp_path, flat("images/") | {"labels.csv": text.encode()})
    assert (source.classes, counts(source)) == (("a", "b"), [12, 0, 0])
    assert said in caplog.text


def test_a_separator_at_the_end_of_the_rows_moves_no_header(tmp_path: Path) -> None:
    rows = [f"{i}.jpg,{'ab'[i % 2]},\n" for i in range(12)]
    source = open_tree(tmp_path, flat("images/") | {"labels.csv": ("image,label\n" + "".join(rows)).encode()})
    assert (source.classes, counts(source)) == (("a", "b"), [12, 0, 0])


@pytest.mark.parametrize(("name", "separator"), [("labels.txt", " "), ("labels.csv", ",")])
def test_rows_with_several_labels_are_those_of_a_multi_label_set(
    name: str, separator: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [separator.join((f"{i}.jpg", "ab"[i % 2], *"b"[: i == 4])) + "\n" for i in range(12)]
    source = open_tree(tmp_path, flat("images/") | {name: f"image{separator}label\n{''.join(rows)}".encode()})
    assert source.classes == ("a", "b")
    assert f"{name}: 1 rows have several labels, of which the first counts, first that of 4.jpg" in caplog.text


@pytest.mark.parametrize(
    "names", [("01", "1"), ("1.0", "1"), ("0x1", "1"), ("golden_retriever", "golden retriever"), ("A-b", "a_b")]
)
def test_classes_of_one_name_in_several_spellings_are_said(names: tuple[str, str], tmp_path: Path) -> None:
    source = open_tree(tmp_path, {path: image for name in names for path, image in flat(f"{name}/", 3).items()})
    shown = ", ".join(map(ascii, sorted(names)))
    assert source.class_differences[0] == f"classes whose names look alike: {shown}"


def test_negative_numbers_are_other_classes_than_positive_ones(tmp_path: Path) -> None:
    files = {path: image for name in ("-1", "1", "2") for path, image in flat(f"{name}/", 3).items()}
    assert not any("look alike" in line for line in open_tree(tmp_path, files).class_differences)


@pytest.mark.parametrize(
    ("classes", "is_said"),
    [
        (["0", "1", "2", "ant", "bee", "cat"], True),
        (["0", "1", "a", "b", "c"], False),
        (["1", "2", "a", "b"], False),
        (["0", "1", "2"], False),
        (["0", "ant"], False),
    ],
)
def test_numbers_and_as_many_names_may_be_the_same_classes(classes: list[str], is_said: bool) -> None:
    said = "3 classes are numbers from 0 and as many are names, as 0 and ant: they may be the same classes in two forms"
    assert describe_labels(classes) == ((said,) if is_said else ())
