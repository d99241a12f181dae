"""What is said about the classes of a set: those that a split lacks, names that look alike, masks, several labels."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from conf.text import list_some
from models.data.sources import listing
from models.data.sources.listing import Listing

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
        spellings.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    alike = [", ".join(map(ascii, names)) for names in spellings.values() if len(names) > 1]
    if alike:
        lines.append(f"classes whose names look alike: {list_some(alike, separator='; ')}")
    return tuple(lines)


def describe_masks(names: Sequence[str]) -> tuple[str, ...]:
    """Returns a remark if images are named as the masks of others beside them, as ``1_mask.png`` beside ``1.png``."""
    stems = {name.rpartition(".")[0] for name in names}
    masks = [name for name in names if (mark := _MASK.search(name)) and name[: mark.start()] in stems]
    if not masks:
        return ()
    return (f"{len(masks):,} images are named as masks of others and count as images, first {min(masks)}",)


def describe_combined(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns a remark if names of classes are several others, as ``rust|scab`` beside ``rust``: labels of two."""
    known = set(classes)
    combined = [
        name
        for name in classes
        if len(words := [word for word in re.split(r"[|;, ]+", name) if word]) > 1 and known.intersection(words)
    ]
    if not combined:
        return ()
    return (f"{len(combined)} classes look like several labels of one image and count as classes, as {combined[0]!r}",)
