"""Which image a text names: by the end of its path, with or without folders and suffix, in the spellings of tables."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

from models.data.sources.split_names import split_of

_SEARCHED = 20  # images whose names are looked for in a text
_ZEROS = re.compile(r"(?<![^/])0+(?=\d+(?:\.\w{1,5})?$)")
_SUFFIX = re.compile(r"\w{1,5}")


@dataclass(frozen=True)
class Index:
    """Images by the ends of their paths, as ``index_images`` returns them."""

    images: Mapping[str, str | None]

    @cached_property
    def folded(self) -> Mapping[str, str | None]:
        """The images by their folded ends, made only for tables that name none in its exact spelling."""
        return _fold(self.images)


def index_images(images: Iterable[str]) -> dict[str, str | None]:
    """Maps the ends of paths, with and without suffix, to the image; None where several images have that end."""
    index: dict[str, str | None] = {}
    for image in images:
        parts = image.split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for text in {end, end.rpartition(".")[0] or end}:
                index[text] = None if text in index and index[text] != image else image
    return index


def _fold(index: Mapping[str, str | None]) -> dict[str, str | None]:
    """Returns the index by ``fold_name``; None where several images have an end."""
    folded: dict[str, str | None] = {}
    for end, image in index.items():
        key = fold_name(end)
        folded[key] = None if key in folded and folded[key] != image else image
    return folded


def fold_name(text: str) -> str:
    """Returns a name without distinction of case, of the Unicode forms of a character, and of leading zeros.

    Zeros before a number are lost where a table was read as numbers, as by pandas.
    """
    return _ZEROS.sub("", unicodedata.normalize("NFC", text).casefold())


def list_below(in_order: Sequence[str], folder: str) -> Sequence[str]:
    """Returns those of sorted paths that are below a folder; none for the top."""
    after = chr(ord("/") + 1)
    return in_order[bisect_left(in_order, f"{folder}/") : bisect_left(in_order, folder + after)] if folder else ()


def index_split(index: Mapping[str, str | None], images: Sequence[str], kind: str | None) -> Mapping[str, str | None]:
    """Returns the index by which a table is read that, or a folder above it, is named after a kind of split.

    Images of other splits need their folder in the name, and names of several images mean that of this split.
    """
    if kind is None:
        return index
    kinds = {image: {split_of(part) for part in image.split("/")[:-1]} - {None} for image in images}
    possible = [image for image in images if not kinds[image] or kind in kinds[image]]
    known = index
    if len(possible) < len(images):
        with_folder = {end: image for end, image in index.items() if image is None or "/" in end}
        known = with_folder | index_images(possible)
    mine = index_images(image for image in possible if kinds[image]) if None in known.values() else {}
    return {end: mine.get(end) if image is None else image for end, image in known.items()}


def match_name(text: str, index: Mapping[str, str | None]) -> str | None:
    """Returns the image that a text names, by the longest end of it that is the end of one image's path."""
    path = text.replace("\\", "/")
    while True:
        stem, _, suffix = path.rpartition(".")
        for end in (path, stem) if _SUFFIX.fullmatch(suffix) else (path,):  # else a row: 1.jpg;cat;0
            if end in index:
                return index[end]
        if "/" not in path:
            break
        path = path.partition("/")[2]
    address = unquote(text.partition("?")[0]) if "%" in text or "?" in text else text  # as images of the web
    return None if address == text else match_name(address, index)


def names_one(text: str, images: Sequence[str]) -> bool:
    """Whether a text has the name of one of the first images, without suffix if that is long enough to be unique."""
    names = [image.rpartition("/")[2] for image in images[:_SEARCHED]]
    return any(name in text or (len(stem := name.rpartition(".")[0]) > 4 and stem in text) for name in names)
