"""Labels in JSON beside images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_archives import counts, flat, open_tree, photo

from infra.errors import ConfigError
from models.data.sources.tables.json_tables import read_json

LABELS = {f"{i}.jpg": "ant" if i % 3 else "bee" for i in range(12)}
COCO: dict[str, Any] = {
    "images": [{"id": 100 + i, "file_name": name} for i, name in enumerate(LABELS)],
    "annotations": [
        {"id": i, "image_id": 100 + i, "category_id": 7 if label == "ant" else 3}
        for i, label in enumerate(LABELS.values())
    ],
    "categories": [{"id": 7, "name": "ant"}, {"id": 3, "name": "bee"}],
}


def chosen(choice: str) -> dict[str, Any]:
    return {"result": [{"type": "choices", "from_name": "class", "value": {"choices": [choice]}}]}


TASKS = [  # of Label Studio
    {
        "id": number,
        "data": {"image": f"/data/local-files/?d=images/{name}" if number % 2 else f"/data/upload/1/{name}"},
        "annotations": [chosen(label), chosen("cat") | {"was_cancelled": True}, *[chosen(label)] * (number == 3)],
    }
    for number, (name, label) in enumerate(LABELS.items())
]


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        (TASKS, ("ant", "bee")),
        (COCO, ("ant", "bee")),
        (COCO | {"categories": []}, ("3", "7")),
        (LABELS, ("ant", "bee")),
        ([{"file": name, "label": label, "box": [1, 2]} for name, label in LABELS.items()], ("ant", "bee")),
        ({"labels": [[f"images/{name}", label] for name, label in LABELS.items()]}, ("ant", "bee")),
        ({label: [name for name in LABELS if LABELS[name] == label] for label in ("ant", "bee")}, ("ant", "bee")),
    ],
)
def test_labels_of_json_are_read_as_those_of_a_table(content: object, classes: tuple[str, ...], tmp_path: Path) -> None:
    source = open_tree(tmp_path, flat("images/") | {"labels.json": json.dumps(content).encode()})
    assert (source.classes, counts(source)) == (classes, [12, 0, 0])
    assert [classes[label] in ("ant", "7") for label in source.labels] == [
        LABELS[name.decode().rpartition("/")[2]] == "ant" for name in source.names.tolist()
    ]


def test_an_image_with_several_categories_is_refused(tmp_path: Path) -> None:
    more = COCO | {"annotations": [*COCO["annotations"], {"image_id": 101, "category_id": 3}]}
    with pytest.raises(ConfigError, match=r"images/1.jpg is ant and bee, both in boxes.json; keep one of them"):
        open_tree(tmp_path, flat("images/") | {"boxes.json": json.dumps(more).encode()})


def test_categories_other_than_the_folders_are_refused_with_the_settings_that_choose(tmp_path: Path) -> None:
    """As in iNaturalist 2018, ``train_val2018/GROUP/SPECIES/IMAGE``."""
    names = [
        f"{group}/{species}/{i}.jpg" for group, species in (("Aves", 1), ("Aves", 2), ("Fungi", 3)) for i in range(9)
    ]
    images = [{"id": i, "file_name": f"train_val2018/{name}"} for i, name in enumerate(names)]
    every = [{"image_id": i, "category_id": int(name.split("/")[1])} for i, name in enumerate(names)]
    files = {f"train_val2018/{name}": photo(i) for i, name in enumerate(names)}
    for split, first in (("train", 1), ("val", 0)):
        rows = [i for i in range(len(names)) if (i % 3 > 0) == first]
        part = {"images": [images[i] for i in rows], "annotations": [every[i] for i in rows]}
        files[f"{split}2018.json"] = json.dumps(part).encode()
    with pytest.raises(
        ConfigError, match=r"3 categories by train2018.json, val2018.json, and 2 folders would be the c"
    ):
        open_tree(tmp_path, files)
    by_name = open_tree(tmp_path, {}, label_field="category")
    by_level = open_tree(tmp_path, {}, class_level=-1)
    assert (by_name.classes, counts(by_name)) == (("1", "2", "3"), [18, 0, 9])
    assert (by_level.classes, counts(by_level)) == (("1", "2", "3"), [18, 0, 9])


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "null", "3", '"x"', "{}", "[]", '{"images": [], "annotations": []}']
)
def test_other_json_has_no_rows(text: str) -> None:
    assert len(read_json("x.json", text)) <= 1


def test_damaged_annotations_have_only_the_whole_rows() -> None:
    text = json.dumps({"images": [3, {"id": 1, "file_name": "a.jpg"}], "annotations": [None, {"image_id": 1}, {}]})
    assert read_json("x.json", text) == [["file_name", "category"], ["a.jpg", ""], ["", ""]]


def described(name: str, one: Callable[[int, str], object]) -> dict[str, bytes]:
    lines = "".join(f"{json.dumps(one(i, ['ant', 'bee'][i % 2]))}\n" for i in range(8))
    return {f"images/{i:03d}.jpg": photo(i) for i in range(8)} | {name: lines.encode()}


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.json", "labels.txt"])
@pytest.mark.parametrize(
    "one",
    [
        lambda i, label: {"image": f"{i:03d}.jpg", "label": label},
        lambda i, label: {"image": {"path": f"{i:03d}.jpg"}, "annotation": {"label": label}},
        lambda i, label: {"image": f"{i:03d}.jpg", "labels": [label], "box": [1, 2]},
        lambda i, label: {  # SageMaker Ground Truth
            "source-ref": f"s3://bucket/{i:03d}.jpg",
            "job": i % 2,
            "job-metadata": {"class-name": label, "confidence": i % 2, "type": "groundtruth/image-classification"},
        },
        lambda i, label: {"image": f"{i:03d}.jpg", "meta": {"type": i % 2}, "job": {"type": 0}, "Class Name": label},
    ],
)
def test_json_lines_are_read_whatever_their_suffix_and_depth(
    name: str, one: Callable[[int, str], object], tmp_path: Path
) -> None:
    source = open_tree(tmp_path, described(name, one))
    assert (source.classes, source.labels.tolist()) == (("ant", "bee"), [0, 1] * 4)


def test_json_lines_of_lists_are_rows(tmp_path: Path) -> None:
    source = open_tree(tmp_path, described("labels.jsonl", lambda i, label: [f"{i:03d}.jpg", label]))
    assert (source.classes, source.labels.tolist()) == (("ant", "bee"), [0, 1] * 4)


def test_json_lines_named_after_train_with_the_labels_of_all_images_are_no_unread_splits(tmp_path: Path) -> None:
    files = described("train.jsonl", lambda i, label: {"image": f"{i:03d}.jpg", "label": label})
    said = "the classes of 8 images are those of train.jsonl, label"
    assert open_tree(tmp_path, files).class_differences == (said,)


def test_splits_in_the_objects_of_json_lines_are_read(tmp_path: Path) -> None:
    """As of Vertex AI."""

    def line(i: int, label: str) -> object:
        use = {"aiplatform.googleapis.com/ml_use": "training" if i < 6 else "test"}
        annotation = {"displayName": label}
        path = f"gs://bucket/{i:03d}.jpg"
        return {"imageGcsUri": path, "classificationAnnotation": annotation, "dataItemResourceLabels": use}

    source = open_tree(tmp_path, described("export.jsonl", line))
    assert (source.classes, counts(source)) == (("ant", "bee"), [6, 0, 2])


def test_labels_by_number_beside_the_names_of_the_classes_are_read(tmp_path: Path) -> None:
    """As FiftyOne exports them."""
    content = {"classes": ["bee", "ant"], "labels": {f"{i:03d}": i % 2 for i in range(8)}}
    files = {f"data/{i:03d}.jpg": photo(i) for i in range(8)} | {"labels.json": json.dumps(content).encode()}
    source = open_tree(tmp_path, files)
    assert (source.classes, source.labels.tolist()) == (("ant", "bee"), [1, 0] * 4)


def test_a_folder_of_an_export_named_default_is_no_class(tmp_path: Path) -> None:
    files = {f"images/default/{i:03d}.jpg": photo(i) for i in range(8)} | {"annotations/default.json": b"{}"}
    with pytest.raises(ConfigError, match=r"all images are in default/, which names no class"):
        open_tree(tmp_path, files)


def herbarium(is_old: bool) -> dict[str, bytes]:
    """Returns images of three species in folders by the digits of their numbers, and a test without categories."""
    above, keys = ("train/images", ("id", "name")) if is_old else ("train_images", ("category_id", "scientificName"))
    images = {
        f"{above}/{number // 100:03d}/{number % 100:02d}/{number:05d}__{i:03d}.jpg": number
        for number in (0, 1, 105)
        for i in range(6)
    }
    numbers = {name: i if is_old else Path(name).stem for i, name in enumerate(images)}
    key = "id" if is_old else "image_id"
    tops = len(above.partition("/")[0]) + 1
    train = {
        "annotations": [{"category_id": label, "image_id": numbers[name]} for name, label in images.items()],
        "images": [{key: numbers[name], "file_name": name[tops:], "license": 1} for name in images],
        "categories": [{keys[0]: number, keys[1]: f"Abies {number}"} for number in (0, 1, 105)],
    }
    folder = above.replace("train", "test")
    tests = [f"{folder}/000/{'00/' * is_old}test-{i:04d}.jpg" for i in range(12)]
    listed = [{key: i, "file_name": name[tops - 1 :], "license": 1} for i, name in enumerate(tests)]
    files = {name: photo(i) for i, name in enumerate([*images, *tests])}
    end = f"{'/' if is_old else '_'}metadata.json"
    texts = {"train": train, "test": {"images": listed} if is_old else listed}
    return files | {f"{split}{end}": json.dumps(text).encode() for split, text in texts.items()}


@pytest.mark.parametrize("is_old", [False, True])
def test_the_species_of_the_herbarium_sets_are_read_and_their_test_is_only_counted(
    is_old: bool, tmp_path: Path
) -> None:
    """In 2022 the folder 000 of test, which has a part of its images, was taken as a class."""
    files = herbarium(is_old)
    if not is_old:
        with pytest.raises(
            ConfigError, match=r"3 categories by train_metadata\.json, and 2 folders would be the classes"
        ):
            open_tree(tmp_path, files)
    source = open_tree(tmp_path, files, label_field="category")
    assert (source.classes, counts(source)) == (("Abies 0", "Abies 1", "Abies 105"), [18, 0, 0])
    assert source.unused[0].startswith("12 images without a label in test")
