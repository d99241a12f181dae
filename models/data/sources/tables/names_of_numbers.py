"""Lists that name numbered classes, as ``classes.txt`` beside the folders 0 to 9, or ``cat_to_name.json`` of 1 to 9.

A list that states numbers names those. Of one without, the first name is that of 0 or 1, whichever the numbers begin
with, if there are as many names as classes.

Source of the layouts: ``cat_to_name.json`` of Udacity's copy of Flowers-102, ``label_num_to_disease_map.json`` of
kaggle.com/c/cassava-leaf-disease-classification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conf.text import list_some
from infra.errors import ConfigError
from models.data.sources.class_file import decode_small, parse_numbered
from models.data.sources.files.archive import Files
from models.data.sources.files.image_format import IMAGE_SUFFIXES
from models.data.sources.split_names import words_of

_SUFFIXES = (".txt", ".json", ".yaml", ".yml", ".names", ".csv", ".pbtxt")
_WORDS = frozenset(
    (
        *("class", "classes", "classnames", "classname", "label", "labels", "labelmap", "labelnames", "names", "name"),
        *("category", "categories", "cat", "cats", "synset", "synsets", "words", "species", "breeds"),
    )
)  # in names of such lists
_MAX_BYTES = 2**20
_SHOWN = 3  # names in a line


def is_number(text: str) -> bool:
    """Whether a name of a class is a number of digits alone."""
    return text.isdecimal() and text.isascii()


def name_numbers(files: Files, classes: Sequence[str]) -> tuple[dict[str, str], str, str]:
    """Returns the name of each class, if all classes are numbers and one list in the tree names them; and what is said.

    Args:
        files: The tree.
        classes: Names of the classes.

    Returns:
        Names by number, empty without such a list; a line about it, also about one that does not fit; and its path.
    """
    numbers = {one: int(one) for one in classes if is_number(one)}
    if not len(set(numbers.values())) == len(classes) > 1:
        return {}, "", ""
    named: dict[str, dict[str, str]] = {}
    others: list[str] = []
    for row, path in enumerate(files.names):
        if files.sizes[row] <= _MAX_BYTES and _may_name(path):
            try:
                where = f"{files.root}: {path}"
                names, is_stated = parse_numbered(decode_small(files.read(row), where), path, where)
            except ConfigError:
                continue  # of something else
            if not names or any(is_number(name) or name.lower().endswith(IMAGE_SUFFIXES) for name in names.values()):
                continue
            if chosen := _fit(numbers, names, is_stated=is_stated):
                named[path] = chosen
            elif len(set(names.values())) == len(names) or len(names) == len(classes):  # no labels of images
                others.append(f"{path} ({len(names)} names)")
    shown = list_some(sorted(classes, key=int))
    if len({tuple(one.items()) for one in named.values()}) > 1:
        return {}, f"classes keep the names {shown}: {list_some(sorted(named))} differ in how they name them", ""
    if named:
        path, chosen = min(named.items())
        pairs = ", ".join(f"{number} is {name}" for number, name in list(chosen.items())[:_SHOWN])
        said = f"{path} names the {len(chosen)} numbered classes: {pairs}{' ...' * (len(chosen) > _SHOWN)}"
        return chosen, said, path
    return {}, f"classes keep the names {shown}: {list_some(sorted(others))} does not fit them" if others else "", ""


def _may_name(path: str) -> bool:
    """Whether a file may name classes by its own name; those in the folder of a class are about its images."""
    if not path.lower().endswith(_SUFFIXES):  # most files of a large set
        return False
    *folders, name = path.split("/")
    stem, _, suffix = name.lower().rpartition(".")
    words = words_of(stem)
    is_named = not _WORDS.isdisjoint(words) or any(word.endswith(("names", "classes", "labels")) for word in words)
    is_yolo = suffix in ("yaml", "yml") and not {"data", "dataset"}.isdisjoint(words)
    return (is_named or is_yolo) and not any(map(is_number, folders))


def _fit(numbers: Mapping[str, int], names: Mapping[int, str], *, is_stated: bool) -> dict[str, str]:
    """Returns the names of the classes in the order of their numbers; empty if they are not for these, or repeat."""
    ordered = sorted(numbers, key=numbers.__getitem__)
    first = 0 if is_stated else numbers[ordered[0]]
    if not is_stated and (first > 1 or [numbers[one] - first for one in ordered] != list(names)):
        return {}
    chosen = {one: names[numbers[one] - first] for one in ordered if numbers[one] - first in names}
    return chosen if len(set(chosen.values())) == len(numbers) else {}
