"""Transfer sets with labels in MATLAB files: Stanford Cars and Oxford Flowers-102.

Source of the layouts: torchvision 0.28 ``datasets/{stanford_cars,flowers102}.py``, the readme of Flowers-102
(the training part is the SMALL one: ``trnid`` and ``valid`` 1,020 each, ``tstid`` 6,149).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from conf import schema
from infra.errors import ConfigError, DataError
from models.data.sources import listing
from models.data.sources.files.archive import Files
from models.data.sources.listing import MINIVAL, TRAIN, VAL, DataSet, Listing, Source
from models.data.sources.tables import matlab

CARS_TEST_LABELS = "cars_test_annos_withlabels.mat"
_FLOWER_PARTS = {TRAIN: "trnid", MINIVAL: "valid", VAL: "tstid"}


def open_cars(data: schema.Data, data_set: DataSet) -> Source:
    """Opens ``cars_train/``, ``cars_test/`` and the devkit; or ``car_ims/`` and ``cars_annos.mat``, with both splits.

    Raises:
        ConfigError: The labels are missing.
        DataError: The counts differ from the official ones.
    """
    files = listing.open_files(data, data_set)
    if (both := files.find("cars_annos.mat")) is not None and files.folder("car_ims"):
        return listing.check_listing(data, _cars_in_one_folder(files, both), data_set)
    entries = Listing(files, _texts(files, _require_row(files, "cars_meta.mat"), "class_names"))
    lists = ((TRAIN, "cars_train", "cars_train_annos.mat"), (VAL, "cars_test", CARS_TEST_LABELS))
    for part, folder, name in lists:
        images = files.folder(folder)
        for record in _records(files, _require_row(files, name), "fname"):
            image = str(record["fname"])
            entries.add(images.get(image), f"{folder}/{image}", int(record["class"]) - 1, part)
    return listing.check_listing(data, entries, data_set)


def _cars_in_one_folder(files: Files, row: int) -> Listing:
    entries = Listing(files, _texts(files, row, "class_names"))
    images = files.folder("car_ims")
    for record in _records(files, row, "relative_im_path"):
        image = str(record["relative_im_path"]).removeprefix("car_ims/")
        entries.add(images.get(image), image, int(record["class"]) - 1, VAL if record["test"] else TRAIN)
    return entries


def open_flowers102(data: schema.Data, data_set: DataSet) -> Source:
    """Opens ``jpg/image_NNNNN.jpg``, ``imagelabels.mat`` and ``setid.mat``; class names are the numbers 1 to 102.

    Raises:
        ConfigError: The labels are missing.
        DataError: The counts differ from the official ones.
    """
    files = listing.open_files(data, data_set)
    labels = _numbers(files, "imagelabels.mat", "labels")
    images = files.folder("jpg")
    entries = Listing(files, [str(number) for number in range(1, 103)])
    for part, key in _FLOWER_PARTS.items():
        for number in _numbers(files, "setid.mat", key):
            if not 1 <= number <= len(labels):
                raise DataError(
                    f"{files.root}: setid.mat names image {number}, but imagelabels.mat has {len(labels)} labels"
                )
            name = f"image_{number:05d}.jpg"
            entries.add(images.get(name), name, labels[number - 1] - 1, part)
    return listing.check_listing(data, entries, data_set)


def _require_row(files: Files, name: str) -> int:
    row = files.find(name)
    if row is None:
        raise ConfigError(f"{files.root} has no {name}, which contains the labels")
    return row


def _texts(files: Files, row: int, key: str) -> list[str]:
    return [str(text) for text in np.atleast_1d(matlab.load(files, row, key))]


def _numbers(files: Files, name: str, key: str) -> list[int]:
    numbers = np.atleast_1d(matlab.load(files, _require_row(files, name), key))
    if numbers.dtype.kind not in "ui":
        raise DataError(f"{files.root}: {key} in {name} are not integers")
    return [int(number) for number in numbers]


def _records(files: Files, row: int, field: str) -> Any:
    """Reads the ``annotations`` of a devkit file: ``class`` and ``field`` of each image."""
    records = np.atleast_1d(matlab.load(files, row, "annotations"))
    fields = set(records.dtype.names or ())
    if not {"class", field} <= fields:
        raise DataError(
            f"{files.root}: annotations in {files.names[row]} have {', '.join(sorted(fields))}, but not "
            f"class and {field}; the test labels are in {CARS_TEST_LABELS}"
        )
    return records
