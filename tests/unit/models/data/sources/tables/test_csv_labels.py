"""Labels in tables beside the images, in the spellings of Kaggle's and other public data sets."""

import logging
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from made_archives import data_settings, photo, write_tree

from infra.errors import ConfigError
from models.data.sources.catalog import open_source
from models.data.sources.listing import MINIVAL, TRAIN, VAL, Source
from models.data.sources.tables import reading, unread_labels

CLASSES = ("ant", "bee", "cat")
NAMES = [f"{i:04d}" for i in range(12)]
TRUTH = {name: CLASSES[i % 3] for i, name in enumerate(NAMES)}


def flat(folder: str) -> dict[str, bytes]:
    return {f"{folder}{name}.jpg": photo(i) for i, name in enumerate(NAMES)}


def divided(folder: str) -> dict[str, bytes]:
    return {f"{folder}{label}/{i}.jpg": photo(100 + i) for label in CLASSES for i in range(3)}


def open_tree(tmp_path: Path, files: dict[str, bytes], **changes: object) -> Source:
    return open_source(data_settings("folder", write_tree(tmp_path / "set", files), **changes))


def labels_of(source: Source, part: int) -> dict[str, str]:
    """Returns the classes of a part by the names of the images without folders and suffix."""
    rows = zip(source.names.tolist(), source.labels.tolist(), source.split.tolist(), strict=True)
    return {Path(name.decode()).stem: source.classes[label] for name, label, split in rows if split == part}


def table(row: str, header: str = "", end: str = "\n") -> str:
    return header + end * bool(header) + "".join(row.format(n=name, c=label) + end for name, label in TRUTH.items())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("val.csv", table("{n}.jpg,{c}", "filename,label")),
        ("val.csv", table("{n}.jpg;{c}", "filename;label")),
        ("val.csv", table("{n}.jpg\t{c}", "filename\tlabel")),
        ("VAL.TSV", table("{n}.jpg\t{c}", "filename\tlabel")),
        ("val.txt", table("{n}.jpg {c}")),
        ("val.txt", table("  {n}.jpg    {c}")),
        ("val_annotations.txt", table("{n}.jpg\t{c}\t0\t0\t62\t62")),
        ("val.csv", table("{n}.jpg|{c}", "filename|label")),
        ("val.csv", table("{n},{c}", "\ufeffid,breed", "\r\n")),
        ("val.csv", table("'{n}.jpg', '{c}'", "id, c")),
        ("val.csv", table('"{n}.jpg","a, ""b""",{c}', "id,caption,c")),
        ("val.csv", table("val\\{n}.jpg,{c}")),
        ("val.csv", table("/kaggle/input/set/val/{n}.png,{c}", "path,class")),
        ("val.csv", "# made by a tool\n" + table("{n},{c}", "id,c") + "short\n\n"),
        ("val/labels.csv", table("{n},{c}", "id,c") + "9999,ant\n" + table("{n},{c}")),
        ("val.csv", "\ufeff".join(["", table("{n},{c}", "id,c")]).encode("utf-16-le")),
        ("val.csv", "\ufeff".join(["", table("{n},{c}", "id,c")]).encode("utf-16-le") + b"x"),
    ],
)
def test_labels_of_a_flat_val_are_read_from_any_table(file: str, content: str | bytes, tmp_path: Path) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    source = open_tree(tmp_path, divided("train/") | flat("val/") | {file: data})
    assert (labels_of(source, VAL), source.classes) == (TRUTH, CLASSES)


def test_names_in_a_table_may_differ_in_case_from_those_of_the_files(tmp_path: Path) -> None:
    text = table("VAL\\{n}.JPG,{c}", "id,label")
    source = open_tree(tmp_path, divided("train/") | flat("val/") | {"val.csv": text.encode()})
    assert labels_of(source, VAL) == TRUTH
    alike = {"a.jpg": photo(1), "A.jpg": photo(2)}
    files = divided("train/") | {f"val/{name}": data for name, data in alike.items()}
    exact = open_tree(tmp_path / "2", files | {"val.csv": b"id,label\na.jpg,ant\nA.jpg,bee\n"})
    assert sorted(zip(exact.names.tolist(), exact.labels.tolist(), strict=True))[-2:] == [
        (b"val/A.jpg", 1),
        (b"val/a.jpg", 0),
    ]


def test_a_class_that_is_not_utf8_is_refused_with_its_file(tmp_path: Path) -> None:
    rows = "".join(f"{i}.jpg,{('café', 'eau')[i % 2]}\n" for i in range(8))
    files = {f"train/{i}.jpg": photo(i) for i in range(8)} | {"labels.csv": f"id,label\n{rows}".encode("latin-1")}
    with pytest.raises(
        ConfigError, match=r"the class of train/0\.jpg in labels\.csv is not UTF-8: b'caf\\xe9'; save the"
    ):
        open_tree(tmp_path, files)


def test_a_column_of_names_precedes_one_of_numbers_that_are_names_too(tmp_path: Path) -> None:
    rows = list(enumerate(reversed(TRUTH.items())))  # the number of a row is the name of another image
    text = ",file,label\n" + "".join(f"{i:04d},{name}.jpg,{label}\n" for i, (name, label) in rows)
    assert labels_of(open_tree(tmp_path, divided("train/") | flat("val/") | {"val.csv": text.encode()}), VAL) == TRUTH


def test_images_of_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    files = divided("train/") | {f"val/{part}/1.jpg": photo(i) for i, part in enumerate(("x", "y", "z"))}
    whole = {"val.csv": b"file,label\nx/1.jpg,cat\ny/1.jpg,bee\nval/z/1.jpg,ant\n"}
    source = open_tree(tmp_path, files | whole)
    held_out = [(name, label) for name, label in zip(source.names.tolist(), source.labels.tolist(), strict=True)][-3:]
    assert held_out == [(b"val/x/1.jpg", 2), (b"val/y/1.jpg", 1), (b"val/z/1.jpg", 0)]
    one = {"val.csv": b"file,label\n1.jpg,cat\n"}
    with pytest.raises(ConfigError, match="nothing is left of val/"):
        open_tree(tmp_path / "2", files | one)
    unclear = open_tree(tmp_path / "3", files | one, allow_partial=True)
    assert unclear.unused[0].startswith("3 images without a label in val/")


def numbered(columns: str) -> dict[str, bytes]:
    """Classes 0 to 2 as folders of train, and a table of val whose columns but the first hold numbers below 3."""
    rows = "".join(f"{name}.jpg,{i // 4},{i % 3}\n" for i, name in enumerate(NAMES))
    train = {f"train/{label}/{i}.jpg": photo(100 + i) for label in range(3) for i in range(3)}
    return train | flat("val/") | {"val.csv": f"{columns}\n{rows}".encode()}


@pytest.mark.parametrize("columns", ["Path,Roi.X1,ClassId", "Path,Width,number", "Path,fold,number"])
def test_numbers_that_are_names_of_classes_too_are_not_taken_for_them(columns: str, tmp_path: Path) -> None:
    expected = {name: str(i % 3) for i, name in enumerate(NAMES)}
    assert labels_of(open_tree(tmp_path, numbered(columns)), VAL) == expected


def test_two_columns_that_could_be_the_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"in val\.csv the columns Roi\.X1, number hold names of classes, and differ"):
        open_tree(tmp_path, numbered("Path,Roi.X1,number"))


@pytest.mark.parametrize("name", ["submission.csv", "my_predictions.csv", "MyPredictions.csv", "preds-2.csv"])
def test_a_table_of_predictions_is_not_the_truth(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = "".join(f"{image},ant\n" for image in NAMES)
    files = divided("train/") | flat("val/") | {name: f"id,label\n{wrong}".encode()}
    with pytest.raises(ConfigError, match="12 images without a label in val/"):
        open_tree(tmp_path, files)
    assert f"{name} is not read, because it is named after predictions" in caplog.text
    assert labels_of(open_tree(tmp_path / "2", files | {"val.csv": table("{n},{c}").encode()}), VAL) == TRUTH


@pytest.mark.parametrize("name", ["predictive_maintenance.csv", "Predictors.csv", "predicates.csv"])
def test_a_word_that_begins_like_predictions_is_another(name: str, tmp_path: Path) -> None:
    source = open_tree(tmp_path, flat("images/") | {name: table("{n},{c}", "id,label").encode()})
    assert labels_of(source, TRAIN) == TRUTH


def test_an_image_of_two_classes_in_one_table_is_refused(tmp_path: Path) -> None:
    text = table("{n},{c}", "id,label") + "0000,cat\n"
    with pytest.raises(ConfigError, match=r"val/0000.jpg is ant and cat, both in val.csv; keep one of them"):
        open_tree(tmp_path, divided("train/") | flat("val/") | {"val.csv": text.encode()})


def test_a_table_whose_labels_are_no_classes_is_named(tmp_path: Path) -> None:
    text = "id,label\n" + "".join(f"{name},{i % 3}\n" for i, name in enumerate(NAMES))
    match = r"12 images without a label in val/ \(val.csv names images, but no column of it has these classes\)"
    with pytest.raises(ConfigError, match=match):
        open_tree(tmp_path, divided("train/") | flat("val/") | {"val.csv": text.encode()})


@pytest.mark.parametrize("folder", ["", "images/", "train/", "set/train/"])
def test_classes_of_a_flat_folder_are_those_of_its_table(
    folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = table("{n},{c},12", "image_id,breed,size")
    with caplog.at_level(logging.INFO, "effnet"):
        source = open_tree(tmp_path, flat(folder) | {"labels.csv": text.encode()})
    assert (source.classes, labels_of(source, TRAIN)) == (CLASSES, TRUTH)
    assert "the classes of 12 images are those of labels.csv, breed" in caplog.text


def test_numbers_as_classes_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    text = "image,label\n" + "".join(f"{name}.jpg,{(9, 10, 2)[i % 3]}\n" for i, name in enumerate(NAMES))
    source = open_tree(tmp_path, flat("images/") | {"train.csv": text.encode()})
    assert (source.classes, source.labels[:3].tolist()) == (("2", "9", "10"), [1, 2, 0])


def test_a_column_per_class_is_read(tmp_path: Path) -> None:
    for scale, suffix in (("1", "0"), ("1.0", "0.0"), ("True", "False"), ("TRUE", "FALSE")):
        rows = [
            f"{name}.jpg, " + ", ".join(scale if c == label else suffix for c in CLASSES)
            for name, label in TRUTH.items()
        ]
        text = "\n".join(["filename, ant, bee, cat", *rows])
        assert labels_of(open_tree(tmp_path / scale, flat("train/") | {"_classes.csv": text.encode()}), TRAIN) == TRUTH


def test_several_classes_of_an_image_are_no_single_one(tmp_path: Path) -> None:
    """Of the columns of 0 and 1 only one varies, which would be taken for a column of two classes."""
    text = "file,ant,bee,cat\n" + "".join(f"{name},1,1,{i % 2}\n" for i, name in enumerate(NAMES))
    with pytest.raises(ConfigError, match=r"x.csv names the images and has the columns ant, bee, cat; which one has"):
        open_tree(tmp_path, flat("train/") | {"x.csv": text.encode()})


def test_a_label_that_pandas_wrote_for_none_is_none(tmp_path: Path) -> None:
    text = table("{n},{c}", "id,label").replace("0003,ant", "0003,nan").replace("0005,cat", "0005,NaN")
    source = open_tree(tmp_path, flat("train/") | {"x.csv": text.encode()})
    assert labels_of(source, TRAIN) == {name: label for name, label in TRUTH.items() if name not in ("0003", "0005")}
    assert source.unused[0].startswith("2 images without a label in the CSV file, first train/0003.jpg")


def test_accents_in_either_unicode_form_are_those_of_the_files(tmp_path: Path) -> None:
    files = {f"train/{unicodedata.normalize('NFD', 'é')}{name}.jpg": photo(int(name)) for name in NAMES}
    text = table(unicodedata.normalize("NFC", "é") + "{n}.jpg,{c}", "id,label")
    source = open_tree(tmp_path, files | {"x.csv": text.encode()})
    assert (source.classes, source.unused) == (CLASSES, ())


def test_a_field_of_any_length_is_read(tmp_path: Path) -> None:
    text = table("{n},{c}," + "x" * 200_000, "id,label,text")
    assert labels_of(open_tree(tmp_path, flat("train/") | {"x.csv": text.encode()}), TRAIN) == TRUTH


def test_a_column_of_splits_divides_the_images_of_one_folder(tmp_path: Path) -> None:
    rows = "".join(f"{name},{TRUTH[name]},{'Test' if i > 8 else 'train'}\n" for i, name in enumerate(NAMES))
    files = {"x.csv": f"id,label,subset\n{rows}".encode()}
    for top in ("images/", "set/images/"):
        source = open_tree(tmp_path / top, flat(top) | files)
        assert labels_of(source, TRAIN) == {name: TRUTH[name] for name in NAMES[:9]}
        assert labels_of(source, VAL) == {name: TRUTH[name] for name in NAMES[9:]}
    parts = {f"{'train' if i % 2 else 'test'}/{name}.jpg": photo(i) for i, name in enumerate(NAMES)}
    source = open_tree(tmp_path / "2", parts | files)  # folders of splits count more
    assert labels_of(source, VAL) == {name: TRUTH[name] for name in NAMES[::2]}


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("x.csv", "id,label\n0,ant\n1,bee\n", r"x\.csv names none of the images; its second line is '0,ant'"),
        (
            "heart_prediction.csv",
            "id,label\nimg_0000,a\n",
            r"heart_prediction\.csv is not read: rename it unless it has predictions, as its name says",
        ),
        ("labels.json", "{}", r"labels\.json is not read: save its names and classes as a CSV file"),
        (
            "train/metadata.jsonl",
            "[1]\n{}",
            r"train/metadata\.jsonl names none of the images; its second line is '\{\}'",
        ),
        ("train/metadata.parquet", "PAR1", r"train/metadata\.parquet is not read"),
        ("x.csv.gz", "\x1f\x8b", r"x\.csv\.gz is not read"),
        ("labels.xlsx", "PK\3\4", r"labels\.xlsx is not read"),
    ],
)
def test_a_table_that_is_not_used_is_named(file: str, content: str, what: str, tmp_path: Path) -> None:
    files = {f"train/img_{name}.jpg": photo(int(name)) for name in NAMES} | {file: content.encode("latin-1")}
    with pytest.raises(ConfigError, match=rf"no CSV file has two or more classes of them \({what}"):
        open_tree(tmp_path, files)


def test_of_several_possible_columns_one_must_be_named(tmp_path: Path) -> None:
    files = flat("images/") | {"x.csv": table("{n},{c},g{c}", "id,colour,shape").encode()}
    with pytest.raises(ConfigError, match=r"x.csv names the images and has the columns colour, shape; which one"):
        open_tree(tmp_path, files)
    assert open_tree(tmp_path, files, label_field="shape").classes == ("gant", "gbee", "gcat")
    with pytest.raises(
        ConfigError, match=r"has the columns colour, shape; which one has the classes\? data.label_field="
    ):
        open_tree(tmp_path, files, label_field="form")
    with pytest.raises(ConfigError, match="no CSV file that names the images has a column 'shape'"):
        open_tree(tmp_path / "2", divided("images/"), label_field="shape")


def test_equal_names_in_train_and_test_are_those_of_the_split_that_the_table_is_named_after(tmp_path: Path) -> None:
    files = flat("train/") | flat("test/") | {"train.csv": table("{n}.jpg,{c}", "file,label").encode()}
    source = open_tree(tmp_path, files, allow_partial=True)
    assert (labels_of(source, TRAIN), labels_of(source, VAL)) == (TRUTH, {})
    both = table("train/{n}.jpg,{c}") + "".join(f"test/{name}.jpg,ant\n" for name in TRUTH)
    source = open_tree(tmp_path / "2", files | {"train.csv": both.encode()})
    assert (labels_of(source, TRAIN), labels_of(source, VAL)) == (TRUTH, dict.fromkeys(TRUTH, "ant"))


def test_numbered_parts_of_a_set_are_no_classes(tmp_path: Path) -> None:
    files = {f"part_{int(name) % 2}/{name}.jpg": photo(int(name)) for name in NAMES}
    source = open_tree(tmp_path, files | {"metadata.csv": table("{n},{c},f", "image_id,category,sex").encode()})
    assert labels_of(source, TRAIN) == TRUTH
    with pytest.raises(ConfigError, match="the folders part_0, part_1 look like numbered parts of one set, not like"):
        open_tree(tmp_path / "2", files)
    assert open_tree(tmp_path / "2", files, train_folders=["."]).classes == ("part_0", "part_1")


def test_captions_and_boxes_are_no_classes(tmp_path: Path) -> None:
    boxes = {f"train/{name}.txt": b"0 .5 .5 .1 .1\n" for name in NAMES}
    captions = {"captions.csv": table("{n},picture {n}", "id,caption").encode()}
    with pytest.raises(ConfigError, match=r"captions.csv names the images and has the columns caption"):
        open_tree(tmp_path, flat("train/") | captions | boxes)


@pytest.mark.parametrize(
    ("header", "values"),
    [("fold", ("0", "1", "2")), ("width", ("480", "640", "480")), ("used", ("train", "test", "train"))],
)
def test_splits_folds_and_sizes_are_no_classes(header: str, values: tuple[str, ...], tmp_path: Path) -> None:
    text = f"id,{header}\n" + "".join(f"{name},{values[i % 3]}\n" for i, name in enumerate(NAMES))
    with pytest.raises(ConfigError, match=f"x.csv names the images and has the columns {header}; which one has"):
        open_tree(tmp_path, flat("images/") | {"x.csv": text.encode()})
    assert open_tree(tmp_path, flat("images/") | {"x.csv": text.encode()}, label_field=header).classes


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        (flat("train/") | {f"test1/{i}.jpg": photo(i) for i in range(3)}, "no folders of classes in train/ and test1/"),
        (flat("train/images/") | flat("valid/images/"), "all images are in images/, which names no class in train/"),
        (flat("images/"), "all images are in images/, which names no class in "),
        (flat(""), r"no folders of classes in \S+ \(12 images, first 0000.jpg\)"),
    ],
)
def test_images_without_classes_are_refused_and_no_split_becomes_a_class(
    files: dict[str, bytes], seen: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=seen + ".*no CSV file has two or more classes of them"):
        open_tree(tmp_path, files)


def test_an_unlabelled_test_beside_a_table_of_train_is_counted(tmp_path: Path) -> None:
    files = flat("train/") | {f"test/{i + 500}.jpg": photo(i) for i in range(12)} | {"x.csv": table("{n},{c}").encode()}
    source = open_tree(tmp_path, files)
    assert (labels_of(source, TRAIN), np.bincount(source.split).tolist()) == (TRUTH, [12])
    assert source.unused[0].startswith("12 images without a label in test/ (no file has their classes, so they are in")
    with pytest.raises(ConfigError, match="12 images without a label in valid/"):
        open_tree(tmp_path / "2", {name.replace("test/", "valid/"): data for name, data in files.items()})


def rotated(name: str) -> str:
    """Another class than that of the same name in train."""
    return CLASSES[(CLASSES.index(TRUTH[name]) + 1) % 3]


def split_table(kind: str, label: str = "label") -> dict[str, str]:
    """Tables of train and test about images of equal names."""
    labels = {"train": TRUTH, "test": {name: rotated(name) for name in NAMES}}
    if kind == "jsonl":
        lines = {
            split: "".join(f'{{"file_name": "{n}.jpg", "boxes": [1], "{label}": "{c}"}}\n' for n, c in stated.items())
            for split, stated in labels.items()
        }
    else:
        rows = {split: "".join(f"{n}.jpg,{c}\n" for n, c in stated.items()) for split, stated in labels.items()}
        lines = {split: f"file_name,{label}\n{text}" for split, text in rows.items()}
    return lines


@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [
        ("train/metadata.csv", "test/metadata.csv", "csv"),
        ("train/metadata.jsonl", "test/metadata.jsonl", "jsonl"),
        ("labels/train/labels.csv", "labels/test/labels.csv", "csv"),
        ("trainLabels.csv", "testLabels.csv", "csv"),
        ("annotations/train.ndjson", "annotations/test.ndjson", "jsonl"),
    ],
)
@pytest.mark.parametrize("top", ["", "set/"])
def test_a_table_of_each_split_is_about_the_images_of_its_split(
    top: str, train: str, test: str, kind: str, tmp_path: Path
) -> None:
    """As Hugging Face's ImageFolder: names are relative to the table, and equal in both splits."""
    text = split_table(kind)
    files = flat("train/") | flat("test/") | {train: text["train"].encode(), test: text["test"].encode()}
    source = open_tree(tmp_path, {f"{top}{name}": data for name, data in files.items()})
    assert labels_of(source, TRAIN) == TRUTH
    assert labels_of(source, VAL) == {name: rotated(name) for name in NAMES}


def test_the_table_of_one_split_never_labels_images_of_another(tmp_path: Path) -> None:
    """Names repeat in train and test; only those of train have labels."""
    files = divided("train/") | flat("test/") | {"train/metadata.csv": split_table("csv")["train"].encode()}
    source = open_tree(tmp_path, files, allow_partial=True)
    assert labels_of(source, VAL) == {}
    assert source.unused[0].startswith("12 images without a label in test/")


def test_kaggles_levels_are_classes(tmp_path: Path) -> None:
    """``trainLabels.csv`` of diabetic-retinopathy-detection."""
    text = "image,level\n" + "".join(f"{name},{i % 3}\n" for i, name in enumerate(NAMES))
    source = open_tree(
        tmp_path, {f"train/{name}.jpeg": photo(int(name)) for name in NAMES} | {"trainLabels.csv": text.encode()}
    )
    assert labels_of(source, TRAIN) == {name: str(i % 3) for i, name in enumerate(NAMES)}


def test_tables_named_after_splits_divide_the_images_of_one_folder(tmp_path: Path) -> None:
    """The val table has few rows, of classes that the one of train has, too."""
    lines = [f"{name}.jpg,{label}\n" for name, label in TRUTH.items()]
    tables = {"train.csv": lines[:9], "val.csv": lines[9:11], "test.csv": lines[11:]}
    files = flat("images/") | {name: ("file,label\n" + "".join(rows)).encode() for name, rows in tables.items()}
    source = open_tree(tmp_path, files)
    assert [labels_of(source, part) for part in (TRAIN, MINIVAL, VAL)] == [
        {name: TRUTH[name] for name in names} for names in (NAMES[:9], NAMES[9:11], NAMES[11:])
    ]
    files["other.csv"] = files.pop("test.csv")
    assert len(labels_of(open_tree(tmp_path / "2", files), TRAIN)) == 12  # one table is named after no split


def test_whole_numbers_with_a_point_are_the_numbers(tmp_path: Path) -> None:
    text = "id,label\n" + "".join(f"{name},{i % 3}.0\n" for i, name in enumerate(NAMES))
    assert open_tree(tmp_path, flat("images/") | {"x.csv": text.encode()}).classes == ("0", "1", "2")


def test_labels_of_several_classes_are_said(tmp_path: Path) -> None:
    text = "id,labels\n" + "".join(f"{name},{('rust', 'rust|scab', 'scab')[i % 3]}\n" for i, name in enumerate(NAMES))
    source = open_tree(tmp_path, flat("images/") | {"x.csv": text.encode()})
    assert source.class_differences == (
        "the classes of 12 images are those of x.csv, labels",
        "1 classes look like several labels of one image and count as classes, as 'rust|scab'",
    )


def test_a_damaged_line_of_json_costs_its_image_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = split_table("jsonl")["train"][:-9]
    source = open_tree(tmp_path, flat("train/") | {"train/metadata.jsonl": text.encode()})
    assert labels_of(source, TRAIN) == {name: label for name, label in TRUTH.items() if name != NAMES[-1]}
    assert "train/metadata.jsonl: 1 lines are no JSON objects and are skipped" in caplog.text


def test_a_table_as_path_is_told_to_need_its_folder(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,label\n")
    with pytest.raises(ConfigError, match="give the folder with the images: tables in it are read"):
        open_source(data_settings("folder", tmp_path / "labels.csv"))


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("file;class;score\n", "{n}.jpg;{c};0,{s}\n"),
        ("file\tclass\n", "{n}.jpg\t{c}, {c}us\n"),
        ("score;class;file\n", "0,{s};{c};set/{n}.jpg\n"),
    ],
    ids=["decimal commas", "commas in labels", "decimal comma before the name"],
)
def test_commas_in_a_table_of_another_separator_do_not_divide_it(header: str, row: str, tmp_path: Path) -> None:
    names = [f"{i:04d}" for i in range(240)]
    text = header + "".join(row.format(n=name, c=CLASSES[i % 3], s=80 + i % 9) for i, name in enumerate(names))
    images = {f"set/{name}.jpg": photo(i % 12) for i, name in enumerate(names)}
    source = open_tree(tmp_path, images | {"labels.csv": text.encode()})
    assert [name.split(",")[0] for name in source.classes] == list(CLASSES)
    assert len(source.labels) == len(names)


def test_decimals_that_are_names_of_images_name_none(tmp_path: Path) -> None:
    text = "file;class;score\n" + "".join(f"{i}.jpg;{CLASSES[i % 3]};0,{(i * 7) % 24}\n" for i in range(24))
    source = open_tree(tmp_path, {f"{i}.jpg": photo(i) for i in range(24)} | {"labels.csv": text.encode()})
    assert labels_of(source, TRAIN) == {str(i): CLASSES[i % 3] for i in range(24)}


def test_a_table_beside_a_few_images_is_about_those_that_it_names(tmp_path: Path) -> None:
    text = table("{n},{c}", "image,label") + "preview,ant\n"
    files = flat("images/") | {"meta/preview.png": photo(50, "PNG"), "meta/labels.csv": text.encode()}
    source = open_tree(tmp_path, files, label_field="label")
    assert labels_of(source, TRAIN) == TRUTH | {"preview": "ant"}


@pytest.mark.parametrize("usual", ["target", "has_wings"])
def test_the_only_column_of_metadata_is_no_class_beside_certain_classes(usual: str, tmp_path: Path) -> None:
    """As the ages of the patients in the sets of ISIC, whose test has no published classes."""
    ages = "id,age\n" + "".join(f"{i + 500},{30 + i % 2}\n" for i in range(12))
    tables = {"train.csv": table("{n},{c}", f"id,{usual}"), "test.csv": ages}
    if usual == "target":
        tables["train_metadata.csv"] = "id,age\n" + "".join(f"{name},{30 + i % 2}\n" for i, name in enumerate(NAMES))
    files = flat("train/") | {f"test/{i + 500}.jpg": photo(i) for i in range(12)}
    source = open_tree(tmp_path, files | {name: text.encode() for name, text in tables.items()})
    assert (labels_of(source, TRAIN), np.bincount(source.split).tolist()) == (TRUTH, [12])
    tables["test.csv"] = f"id,{usual}\n" + "".join(f"{i + 500},{'wasp' if i % 2 else 'ant'}\n" for i in range(12))
    source = open_tree(tmp_path, files | {name: text.encode() for name, text in tables.items()})
    assert set(labels_of(source, VAL).values()) == {"ant", "wasp"}


def test_of_numbered_tables_of_several_folds_the_first_are_the_splits(tmp_path: Path) -> None:
    """As ``train_subset0.csv`` to ``test_subset4.csv`` of DeepWeeds."""
    lines = [f"{name}.jpg,{label}\n" for name, label in TRUTH.items()]
    tables = {"train_0.csv": lines[:8], "test_0.csv": lines[8:], "train_1.csv": lines[4:], "test_1.csv": lines[:4]}
    files = {name: ("file,label\n" + "".join(rows)).encode() for name, rows in tables.items()}
    source = open_tree(tmp_path, flat("images/") | files)
    first = {name: label for name, label in TRUTH.items() if name in NAMES[:8]}
    assert (labels_of(source, TRAIN), labels_of(source, TRAIN) | labels_of(source, VAL)) == (first, TRUTH)
    assert "test_0.csv, train_0.csv state the splits, the first of 2 divisions" in source.class_differences


@pytest.mark.parametrize("is_held_out", [False, True])
def test_a_table_that_is_too_large_is_said(is_held_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reading, unread_labels):
        monkeypatch.setattr(module, "MAX_BYTES", 2**20)
    files = divided("train/") | flat("test/") if is_held_out else flat("images/")
    files["test.csv" if is_held_out else "labels.json"] = b" " * (3 * 2**20)
    with pytest.raises(
        ConfigError, match="has 3 MiB and is not read, tables have at most 1 MiB: if it has names of im"
    ):
        open_tree(tmp_path, files)


def test_a_large_table_beside_folders_of_classes_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 2**20)
    open_tree(tmp_path, divided("") | {"train.json": b" " * (3 * 2**20)})
    assert "train.json has 3 MiB and is not read" in caplog.text


def test_measurements_in_a_column_are_no_classes(tmp_path: Path) -> None:
    files = flat("images/") | {"ages.csv": "\n".join(["id,age", *(f"{name},{int(name)}.5" for name in NAMES)]).encode()}
    with pytest.raises(
        ConfigError, match=r"ages\.csv, age has 12 different labels of 12 images, as 0\.5, which are mea"
    ):
        open_tree(tmp_path, files, label_field="age")
    files["ages.csv"] = "\n".join(["id,age", *(f"{name},{int(name) * 1.7}" for name in NAMES)]).encode()
    said = (
        "the columns age, in which most images have a number of their own, as measurements and not classes have: write"
    )
    with pytest.raises(ConfigError, match=f"{said} the class of each image into a column 'label'$"):
        open_tree(tmp_path, files)


@pytest.mark.parametrize(
    ("file", "row"),
    [
        ("val.txt", "{n}.jpg {c}"),
        ("val.csv", "{n}.jpg,{c}"),
        *(("val.csv", f'{{n}}.jpg,"{{c}}{end}"') for end in ("", " ")),
    ],
)
@pytest.mark.parametrize("separator", [" ", "|", ";", "/"])
def test_an_image_of_several_classes_is_in_none_of_a_held_out_folder(
    file: str, row: str, separator: str, tmp_path: Path
) -> None:
    text = table(row).replace("0003.jpg ant", f"0003.jpg ant{separator}bee")
    text = text.replace("0003.jpg,ant", f"0003.jpg,ant{separator}bee").replace(
        '0003.jpg,"ant', f'0003.jpg,"ant{separator}bee'
    )
    source = open_tree(tmp_path, divided("train/") | flat("val/") | {file: text.encode()})
    assert labels_of(source, VAL) == {name: label for name, label in TRUTH.items() if name != "0003"}
    said = f"1 images without a label in val/ ({file} has several classes of 1 images, as 'ant{separator}bee"
    assert source.unused[0].startswith(said)


def test_boxes_of_several_classes_in_a_table_are_counted(tmp_path: Path) -> None:
    text = "image,x,class\n" + "".join(f"{name}.jpg,1,{label}\n{name}.jpg,2,dog\n" for name, label in TRUTH.items())
    with pytest.raises(ConfigError, match=r"keep one of them \(12 of 12 images have several labels there, as of boxes"):
        open_tree(tmp_path, flat("train/") | {"boxes.csv": text.encode()})


def test_columns_of_several_classes_are_those_of_a_multi_label_set(tmp_path: Path) -> None:
    text = "file,ant,bee\n" + "".join(f"{name},1,{i % 2}\n" for i, name in enumerate(NAMES))
    with pytest.raises(ConfigError, match=r"images have several or none, as in a multi-label set"):
        open_tree(tmp_path, flat("train/") | {"x.csv": text.encode()})


@pytest.mark.parametrize(
    ("folders", "name"),
    [
        (("training/", "validation/", "evaluation/"), "{k}_{i}.jpg"),  # Food-11
        (("",), "{i:04d}_{c}.jpg"),
        (("images/",), "{c}_a_{i}.jpeg"),
        (("",), "{c}-{i}.JPG"),
        (("images/",), "{c}{i:03d}.jpg"),
        (("",), "{c} ({i}).png"),
    ],
)
def test_names_with_a_class_are_told_the_command_that_writes_the_table(
    folders: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    images = [
        (folder + name.format(k=i % 3, i=i, c=("ant", "hot dog", "cat")[i % 3]), i % 3)
        for folder in folders
        for i in range(9)
    ]
    files = {path: photo(i, "PNG" if path.endswith("png") else "JPEG") for i, (path, _) in enumerate(images)}
    with pytest.raises(ConfigError) as refused:
        open_tree(tmp_path, files | {"read_me.txt": b"-"})
    command = str(refused.value).partition("this writes the CSV file: ")[2]
    subprocess.run(["sh", "-c", command], check=True, cwd="/")
    source = open_tree(tmp_path, {})
    stated = {path.decode(): source.classes[label] for path, label in zip(source.names, source.labels, strict=True)}
    assert len(stated) == len(images)
    assert len({(label, stated.get(path) or stated[path.partition("/")[2]]) for path, label in images}) == 3


@pytest.mark.parametrize("name", ["IMG_{i:04d}.jpg", "{i:04d}.jpg", "{i}_{i}.jpg"])
def test_names_of_cameras_are_told_no_command(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        open_tree(tmp_path, {name.format(i=i): photo(i) for i in range(9)})
    assert "this writes" not in str(refused.value)


def test_the_numbers_of_a_box_are_no_further_classes(tmp_path: Path) -> None:
    numbers = {"ant": "0", "bee": "1", "cat": "2"}
    files = {f"train/{number}/{i}.jpg": photo(100 + i) for number in numbers.values() for i in range(3)}
    rows = "".join(f"{name},{numbers[label]} 0 1 2 2 {numbers[label]} 1 0 1 2\n" for name, label in TRUTH.items())
    source = open_tree(tmp_path, files | flat("val/") | {"val.csv": f"image,PredictionString\n{rows}".encode()})
    assert labels_of(source, VAL) == {name: numbers[label] for name, label in TRUTH.items()}


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("labels.csv", "{n}.jpg", r"labels\.csv names images, and has no column of their classes"),
        ("labels.md", "|{n}.jpg|{c}|", r"labels\.md has names of images and is not read: save these and their classes"),
        ("labels", "{n}.jpg {c}", r"\(labels has names of images and is not read"),
        ("labels.py", "'{n}.jpg': '{c}',", r"labels\.py has names of images and is not read"),
    ],
)
def test_a_file_that_names_the_images_and_is_no_table_of_classes_is_named(
    name: str, line: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        open_tree(tmp_path, flat("images/") | {name: table(line).encode()})


@pytest.mark.parametrize("address", ["https://x.org/a/{n}.jpg?size=2", "https://x.org/images%2F{n}.jpg"])
def test_addresses_of_the_web_name_images(address: str, tmp_path: Path) -> None:
    source = open_tree(tmp_path, flat("images/") | {"labels.csv": table(f"{address},{{c}}", "url,label").encode()})
    assert labels_of(source, TRAIN) == TRUTH


@pytest.mark.parametrize("shift", [0, 1])
def test_numbers_of_held_out_images_are_those_that_a_list_of_train_has_for_the_folders(
    shift: int, tmp_path: Path
) -> None:
    """As ``meta/train.txt`` and ``meta/val.txt`` of OpenMMLab."""
    numbers = {label: number + shift for number, label in enumerate(reversed(CLASSES))}
    rows = "".join(f"{label}/{i}.jpg {numbers[label]}\n" for label in CLASSES for i in range(3))
    val = "".join(f"{name}.jpg {numbers[label]}\n" for name, label in TRUTH.items())
    files = divided("train/") | flat("val/") | {"meta/train.txt": rows.encode(), "meta/val.txt": val.encode()}
    source = open_tree(tmp_path, files)
    assert (source.classes, labels_of(source, VAL), source.unused) == (CLASSES, TRUTH, ())
    said = "the classes of 12 images in val/ are those of meta/val.txt, number 2, by the numbers in meta/train.txt"
    assert source.class_differences == (said,)
    with pytest.raises(ConfigError, match=r"meta/val\.txt names images, but no column of it has these classes"):
        open_tree(tmp_path / "2", {name: one for name, one in files.items() if name != "meta/train.txt"})


def test_a_row_about_another_file_names_no_image_although_only_zeros_differ(tmp_path: Path) -> None:
    """As in GTSRB: ``Meta/0.png`` is no spelling of ``Test/00000.png``."""
    tree = {f"Train/{label}/{label:05}_{i:05}.png": photo(30 * label + i) for label in range(3) for i in range(20)}
    tree |= {f"Test/{i:05}.png": photo(200 + i) for i in range(9)} | {f"Meta/{i}.png": photo(300 + i) for i in range(3)}
    test = "Width,ClassId,Path\n" + "".join(f"30,{i % 3},Test/{i:05}.png\n" for i in range(9))
    meta = "Path,ClassId,ShapeId\n" + "".join(f"Meta/{i}.png,{2 - i},0\n" for i in range(3))
    tree |= {"Test.csv": test.encode(), "Meta.csv": meta.encode()}
    source = open_tree(tmp_path, tree, allow_partial=True)
    assert labels_of(source, VAL) == {f"{i:05}": str(i % 3) for i in range(9)}
    assert any("Meta" in line for line in source.unused), source.unused


def test_tables_that_are_read_are_said_and_others_that_name_images_are_named(tmp_path: Path) -> None:
    """As in GTSRB, whose ``Test.csv`` has the classes of its test folder, and in MURA, whose tables name folders."""
    files = (
        divided("train/") | flat("test/") | {"Test.csv": table("10,test/{n}.jpg,{c}", "Width,Path,ClassId").encode()}
    )
    files["notes.txt"] = b"Photographs of 3 classes\n"
    source = open_tree(tmp_path, files)
    said = "the classes of 12 images in test/ are those of Test.csv, ClassId"
    assert (labels_of(source, VAL), source.class_differences) == (TRUTH, (said,))
    assert source.unused == ("1 files that are no images, first notes.txt",)
    lists = {
        "train_image_paths.csv": "".join(f"set/train/{label}/{i}.jpg\n" for label in CLASSES for i in range(3)),
        "train_labeled_folders.csv": "".join(f"set/train/{label}/,{i}\n" for i, label in enumerate(CLASSES)),
    }
    source = open_tree(tmp_path, {name: text.encode() for name, text in lists.items()})
    named = (
        "2 tables that name images or their folders and are not used (train_image_paths.csv, train_labeled_folders.csv)"
    )
    assert source.unused[0] == f"{named}, first train_image_paths.csv"


@pytest.mark.parametrize("has_labels", [False, True])
def test_images_that_a_table_of_test_lists_without_classes_are_only_counted(has_labels: bool, tmp_path: Path) -> None:
    """As in Leaf Classification, whose ``test.csv`` has the features of train without the species."""
    train = "id,species,margin\n" + "".join(f"{n},{c},0.{i % 3}\n" for i, (n, c) in enumerate(TRUTH.items()))
    test = f"id,{'truth' if has_labels else 'margin'}\n" + "".join(f"{500 + i},0.{i % 3}\n" for i in range(12))
    files = flat("images/") | {f"images/{500 + i}.jpg": photo(i + 50) for i in range(12)}
    files |= {"train.csv": train.encode(), "test.csv": test.encode()}
    if has_labels:
        with pytest.raises(ConfigError, match="12 of 24 files would not be used: 12 images without a label"):
            open_tree(tmp_path, files)
    else:
        source = open_tree(tmp_path, files)
        assert labels_of(source, TRAIN) == TRUTH
        assert source.unused[0].startswith("12 images without a label in the CSV file (no file has their classes")


@pytest.mark.parametrize(("header", "is_certain"), [("id,boneage,male", False), ("id,boneage,label", True)])
def test_the_only_column_of_classes_beside_a_measurement_is_asked_for(
    header: str, is_certain: bool, tmp_path: Path
) -> None:
    """As the sex beside the age in the bone age challenge of the RSNA, which the set is about."""
    rows = "".join(f"{n},{5 + 7 * i},{i % 2 == 0}\n" for i, n in enumerate(NAMES))
    files = flat("images/") | {"x.csv": f"{header}\n{rows}".encode()}
    if is_certain:
        assert open_tree(tmp_path, files).classes == ("False", "True")
    else:
        with pytest.raises(
            ConfigError, match=r"has the columns boneage, male; which one has the classes\? data\.label"
        ):
            open_tree(tmp_path, files)
        assert open_tree(tmp_path, {}, label_field="male").classes == ("False", "True")


def test_folders_of_test_that_are_the_beginnings_of_names_are_no_classes(tmp_path: Path) -> None:
    """As ``test/0/2/b/02bf01.jpg`` of the landmark sets, beside ``train.csv``."""
    names = [f"{i:x}{i + 2:x}b{i:03d}" for i in range(12)]
    files = {
        f"{split}/{n[0]}/{n[1]}/{n[2]}/{n}{split}.jpg": photo(i)
        for i, n in enumerate(names)
        for split in ("train", "test")
    }
    rows = "".join(f"{n}train,{i % 3 * 7}\n" for i, n in enumerate(names))
    source = open_tree(tmp_path, files | {"train.csv": f"id,landmark_id\n{rows}".encode()})
    assert (source.classes, np.bincount(source.split).tolist()) == (("0", "7", "14"), [12])
    assert source.unused[0].startswith("12 images without a label in test/ (no file has their classes")


def test_labels_of_several_words_in_a_list_without_a_header_are_whole(tmp_path: Path) -> None:
    """As ``images_manufacturer_train.txt`` of FGVC-Aircraft, of which there is one for each level of its classes."""
    words = {"ant": "Airbus", "bee": "British Aerospace", "cat": "Douglas Aircraft Company"}
    files = flat("images/") | {"maker.txt": "".join(f"{n} {words[c]}\n" for n, c in TRUTH.items()).encode()}
    source = open_tree(tmp_path, files)
    assert labels_of(source, TRAIN) == {name: words[label] for name, label in TRUTH.items()}
    other = "".join(f"{n} {'A320' if c == 'ant' else 'BAE 146'}\n" for n, c in TRUTH.items())
    with pytest.raises(ConfigError, match=r"is A320 and Airbus, in family\.txt and maker\.txt; keep one"):
        open_tree(tmp_path, {"family.txt": other.encode()})


def test_the_second_of_several_comments_is_no_header(tmp_path: Path) -> None:
    """As in ``annotations/list.txt`` of Oxford-IIIT Pet, where ``Class`` was the header of the column of species."""
    rows = "".join(f"{n} {1 + CLASSES.index(c)} {1 + (c == 'cat')} 1\n" for n, c in TRUTH.items())
    text = f"#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n{rows}"
    with pytest.raises(
        ConfigError, match=r"list\.txt names the images and has 4 columns without names, .*; which one has the classes"
    ):
        open_tree(tmp_path, flat("images/") | {"list.txt": text.encode()})


def places() -> dict[str, bytes]:
    """As Places365: first letters above the classes, of which one has two folders, and flat images of val."""
    folders = ["a/ant", "b/bee/hive", "b/bee/wild", "c/cat"]
    numbers = {folder: number for number, folder in enumerate(folders)}
    train = {
        f"data_256/{folder}/{i}.jpg": photo(10 * number + i) for folder, number in numbers.items() for i in range(4)
    }
    rows = "".join(f"/{folder}/{i}.jpg {number}\n" for folder, number in numbers.items() for i in range(4))
    of_val = {"ant": [0], "bee": [1, 2], "cat": [3]}
    seen = {label: iter(some * 12) for label, some in of_val.items()}
    val = "".join(f"{name}.jpg {next(seen[label])}\n" for name, label in TRUTH.items())
    return train | flat("val_256/") | {"places_train.txt": rows.encode(), "places_val.txt": val.encode()}


def test_numbers_of_the_innermost_folders_are_read_at_the_level_of_the_classes(tmp_path: Path) -> None:
    folders = {"train_folders": ["data_256"], "val_folders": ["val_256"]}
    source = open_tree(tmp_path, places(), class_level=2, **folders)
    assert (source.classes, labels_of(source, VAL)) == (CLASSES, TRUTH)
    said = (
        r"places_train\.txt numbers the 4 folders that the images are in, as data_256/a/ant, .*: data\.class_level=2 or"
    )
    with pytest.raises(ConfigError, match=said):
        open_tree(tmp_path / "2", places(), **folders)


def test_a_held_out_folder_beside_one_without_a_usual_name_is_offered_as_val(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.val_folders=\[val_256\] as val, and what is beside it as train"):
        open_tree(tmp_path, places())
    lists = {name: text for name, text in places().items() if name != "places_train.txt"}
    named = lists | {"places_val.txt": "".join(f"{name}.jpg {label}\n" for name, label in TRUTH.items()).encode()}
    source = open_tree(tmp_path / "2", named, val_folders=["val_256"], class_level=2)
    assert labels_of(source, VAL) == TRUTH
