"""Recognizes the splits of a user's images by the names of their folders (``split_names.py``) and by their classes.

Where folders can be read in two ways the set is refused, and ``data.train_folders`` and ``data.val_folders`` decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from conf import schema
from conf.text import did_you_mean
from infra.errors import ConfigError
from models.data.sources.listing import MINIVAL, NAMED, TRAIN, VAL
from models.data.sources.split_names import (
    BOTH,
    is_evaluation,
    is_part_of_test,
    kind_of,
    kind_of_word,
    names_unlabelled,
    read_name,
    short_kinds,
    words_of,
)

WHOLE = {"": TRAIN}  # the parts of a tree without splits: its top folders are classes
WHOLE_TREE = "."  # of data.train_folders: the folders are classes
STRAY_SHARE = 0.1  # of images beside a common top folder, or directly in it; what is lost is refused by its number
_NEGATIONS = ("in", "un", "non", "not")  # as invalid beside valid
_SETTINGS = (
    "data.train_folders=[A,B] and data.val_folders=[C] name the splits, data.train_folders=[.] takes all as classes"
)


def find_splits(images: Collection[str], root: str, data: schema.Data, top: str) -> dict[str, int]:
    """Returns the parts by their folders, which end with ``/``; ``WHOLE`` if the top folders are classes.

    Beside the folders of train, one kind of held-out folder is val; of two, ``val/`` is minival and ``test/`` is val.

    Args:
        images: Paths of the images below the common top folder.
        root: The tree, for messages.
        data: Settings, of which ``train_folders`` and ``val_folders`` name the parts.
        top: The common top folder, which ends with ``/``, or the empty string.

    Raises:
        ConfigError: The folders are held-out splits without a train folder, or may be splits as well as classes, or
            a folder of the settings has no images.
    """
    if data.train_folders or data.val_folders:
        return _named_splits(images, data, top)
    below: dict[str, set[str]] = {}
    inside: Counter[str] = Counter()
    direct: Counter[str] = Counter()
    for name in images:
        first, slash, rest = name.partition("/")
        if slash:
            folder, slash, _ = rest.partition("/")
            below.setdefault(first, set()).update([folder] if slash else [])
            inside[first] += 1
            direct[first] += not slash
    flat = {top for top in below if direct[top] > STRAY_SHARE * inside[top]}  # images beside or in place of folders
    for kinds in _groups(below):
        parts = _choose(kinds, below, flat, root)
        if parts is not None:
            return parts
    return WHOLE


def number_kinds(kinds: Collection[str]) -> dict[str, int]:
    """Returns the parts by the kinds of splits that tables state, as for folders; empty without train or held-out ones.

    As of ``train.csv`` and ``val.csv`` about the images of one folder, or of a column with train and test.
    """
    held_out = [kind for kind in ("val", "test") if kind in kinds]
    if "train" not in kinds or not held_out:
        return {}
    return {"train": TRAIN} | dict(zip(held_out, (MINIVAL, VAL) if len(held_out) == 2 else (VAL,), strict=False))


def describe_without(parts: Mapping[str, int], labelled: Collection[str]) -> str:
    """Returns the settings that exclude held-out parts of which no image has a label, and keep the labelled ones."""
    train = ",".join(top.rstrip("/") for top, part in parts.items() if part == TRAIN)
    held_out = ",".join(top.rstrip("/") for top, part in parts.items() if part != TRAIN and top in labelled)
    settings = f"data.train_folders=[{train}]" + (f" data.val_folders=[{held_out}]" if held_out else "")
    return f" ({settings} trains without them)"


def _named_splits(images: Collection[str], data: schema.Data, top: str) -> dict[str, int]:
    """Returns the parts that the settings name; without folders of train, those beside the ones of val are train."""
    if data.train_folders == [WHOLE_TREE]:
        return WHOLE
    every = {"/".join(name.split("/")[:depth]) for name in images for depth in range(1, name.count("/") + 1)}
    parts: dict[str, int] = {}
    for key, folders, part in (("val_folders", data.val_folders, VAL), ("train_folders", data.train_folders, TRAIN)):
        for folder in folders:
            name = folder.removeprefix("./").strip("/")
            if name not in every and f"/{top}".endswith(f"/{name}/") and data.train_folders == [folder] and not parts:
                return WHOLE  # the common top folder
            name = name if name in every else name.removeprefix(top)
            if name not in every:
                seen = sorted({one.partition("/")[0] for one in every})
                hint = did_you_mean(name, every) or f"the folders with images are {', '.join(seen[:NAMED])}"
                raise ConfigError(f"data.{key}: no images in {folder}/; {hint}")
            parts[f"{name}/"] = part
    if not data.train_folders:
        above = {folder.rstrip("/").rpartition("/")[0] for folder in parts}
        beside = {f"{one}/" for one in every if one.rpartition("/")[0] in above} - parts.keys()
        parts |= dict.fromkeys(sorted(beside), TRAIN)
    inside = [(one, other) for one in parts for other in parts if one != other and one.startswith(other)]
    if inside or TRAIN not in parts.values():
        why = f"{inside[0][0]} is in {inside[0][1]}" if inside else "no folder with images is beside them"
        raise ConfigError(f"data.train_folders and data.val_folders must be folders beside each other: {why}")
    return parts


def _choose(
    kinds: Mapping[str, list[str]], below: Mapping[str, set[str]], flat: Collection[str], root: str
) -> dict[str, int] | None:
    """Returns the parts if a group of folders are splits; None if they are not.

    Args:
        kinds: Folders of the group by kind.
        below: Folders in each folder of the tree.
        flat: Folders of the tree that have many images outside of folders.
        root: The tree, for messages.

    Raises:
        ConfigError: They may be, or they are splits without train, or one holds others.
    """
    kinds = _with_test(kinds)
    held_out = [kinds[kind] for kind in ("val", "test") if kind in kinds]
    train = kinds.get("train") or kinds.get(BOTH, [])
    if BOTH in kinds and ("train" in kinds or "val" in kinds):
        beside = ", ".join(f"{one}/" for kind in ("train", "val") for one in kinds.get(kind, []))
        raise ConfigError(
            f"{root} has {kinds[BOTH][0]}/, which by its name holds train and val, beside {beside}: "
            f"data.train_folders=[{kinds[BOTH][0]}] or others, and data.val_folders=[...] name those to use"
        )
    others = {one for one in set(below).difference(*kinds.values()) if not (train and names_unlabelled(one))}
    if len(below) == 1 and not below[next(iter(below))]:
        return None  # a single folder of images, of which a table has the classes
    if train and (held_out or not others or _have_classes_of(train, others, below)):
        parts = (MINIVAL, VAL) if len(held_out) == 2 else (VAL,)
        named = {f"{top}/": part for part, folders in zip(parts, held_out, strict=False) for top in folders}
        return {**{f"{top}/": TRAIN for top in train}, **named}
    if train and all(len(below[top]) > 1 and top not in flat for top in train) and not any(map(below.get, others)):
        if all(is_part_of_test(one) for one in others):  # as test_stg1 and test_stg2 beside train, but no test_tube
            return {f"{top}/": TRAIN for top in train} | {f"{top}/": VAL for top in sorted(others)}
        inside = ", ".join(sorted(set().union(*(below[top] for top in train)))[:NAMED])
        raise ConfigError(
            f"{root}: {train[0]}/ may be the split train with the classes {inside}, or a class beside "
            f"{', '.join(sorted(others)[:NAMED])}, whose images are in no folders: data.train_folders=[{train[0]}] "
            f"takes it as the split, data.train_folders=[{WHOLE_TREE}] as a class"
        )
    if not train and held_out and others and kind_of(held_out[0][0]) is not None:
        trains = _find_train(kinds, others, below, root)
        return _choose({**kinds, "train": trains}, below, flat, root) if trains else None
    if not train and held_out and not others and len(below) > 1:
        held_out_tops = " and ".join(top for folders in held_out for top in folders)
        raise ConfigError(f"{root} has {held_out_tops}, but no train folder beside them; {_SETTINGS}")
    return None


def _with_test(kinds: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
    """Returns the folders by kind, where evaluation beside validation is test: as in Food-11, which has both."""
    folders = kinds.get("val", [])
    tests = [folder for folder in folders if is_evaluation(folder)]
    if "test" in kinds or not 0 < len(tests) < len(folders):
        return kinds
    return {**kinds, "val": [folder for folder in folders if folder not in tests], "test": tests}


def _find_train(
    kinds: Mapping[str, list[str]], others: Collection[str], below: Mapping[str, set[str]], root: str
) -> list[str]:
    """Returns the folder of train with a further word beside held-out ones, as ``train_mini`` beside ``val``.

    Args:
        kinds: Folders of held-out splits by kind.
        others: Those beside them.
        below: Folders in each folder of the tree.
        root: The tree, for messages.

    Returns:
        The folder, which has the same folders as the held-out ones; empty if all are classes.

    Raises:
        ConfigError: The folders may be splits as well as classes.
    """
    tops = [top for kind in ("val", "test") for top in kinds.get(kind, [])]
    possible = ("train",) if "val" in kinds else ("train", BOTH)
    trains = [one for one in sorted(others) if read_name(one)[0] in possible]
    if len(trains) == 1 and _have_classes_of(trains, tops, below):
        return trains
    if not trains and _is_adjective(tops, others):
        return []
    what, remedy = "of which no train folder is beside it", "; a split needs the classes in a folder train"
    if all(map(below.get, others)):
        remedy = f", data.val_folders=[{','.join(tops)}] as val, and what is beside it as train"
    trains = trains or [one for one in sorted(others) if _have_classes_of([one], tops, below)]
    if trains:
        what = f"as {trains[0]}/ beside it"
        remedy = f", data.train_folders=[{','.join(trains)}] data.val_folders=[{','.join(tops)}] as a split"
    raise ConfigError(
        f"{root}: {tops[0]}/ may be a split, {what}, or a class beside {', '.join(sorted(others)[:NAMED])}: "
        f"data.train_folders=[{WHOLE_TREE}] takes it as a class{remedy}"
    )


def _is_adjective(held_out: Sequence[str], others: Collection[str]) -> bool:
    """Whether a word of a split is a class by those beside it, as valid beside invalid, or dev beside prod."""
    words = {" ".join(words_of(top)) for top in held_out}
    beside = {"".join(words_of(other)) for other in others}
    negated = {negation + word for word in words for negation in _NEGATIONS}
    return words <= {"dev", "eval", "validate"} or (len(words) == 1 and not beside.isdisjoint(negated))


def _have_classes_of(train: Sequence[str], others: Collection[str], below: Mapping[str, set[str]]) -> bool:
    """Whether folders beside those of train have the same folders, so that these are the classes."""
    nested = set().union(*(below[top] for top in train))
    if not nested:
        return False
    if len(train) > 1:
        return True
    shared = max(len(nested & below[other]) for other in others)
    return shared >= 2 and 2 * shared >= len(nested)


def _groups(below: Mapping[str, set[str]]) -> list[dict[str, list[str]]]:
    """Groups the folders that are named as splits and alike otherwise, as ``seg_train`` and ``seg_test``.

    Short names of splits that have the same folders, or none, come first, then groups of equal names with train and a
    held-out split; in the others words without a content are ignored, as in ``train`` and ``test_images``.

    Args:
        below: Folders in each folder of the tree.
    """
    tops = sorted(below)
    short = short_kinds(tops)
    if short and (not any(below.values()) or _have_classes_of(tops[:1], tops[1:], below)):
        return [short]
    exact: dict[str, dict[str, list[str]]] = {}
    loose: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for top in tops:
        kind, rest = read_name(top)
        if kind is not None:
            loose.setdefault(rest, {}).setdefault(kind, []).append(top)
            words = [word for word in words_of(top) if kind_of_word(word) is None]
            exact.setdefault(" ".join(words), {}).setdefault(kind, []).append(top)
    ordered = [kinds for _, kinds in sorted(exact.items(), key=lambda item: item[0].count(" "))]
    complete = [kinds for kinds in ordered if len(kinds) > 1 and ("train" in kinds or BOTH in kinds)]
    return [*complete, *(kinds for _, kinds in sorted(loose.items(), key=lambda item: len(item[0])))]
