"""Labels in the names of images, as in ``cat.0.jpg`` and ``dog.12499.jpg`` of kaggle.com/c/dogs-vs-cats."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

# A dot, because cameras number with other characters: IMG_0001, DSC-0001.
_NUMBERED = re.compile(r"([^\W\d][\w -]*)\.\d+\.\w{1,5}")


def read_names(images: Sequence[str]) -> dict[str, str]:
    """Returns the class of each image by the word before its number; empty unless all have one of a few words."""
    matches = {image: _NUMBERED.fullmatch(image.rpartition("/")[2]) for image in images}
    labels = {image: match[1] for image, match in matches.items() if match is not None}
    words = set(labels.values())
    return labels if len(labels) == len(images) and 2 <= len(words) <= len(images) // 2 else {}


def read_known_names(images: Sequence[str], words: Collection[str]) -> dict[str, str]:
    """Returns the class of each image by the word before its number; empty unless all have one of the words."""
    matches = {image: _NUMBERED.fullmatch(image.rpartition("/")[2]) for image in images}
    labels = {image: match[1] for image, match in matches.items() if match is not None and match[1] in words}
    return labels if len(labels) == len(images) else {}
