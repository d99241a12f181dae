"""Numbers in place of the classes of a held-out folder, which lists of the images of train explain.

As ``val.txt`` of Caffe and OpenMMLab (``ILSVRC2012_val_00000001.JPEG 65``) beside ``train.txt``, which has a number for
each image in the folders of classes (``n01440764/n01440764_10026.JPEG 0``). Of Places365 the numbers are those of the
innermost folders (``/b/bakery/shop/00000001.jpg 46``), which are below the classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.data.sources.files.archive import Files
from models.data.sources.tables.csv_labels import Stated, read_labels, texts_of
from models.data.sources.tables.reading import read_tables


def read_numbered_labels(files: Files, images: Sequence[str], folders: Mapping[str, str]) -> Stated:
    """Returns the class of each image by the number that tables have for it; none if no table explains the numbers.

    Args:
        files: The tree.
        images: Paths of the images without a class folder.
        folders: The class of each image in a class folder, by its path.

    Raises:
        ConfigError: Different numbers are stated for one image, or several columns of a table could have them.
    """
    names, path = _read_numbers(files, folders)
    if not names:
        return Stated({}, "", [])
    stated = read_labels(files, images, names.keys())
    labels = {image: names[number] for image, number in stated.labels.items()}
    return Stated(labels, f"{stated.source}, by the numbers in {path}", [*stated.paths, path])


def read_numbers_below(files: Files, images: Sequence[str], folders: Mapping[str, str]) -> Stated:
    """As ``read_numbered_labels``, where the numbers may also be those of the innermost folders, below the classes."""
    known = read_numbered_labels(files, images, folders)
    if known.labels:
        return known
    above = {_folder_of(image): name for image, name in folders.items()}
    inner = read_numbered_labels(files, images, {image: _folder_of(image) for image in folders})
    return inner._replace(labels={image: above[folder] for image, folder in inner.labels.items()})


def describe_deeper_numbers(files: Files, folders: Mapping[str, str], classes: int) -> str:
    """Returns a remark on a table with a number for each of the innermost folders, of which classes have several.

    Args:
        files: The tree.
        folders: The class of each image in a class folder, by its path.
        classes: Number of classes.
    """
    names, path = _read_numbers(files, {image: _folder_of(image) for image in folders})
    if len(names) <= classes:
        return ""
    return (
        f" ({path} numbers the {len(names)} folders that the images are in, as {min(names.values())}, and not the "
        f"{classes} classes above them: data.class_level=2 or another level takes the folders there as classes)"
    )


def _folder_of(image: str) -> str:
    return image.rpartition("/")[0]


def _read_numbers(files: Files, folders: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Returns the class by number, by the first table with a number of its own for each class, and its path."""
    every = set(folders.values())
    for table, key in read_tables(files, list(folders)):
        for column in range(len(table.header)):
            stated = texts_of(table, column) if column != key else {}
            pairs = {(text, folders[image]) for image, texts in stated.items() for text in texts}
            names = dict(pairs)
            is_for_each = len(pairs) == len(names) == len(every) and set(names.values()) == every
            if is_for_each and all(text.isdecimal() and text.isascii() for text in names):
                return names, table.path
    return {}, ""
