"""Folders that are no classes by their names: parts of a set, copies, masks, and beginnings of names."""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence

from conf.text import list_some
from infra.errors import ConfigError
from models.data.sources.listing import NAMED, TRAIN
from models.data.sources.split_names import FILLERS, has_splits, kind_of, split_of, words_of
from models.data.sources.splits import WHOLE_TREE

_PARTS = ("images", "image", "imgs", "img", "part", "batch", "fold", "split", "chunk", "shard")
_BEGINNING = 2  # characters of a name that a folder has
_MASKS = ("masks", "mask", "gt", "groundtruth", "trimaps", "segmentations", "segmentation", "segs", "seg")
_PERHAPS_MASKS = ("labels", "label", "annotations", "annotation")  # or photographs of labels
_MASK_ENDING = re.compile(r"[_-](?:mask|segmentation|seg|gt|groundtruth)(?:_\d+)?$", re.IGNORECASE)
_NAMED_SHARE = 0.9  # of masks that have the name of an image
_FEW = 3  # images of a folder; of fewer it is a sample or a patient
_FEW_NUMBERED = 10  # folders that may be classes though their names differ by numbers only
_IDENTIFIER = re.compile(r"[0-9a-f-]{8,}|\d+", re.IGNORECASE)
_ALL_IMAGES = (
    f"data.train_folders names the folder above the classes ({WHOLE_TREE} for the top) to take all images below them"
)


def are_parts(folders: Collection[str]) -> bool:
    """Whether folders are numbered parts of one set rather than classes, as ``images_part_1`` and ``images_part_2``."""
    stems = {re.sub(r"\d+", "", folder.lower()) for folder in folders}
    return len(folders) > 1 and len(stems) == 1 and any(word in _PARTS for word in re.split(r"[^a-z]+", stems.pop()))


def find_masks(images: Collection[str], root: str, *, are_classes: bool) -> list[str]:
    """Returns the images in folders of masks that two or more folders have beside a folder of their images.

    As ``COVID/masks`` beside ``COVID/images`` in a public set of X-ray images: each mask has the name of its image.

    Args:
        images: Paths of the images below the common top folder.
        root: The tree, for messages.
        are_classes: Whether the folders above are to be the classes, rather than a column of a table.

    Raises:
        ConfigError: Folders may be masks as well as further images of the classes, or the folders above are samples of
            a set for segmentation, as ``patient/{images,masks}``.
    """
    beside: dict[str, set[str]] = {}
    for parent in {name.rpartition("/")[0] for name in images}:
        above, _, folder = parent.rpartition("/")
        if above and kind_of(above.rpartition("/")[2]) is None:
            beside.setdefault(above, set()).add(folder)
    words = {one: _words_in(one) for one in set().union(*beside.values())}
    named = {one for one, parts in words.items() if parts & {*_MASKS, *_PERHAPS_MASKS}}
    filled = {one for one, parts in words.items() if parts & set(FILLERS)} - named
    tops = {above for above, inside in beside.items() if inside & named and inside & filled}
    if len(tops) < 2:
        return []
    masks: dict[str, list[str]] = {above: [] for above in tops}
    pictures: dict[str, list[str]] = {above: [] for above in tops}
    for name in images:
        above, _, folder = name.rpartition("/")[0].rpartition("/")
        if above in tops:
            (masks if folder in named else pictures)[above].append(name)
    if are_classes:
        _refuse_samples(pictures, root)
    unclear = [
        above
        for above in tops
        if any(not words[folder] & set(_MASKS) for folder in beside[above] & named)
        or not _are_masks_of(masks[above], pictures[above])
    ]
    if unclear:
        raise ConfigError(
            f"{root}: {masks[min(unclear)][0]} may be the mask of an image, or an image of its class as "
            f"{pictures[min(unclear)][0]}, and so in {list_some(sorted(unclear))}: move the masks out of the tree; "
            f"{_ALL_IMAGES}"
        )
    return [name for names in masks.values() for name in names]


def _words_in(folder: str) -> set[str]:
    """Returns the words of a name, those of ``SegmentationClass`` of Pascal VOC among them."""
    return {*re.split(r"[^a-z]+", folder.lower()), *words_of(folder)}


def _are_masks_of(masks: Sequence[str], pictures: Sequence[str]) -> bool:
    """Whether nearly all masks have the name of an image, also with a word for masks as ``1_mask.png`` of ``1.jpg``."""
    stems = {name.rpartition("/")[2].rpartition(".")[0] for name in pictures}
    named = sum(
        stem in stems or _MASK_ENDING.sub("", stem) in stems
        for stem in (name.rpartition("/")[2].rpartition(".")[0] for name in masks)
    )
    return named >= _NAMED_SHARE * len(masks)


def _refuse_samples(pictures: Mapping[str, Sequence[str]], root: str) -> None:
    """Refuses folders with images and masks that are samples or patients by their names or numbers of images.

    Args:
        pictures: Images by the folder above those of images and masks.
        root: The tree, for messages.

    Raises:
        ConfigError: They are.
    """
    inside: dict[str, int] = {}
    for above, names in pictures.items():
        first, _, rest = above.partition("/")
        top = f"{first}/{rest.partition('/')[0]}" if rest and split_of(first) is not None else first
        inside[top] = inside.get(top, 0) + len(names)
    shapes = {_IDENTIFIER.sub("#", top) for top in inside}
    are_numbered = len(inside) > _FEW_NUMBERED and 2 * len(shapes) <= len(inside)
    few = statistics.median(inside.values()) < _FEW or sum(inside.values()) < _FEW * len(inside)
    if len(inside) > 1 and (few or are_numbered):
        count = sum(inside.values())
        raise ConfigError(
            f"{root}: the {len(inside):,} folders {list_some(sorted(inside))} have {count:,} images and their masks, "
            "and look like samples or patients of a set for segmentation, not like classes: expected CLASS/IMAGE, "
            f"without the masks; {_ALL_IMAGES}"
        )


def are_beginnings(images: Iterable[str]) -> bool:
    """Whether folders are the beginnings of the names of their images, as in ``train/0/1/2/0123abcd.jpg``."""
    count = 0
    for count, path in enumerate((image.split("/") for image in images), 1):  # noqa: B007
        if len(path) < 3 or max(map(len, path[:-1])) > _BEGINNING or not path[-1].startswith("".join(path[:-1])):
            return False
    return count > 0


def refuse_beginnings(folders: Sequence[str], parts: Mapping[str, int], root: str) -> None:
    """Refuses folders that are the beginnings of the names of their images, of which no table has the classes.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        f"{root}: the folders {list_some(folders)} are the beginnings of the names of their images, not "
        f"classes, and no CSV file has the classes of these; {describe_classes(parts)} takes the folders as classes"
    )


def refuse_downloads(folders: Sequence[str], files: Iterable[str], parts: Mapping[str, int], root: str) -> None:
    """Refuses numbered folders beside the files of img2dataset for each, ``00000_stats.json`` or ``00000.parquet``.

    Raises:
        ConfigError: There are some.
    """
    beside = {name.rpartition("/")[2] for name in files}
    numbered = [folder for folder in folders if folder.isdecimal()]
    names = (f"{folder}{ending}" for folder in numbered for ending in ("_stats.json", ".parquet"))
    if marks := [name for name in names if name in beside]:
        raise ConfigError(
            f"{root}: the folders {list_some(numbered)} are parts of a download by img2dataset, as {marks[0]} says, "
            "not classes: a CSV file with the names of the images and their classes states these, or data=webdataset "
            "reads them from the JSON of its tars (--output_format webdataset); "
            f"{describe_classes(parts)} takes the folders as classes"
        )


def refuse_parts(folders: Sequence[str], parts: Mapping[str, int], root: str, *, named: bool, are_stated: bool) -> None:
    """Refuses folders that are splits, numbered parts of a set, or images and their masks, but no classes.

    Args:
        folders: Folders that would be the classes.
        parts: Folders of the splits that they are in.
        root: The tree, for messages.
        named: Whether settings name the folders of the splits, so that names of splits, numbers and copies are classes.
        are_stated: Whether a held-out split has the same folders, so that numbers and copies are classes.

    Raises:
        ConfigError: They are no classes by their names.
    """
    above = next(top for top, part in parts.items() if part == TRAIN)
    as_classes = describe_classes(parts)
    if not named and has_splits(folders) and all(map(kind_of, folders)):
        train = ",".join(above + one for one in folders if kind_of(one) == "train")
        held_out = ",".join(above + one for one in folders if kind_of(one) != "train")
        raise ConfigError(
            f"{root}: the folders {', '.join(folders)} in {above or 'it'} are splits by their names, not classes: "
            f"data.train_folders=[{train}] data.val_folders=[{held_out}] takes them as splits"
        )
    are_stated |= named
    if not are_stated and are_parts(folders):
        shown = ", ".join(folders[:NAMED]) + (", ..." if len(folders) > NAMED else "")
        raise ConfigError(
            f"{root}: the folders {shown} look like numbered parts of one set, not like classes; "
            f"data.val_folders=[{above}{folders[-1]}] makes that one val and the others train, each with folders of "
            f"classes; data.train_folders=[{','.join(above + one for one in folders)}] makes all train; "
            f"{as_classes} takes them as classes"
        )
    if not are_stated and len(folders) > 1 and len({folder.casefold() for folder in folders}) == 1:
        raise ConfigError(
            f"{root}: the folders {', '.join(folders)} look like copies of one set: give data.path one of them; "
            f"{as_classes} takes them as classes"
        )
    words = {folder: _words_in(folder) for folder in folders}
    masks = [folder for folder, parts in words.items() if parts & {*_MASKS, *_PERHAPS_MASKS}]
    pictures = [folder for folder in folders if folder not in masks and words[folder] & set(FILLERS)]
    if masks and pictures and len(masks) + len(pictures) == len(folders):
        remedy = "" if above else f"; {as_classes} takes the folders as classes"
        raise ConfigError(
            f"{root}: {', '.join(pictures)} and {', '.join(masks)} look like images and their masks, not like classes; "
            f"data.train_folders=[{above}{pictures[0]}] takes the images alone, with folders or a CSV file of their "
            f"classes{remedy}"
        )


def describe_classes(parts: Mapping[str, int]) -> str:
    """Returns the settings by which the folders in the parts are classes, whatever their names."""
    train = ",".join(top.rstrip("/") or WHOLE_TREE for top, part in parts.items() if part == TRAIN)
    held_out = ",".join(top.rstrip("/") for top, part in parts.items() if part != TRAIN)
    return f"data.train_folders=[{train}]" + (f" data.val_folders=[{held_out}]" if held_out else "")
