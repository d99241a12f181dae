"""Reads JSON about images as the rows of a table: lines of objects, annotations as of COCO, lists and mappings.

Sources of the layouts: cocodataset.org/#format-data, which iNaturalist's ``train2018.json`` has too;
``split_zhou_DATASET.json`` of github.com/KaiyangZhou/CoOp; ``dataset.json`` of github.com/NVlabs/stylegan3;
``meta/train.json`` of Food-101; docs.voxel51.com, FiftyOneImageClassificationDataset; labelstud.io/guide/export, JSON.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from conf.text import logger
from models.data.sources.split_names import SPLIT_WORDS

log = logger()
JSON = ".json"
JSON_LINES = (".jsonl", ".ndjson", ".manifest")  # the last of SageMaker
CATEGORY = "category"  # header of the column with the categories of COCO's annotations
_SPLIT = "split"
_FILE = re.compile(r"\.\w{2,4}$")  # the end of the name of one
# Keys of the images of COCO and Herbarium 2022, of which none has a class.
_FACTS = frozenset(
    ("id", "image_id", "file_name", "width", "height", "license", "coco_url", "flickr_url", "date_captured")
)
_NAME = "name"  # header of the keys of an object with an object for each image


def read_json_lines(path: str, text: str) -> list[list[str]]:
    """Returns the objects or lists of a file as rows, those of objects below their keys; logs lines that are neither.

    Lists are rows without a header.
    """
    objects: list[Mapping[str, Any]] = []
    lists: list[list[Any]] = []
    damaged = 0
    for line in filter(str.strip, text.splitlines()):
        try:
            one = json.loads(line)
        except (ValueError, RecursionError):
            one = None
        objects += [one] if isinstance(one, dict) else []
        lists += [one] if isinstance(one, list) else []
        damaged += not isinstance(one, dict | list)
    if damaged and (objects or lists):
        log.warning("%s: %d lines are no JSON objects and are skipped", path, damaged)
    return _read_records(objects or lists)


def are_json_lines(text: str) -> bool:
    """Whether the first line of a text is an object in JSON, as of a file with another suffix."""
    first = text.lstrip().split("\n", 1)[0]
    try:
        return first.startswith("{") and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _flatten(one: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an object with the values of the objects in it by their keys, as ``label`` of ``annotation``.

    A key that several have follows that of its object, as ``job-metadata.type``.
    """
    inside = [(key, name) for key, value in one.items() if isinstance(value, dict) for name in value]
    counts = Counter([*(name for _, name in inside), *one])
    flat: dict[str, Any] = {}
    for key, value in one.items():
        if isinstance(value, dict):
            flat |= {name if counts[name] == 1 else f"{key}.{name}": part for name, part in value.items()}
        else:
            flat[key] = value
    return flat


def _as_text(value: Any) -> str:
    """Returns a value of JSON as a CSV file has it; lists and objects, as those of boxes, hold no class.

    A list of one text is that text.
    """
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else ""


def read_json(path: str, text: str) -> list[list[str]]:
    """Returns the rows of JSON below their keys, also of JSON lines; none if it is damaged, or of no known form."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return read_json_lines(path, text) if are_json_lines(text) else []
    return _read_value(content)


def _read_value(content: Any) -> list[list[str]]:
    """Returns the rows of a list or an object in JSON, below their keys; none for what is of no known form."""
    if isinstance(content, list):
        return _read_tasks(content) if content and all(map(_is_task, content)) else _read_records(content)
    if not isinstance(content, dict):
        return []
    if isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
        return _read_annotations(content["images"], content["annotations"], content.get("categories"))
    labels = content.get("labels")
    if isinstance(labels, list) and labels and all(isinstance(one, list) for one in labels):  # of StyleGAN
        return [["file_name", CATEGORY], *_read_records(content["labels"])[1:]]
    if isinstance(labels, dict) and isinstance(content.get("classes"), list):  # of FiftyOne
        return [["file_name", CATEGORY], *_number_classes(labels, content["classes"])]
    if divided := _find_splits(content):
        parts = [(key, _read_value(rows)) for key, rows in divided.items()]
        header = next((rows[0] for _, rows in parts if len(rows) > 1), [])
        return [[*header, _SPLIT], *([*row, key] for key, rows in parts for row in rows[1:])] if header else []
    if content and all(isinstance(one, dict) and one and _find_splits(one) == one for one in content.values()):
        classes = [(label, row) for label, parts in content.items() for row in _read_value(parts)[1:]]
        return [["", "", _SPLIT], *([row[0], label, row[-1]] for label, row in classes)]
    if content and all(isinstance(one, dict) for one in content.values()):  # what is known of each image, by its name
        return _read_records([{_NAME: key, **one} for key, one in content.items()])
    if all(isinstance(names, list) for names in content.values()):  # the images of each class
        named = [(name, key) for key, names in content.items() for name in names if isinstance(name, str)]
        return [["", ""], *map(list, named)] if len(content) > 1 else []
    return [["", ""], *([key, text] for key, value in content.items() if (text := _as_text(value)))]


def _is_task(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("data"), dict) and isinstance(one.get("annotations"), list)


def _read_tasks(tasks: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Returns a row for each choice of an annotator in the tasks of Label Studio: the data of the task, and the choice.

    Files that it serves from a local folder are named after ``?d=``.
    """
    records = []
    for task in tasks:
        results = [
            result
            for one in task["annotations"]
            if isinstance(one, dict) and not one.get("was_cancelled") and isinstance(one.get("result"), list)
            for result in one["result"]
        ]
        values = [result["value"] for result in results if isinstance(result, dict) and "value" in result]
        lists = [
            value["choices"] for value in values if isinstance(value, dict) and isinstance(value.get("choices"), list)
        ]
        data = {key: _as_text(value).rpartition("?d=")[2] for key, value in task["data"].items()}
        records += [{**data, CATEGORY: choice} for choice in [choice for some in lists for choice in some] or [""]]
    return _read_records(records)


def _number_classes(labels: Mapping[str, Any], classes: Sequence[Any]) -> list[list[str]]:
    """Returns a row for each image with the name of its class, by number; other labels stay as they are."""
    names = {str(number): _as_text(name) for number, name in enumerate(classes)}
    return [[image, names.get(text := _as_text(label), text)] for image, label in labels.items()]


def _find_splits(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what JSON has of each split, by the name of the split; empty if it is not divided into splits.

    Facts about the set may be beside them, and they may be one of these: ``{"name": "x", "splits": {"train": [...]}}``.
    Where other keys have names of files, all keys are classes: ``train`` beside ``bus`` is one.
    """
    divided = {
        key: rows for key, rows in content.items() if key.lower() in SPLIT_WORDS and isinstance(rows, list | dict)
    }
    others = [value for key, value in content.items() if key not in divided]
    if not others:
        return divided
    if len(divided) > 1:
        return {} if any(map(_has_files, others)) else divided
    objects = [value for value in others if isinstance(value, dict)]
    is_beside = len(objects) == 1 and not divided and not any(map(_has_files, others))
    return objects[0] if is_beside and len(objects[0]) > 1 and _find_splits(objects[0]) == objects[0] else {}


def _has_files(value: Any) -> bool:
    """Whether a value is a list with the name of a file."""
    return isinstance(value, list) and any(isinstance(one, str) and _FILE.search(one) for one in value)


def lists_images(text: str) -> bool:
    """Whether JSON describes images as COCO does, without annotations, or lists such images, as those of a test."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if isinstance(content, list):
        return bool(content) and all(isinstance(one, dict) and one.keys() <= _FACTS for one in content)
    return isinstance(content, dict) and isinstance(content.get("images"), list) and not content.get("annotations")


def read_json_names(text: str) -> list[str]:
    """Returns the texts of a list in JSON, as of names of images; empty for what is no such list."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return []
    is_list = isinstance(content, list) and all(isinstance(one, str) for one in content)
    return content if is_list else []


def _read_records(records: Sequence[Any]) -> list[list[str]]:
    """Returns a list of objects, of lists of as many values, or of names as rows; the header of lists is empty."""
    if all(isinstance(one, dict) for one in records):
        records = list(map(_flatten, records))
        keys = list(dict.fromkeys(key for one in records for key in one))
        return [keys, *([_as_text(one.get(key)) for key in keys] for one in records)]
    rows = [one if isinstance(one, list) else [one] for one in records]
    width = max(map(len, rows), default=0)
    return [[""] * width, *([*map(_as_text, row)] for row in rows)]


def _read_annotations(images: Sequence[Any], annotations: Sequence[Any], categories: Any) -> list[list[str]]:
    """Returns a row for each annotation of an image: its file and its category, by name unless names repeat.

    The keys are those of COCO, or those of Herbarium 2022: ``image_id``, ``category_id`` and ``scientificName``.
    """
    files = {
        _as_text(one.get("id", one.get("image_id"))): _as_text(one.get("file_name"))
        for one in images
        if isinstance(one, dict)
    }
    known: Mapping[str, str] = {
        _as_text(one.get("id", one.get("category_id"))): _as_text(one.get("name", one.get("scientificName")))
        for one in (categories if isinstance(categories, list) else ())
        if isinstance(one, dict)
    }
    if len(set(known.values())) < len(known) or not all(known.values()):
        known = {}
    rows = []
    for one in annotations:
        if isinstance(one, dict):
            number = _as_text(one.get("category_id"))
            rows.append([files.get(_as_text(one.get("image_id")), ""), known.get(number, number)])
    labelled = {name for name, _ in rows}
    return [["file_name", CATEGORY], *rows, *([name, ""] for name in files.values() if name not in labelled)]
