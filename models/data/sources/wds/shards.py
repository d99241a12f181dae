"""WebDataset shards that others wrote: webdataset's ShardWriter, img2dataset, public conversions of data sets.

The rules by which the members of a tar become samples are those of ``webdataset`` (``group_by_keys``). Its openers and
decoders are not used: an address cannot run a command, and no member is unpickled. Tars are read by the reader of
``tar.py``, which notices the damage that webdataset passes. Only texts that may hold a label are read here, and of
other members the first bytes, from which an image is recognized.

Every member that does not become part of a sample is counted by reason, as in a folder (``folder.py``).
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from conf import schema
from conf.data_set import IN_PLACE, REWRITTEN
from conf.text import list_some, logger
from infra.errors import ConfigError, DataError, EffnetError, NotFoundError
from models.data.sources import listing
from models.data.sources.class_file import parse_names, rank_labels, read_class_names, read_small
from models.data.sources.class_remarks import (
    compare_classes,
    describe_labels,
    find_measurement,
    refuse_other_spellings,
    require_common_classes,
)
from models.data.sources.files import archive, decompress, tar
from models.data.sources.files.container import Container, join_parts
from models.data.sources.files.image_format import CONVERTIBLE, DECODED, describe_kind
from models.data.sources.listing import NAMED, Listing, Source
from models.data.sources.unused import Unused
from models.data.sources.wds.addresses import (
    ShardAddresses,
    find_gaps,
    find_shards,
    find_split,
    may_be_shard,
    name_without_number,
)
from models.data.sources.wds.field_remarks import (
    OTHER_LABEL,
    describe_contents,
    describe_fields,
    describe_keys,
    describe_unread,
    refuse_two_forms,
)
from models.data.sources.wds.labels import FIELDS, NUMBER, UNREAD, LabelReader, is_read
from models.data.sources.wds.scan import Shard, scan

log = logger()
_SCAN_THREADS = 8
# Files beside shards that may have the names of numbered classes.
_CLASS_NAMES = re.compile(r".*(class|label|categor|synset).*\.(txt|json|ya?ml|pbtxt)", re.IGNORECASE)
_FEW_NAMES = 4  # of shards, which may be those of splits


def locate_root(data: schema.Data) -> str:
    """Returns the folder that the shards are in; downloads those of ``https://`` that this machine lacks."""
    return find_shards(data).root


def open_shards(data: schema.Data) -> Source:
    """Opens WebDataset shards; a number as label is the class of that name, unless ``data.class_file`` names it.

    Raises:
        ConfigError: No such shards, no labels in them, or many samples that cannot be used.
        DataError: Shards are damaged or missing, without ``data.allow_partial``.
        TransientError: A server does not respond.
    """
    shards = find_shards(data)
    if data.shards == IN_PLACE:
        _require_plain(shards)
    with ThreadPoolExecutor(_SCAN_THREADS, thread_name_prefix="scan") as pool:
        scans = list(pool.map(lambda name: scan(shards.root, name, data.label_field), shards.parts))
    broken = [f"{one.name}: {one.broken}" for one in scans if one.broken]
    missing = []
    if broken:
        named = list_some(broken, separator="; ")
        missing.append(f"shards: {len(broken)} of {len(scans)} are damaged or missing; {named}")
    unread = [name for name in shards.others if may_be_shard(name, shards.parts)]
    if unread:
        missing.append(
            f"shards: {len(unread)} files beside the {len(scans)} shards look like more and are not read, as "
            f"{', '.join(unread[:NAMED])}: decompress or convert them to .tar, or finish their download"
        )
    listing.require_complete(data, missing)
    label_field = data.label_field or _choose_field(scans)
    read = LabelReader.of(label_field, (sample.labels for shard in scans for sample in shard.samples))
    shards, tests = _set_aside_tests(data, shards, scans, read)
    scans = [one for one in scans if one.name in shards.parts]
    for split in sorted(set(shards.parts.values())):
        refuse_two_forms(data, [one for one in scans if shards.parts[one.name] == split], read)
    classes = _list_classes(data, scans, read)
    entries, unused, said = _list_samples(data, shards, scans, read, classes)
    for shard in tests:
        for sample in shard.samples:
            reason = f"samples of test without a label in {read.field}, which are in no split"
            unused.add(reason, f"{shard.name}: {sample.key}", could_be_sample=False)
    if not entries.rows:
        raise ConfigError(describe_contents(data, scans, read, unused, shards.others))
    for name in shards.others:
        if name not in unread:
            unused.add("files beside the shards", name, could_be_sample=False)
    unused.check(data, len(entries.rows))
    refuse_other_spellings(data, entries)
    require_common_classes(entries, f"{data.name} at {data.path}")
    source = dataclasses.replace(
        entries.source(missing),
        unused=unused.lines(),
        class_differences=(
            *compare_classes(entries, {str(part): part for part in sorted(set(entries.split))}),
            *describe_labels(classes),
            *filter(None, (said,)),
        ),
    )
    _report(data, shards, scans, source, label_field)
    return source


def _set_aside_tests(
    data: schema.Data, shards: ShardAddresses, scans: Sequence[Shard], read: LabelReader
) -> tuple[ShardAddresses, list[Shard]]:
    """Sets shards of test aside of which no sample has a label, as of a competition: then those of val are val.

    Returns:
        The other shards, and those of test.
    """
    tests = [one for one in scans if shards.parts[one.name] == listing.VAL and find_split(one.name) == "test"]
    are_labelled = not all(read.is_without(sample.labels) for shard in tests for sample in shard.samples)
    if data.val_path or len(tests) == len(scans) or are_labelled:
        return shards, []
    names = {one.name for one in tests}
    parts = {
        name: listing.VAL if tests and part == listing.MINIVAL else part
        for name, part in shards.parts.items()
        if name not in names
    }
    return dataclasses.replace(shards, parts=parts), tests


def _require_plain(shards: ShardAddresses) -> None:
    """Refuses compressed shards, which have no places that could be read; those that are missing are named later."""

    def find_kind(name: str) -> str:
        try:
            return decompress.find_compression(Container(join_parts(shards.root, name)))
        except (DataError, NotFoundError):
            return ""

    with ThreadPoolExecutor(_SCAN_THREADS, thread_name_prefix="scan") as pool:
        kinds = dict(zip(shards.parts, pool.map(find_kind, shards.parts), strict=True))
    if compressed := [name for name, kind in kinds.items() if kind]:
        raise ConfigError(
            f"data.shards={IN_PLACE} reads plain tars; {len(compressed)} of {len(kinds)} shards are compressed, as "
            f"{compressed[0]} ({kinds[compressed[0]]}): data.shards={REWRITTEN} decompresses and rewrites them"
        )


def _report(
    data: schema.Data, shards: ShardAddresses, scans: Sequence[Shard], source: Source, label_field: str
) -> None:
    numbers = Counter(listing.SPLITS[part] for part in shards.parts.values())
    counts = ", ".join(f"{number:,} of {split}" for split, number in numbers.items())
    log.info("%s: %d shards (%s); labels are the field %s", data.name, len(scans), counts, label_field)
    unread = sum((shard.unread for shard in scans), Counter[str]())
    for suffix, number in sorted((+unread).items()):
        log.info("%s: %s fields .%s are not read", data.name, f"{number:,}", suffix)
    keys = Counter(sample.key for shard in scans for sample in shard.samples)
    if repeated := sum(number > 1 for number in keys.values()):
        log.warning(
            "%s: %s keys are in several shards, as %s; their samples are all used",
            data.name,
            f"{repeated:,}",
            next(key for key, number in keys.items() if number > 1),
        )
    if gaps := find_gaps(shards.parts):
        log.warning("%s: the numbers of the shards have gaps, as if shards were missing: no %s", data.name, gaps)
    if data.class_file is None and all(map(NUMBER.fullmatch, source.classes)):
        for name in shards.others:
            path = join_parts(shards.root, name)
            if _CLASS_NAMES.fullmatch(name.rpartition("/")[2]) and _may_name(path, source.classes):
                log.info("%s: data.class_file=%s would give the classes their names, if it has these", data.name, path)
    if said := tar.describe_escaped(sample.image.name for shard in scans for sample in shard.samples):
        log.warning("%s: %s", data.name, said)
    for line in describe_fields(scans, label_field):
        log.warning("%s: %s", data.name, line)
    words = Counter(map(name_without_number, shards.parts))
    if set(shards.parts.values()) == {listing.TRAIN} and 1 < len(words) <= _FEW_NAMES and min(map(len, words)) > 1:
        log.warning(
            "%s: the shards of %s are all train, and a part of them becomes val; data.val_path names the shards of val",
            data.name,
            " and ".join(sorted(words)),
        )
    if len(set(source.labels.tolist())) == 1:
        log.warning("%s: all images are of one class, %s", data.name, source.classes[source.labels[0]])
    for line in (*source.missing, *source.class_differences, *source.unused):
        log.warning("%s: %s", data.name, line)


def _choose_field(scans: Sequence[Shard]) -> str:
    """Returns the field that most samples have a label in."""
    samples = (sample.labels for shard in scans for sample in shard.samples)
    counts = Counter(name for labels in samples for name, value in labels.items() if is_read(value))
    chosen = max(FIELDS, key=lambda name: (counts[name], -FIELDS.index(name)))
    if chosen == "txt":
        texts = Counter(sample.labels["txt"] for shard in scans for sample in shard.samples if "txt" in sample.labels)
        if 2 * len(texts) > texts.total():
            unread = describe_unread(scans) or "; set data.label_field to the field with the labels"
            raise ConfigError(
                f"the .txt fields hold {len(texts):,} different texts in {texts.total():,} samples, which are captions "
                f"rather than classes{describe_keys(scans)}{unread}"
            )
    return chosen


def _may_name(path: str, classes: Sequence[str]) -> bool:
    """Whether a file has as many names of classes as the numbers of the labels need; also one that cannot be read."""
    if path.startswith(("http://", "https://")):
        return True
    try:
        names = parse_names(read_small(path, "data.class_file"), path, path)
    except EffnetError:
        return False
    return len(names) > max(map(int, classes))


def _list_classes(data: schema.Data, scans: Sequence[Shard], read: LabelReader) -> list[str]:
    """Returns the names in ``data.class_file``, or all labels in the order of numbers or of the alphabet."""
    if data.class_file is not None:
        return read_class_names(data.class_file, "data.class_file")
    labels = {label for shard in scans for sample in shard.samples if (label := read(sample.labels))}
    count = sum(read(sample.labels) is not None for shard in scans for sample in shard.samples)
    if measured := find_measurement(labels, count):
        raise ConfigError(
            f"{data.name} at {data.path}: {read.field} has {len(labels):,} different labels in {count:,} samples, as "
            f"{measured}, which are measurements rather than classes; data.label_field names another field"
        )
    if all(map(NUMBER.fullmatch, labels)):
        return sorted((label for label in labels if not label.startswith("-")), key=int)
    return sorted(labels)


def _list_samples(
    data: schema.Data, shards: ShardAddresses, scans: Sequence[Shard], read: LabelReader, classes: Sequence[str]
) -> tuple[Listing, Unused, str]:
    """Lists the samples that have a label and a format that is decoded; counts the others.

    Returns:
        The samples, the others, and a remark on what the labels mean; empty for usual ones.
    """
    labels = {label for shard in scans for sample in shard.samples if (label := read(sample.labels))}
    rank, said = rank_labels(data.class_file, classes, labels)
    strange = min(labels - rank.keys(), default="")
    taken = (*DECODED, *CONVERTIBLE) if data.convert else DECODED
    unused, files, label_field = Unused(), [], read.field
    chosen: list[tuple[str, int, int]] = []
    for shard in scans:
        members = []
        stem = shard.name.removesuffix(".tar")
        if not shard.samples and not shard.others:
            unused.add("shards that hold nothing", shard.name, could_be_sample=False)
        for reason, name, could_be in shard.others:
            unused.add(reason, f"{shard.name}: {name}", could_be_sample=could_be)
        for sample in shard.samples:
            name, label = f"{shard.name}: {sample.key}", read(sample.labels)
            if read.has_several(sample.labels):
                unused.add(
                    f"samples with several labels in {label_field} (one is read, also as a one-hot vector)", name
                )
            elif read.has_other(sample.labels):
                unused.add(
                    f"samples whose {label_field} is no UTF-8 text of one line, whole number or list of them", name
                )
            elif label is None or (label.startswith("-") and label not in rank):
                others = [one for one in FIELDS if label is None and is_read(sample.labels.get(one, UNREAD))]
                other = f", which have one in {others[0]}" if others else ""
                unused.add(f"samples without a label in {label_field}{other}", name)
            elif label not in rank:
                unused.add(f"{OTHER_LABEL} the {len(classes):,} classes, as {strange!r}", name)
            elif sample.kind not in taken:
                described = describe_kind(sample.kind)
                if sample.kind in CONVERTIBLE and data.shards != REWRITTEN:
                    described = described.replace("(", f"(data.shards={REWRITTEN} ")
                unused.add(f"{sample.kind} images{described[len(sample.kind) :]}", name)
            else:
                members.append(sample.image)
                chosen.append((f"{stem}/{sample.image.name}", rank[label], shards.parts[shard.name]))
        if members:  # a shard without any may be missing
            files.append(archive.list_members(shards.root, shard.name, "", members))
    files = files or [archive.list_members(shards.root, scans[0].name, "", [])]
    entries = Listing(archive.merge_files(files), list(classes))
    for row, (name, number, part) in enumerate(chosen):
        entries.add(row, name, number, part)
    used = set(entries.labels)
    for number, name in enumerate(classes):
        if number not in used:
            unused.add("classes without images", name, could_be_sample=False)
    return entries, unused, said
