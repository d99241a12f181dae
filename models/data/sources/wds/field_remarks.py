"""What is said about the fields of shards: where labels may be that are not read, and labels of two forms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from conf import schema
from conf.text import list_some
from infra.errors import ConfigError
from models.data.sources.listing import NAMED
from models.data.sources.unused import Unused
from models.data.sources.wds.labels import FIELDS, NUMBER, LabelReader, is_read, split_field
from models.data.sources.wds.scan import APART, Shard

_PICKLES = ("pyd", "pkl", "pickle", "pth", "pt")  # suffixes that webdataset's decoder unpickles
_PACKED = ("npz", "mp", "msgpack", "msg", "cbor", "ten", "tb")  # that are not read; the last of webdataset's tensors
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
OTHER_LABEL = "samples with a label that is none of"  # the classes
_DOCUMENTS = ("yaml", "yml", "xml", "csv", "tsv", "jsonl", "html", "toml")  # texts that hold more than a label
_LABEL_WORDS = frozenset(("cls", "class", "label", "labels", "target", "targets", "category"))
_MANY_FIELDS = 20  # of a shard, above which the names have dots within the keys


def describe_fields(scans: Sequence[Shard], label_field: str) -> list[str]:
    """Returns a line for each other field whose labels divide the samples in another way, as classes of their own."""
    lines = []
    present = {field for shard in scans for sample in shard.samples[:1] for field in sample.labels}
    for field in (field for field in FIELDS if field in present and field != label_field):
        samples = (sample.labels for shard in scans for sample in shard.samples)
        pairs = Counter(
            (labels[label_field], labels[field])
            for labels in samples
            if label_field in labels and field in labels and is_read(labels[field])
        )
        mine, others = {one for one, _ in pairs}, {other for _, other in pairs}
        is_equal = len(mine) == len(others) == len(pairs) and (mine != others or all(one == two for one, two in pairs))
        if len(others) > 1 and 2 * len(others) <= pairs.total() and not is_equal:  # not captions, nor one text for all
            lines.append(
                f"the classes are the {len(mine):,} labels of {label_field}, and not the {len(others):,} of {field}, "
                f"which divide the samples in another way: data.label_field={field} takes these"
            )
    return lines


def refuse_two_forms(data: schema.Data, scans: Sequence[Shard], read: LabelReader) -> None:
    """Refuses shards of a split of which some have numbers and the others names as labels, as classes of their own.

    Raises:
        ConfigError: There are such, and ``data.class_file`` does not say which name has which number.
    """
    forms: dict[bool, dict[str, list[str]]] = {True: {}, False: {}}
    for shard in scans:
        labels = {label for sample in shard.samples if (label := read(sample.labels)) and not label.startswith("-")}
        are_numbers = {NUMBER.fullmatch(label) is not None for label in labels}
        if len(are_numbers) > 1:
            return  # as digits and letters, which are classes of one set
        for one in are_numbers:
            forms[one][shard.name] = sorted(labels)
    if data.class_file is None and all(forms.values()):
        shown = [f"{min(some)} has {list_some(some[min(some)])}" for some in (forms[True], forms[False])]
        raise ConfigError(
            f"{data.name} at {data.path}: the labels of {len(forms[True])} shards are numbers, and of "
            f"{len(forms[False])} names: {', '.join(shown)}; data.class_file=FILE with the names in the order of the "
            "numbers takes both as the same classes"
        )


def describe_contents(
    data: schema.Data, scans: Sequence[Shard], read: LabelReader, unused: Unused, beside: Sequence[str]
) -> str:
    """Returns why shards have no sample that can be used: what they hold, and what to do.

    Args:
        data: Settings.
        scans: The shards.
        read: Reader of the labels.
        unused: Why each sample is not used.
        beside: Files beside the shards.
    """
    suffixes = sum((shard.suffixes for shard in scans), Counter[str]())
    seen = ", ".join(f".{suffix} {number:,}" for suffix, number in suffixes.most_common(10)) or "none"
    lines = "".join(f"; {line}" for line in unused.lines()[:NAMED])
    if len(suffixes) > _MANY_FIELDS:
        lines += f"; {len(suffixes):,} fields are too many: a field is what follows the first dot of a name"
    lacking, remedy = f"no sample with an image and a label in {read.field}", ""
    if APART in unused.names:
        pass  # which is all there is to say
    elif any(reason.startswith(OTHER_LABEL) for reason in unused.names):
        lacking = "no sample with a label that is one of the classes"
    elif any(read(sample.labels) is not None for shard in scans for sample in shard.samples):
        lacking = "no sample with an image that is read"
    elif not any(shard.samples for shard in scans):
        is_decoded = any(suffix.rpartition(".")[2] in (*_PICKLES, *_PACKED, "npy") for suffix in suffixes)
        lacking = "no sample with an image that is read"
        remedy = "; arrays and pickles are no images: write these encoded, as .jpg or .png" * is_decoded
    else:
        remedy = describe_keys(scans) + _describe_labels(data, scans, suffixes, beside)
    return f"{data.name} at {data.path}: {lacking}; its fields are {seen}{lines}{remedy}"


def _describe_labels(
    data: schema.Data, scans: Sequence[Shard], suffixes: Collection[str], beside: Sequence[str]
) -> str:
    """Returns where labels may be, and what to do, for a message."""
    if data.label_field and "json" in suffixes and split_field(data.label_field)[0] not in suffixes:
        return f"; a key of .json is written json.{data.label_field}"
    if tables := sorted(name for name in beside if name.lower().endswith(_TABLES)):
        return (
            f"; {tables[0]} beside the shards is not read: if it has the labels by key, write the shards again with "
            "these as .cls"
        )
    unread = describe_unread(scans)
    remedy = (
        "set data.label_field to the field with the labels, or take data=folder for a tar with one folder per class"
    )
    return unread or f"; {remedy}"


def describe_keys(scans: Sequence[Shard]) -> str:
    """Returns the keys of the first JSON, for a message; empty without any."""
    keys = next((shard.json_keys for shard in scans if shard.json_keys), ())
    named = [key for key in keys if "." in key and not _LABEL_WORDS.isdisjoint(key.lower().split("."))]
    named.sort(key=lambda key: not key.lower().endswith("name"))
    hint = f": data.label_field=json.{named[0]} takes one" if named else ""
    return f"; the .json fields have the keys {', '.join(keys[:20])}{hint}" if keys else ""


def describe_unread(scans: Sequence[Shard]) -> str:
    """Returns which fields that are not read may have the labels, and what to do, for a message; empty for none."""
    suffixes = sum((shard.suffixes for shard in scans), Counter[str]())
    unread = sum((shard.unread for shard in scans), Counter[str]())
    small = sum((shard.small for shard in scans), Counter[str]())
    count = sum(len(shard.samples) for shard in scans)
    if len(suffixes) > _MANY_FIELDS:
        return ""
    ends = {suffix: suffix.rpartition(".")[2] for suffix in suffixes if 2 * suffixes[suffix] > count}
    short = [one for one, end in ends.items() if end not in _DOCUMENTS and 2 * small[one] > count]
    if short:
        first = min(short, key=lambda one: (_LABEL_WORDS.isdisjoint(one.split(".")), one))
        return f"; {_list(short)} may have the labels: data.label_field={first} reads these"
    if pickles := [suffix for suffix, end in ends.items() if end in _PICKLES]:
        return (
            f"; {_list(pickles)} are pickles, which are not read, since one could run code: if they can be trusted, "
            "write the shards again with the labels as text, as .cls, by webdataset.TarWriter"
        )
    if others := [one for one, end in ends.items() if end in (*_PACKED, *_DOCUMENTS) and 2 * unread[one] > count]:
        return f"; {_list(others)} are not read: write the shards again with the labels as text, as .cls"
    return ""


def _list(suffixes: Sequence[str]) -> str:
    return list_some(sorted(f".{suffix}" for suffix in suffixes))
