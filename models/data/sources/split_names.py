"""Reads names of folders, files and columns as splits, train, val and test, in many spellings.

Names are read as words: ``TrainImages``, ``images_train``, ``train2017`` and ``trainset`` are train. Words of a content
make a class, as in ``train_station`` and ``test_tube``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
    "holdout": "test",
}
# Names that state a split only beside others like them, as tr beside te.
SHORT_WORDS = {"tr": "train", "trn": "train", "va": "val", "ts": "test", "te": "test", "tst": "test"}
_EVALUATIONS = frozenset(("eval", "evaluation"))
BOTH = "trainval"  # kind of a folder that holds train and val
# Words of names that say nothing of the content.
FILLERS = (
    *("images", "image", "imgs", "img", "pictures", "pics", "photos", "jpegimages", "jpegs", "jpeg", "jpg", "png"),
    *("dataset", "datasets", "data", "sets", "set", "splits", "split", "subset", "folder", "files", "samples"),
    "default",
)
_STAGES = frozenset(("stg", "stage", "part", "public", "private"))  # of a competition, whose test has several
_HOLDOUT = re.compile(r"h[eo]ld[ _-]?out", re.IGNORECASE)
_ANY_CLASS = frozenset(("all", "class", "classes", "dummy", "none", "public", "private", "unclassified", "unknown"))
_UNLABELLED = frozenset(("pred", "predict", "prediction", "predictions", "unlabelled", "unlabeled"))


def kind_of(name: str) -> str | None:
    """Returns what a folder's name states beside words without a content: train, val or test; None for a class."""
    kind, rest = read_name(name)
    return None if rest else "train" if kind == BOTH else kind


def kind_of_text(text: str) -> str | None:
    """Returns what a text of a column states as ``kind_of``; test also for a part of it, as PublicTest of FER2013."""
    return "test" if is_part_of_test(text) else kind_of(text)


def short_kinds(names: Collection[str]) -> dict[str, list[str]]:
    """Returns names by the kinds of splits if all are splits, some of them short, as ``tr`` and ``te``; else empty."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(names):
        kinds.setdefault(SHORT_WORDS.get(name.lower()) or kind_of(name) or "", []).append(name)
    is_short = not SHORT_WORDS.keys().isdisjoint(map(str.lower, names))
    return kinds if is_short and "" not in kinds and "train" in kinds and len(kinds) > 1 else {}


def has_splits(folders: Collection[str]) -> bool:
    """Whether folders are train and a held-out split by their names, perhaps among others."""
    kinds = {kind_of(folder) for folder in folders}
    return "train" in kinds and not kinds.isdisjoint(("val", "test"))


def names_no_class(name: str) -> bool:
    """Whether a name says nothing of the content, as ``images`` or ``trainset``."""
    return not read_name(name)[1] and bool(words_of(name))


def is_unlabelled(folder: str) -> bool:
    """Whether a folder beside splits is named after images without classes, as ``seg_pred`` or ``unlabelled``."""
    words = words_of(folder)
    return not _UNLABELLED.isdisjoint(words) or words in (["no", "label"], ["no", "labels"], ["without", "label"])


def holds_any_class(folder: str) -> bool:
    """Whether a folder in a test split is named after images of any class, as ``images``, ``unknown`` or ``all``.

    Loaders that expect a folder of a class around each image made people create one.
    """
    words = set(words_of(folder))
    return (
        names_no_class(folder) or names_unlabelled(folder) or (bool(words) and words <= {*_ANY_CLASS, *FILLERS, "test"})
    )


def names_unlabelled(folder: str) -> bool:
    """Whether a folder beside classes is named after images without classes and nothing else, as ``pred``."""
    return is_unlabelled(folder) and set(words_of(folder)) <= {*_UNLABELLED, *FILLERS, "no", "label", "labels"}


def split_of(name: str, both: str | None = None) -> str | None:
    """Returns the split that the words of a name state, as train for ``Train_labels.csv``; None for no single one.

    Args:
        name: Name of a file or folder.
        both: What is returned for train and val together, as of ``trainval``.
    """
    kind = read_name(name)[0]
    return both if kind == BOTH else kind


def rest_of(name: str) -> tuple[str, ...]:
    """Returns the words of a name that neither state a split nor say nothing of the content."""
    return read_name(name)[1]


def split_among(name: str, names: Collection[str]) -> str | None:
    """Returns ``split_of`` of a file beside others, where ``eval.txt`` beside ``val.txt`` is test, as for folders."""
    kind = split_of(name)
    others = {(split_of(one), is_evaluation(one)) for one in names}
    is_other = kind == "val" and is_evaluation(name) and ("val", False) in others
    return "test" if is_other and not {("test", False), ("test", True)} & others else kind


def codes_of(texts: Collection[str]) -> dict[str, str]:
    """Returns the kinds of splits by the words of a column, in which ``eval`` beside ``val`` is test."""
    return {word: split_among(word, texts) or kind for word, kind in SPLIT_WORDS.items()}


def is_evaluation(name: str) -> bool:
    """Whether a name states an evaluation, which is val, or test beside another val."""
    return not _EVALUATIONS.isdisjoint(words_of(name))


def is_part_of_test(name: str) -> bool:
    """Whether a name is that of test or a part of it, as ``test_stg1`` and ``PublicTest`` of competitions."""
    kind, rest = read_name(name)
    return kind == "test" and _STAGES.issuperset(rest)


def words_of(name: str) -> list[str]:
    """Returns the words of a name: parts of letters, also those that begin with a capital as in ``TrainImages``."""
    parts = re.split(r"([\W\d_]+)", _HOLDOUT.sub("holdout", name))
    # Of a single word in any case, as tRain, the capitals begin none.
    spaced = "".join(
        part if part.casefold() in SPLIT_WORDS else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", part) for part in parts
    )
    return [word for word in re.split(r"[\W\d_]+", unicodedata.normalize("NFC", spaced).casefold()) if word]


@lru_cache(maxsize=4096)  # every image of a table's folder is read by the name of its folders
def read_name(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Returns the kind of split that a name states, if it is a single one, and its words with a content."""
    kinds, rest = [], []
    for word in words_of(name):
        kind = kind_of_word(word)
        if kind is not None:
            kinds.append(kind)
        elif word not in FILLERS:
            rest.append(word)
    if set(kinds) == {"train", "val"}:
        return BOTH, tuple(rest)
    return (kinds[0] if len(set(kinds)) == 1 else None), tuple(rest)


def kind_of_word(word: str) -> str | None:
    """Returns the kind of a word, also of one that is written together with another, as ``testset`` or ``trainval``."""
    if word in SPLIT_WORDS:
        return SPLIT_WORDS[word]
    for split, kind in SPLIT_WORDS.items():
        rest = word.removeprefix(split) if word.startswith(split) else word.removesuffix(split)
        if rest != word and rest in FILLERS:
            return kind
        if rest != word and {kind, SPLIT_WORDS.get(rest)} == {"train", "val"}:
            return BOTH
    return None
