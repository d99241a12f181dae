"""Tables that divide the images into other classes than their folders do, and folders that are no classes by them."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_archives import counts, open_tree, photo

from infra.errors import ConfigError

FOLDERS = ("ant", "bee")
IMAGES = [f"{folder}/{i:03d}.jpg" for folder in FOLDERS for i in range(12)]
FILES = {name: photo(i) for i, name in enumerate(IMAGES)}


def lines(row: str, header: str = "") -> bytes:
    texts = [row.format(name=name, i=i, folder=name[:3], label=i % 3) for i, name in enumerate(IMAGES)]
    return "".join(f"{text}\n" for text in [header] * bool(header) + texts).encode()


@pytest.mark.parametrize("name", ["train.txt", "meta/train_list.txt", "noisy_label.txt"])
def test_a_list_of_labels_that_are_not_those_of_the_folders_is_refused(name: str, tmp_path: Path) -> None:
    """As in WebVision, whose folders are queries."""
    settings = r"a first line with `image label` in such lists and data\.label_field=label take these labels"
    with pytest.raises(ConfigError, match=rf"{name} has 3 labels of images in 2 folders.*: {settings}"):
        open_tree(tmp_path, FILES | {name: lines("{name} {label}")})
    assert open_tree(tmp_path, {}, train_folders=["."]).classes == FOLDERS
    source = open_tree(tmp_path, {name: lines("{name} {label}", "image label")}, label_field="label")
    assert source.classes == ("0", "1", "2")


def test_a_column_of_classes_that_are_not_those_of_the_folders_is_said(tmp_path: Path) -> None:
    """As in Stanford Online Products, whose folders are super-classes."""
    source = open_tree(tmp_path, FILES | {"all.csv": lines("{name},{label}", "path,class_id")})
    said = (
        "the classes are the 2 folders, and not the 3 classes of the column class_id of all.csv, which differ; "
        "data.label_field=class_id takes these"
    )
    assert (source.classes, source.class_differences) == (FOLDERS, (said,))


@pytest.mark.parametrize(
    "files",
    [
        {"all.csv": lines("{name},{folder}s", "path,label")},
        {"labels.txt": lines("{name} {folder}")},
        {"scores.txt": lines("{name} {label}")},
        {"all.csv": lines("{name},{i}", "path,class_id")},
    ],
)
def test_tables_with_the_classes_of_the_folders_or_none_are_not_said(files: dict[str, bytes], tmp_path: Path) -> None:
    source = open_tree(tmp_path, FILES | files)
    assert (source.classes, source.class_differences) == (FOLDERS, ())


def views(count: int, folder: str = "patient{:05d}/study1") -> list[str]:
    """Returns paths of images of 12 patients."""
    return [f"train/{folder.format(i)}/view{view}.jpg" for i in range(12) for view in range(count)]


@pytest.mark.parametrize(
    ("names", "header", "row", "columns"),
    [
        (views(1), "Path,Sex,Age,Edema,Mass", "set-small/{name},{sex},{i},{mark},", "Sex, Edema"),
        (views(2), "Path,Age,normal,edema,mass", "{name},{i},{one}", "normal, edema, mass"),
        (views(2), "dicom_id,subject_id,finding", "{name},{patient},{label}", "finding"),
        (views(2), "path,PatientID,finding", "{name},{patient},{label}", "finding"),
        (views(2), "path,label", "{name},{label}", "label"),
        (views(5), "path,label", "{name},{label}", "label"),
        (views(2, "{:08x}"), "path,side,finding", "{name},left,{label}", "finding"),
    ],
)
def test_folders_of_patients_beside_a_table_with_other_classes_are_refused(
    names: list[str], header: str, row: str, columns: str, tmp_path: Path
) -> None:
    """As in CheXpert, whose findings are in ``train.csv``."""
    marks = {"label": "abc", "sex": "MF", "mark": "01", "one": ["1,0,0", "0,1,0", "0,0,1"]}
    rows = [
        row.format(name=name, i=i, patient=name[13:18], **{key: texts[i % len(texts)] for key, texts in marks.items()})
        for i, name in enumerate(names)
    ]
    files = {name: photo(i) for i, name in enumerate(names)} | {"train.csv": "\n".join([header, *rows]).encode()}
    said = rf"data\.label_field=COLUMN takes one of its columns as the classes \({columns}\), with data\.group_level=1 "
    with pytest.raises(ConfigError, match=rf"in the 12 folders .* and train\.csv divides the images otherwise: {said}"):
        open_tree(tmp_path, files)
    assert len(open_tree(tmp_path, {}, train_folders=["train"]).classes) == 12
    chosen = {
        "label_field": columns.rpartition(" ")[2],
        "group_level": 1,
        "val_share": 0.3,
        "minival_share": 0.3,
        "seed": 1,
    }
    source = open_tree(tmp_path, {}, **chosen)
    parts = {name.split(b"/")[1]: part for name, part in zip(source.names.tolist(), source.split, strict=True)}
    rows_of_one = zip(source.names.tolist(), source.split, strict=True)
    assert all(parts[name.split(b"/")[1]] == part for name, part in rows_of_one)


def test_other_columns_than_those_of_the_classes_are_said(tmp_path: Path) -> None:
    source = open_tree(tmp_path, FILES | {"about.csv": lines("{name},{label},{i}", "path,camera,time")})
    said = (
        "the classes are the folders; about.csv divides the images otherwise by camera, and data.label_field=camera "
        "would take the classes from there"
    )
    assert (source.classes, source.class_differences) == (FOLDERS, (said,))
    source = open_tree(tmp_path, {"about.csv": lines("{name},{label},{folder}", "path,camera,insect")})
    assert source.class_differences == ()


@pytest.mark.parametrize("ending", ["_stats.json", ".parquet"])
def test_the_folders_of_a_download_by_img2dataset_are_no_classes(ending: str, tmp_path: Path) -> None:
    files = {f"0000{part}/{part}{i:04d}.jpg": photo(10 * part + i) for part in (0, 1) for i in range(6)}
    files |= {f"0000{part}{ending}": b"{}" for part in (0, 1)}
    with pytest.raises(ConfigError, match=rf"00000, 00001 are parts of a download by img2dataset, as 00000{ending} "):
        open_tree(tmp_path, files)
    assert open_tree(tmp_path, {}, train_folders=["."]).classes == ("00000", "00001")


FLAT = [f"{i:06d}.jpg" for i in range(24)]


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("labels.csv", "{i},{c}", [24, 0, 0]),  # numbers as pandas writes them
        ("labels.csv", "train/{i}.jpg,{c}", [24, 0, 0]),
        ("train.lst", "{i}\t{c}\timages/{i:06d}.jpg", [24, 0, 0]),  # of MXNet
        ("output.manifest", '{{"source-ref": "s3://b/{i:06d}.jpg", "job": "{c}", "m": {{"a": 1}}}}', [24, 0, 0]),
        ("import.csv", "{s},gs://b/images/{i:06d}.jpg,{c}", [8, 8, 8]),  # of Vertex AI
    ],
)
def test_tables_of_cloud_services_and_numbers_without_zeros_name_the_images(
    name: str, row: str, expected: list[int], tmp_path: Path
) -> None:
    rows = [row.format(i=i, c="abc"[i // 8], s=("TRAIN", "VALIDATION", "TEST")[i % 3]) for i in range(24)]
    header = "id,label\n" if name == "labels.csv" else ""
    files = {f"images/{one}": photo(i) for i, one in enumerate(FLAT)} | {name: (header + "\n".join(rows)).encode()}
    source = open_tree(tmp_path, files)
    assert (source.classes, counts(source)) == (("a", "b", "c"), expected)
    known = dict(zip(source.names.tolist(), source.labels.tolist(), strict=True))
    assert [known[f"images/{one}".encode()] for one in FLAT] == [i // 8 for i in range(24)]


def test_a_table_in_the_folder_above_is_named(tmp_path: Path) -> None:
    rows = "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(FLAT))
    (tmp_path / "labels.csv").write_text(f"image,label\n{rows}")
    with pytest.raises(ConfigError, match=rf"labels\.csv names some of them: data\.path={tmp_path} reads tables there"):
        open_tree(tmp_path, {name: photo(i) for i, name in enumerate(FLAT)})


def test_images_without_a_label_beside_splits_are_only_counted(tmp_path: Path) -> None:
    files = {f"{split}/{folder}/{i}.jpg": photo(i) for split in ("train", "val") for folder in "ab" for i in range(3)}
    source = open_tree(tmp_path, files | {f"no_label/no_label/{i}.jpg": photo(50 + i) for i in range(20)})
    assert (counts(source), source.unused[0][:40]) == ([6, 0, 6], "20 images in folders that are no split, ")


def test_classes_that_differ_by_spaces_are_named(tmp_path: Path) -> None:
    source = open_tree(tmp_path, {f"{folder}/{i}.jpg": photo(i) for folder in ("cat", "cat ", "dog") for i in range(3)})
    assert source.class_differences == ("classes whose names look alike: 'cat', 'cat '",)
