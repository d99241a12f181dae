"""What is said about the fields of shards: where labels may be that are not read, and labels of two forms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from conf import schema
from conf.text import list_some
from infra.errors import ConfigError
from models.data.sources.listing import NAMED
from models.data.sources.unused import Unused
from models.data.sources.wds.labels import FIELDS, NUMBER, LabelReader, is_read, split_field
from models.data.sources.wds.scan import Shard

_PICKLES = ("pyd", "pkl", "pickle", "pth", "pt")  # suffixes that webdataset's decoder unpickles
_PACKED = ("npz", "mp", "msgpack", "msg", "cbor", "ten", "tb")  # that are not read; the last of webdataset's tensors
_DOCUMENTS = ("yaml", "yml", "xml", "csv", "tsv", "jsonl", "html", "toml")  # texts that hold more than a label
_LABEL_WORDS = frozenset(("cls", "class", "label", "labels", "target", "targets", "category"))
_MANYFIELDS = 20  # of a shard, above which the names have dots within the keys


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


def describe_contents(data: schema.Data, scans: Sequence[Shard], read: LabelReader, unused: Unused) -> str:
    """Returns why shards have no sample that can be used: what they hold, and what to do."""
    suffixes = sum((shard.suffixes for shard in scans), Counter[str]())
    seen = ", ".join(f".{suffix} {number:,}" for suffix, number in suffixes.most_common(10)) or "none"
    lines = "".join(f"; {line}" for line in unused.lines()[:NAMED])
    if len(suffixes) > _MANYFIELDS:
        lines += f"; {len(suffixes):,} fields are too many: a field is what follows the first dot of a name"
    if any(read(sample.labels) is not None for shard in scans for sample in shard.samples):
        return f"{data.name} at {data.path}: no sample with an image that is read; its fields are {seen}{lines}"
    if data.label_field and "json" in suffixes and split_field(data.label_field)[0] not in suffixes:
        lines += f"; a key of .json is written json.{data.label_field}"
    unread = describe_unread(scans)
    remedy = (
        "set data.label_field to the field with the labels, or take data=folder for a tar with one folder per class"
    )
    return (
        f"{data.name} at {data.path}: no sample with an image and a label in {read.field}; its fields are {seen}"
        f"{describe_keys(scans)}{lines}{unread or f'; {remedy}'}"
    )


def describe_keys(scans: Sequence[Shard]) -> str:
    """Returns the keys of the first JSON, for a message; empty without any."""
    keys = next((shard.json_keys for shard in scans if shard.json_keys), ())
    named = [key for key in keys if key.rpartition(".")[2].lower() in _LABEL_WORDS and "." in key]
    hint = f": data.label_field=json.{named[0]} takes one" if named else ""
    return f"; the .json fields have the keys {', '.join(keys[:20])}{hint}" if keys else ""


def describe_unread(scans: Sequence[Shard]) -> str:
    """Returns which fields that are not read may have the labels, and what to do, for a message; empty for none."""
    suffixes = sum((shard.suffixes for shard in scans), Counter[str]())
    unread = sum((shard.unread for shard in scans), Counter[str]())
    small = sum((shard.small for shard in scans), Counter[str]())
    count = sum(len(shard.samples) for shard in scans)
    if len(suffixes) > _MANYFIELDS:
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
