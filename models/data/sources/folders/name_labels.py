"""Labels in the names of images, as in ``cat.0.jpg`` and ``dog.12499.jpg`` of kaggle.com/c/dogs-vs-cats."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

# Forms of names that may have the class, which nobody knows but the user: in the syntax of sed -E and of Python.
_FORMS = (
    r"([^/]*[^/ ]) *\([0-9]+\)",  # cat (1), as Windows renames several files
    *(
        form.replace("_", separator)
        for separator in "_-"
        for form in (r"([^/]*)_[^/_]*", r"([^/_]*)_[^/]*", r"[^/]*_([^/_]*)")
    ),
    r"([^/0-9]*[^/0-9 ]) *[0-9]+",  # cat1
)
_SHOWN = 5  # classes in a message
_PLAIN = re.compile(r"[^,\"\n]*")
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


def describe_command(images: Sequence[str], root: str) -> str:
    """Returns a command that writes a CSV file with a word of each name as its class; empty unless few words repeat.

    As of Food-11 (``0_123.jpg``), which cannot be told from ``IMG_123.jpg`` of two cameras.

    Args:
        images: Paths of the images.
        root: The tree, which is a folder on this machine, or nothing is returned.
    """
    if not Path(root).is_dir() or not all(map(_PLAIN.fullmatch, images)):
        return ""
    stems = [image.rpartition("/")[2].rpartition(".")[0] for image in images]
    for form in _FORMS:
        matches = [re.fullmatch(form, stem) for stem in stems]
        words = {match[1] for match in matches if match is not None and match[1]}
        if None not in matches and 2 <= len(words) <= len(images) // 2:
            suffixes = "|".join(sorted({image.rpartition(".")[2] for image in images}))
            shown = ", ".join(sorted(words)[:_SHOWN]) + ", ..." * (len(words) > _SHOWN)
            return (
                f"; if the classes are {shown} in the names of the images, this writes the CSV file: "
                f"cd {shlex.quote(root)} && (echo image,label; find . -type f | "
                f"sed -nE 's#^(.*/)?{form}[.]({suffixes})$#&,\\2#p') > labels.csv"
            )
    return ""
