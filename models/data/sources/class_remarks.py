"""What is said about the classes of a set: those that a split lacks, names that look alike, masks, several labels."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from urllib.parse import unquote

import numpy as np

from conf import schema
from conf.text import list_some
from infra.errors import ConfigError
from models.data.sources import listing
from models.data.sources.listing import Listing

_NUMBER = re.compile(r"[+-]?[0-9]+(\.0*)?|0x[0-9a-f]+")
_SEPARATOR = re.compile(r"[|;,/+&]+|\s+")
_MARKED = re.compile(r"[|;,/+&]|\band\b")  # what names of classes with several words have not
_FRACTION = re.compile(r"[+-]?\d*\.\d*[1-9]\d*(?:e[+-]?\d+)?", re.IGNORECASE)
_QUOTED = re.compile(r"\[.*['\"]\s*,\s*['\"].*\]$")  # a list of several texts as Python or JSON writes it
_LIST = "[](){}'\""  # characters around the labels of a list
_MISSING = ("none", "na", "unlabeled", "unlabelled", "unannotated", "missing", "nan", "null")  # casefolded names
_MASK = re.compile(r"[_-](?:mask|segmentation|seg|gt|groundtruth)(?:_\d+)?\.\w+$", re.IGNORECASE)


def compare_classes(entries: Listing, parts: dict[str, int]) -> tuple[str, ...]:
    """Returns a line for each split that lacks classes which another has, and one for names that look alike."""
    labels, split = np.array(entries.labels), np.array(entries.split)
    present = {part: set(labels[split == part].tolist()) for part in parts.values()}
    everything = set().union(*present.values())
    lines = []
    for part, seen in present.items():
        if seen and (lacking := [entries.classes[label] for label in sorted(everything - seen)]):
            share = f"{len(lacking)} of {len(everything)} classes"
            lines.append(f"{listing.SPLITS[part]} has no image of {share}: {list_some(lacking)}")
    spellings: dict[str, list[str]] = {}
    for name in entries.classes:
        spellings.setdefault(_spell(name), []).append(name)
    alike = [", ".join(map(ascii, names)) for names in spellings.values() if len(names) > 1]
    if alike:
        lines.append(f"classes whose names look alike: {list_some(alike, separator='; ')}")
    return tuple(lines)


def _spell(name: str) -> str:
    """Returns a name without distinction of the forms in ``_SPELLINGS``."""
    for form in _SPELLINGS.values():
        name = form(name)
    return name


def _form_number(text: str) -> str:
    """Returns a whole number without leading zeros and decimals; other texts as they are."""
    if not _NUMBER.fullmatch(text.strip()):
        return text
    text = text.strip()
    return str(int(text, 16) if text.startswith("0x") else int(text.partition(".")[0]))


def refuse_other_spellings(data: schema.Data, entries: Listing) -> None:
    """Refuses classes that a held-out split alone has, and that are classes of train but for their spelling.

    Raises:
        ConfigError: There are some, and ``data.allow_partial`` is not set.
    """
    labels, split = np.array(entries.labels), np.array(entries.split)
    train = set(labels[split == listing.TRAIN].tolist())
    others = [entries.classes[label] for label in sorted(set(labels.tolist()) - train)]
    known = [entries.classes[label] for label in sorted(train)]
    alike = [name for name in others if describe_spellings([name], known)]
    if alike and not data.allow_partial:
        raise ConfigError(
            f"{data.name} at {data.path}: classes of a held-out split "
            f"{describe_spellings(alike, known)}, or set data.allow_partial=true to keep them as further classes"
        )


def refuse_untrainable(entries: Listing, parts: Mapping[str, int], root: str, lost: Sequence[str]) -> None:
    """Refuses a train split without images, or of one class beside held-out ones of several.

    Args:
        entries: The images.
        parts: The parts that have some.
        root: The tree, for messages.
        lost: Lines about the files in train that could have been samples.
    """
    in_train = {label for label, part in zip(entries.labels, entries.split, strict=True) if part == listing.TRAIN}
    classes = set(entries.labels)
    if len(in_train) > 1 or in_train == classes:
        return
    held_out = [top for top, part in parts.items() if part != listing.TRAIN]
    beside = f"{' and '.join(held_out)} of {len(classes)} {'class' if len(classes) == 1 else 'classes'}"
    if lost or not in_train:
        what = f"images of {entries.classes[min(in_train)]} alone" if in_train else "no image that can be used"
        shown = f" ({'; '.join(lost)})" if lost else ""
        raise ConfigError(f"{root}: train has {what}{shown}, {beside}: no classifier can be trained")
    folders = ",".join(top.rstrip("/") for top in held_out)
    remedy = f"; data.train_folders=[{folders}] takes these alone, and a part of their images becomes val"
    raise ConfigError(
        f"{root}: train has images of {entries.classes[min(in_train)]} alone, {beside}, as in data for anomaly "
        "detection, such as MVTec AD: no classifier can be trained"
        f"{remedy if all(top.endswith('/') for top in held_out) else ''}"
    )


def describe_spellings(names: Sequence[str], classes: Sequence[str]) -> str:
    """Says which classes names are but for their spelling, and what differs; empty unless each of them is one.

    Args:
        names: Names that are not among the classes.
        classes: Names of the classes.
    """
    of_train = {_spell(name): name for name in classes}
    pairs = [(name, of_train[_spell(name)]) for name in names if _spell(name) in of_train]
    if not names or len(pairs) < len(names):
        return ""
    different = [what for what in _SPELLINGS if any(_differ_by(what, name, known) for name, known in pairs)]
    by = " and ".join(different) or "their spelling"
    shown = list_some([f"{name!a} is {known!a}" for name, known in pairs])
    return f"are classes of train but for {by}, as {shown}: rename them as in train"


def _differ_by(what: str, name: str, other: str) -> bool:
    """Whether two names that are equal in all forms of ``_SPELLINGS`` are different without one of these."""
    for form, apply in _SPELLINGS.items():
        if form != what:
            name, other = apply(name), apply(other)
    return name != other


def _form_text(name: str) -> str:
    """Returns a name with a space for each separator, but for those of numbers."""
    return name if _NUMBER.fullmatch(name) else " ".join(filter(None, re.split(r"[\s_.-]+", name)))


# Forms of a name that are equal in two spellings of it, by what differs otherwise; applied in this order.
_SPELLINGS: dict[str, Callable[[str], str]] = {
    "percent signs as in addresses": unquote,
    "invisible characters": lambda name: "".join(one for one in name if unicodedata.category(one) != "Cf"),
    "Unicode normalization": lambda name: unicodedata.normalize("NFC", name),
    "upper and lower case": str.casefold,
    "the form of their numbers": _form_number,
    "spaces, points, hyphens and underscores": _form_text,
}


def require_common_classes(entries: Listing, where: str) -> None:
    """Refuses splits whose labels have two forms, as numbers in train and names in val.

    Raises:
        ConfigError: Train has images, and a held-out split has images of other classes only.
    """
    labels, split = np.array(entries.labels), np.array(entries.split)
    train = set(labels[split == listing.TRAIN].tolist())
    for part in sorted(set(split.tolist()) - {listing.TRAIN}):
        seen = set(labels[split == part].tolist())
        if train and train.isdisjoint(seen):
            shown = [list_some([entries.classes[label] for label in sorted(some)]) for some in (train, seen)]
            raise ConfigError(
                f"{where}: train and {listing.SPLITS[part]} have no class in common: train has {shown[0]}, "
                f"{listing.SPLITS[part]} has {shown[1]}; the labels of both must be of one form"
            )


def describe_masks(names: Sequence[str]) -> tuple[str, ...]:
    """Returns a remark if images are named as the masks of others beside them, as ``1_mask.png`` beside ``1.png``."""
    stems = {name.rpartition(".")[0] for name in names}
    masks = [name for name in names if (mark := _MASK.search(name)) and name[: mark.start()] in stems]
    if not masks:
        return ()
    return (f"{len(masks):,} images are named as masks of others and count as images, first {min(masks)}",)


def find_measurement(classes: Collection[str], count: int) -> str:
    """Returns a number with a fraction if so many images have mostly different labels; empty for classes.

    As ages or shares of votes, of which nearly every image has its own.
    """
    fractions = [name for name in classes if _FRACTION.fullmatch(name)]
    return min(fractions) if fractions and 2 * len(classes) > count else ""


def describe_labels(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns remarks on classes that may be no single class: several labels of one image, or a missing label."""
    return (*_describe_combined(classes), *_describe_missing(classes), *_describe_two_forms(classes))


def _describe_combined(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns a remark if names of classes are several others, as ``rust|scab`` beside ``rust``: labels of two.

    Spaces are usual in the name of one: ``polar bear`` beside ``bear`` is none of them, ``ant bear`` beside both is.

    Also if all are lists, as ``['rust']`` and ``['rust', 'scab']`` or ``rust|ill`` and ``scab|ill``, or have several
    words that others have, too, as ``0,1`` and ``1,2``.
    """
    words = {name: split_labels(name) for name in classes}
    known = {name.strip(_LIST) for name in classes}
    repeated = {
        one for one, number in Counter(one for some in words.values() for one in set(some)).items() if number > 1
    }
    are_lists = any(all(mark in name for name in classes) for mark in "|;")
    combined = [
        name
        for name, some in words.items()
        if len(some) > 1 and (are_lists or _is_combined(name, some, known, repeated))
    ]
    if not combined:
        return ()
    return (f"{len(combined)} classes look like several labels of one image and count as classes, as {combined[0]!r}",)


def split_labels(text: str) -> list[str]:
    """Returns the words of a text that may be labels: by bars, commas, spaces and the like, without ``and``."""
    words = (part.strip(_LIST) for part in _SEPARATOR.split(text))
    return [word for word in words if word and word != "and"]


def _is_combined(name: str, words: Collection[str], known: set[str], repeated: set[str]) -> bool:
    if known.issuperset(words) or _QUOTED.match(name) is not None:
        return True
    is_marked = _MARKED.search(name) is not None and not known.isdisjoint(words)
    return is_marked or (re.search("[|;,]", name) is not None and repeated.issuperset(words))


def _describe_two_forms(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns a remark if classes are the numbers from 0 and as many names, as 0, 1, ant, bee; digits are 10."""
    numbers = sorted((int(name), name) for name in classes if re.fullmatch("[0-9]{1,6}", name))
    names = [name for name in classes if name.lstrip("+-").isdecimal() is False]
    if len(numbers) < 2 or len(numbers) != len(names) or [number for number, _ in numbers] != list(range(len(names))):
        return ()
    return (
        f"{len(numbers)} classes are numbers from 0 and as many are names, as {numbers[0][1]} and {min(names)}: they "
        "may be the same classes in two forms",
    )


def _describe_missing(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns a remark if the name of a class is a usual mark of a missing label, as ``None``, or -1 beside 0 and 1."""
    numbers = {name for name in classes if re.fullmatch(r"-?\d+", name)}
    named = [name for name in classes if name.casefold() in _MISSING]
    if len(numbers) == len(classes) > 2:
        named += [name for name in classes if name.startswith("-")]
    if len(named) == len(classes) or not named:
        return ()
    return (f"the class {', '.join(named)} may stand for images without a label, and counts as a class",)


def describe_uncovered(absent: Sequence[str], classes: int, split: str) -> str:
    """Says which of so many classes have no image in a split."""
    return f"{len(absent)} of {classes} classes have no image in {split}: {list_some(absent)}"
