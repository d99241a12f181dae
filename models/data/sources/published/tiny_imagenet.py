"""Tiny-ImageNet: 200 classes of ImageNet at 64 x 64 pixels, 500 training and 50 validation images each.

Layout: ``wnids.txt``, ``train/WNID/images/*.JPEG``, ``val/images/*.JPEG`` with ``val/val_annotations.txt``. The test
images have no public labels and are ignored. The label is the rank of the sorted WNID.
"""

from __future__ import annotations

from conf import schema
from infra.errors import ConfigError
from models.data.sources import listing
from models.data.sources.listing import TRAIN, VAL, DataSet, Listing, Source
from models.data.sources.published.class_folders import is_image


def open_tiny_imagenet(data: schema.Data, data_set: DataSet) -> Source:
    """Opens the archive or the extracted tree.

    Raises:
        ConfigError: The expected layout is missing.
        DataError: The counts differ from the official ones.
    """
    files = listing.open_files(data, data_set)
    wnids, annotations = files.find("wnids.txt"), files.find("val/val_annotations.txt")
    if wnids is None or annotations is None:
        raise ConfigError(f"{files.root} has no wnids.txt or val/val_annotations.txt; is it Tiny-ImageNet?")
    classes = sorted(files.read(wnids).decode().split())
    rank = {wnid: label for label, wnid in enumerate(classes)}
    entries = Listing(files, classes)
    for path, row in files.folder("train").items():
        wnid, _, image = path.partition("/images/")
        if wnid in rank and is_image(image):
            entries.add(row, image, rank[wnid], TRAIN)
    images = files.folder("val/images")
    for line in files.read(annotations).decode().splitlines():
        name, wnid, *_ = [*line.split("\t"), ""]
        if wnid in rank:
            entries.add(images.get(name), name, rank[wnid], VAL)
    return listing.check_listing(data, entries, data_set)
