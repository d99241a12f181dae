"""Files of annotation tools beside the images: read where each image has one class in them, named otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_archives import counts, flat, open_tree, photo

from infra.errors import ConfigError

WORDS = ("ant", "bee", "cat")
IMAGES = flat("images/")  # twelve images, 0.jpg to 11.jpg
VIA = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
LABELME = '{"shapes": [{"label": "{c}"}]}'


def of_each(path: str, text: str) -> dict[str, bytes]:
    """A file for each image; {c} in its text is the class."""
    return {path.format(n=i): text.replace("{c}", WORDS[i % 3]).replace("{n}", str(i)).encode() for i in range(12)}


def write_voc(more: dict[str, str] | None = None, kinds: tuple[str, ...] = ("train", "val")) -> dict[str, bytes]:
    """Lists of one class each, with 1 for every third image, or with the marks of ``more`` by class and image."""
    lists = {}
    for number, word in enumerate(WORDS):
        for kind in kinds:
            rows = range(8) if kind == "train" else range(8, 12) if kind == "val" else range(12)
            marks = {i: " 1" if i % 3 == number else "-1" for i in rows}
            marks |= {i: mark for i in rows if (mark := (more or {}).get(f"{word} {i}"))}
            text = "".join(f"{i} {mark}\n" for i, mark in marks.items())
            lists[f"ImageSets/Main/{word}_{kind}.txt"] = text.encode()
    return IMAGES | lists


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (write_voc(), [8, 0, 4]),
        (write_voc(kinds=("train", "val", "trainval")), [8, 0, 4]),
        (write_voc(kinds=("trainval",)), [12, 0, 0]),
        (write_voc({"bee 0": "0"}), [8, 0, 4]),  # bees in image 0 are difficult
    ],
)
def test_lists_of_one_class_each_are_read_where_each_image_is_in_one(
    files: dict[str, bytes], expected: list[int], tmp_path: Path
) -> None:
    source = open_tree(tmp_path, files)
    assert (source.classes, counts(source)) == (WORDS, expected)
    rows = zip(source.names.tolist(), source.labels.tolist(), strict=True)
    assert all(int(Path(name.decode()).stem) % 3 == label for name, label in rows)


def write_marks(no: str, yes: str = " 1", header: str = "", suffix: str = "txt") -> dict[str, bytes]:
    """Lists of one class each with other marks; without a mark for the images of other classes if it is empty."""
    lists = {}
    for number, word in enumerate(WORDS):
        rows = "".join(f"{i}.jpg{mark}\n" for i in range(12) if (mark := yes if i % 3 == number else no))
        lists[f"{word}.{suffix}"] = (header + rows).encode()
    return IMAGES | lists


@pytest.mark.parametrize(
    "files",
    [
        write_marks(" 0"),
        write_marks(""),
        write_marks(" False", " True"),
        write_marks(",0", ",1", "image,is_present\n", "csv"),
    ],
)
def test_lists_of_one_class_each_need_no_mark_of_minus_one(files: dict[str, bytes], tmp_path: Path) -> None:
    source = open_tree(tmp_path, files)
    assert (source.classes, counts(source)) == (WORDS, [12, 0, 0])
    assert source.class_differences[0].startswith("the classes of 12 images are those of 3 lists of 3 classes, as ant.")
    rows = zip(source.names.tolist(), source.labels.tolist(), strict=True)
    assert all(int(Path(name.decode()).stem) % 3 == label for name, label in rows)


def test_two_tables_with_mostly_the_same_labels_of_zero_and_one_are_no_lists_of_classes(tmp_path: Path) -> None:
    tables = {
        f"{name}.csv": "".join(f"{i}.jpg,{int(i % 2 == 0 or i == changed)}\n" for i in range(12)).encode()
        for name, changed in (("first", 0), ("second", 5))
    }
    with pytest.raises(ConfigError, match=r"images/5\.jpg is 0 and 1, in first\.csv and second\.csv; keep one of them"):
        open_tree(tmp_path, IMAGES | tables)


def test_texts_with_the_names_of_images_alone_are_named(tmp_path: Path) -> None:
    said = (
        r"\(ant\.txt, bee\.txt, cat\.txt list names of images without their classes: if each has those of one class, s"
    )
    with pytest.raises(ConfigError, match=said):
        open_tree(tmp_path, write_marks("", "\n"))


def test_images_in_several_lists_of_one_class_each_are_those_of_a_multi_label_set(tmp_path: Path) -> None:
    said = (
        r"ImageSets/Main/ant_train.txt and 5 more are lists of one class each, .* 1 of 12 images are in several "
        r"classes, as images/0.jpg in ant and bee: labels of a multi-label set"
    )
    with pytest.raises(ConfigError, match=said):
        open_tree(tmp_path, write_voc({"bee 0": "1"}))


@pytest.mark.parametrize("kinds", [("train", "val"), ("trainval",), ("train",)])
def test_lists_of_one_class_alone_are_refused(kinds: tuple[str, ...], tmp_path: Path) -> None:
    """The marks 1, -1 and 0 were the classes."""
    lists = write_voc({"ant 1": "0"}, kinds)
    files = IMAGES | {name: content for name, content in lists.items() if "ant_" in name}
    with pytest.raises(
        ConfigError, match=r"ImageSets/Main/ant_\w+\.txt is a list of the class ant alone, as of Pascal"
    ):
        open_tree(tmp_path, files)


@pytest.mark.parametrize(
    ("name", "header"), [("labels.txt", ""), ("ant.txt", "image label\n"), ("train_labels.txt", ""), ("train.txt", "")]
)
def test_minus_one_and_one_are_classes_of_a_list_that_is_not_named_after_a_class(
    name: str, header: str, tmp_path: Path
) -> None:
    rows = "".join(f"{i}.jpg {-1 if i % 2 else 1}\n" for i in range(12))
    assert open_tree(tmp_path, IMAGES | {name: (header + rows).encode()}).classes == ("-1", "1")


@pytest.mark.parametrize(
    "attributes", ['{""type"":""{c}""}', '{""type"":{""{c}"":true,""other"":false}}', "{'type': '{c}'}"]
)
def test_the_attribute_of_regions_in_a_table_is_the_class(attributes: str, tmp_path: Path) -> None:
    row = '{n}.jpg,1000,"{}",1,0,"{""name"":""rect"",""x"":{n}}","' + attributes + '"\n'
    rows = "".join(row.replace("{n}", str(i)).replace("{c}", WORDS[i % 3]) for i in range(12))
    source = open_tree(tmp_path, IMAGES | {"via_export_csv.csv": (VIA + rows).encode()})
    assert (source.classes, counts(source)) == (WORDS, [12, 0, 0])


def test_one_of_several_attributes_of_regions_is_chosen_by_its_name(tmp_path: Path) -> None:
    row = '{n}.jpg,1000,"{}",1,0,"{""name"":""rect""}","{""type"":""{c}"",""age"":""{a}""}"\n'
    rows = [row.replace("{n}", str(i)).replace("{c}", WORDS[i % 3]).replace("{a}", "xy"[i % 2]) for i in range(12)]
    files = IMAGES | {"via_export_csv.csv": (VIA + "".join(rows)).encode()}
    with pytest.raises(
        ConfigError, match=r"has the columns .*, type, age; which one has the classes\? data.label_field="
    ):
        open_tree(tmp_path, files)
    assert open_tree(tmp_path, files, label_field="type").classes == WORDS


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (of_each("images/{n}.json", LABELME), "images/0.json and 11 more have boxes and polygons of Labelme"),
        (of_each("labels/{n}.json", LABELME), "labels/0.json and 11 more have boxes and polygons of Labelme"),
        (
            of_each("labels/{n}.txt", "1 0.5 0.5 0.1 0.2\n0 0.5 0.5 1 1\n"),
            "labels/0.txt and 11 more have boxes as of YOLO",
        ),
        (of_each("xml/{n}.xml", "<annotation><object>{c}</object>"), "xml/0.xml and 11 more have boxes as of Pascal"),
        (of_each("images/{n}.txt", "{c}"), "images/0.txt and 11 more may have the class of an image each"),
        ({"a.xml": b'<annotations>\n<image id="0" name="0.jpg">'}, "a.xml has annotations of CVAT, which are not read"),
        ({"labels.yaml": b"0.jpg: ant\n"}, "labels.yaml is not read"),
    ],
)
def test_annotations_without_a_class_for_each_image_are_named(
    files: dict[str, bytes], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        open_tree(tmp_path, IMAGES | files)
    assert said in str(refused.value)
    assert "a CSV file with the columns image and label" in str(refused.value)
    assert "data=webdataset" not in str(refused.value)


def test_objects_by_the_names_of_images_are_the_rows_of_a_table(tmp_path: Path) -> None:
    content = {f"{i}.jpg": {"label": WORDS[i % 3], "boxes": [1, 2]} for i in range(12)}
    source = open_tree(tmp_path, IMAGES | {"labels.json": json.dumps(content).encode()})
    assert (source.classes, counts(source)) == (WORDS, [12, 0, 0])


def test_results_without_a_text_ask_for_a_table(tmp_path: Path) -> None:
    content = {f"{i}.jpg": {"results": [{"choices": [WORDS[i % 3]]}]} for i in range(12)}
    with pytest.raises(ConfigError, match=r"which are lists or objects: save the class of each image as a CSV file$"):
        open_tree(tmp_path, IMAGES | {"project.json": json.dumps(content).encode()})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "data/train-00000-of-00001.parquet",
            b"PAR1",
            "train-00000-of-00001.parquet (Parquet, as of Hugging Face) may",
        ),
        ("train/data-00000-of-00001.arrow", b"ARROW1\0\0", "data-00000-of-00001.arrow (Arrow, as of Hugging Face) may"),
        ("train.tfrecord-00000-of-00001", b"\x10\0\0\0", "train.tfrecord-00000-of-00001 (TFRecord of TensorFlow) may"),
        ("train-images-idx3-ubyte.gz", b"\x1f\x8b\x08\0", "train-images-idx3-ubyte.gz (IDX of MNIST) may hold images"),
        ("images.h5", b"\x89HDF\r\n\x1a\n", "images.h5 (HDF5) may hold images and is not read: save them as files"),
        ("data.mdb", b"\0\0", "data.mdb (LMDB) may hold images and is not read"),
        ("ant/0.npy", b"\x93NUMPY\x01\0", "ant/0.npy (NumPy) may hold images and is not read"),
        ("t.csv", b"url,label\nhttps://x.org/0.jpg,ant\n", "t.csv has addresses, of which nothing is downloaded"),
        ("fer2013.csv", b"emotion,pixels,Usage\n0,70 80,Training\n", "fer2013.csv may have the pixels or the names of"),
    ],
)
def test_what_may_hold_the_images_of_a_tree_without_any_is_named(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        open_tree(tmp_path, {name: content, "README.md": b"x"})
    assert said in str(refused.value)


def test_segmentations_of_images_are_no_classes_beside_these(tmp_path: Path) -> None:
    """As of Pascal VOC, whose names of folders are words without a separator."""
    masks = {f"Segmentation{word}/{i}.png": photo(i, "PNG") for word in ("Class", "Object") for i in range(4)}
    files = {name.replace("images/", "JPEGImages/"): content for name, content in write_voc().items()} | masks
    said = "JPEGImages and SegmentationClass, SegmentationObject look like images and their masks, not like classes; "
    with pytest.raises(ConfigError, match=said + r"data.train_folders=\[JPEGImages\] takes the images alone"):
        open_tree(tmp_path, files)
    assert open_tree(tmp_path, files, train_folders=["JPEGImages"]).classes == WORDS


def test_raw_images_of_a_camera_are_no_previews_to_convert(tmp_path: Path) -> None:
    raws = {f"{word}/{i}.CR2": b"II*\0\x10\0\0\0CR\2\0" for word in WORDS for i in range(4)}
    with pytest.raises(ConfigError, match=r"12 camera raw files \(export .*\), first ant/0\.CR2"):
        open_tree(tmp_path, raws | {f"{word}/{i}.jpg": photo(i) for word in WORDS for i in range(4)}, convert=True)


@pytest.mark.parametrize("header", ["", "image,label\n"])
def test_two_tables_with_equal_labels_of_0_and_1_are_no_lists_of_one_class_each(header: str, tmp_path: Path) -> None:
    text = header + "".join(f"{i}.jpg,{i % 2}\n" for i in range(12))
    source = open_tree(tmp_path, IMAGES | {"labels.csv": text.encode(), "copy.csv": text.encode()})
    assert (source.classes, counts(source)) == (("0", "1"), [12, 0, 0])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "labels.txt",
            "".join(f"{WORDS[i % 3]}\n" for i in range(12)).encode(),
            "has as many labels as there are images",
        ),
        ("labels.txt", ";".join(WORDS[i % 3] for i in range(12)).encode(), "has as many labels as there are images"),
        ("labels.npy", b"\x93NUMPY\1\0" + bytes(200), "is not read: save its names and classes as a CSV file"),
        ("labels.pt", b"PK\3\4" + bytes(200), "is not read: save its names and classes as a CSV file"),
    ],
)
def test_labels_without_names_of_images_are_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"\(12 images, .* \({name} {said}"):
        open_tree(tmp_path, IMAGES | {name: content})
