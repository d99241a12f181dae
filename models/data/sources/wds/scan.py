"""Which members of a tar are samples of WebDataset, with the place of the image and the texts that may be a label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from infra.errors import DataError, NotFoundError, first_line
from models.data.sources.files import hidden, tar
from models.data.sources.files.camera_raw import SUFFIXES as RAW_SUFFIXES
from models.data.sources.files.container import join_parts
from models.data.sources.files.image_format import (
    EMPTY,
    HEAD_BYTES,
    KINDS_OF_TEXT,
    PACKED,
    RAW,
    TEXT,
    UNKNOWN,
    describe_kind,
    identify_content,
    identify_format,
)
from models.data.sources.files.reader import open_member
from models.data.sources.wds.labels import TEXTS, find_labels, list_keys, parse, split_field

_IMAGES = ("jpg", "jpeg", "png", "webp", "image", "img")  # suffixes that precede others if a sample has several images
_NO_IMAGES = (*KINDS_OF_TEXT, TEXT, EMPTY, UNKNOWN, *PACKED, "PDF", "NumPy", "Parquet", "HDF5", "video")
_SMALL_BYTES = {TEXT: 256, "NumPy": 512}  # of what may be a label; the header of an array has 128
_META = re.compile(r"__[^/]*__($|/)")  # names that webdataset skips
_MAX_TEXT_BYTES = 2**20
APART = "samples whose members are apart in the tar (tar --sort=name puts them together)"


class _Part(NamedTuple):
    """A member of a tar: its place, and its text, or its format if it is not read."""

    member: tar.Member
    kind: str
    text: bytes | None


class Sample(NamedTuple):
    """A sample with an image; ``labels`` are the values of the fields that may be its label."""

    key: str
    kind: str
    image: tar.Member
    labels: Mapping[str, str]


@dataclass
class Shard:
    """Content of one tar.

    Attributes:
        name: Name relative to the root.
        samples: Samples with an image.
        others: Reason and name of what is no sample, and whether it could be one.
        suffixes: Number of members by suffix.
        unread: The same of those that are neither an image nor a text that may hold a label.
        small: The same of these that are so short that they may be a label: texts and arrays of NumPy.
        json_keys: Keys of the first ``.json``.
        broken: What is wrong with the tar; empty for a whole one.
    """

    name: str
    samples: list[Sample] = field(default_factory=list)
    others: list[tuple[str, str, bool]] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    small: Counter[str] = field(default_factory=Counter)
    json_keys: tuple[str, ...] = ()
    broken: str = ""


def scan(root: str, name: str, label_field: str | None) -> Shard:
    """Reads the headers and labels of one tar, up to where it is damaged."""
    from webdataset.tariterators import group_by_keys

    shard = Shard(name)
    texts = TEXTS if label_field is None else (split_field(label_field)[0],)
    seen: dict[str, bool] = {}
    try:
        container = open_member(root, name)
        read_at, where = container.scanner(), join_parts(root, name)
        members = tar.iterate_members(read_at, where, 0, container.size)
        for sample in group_by_keys(_parts(shard, read_at, members, texts)):
            key = str(sample["__key__"])
            parts = {suffix: part for suffix, part in sample.items() if isinstance(part, _Part)}
            _add_sample(shard, key, parts, seen, label_field)
    except (DataError, NotFoundError) as error:
        shard.broken = first_line(error)
    return shard


def _parts(
    shard: Shard, read_at: tar.ReadAt, members: Iterator[tar.Member], texts: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yields the members as ``group_by_keys`` expects them, with a ``_Part`` in place of their bytes."""
    from webdataset.tariterators import base_plus_ext

    names: set[str] = set()
    for member in members:
        key, suffix = base_plus_ext(member.name)
        name = member.name if suffix is None else f"{key}.{suffix.lower()}"
        if any(map(hidden.is_hidden, member.name.split("/"))) or _META.match(member.name):
            shard.others.append((hidden.HIDDEN, member.name, False))
        elif name in names:
            shard.others.append(("members whose name an earlier member of the shard has", member.name, True))
        elif suffix is None or _META.fullmatch(suffix):
            shard.others.append(("members without a suffix", member.name, False))
        else:
            names.add(name)
            suffix = suffix.lower()
            shard.suffixes[suffix] += 1
            is_text = suffix in texts and member.size <= _MAX_TEXT_BYTES
            data = read_at(member.offset, member.size if is_text else min(member.size, HEAD_BYTES))
            part = _Part(member, TEXT, data) if is_text else _Part(member, _identify(data, suffix), None)
            shard.unread[suffix] += not is_text and part.kind in _NO_IMAGES
            shard.small[suffix] += not is_text and member.size <= _SMALL_BYTES.get(part.kind, -1)
            yield {"fname": member.name, "data": part, "__url__": shard.name}


def _identify(data: bytes, suffix: str) -> str:
    """Returns the format of a member by its first bytes; of a text in place of an image also which it is."""
    kind = identify_format(data)
    if kind == TEXT and suffix in _IMAGES:
        return identify_content(data)
    return RAW if kind == "TIFF" and f".{suffix}".endswith(RAW_SUFFIXES) else kind


def _describe_none(parts: Mapping[str, _Part]) -> str:
    """Returns the reason for a sample without an image: what has the suffix of one is named."""
    for suffix in _IMAGES:
        if suffix in parts:
            return f"samples whose .{suffix} is {describe_kind(parts[suffix].kind)}"
    return "samples without an image"


def _add_sample(
    shard: Shard, key: str, parts: Mapping[str, _Part], seen: dict[str, bool], label_field: str | None
) -> None:
    """Adds a sample, or the reason for which it is none; ``seen`` has the keys before it, and whether with an image."""
    images = [suffix for suffix, part in parts.items() if part.kind not in _NO_IMAGES]
    had_image = seen.get(key)
    seen[key] = bool(images or had_image)
    if had_image is not None and had_image != bool(images):
        shard.others.append((APART, key, True))
        return
    if not images:
        shard.others.append((_describe_none(parts), key, True))
        return
    if had_image:
        shard.others.append(("samples whose key an earlier sample of the shard has", key, True))
        return
    first = min(images, key=lambda suffix: _IMAGES.index(suffix) if suffix in _IMAGES else len(_IMAGES))
    for suffix in images:
        if suffix != first:
            shard.others.append((f"further images of samples, .{suffix}", key, False))
    labels: dict[str, str] = {}
    for suffix, part in parts.items():
        if part.text is not None:
            content = parse(suffix, part.text)
            shard.json_keys = shard.json_keys or list_keys(content)
            labels |= find_labels(suffix, content, label_field)
    shard.samples.append(Sample(key, parts[first].kind, parts[first].member, labels))
