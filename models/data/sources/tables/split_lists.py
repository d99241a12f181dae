"""Official splits that lists or tables beside the images state, as ``meta/train.txt`` and ``meta/test.txt``.

Sources of the layouts: ``labels/{train,val,test}1.txt`` of the Describable Textures Dataset, whose protocol of transfer
takes the first of its ten divisions (SimCLR, appendix B.8); ``images.txt`` and ``train_test_split.txt`` of CUB-200-2011
and NABirds; ``list_eval_partition.txt`` of CelebA (0 train, 1 val, 2 test); ``Partitions/Training_01.txt`` of SUN397;
``TrainImages.txt`` of MIT Indoor; ``meta/train.txt`` of Food-101; ``train.csv`` of EuroSAT on Kaggle.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from conf import schema
from conf.text import escaped, list_some, logger
from infra.errors import ConfigError
from models.data.sources.files.archive import Files
from models.data.sources.split_names import (
    SHORT_WORDS,
    SPLIT_WORDS,
    codes_of,
    is_evaluation,
    rest_of,
    split_among,
    split_of,
)
from models.data.sources.tables.image_names import Index, index_images, match_name
from models.data.sources.tables.json_tables import JSON, JSON_LINES
from models.data.sources.tables.list_files import (
    LISTED,
    describe_divisions,
    describe_unread,
    find_lists,
    may_list,
    place_of,
    read_name,
)
from models.data.sources.tables.matlab import MATLAB
from models.data.sources.tables.reading import decode, read_tables
from models.data.sources.tables.split_columns import IS_TRAIN, WITHOUT_LISTS, SplitLists, find_column, read_columns
from models.data.sources.tables.unread_lists import describe_partial, refuse_unread

log = logger()
_STRUCTURED = (*JSON_LINES, JSON, MATLAB)
_FIRST_WORD = re.compile(r"([a-z]+)[_-]\w", re.IGNORECASE)


class _Lists(NamedTuple):
    """The lists of one division of the images: the images of each kind of split, and the files that name them.

    ``others`` are files with many lines that name no image: texts, or lists of a set of which these images are a part.
    """

    images: dict[str, set[str]]
    paths: list[str]
    others: list[str]


def read_split_lists(
    files: Files, images: Sequence[str], labels: Sequence[int], data: schema.Data, held_out: Collection[str] = ()
) -> SplitLists:
    """Returns the split of each image by the lists in a tree; of none if there are none.

    Where lists name held-out images alone, the others are train. Where no list can be read, there is a line about the
    first file that may be one.

    Args:
        files: The tree.
        images: Paths of the images that have a class.
        labels: Their classes.
        data: Settings, of which ``label_field`` is the header of the column that has the classes, and no splits, and
            ``folds`` and ``fold`` choose one of the folds that a column states.
        held_out: Kinds of splits that have folders of their own, whose images are none of these: lists of such a kind
            are about them, also where the names are equal.

    Raises:
        ConfigError: Lists contradict each other, or name a part of the images as train and no others.
    """
    if kinds := _read_names(images):
        return SplitLists(kinds, "the names of the images state the splits")
    unread = describe_unread(files, images)
    if not any(may_list(files, row, len(images)) for row in range(len(files.names))):
        return SplitLists({}, unread)  # without the index of the images, which is large for a large set
    index = Index(index_images(images))
    if (numbered := _read_numbered(files, index.images)) is not None:
        return numbered
    texts = [one for one in find_lists(files, index, len(images)) if one[1] not in held_out]
    unread = unread or _describe_others([(path, kind) for path, kind, named, _ in texts if not named])
    divisions = _group([*(one for one in texts if one[2]), *_find_json(files, images)], len(images))
    complete = {key: kinds for key, lists in divisions.items() if (kinds := _divide(files.root, lists, images))}
    if complete:
        return _choose(files.root, complete, divisions)
    columns = read_columns(files, images, data)
    if columns.kinds:
        return columns
    unread = columns.said if "data.folds=" in columns.said else unread or columns.said
    _refuse_partial(files.root, divisions, images)
    if "data.folds=" not in unread:
        refuse_unread(files, images, index, texts)
    unread = unread or describe_partial(texts, len(images))
    return SplitLists({}, unread or describe_divisions(files, index, dict(zip(images, labels, strict=True))))


def _group(listed: Sequence[tuple[str, str, set[str], bool]], count: int) -> dict[tuple[str, ...], _Lists]:
    """Returns the lists by the division that they are of: their folder, the words of their names, and numbers.

    Args:
        listed: Lists, as ``find_lists`` returns them.
        count: Number of images. Lists of which most lines name none are of a division that names nearly all.
    """
    beside: dict[tuple[str, str], list[str]] = {}
    for path, *_ in listed:
        beside.setdefault(place_of(path), []).append(read_name(path)[1])
    divisions: dict[tuple[str, ...], _Lists] = {}
    for path, kind, named, is_whole in listed:
        folder, stem = read_name(path)
        if is_evaluation(stem):
            kind = split_among(stem, beside[place_of(path)]) or kind
        rest = () if stem.lower() in SHORT_WORDS else rest_of(stem)
        key = (folder, *rest, "/", *re.findall(r"\d+", stem))
        lists = divisions.setdefault(key, _Lists({}, [], []))
        lists.images.setdefault(kind, set()).update(named)
        (lists.paths if is_whole else lists.others).append(path)
    for key, lists in list(divisions.items()):
        if lists.others and len(set().union(*lists.images.values())) < LISTED * count:
            del divisions[key]
        lists.paths.extend(lists.others)
    return divisions


def _describe_others(lists: Sequence[tuple[str, str]]) -> str:
    """Returns a line about texts named after train and a held-out split that name no image; empty for others."""
    if not {"train"} < {kind for _, kind in lists}:
        return ""
    named = list_some(sorted(path for path, _ in lists))
    return f"splits are drawn: {named} name none of the images, or several by one name"


def _read_names(images: Sequence[str]) -> dict[str, str]:
    """Returns the split of each image by the first word of its name, as ``test_0001.jpg``; empty unless all have one.

    As in RAF-DB, whose images are in one folder.
    """
    kinds: dict[str, str] = {}
    for image in images:
        word = _FIRST_WORD.match(image.rpartition("/")[2])
        if word is None or word[1].lower() not in SPLIT_WORDS:
            return {}
        kinds[image] = word[1].lower()
    codes = codes_of(set(kinds.values()))
    kinds = {image: codes[word] for image, word in kinds.items()}
    present = set(kinds.values())
    return kinds if "train" in present and len(present) > 1 else {}


def _find_json(files: Files, images: Sequence[str]) -> Iterator[tuple[str, str, set[str], bool]]:
    """Yields each JSON or MATLAB file named after a split that names images; see ``find_lists``."""
    if any(name.lower().endswith(_STRUCTURED) and split_of(read_name(name)[1]) for name in files.names):
        for table, _ in read_tables(files, images, _STRUCTURED):
            kind = split_of(read_name(table.path)[1])
            if kind is not None and find_column(table)[0] is None:
                yield table.path, kind, set(table.rows), True


def _divide(root: str, lists: _Lists, images: Sequence[str]) -> dict[str, str]:
    """Returns the split of each image by the lists of one division; empty if these are not train and held-out images.

    Raises:
        ConfigError: An image is in two of them.
    """
    named = dict(lists.images)
    both = named.pop("trainval", set())
    named.setdefault("train", both - named.get("val", set()))
    if not named["train"] and len(named) > 1:
        named["train"] = set(images).difference(*named.values())
    named = {kind: some for kind, some in named.items() if some}
    if "train" not in named or len(named) < 2:
        return {}
    kinds: dict[str, str] = {}
    for kind, some in named.items():
        for image in some:
            if kinds.setdefault(image, kind) != kind:
                raise ConfigError(
                    f"{root}: {escaped(image)} is in {kinds[image]} and in {kind} by {', '.join(lists.paths)}; "
                    f"keep it in one of them; {WITHOUT_LISTS}"
                )
    return kinds


def _choose(
    root: str, complete: Mapping[tuple[str, ...], dict[str, str]], divisions: Mapping[tuple[str, ...], _Lists]
) -> SplitLists:
    """Returns the division that all lists state, or the first of numbered ones.

    Raises:
        ConfigError: They state several, and are not numbered.
    """
    most = max(map(len, complete.values()))
    # Lists of a part of the images are about something else, as those of ImageSets/Segmentation of Pascal VOC.
    whole = [key for key, kinds in complete.items() if len(kinds) >= LISTED * most]
    first, *others = sorted(whole, key=lambda key: [(len(part), part) for part in key])
    different = [key for key in others if complete[key] != complete[first]]
    numbered = [key for key in different if key[: key.index("/")] == first[: first.index("/")]]
    shown = ", ".join(sorted(divisions[first].paths))
    if len(numbered) < len(different):
        other = next(key for key in different if key not in numbered)
        raise ConfigError(
            f"{root}: {shown} state other splits than {', '.join(sorted(divisions[other].paths))}: keep those that "
            f"count; {WITHOUT_LISTS}"
        )
    more = f", the first of {len(numbered) + 1} divisions" if numbered else ""
    return SplitLists(complete[first], f"{shown} state the splits{more}", divisions[first].paths)


def _read_numbered(files: Files, index: Mapping[str, str | None]) -> SplitLists | None:
    """Returns the splits of ``train_test_split.txt`` with numbers of images, whose names ``images.txt`` has."""
    rows = {path: row for row, path in enumerate(files.names)}
    for path, row in rows.items():
        folder, slash, name = path.rpartition("/")
        names = rows.get(f"{folder}{slash}images.txt")
        if name != "train_test_split.txt" or names is None:
            continue
        known = {
            number: match_name(text.strip(), index)
            for number, _, text in (line.strip().partition(" ") for line in decode(files.read(names)).splitlines())
        }
        marks = [line.split() for line in decode(files.read(row)).splitlines() if line.strip()]
        kinds = {
            image: IS_TRAIN[mark[1]]
            for mark in marks
            if len(mark) == 2 and mark[1] in IS_TRAIN and (image := known.get(mark[0])) is not None
        }
        if set(kinds.values()) == {"train", "test"}:
            return SplitLists(kinds, f"{path} states the splits", [path, files.names[names]])
    return None


def _refuse_partial(root: str, divisions: Mapping[tuple[str, ...], _Lists], images: Sequence[str]) -> None:
    """Refuses a list that names a part of the images as train where none names the others."""
    for lists in divisions.values():
        named = set().union(*lists.images.values())
        if len(named) <= LISTED * len(images):
            raise ConfigError(
                f"{root}: {', '.join(lists.paths)} names {len(named):,} of {len(images):,} images, and no list names "
                f"the held-out ones; add it; {WITHOUT_LISTS}"
            )
