"""Addresses of WebDataset shards: braces, wildcards, lists and folders, local, ``s3://`` or ``https://``.

Shards of ``https://`` are downloaded once, into ``RUN_DIR/cache/shards``, because they are read at random.
"""

from __future__ import annotations

import fcntl
import os
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from braceexpand import braceexpand

from conf import schema
from conf.data_set import IN_PLACE, REWRITTEN
from conf.text import count, list_some, logger
from infra import store
from infra.environment import cache_folder, make_cache
from infra.errors import ConfigError, NotFoundError
from infra.store import files
from models.data.sources.files import archive
from models.data.sources.files.archive import ARCHIVES
from models.data.sources.files.container import join_parts, locate, locate_uri
from models.data.sources.files.download import Download, exists, fetch
from models.data.sources.files.unread_formats import describe, find_format
from models.data.sources.listing import MINIVAL, TRAIN, VAL
from models.data.sources.split_names import is_evaluation, short_kinds, split_of, words_of

log = logger()
_DOWNLOADS_AT_ONCE = 4
_WEB = ("https://", "http://")
_MAX_SHARDS = 1_000_000  # braces may state any number
_OTHER_SHARDS = ("parquet", "arrow", "tfrecord", "tfrecords", "mds", "beton", "zst", "lz4", "7z", "rar", "tar_")
_TABLES = ("parquet", "arrow")  # which may also be tables about the samples
_UNFINISHED = ("part", "partial", "tmp", "crdownload", "aria2", "download", "incomplete")
_TRIED = 3  # shards that are looked for one by one before their folder is listed
_HEXADECIMAL = re.compile(r"\b[0-9a-f]*\d[0-9a-f]*\b")  # numbers, and digests as in names of uploads
_LAST_NUMBER = re.compile(r"(.*?)(\d{1,9})(\D*)", re.DOTALL)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)(?:\.\.\d+)?\}")


@dataclass(frozen=True)
class ShardAddresses:
    """Shards below ``root``: split (``Source.split``) by relative name; and the other files of folders, by theirs."""

    root: str
    parts: dict[str, int]
    others: tuple[str, ...] = ()


def find_shards(data: schema.Data) -> ShardAddresses:
    """Finds the shards of ``data.path`` and ``data.val_path``, and the split of each.

    Without ``data.val_path`` the words of the names count, as those of the folders in ``folder.py``: train; val, valid
    or validation; test. Where no shard is named so, all are train.

    Raises:
        ConfigError: No path, no such shards, or names of which only some state a split.
        TransientError: A server does not respond.
    """
    others: list[str] = []
    train, val = _expand_settings(data, others)
    every = [*train, *val]
    _refuse_repeated(data, train, val)
    _refuse_exchanged(data, train, val)
    if len({_scheme(one) for one in every}) > 1:
        raise ConfigError("data.path and data.val_path must be all local, all s3:// or all https://")
    if every[0].startswith(_WEB):
        if data.shards == IN_PLACE:
            raise ConfigError(
                f"data.shards={IN_PLACE} reads shards at s3:// or on local disk, not at https://, as {every[0]}; "
                f"copy them there, or data.shards={REWRITTEN} downloads and rewrites them"
            )
        folder = _download(every)
        every = [str(folder / _local_name(one)) for one in every]
    root, names = _relate(every)
    beside = tuple(sorted({one.removeprefix(root).lstrip("/") for one in others}))
    if val:
        return ShardAddresses(root, dict(zip(names, [TRAIN] * len(train) + [VAL] * len(val), strict=True)), beside)
    return ShardAddresses(root, _split_by_name(names, str(data.path)), beside)


def _refuse_repeated(data: schema.Data, train: Sequence[str], val: Sequence[str]) -> None:
    if common := sorted(set(train) & set(val)):
        raise ConfigError(
            f"data.path {data.path} and data.val_path {data.val_path} both name {count(len(common), 'shard')}, first "
            f"{common[0]}: data.path must name those of train only"
        )
    if repeated := sorted(one for one, number in Counter([*train, *val]).items() if number > 1):
        raise ConfigError(f"{len(repeated)} shards are listed twice, first {repeated[0]}")


def _refuse_exchanged(data: schema.Data, train: Sequence[str], val: Sequence[str]) -> None:
    """Refuses shards of val in place of those of train, and the reverse, by their names."""
    kinds = [{find_split(one.rpartition("/")[2]) for one in some} for some in (train, val)]
    if kinds[0] and kinds[0] <= {"val", "test"} and kinds[1] == {"train"}:
        raise ConfigError(
            f"by their names, the shards of data.path {data.path} are of val and those of data.val_path "
            f"{data.val_path} of train: exchange the two settings, or give the shards other names"
        )


def _relate(every: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the folder that all shards are below, and their names relative to it."""
    root = posixpath.commonpath([posixpath.dirname(one) for one in every])
    if every[0].startswith("s3://"):
        if len({one.split("/")[2] for one in every}) > 1:
            raise ConfigError("the shards of data.path and data.val_path must be in one bucket")
        root = root.replace("s3:/", "s3://", 1)
    return root, [one.removeprefix(root).lstrip("/") for one in every]


def check_addresses(data: schema.Data) -> None:
    """Refuses addresses of which no shard exists; reads no shard and downloads none.

    Raises:
        ConfigError: No path, no such shards, no credentials for them, or no such server.
        TransientError: A store or server does not respond.
    """
    train, val = _expand_settings(data, [])
    if not val and not train[0].startswith(_WEB):
        _split_by_name(_relate(train)[1], str(data.path))
    for key, shards in (("data.path", train), ("data.val_path", val)):
        if not shards or _exists(shards[0]) or any(map(_exists, shards[1:_TRIED])):
            continue
        # The first may be missing where others are there, which data.allow_partial takes.
        folders = {one.rpartition("/")[0] for one in shards[_TRIED:] if not one.startswith(_WEB)}
        if not {_without_scheme(uri) for one in folders for uri in store.list_uris(locate_uri(one))}.intersection(
            shards
        ):
            missing = (
                f"none of the {len(shards):,} shards exists, first {shards[0]}" if len(shards) > 1 else "no such shard"
            )
            raise ConfigError(f"{key} {getattr(data, key.rpartition('.')[2])}: {missing}{_name_present(shards[0])}")


def _name_present(address: str) -> str:
    """Names a shard that the folder of a missing one has, as the end of a message; empty without any."""
    folder = address.rpartition("/")[0]
    if address.startswith(_WEB):
        return ""
    present = [_without_scheme(uri) for uri in store.list_uris(locate_uri(folder)) if uri.lower().endswith(ARCHIVES)]
    return f"; {folder} has {count(len(present), 'shard')}, as {min(present)}" if present else ""


def _without_scheme(uri: str) -> str:
    return uri.removeprefix("file://")


def _exists(address: str) -> bool:
    """Whether a shard is there: a local file, an object, or a file of a web server or of its download."""
    if not address.startswith(_WEB):
        return store.exists(locate_uri(address))
    return (_downloads() / _local_name(address)).exists() or exists(address)


def _expand_settings(data: schema.Data, others: list[str]) -> tuple[list[str], list[str]]:
    """Returns the addresses of ``data.path`` and ``data.val_path``; adds other files of folders."""
    if data.path is None:
        raise ConfigError("data=webdataset needs data.path=SHARDS, as /data/train-{000..123}.tar, s3:// or https://")
    train = _expand(data.path, "data.path", others)
    return train, [] if data.val_path is None else _expand(data.val_path, "data.val_path", others)


def _whole_of(name: str) -> str:
    """Returns the tar that a file is a compressed copy or an unfinished download of: ``a.tar`` of ``a.tar.gz``."""
    stem, dot, _ = name.rpartition(".tar.")
    return f"{stem}.tar" if dot else ""


def _without_number(name: str) -> str:
    """Returns the name of a file without folders, suffix and digits, in which the shards of a set differ."""
    return re.sub(r"\d+", "", posixpath.splitext(posixpath.basename(name.lower()))[0])


def name_without_number(name: str) -> str:
    """Returns the words of a shard's name, or of its folder if it is a number, as ``treino`` of ``treino-0001.tar``."""
    parts = (_HEXADECIMAL.sub("", part.partition(".")[0].replace("_", " ")) for part in reversed(name.split("/")))
    return next(filter(None, (" ".join(words_of(part)) for part in parts)), "")


def find_gaps(names: Collection[str]) -> str:
    """Returns the shards that are missing between others by their numbers; empty for none, or if most are missing."""
    series: dict[tuple[str, str], dict[int, str]] = {}
    for name in names:
        if numbered := _LAST_NUMBER.fullmatch(name):
            series.setdefault((numbered[1], numbered[3]), {})[int(numbered[2])] = numbered[2]
    missing = []
    for (before, after), numbers in series.items():
        if max(numbers) - min(numbers) < 2 * len(numbers) - 1:
            absent = [number for number in range(min(numbers), max(numbers)) if number not in numbers]
            width = len(next(iter(numbers.values())))
            missing += [f"{before}{number:0{width}d}{after}" for number in absent]
    return list_some(missing) if missing else ""


def may_be_shard(name: str, shards: Collection[str]) -> bool:
    """Whether a file beside shards is one in a format that is not read, or the beginning of one.

    img2dataset writes ``00000.parquet`` and ``00000_stats.json`` beside ``00000.tar``: these are no shards. Nor are
    tables with another name than those of shards, as ``metadata.parquet``.
    """
    stem, _, suffix = name.lower().rpartition(".")
    if suffix in _TABLES and _without_number(name) not in set(map(_without_number, shards)):
        return False
    if suffix in _OTHER_SHARDS and not stem.endswith(".tar"):
        return f"{stem}.tar" not in {shard.lower() for shard in shards}
    if _whole_of(name.lower()) in {shard.lower() for shard in shards}:
        return False
    return suffix in _UNFINISHED or ".tar." in name.lower()


def _expand(text: str, key: str, others: list[str]) -> list[str]:
    """Returns the addresses of a setting, in order, local ones as absolute paths; adds other files of folders.

    Raises:
        ConfigError: A pattern is damaged, or matches nothing.
    """
    shards: list[str] = []
    for one in _list_addresses(text, key):
        shards += [one] if one.startswith(_WEB) else _match(_absolute(one), others)
    if not shards:
        seen = f"; it contains {len(others):,} other files, first {min(others)}" if others else ""
        forms = {one: form for one in others if (form := find_format(one)) is not None}
        if packed := [posixpath.basename(one) for one in others if may_be_shard(posixpath.basename(one), ())]:
            seen += f"; {min(packed)} is not read: decompress such files to .tar, or finish their download"
        seen += f"; {describe(posixpath.basename(min(forms)), forms[min(forms)])}" if forms else ""
        raise ConfigError(f"{key} {text} names no shards ({', '.join(ARCHIVES)}){seen}")
    return shards


def check_patterns(data: schema.Data) -> None:
    """Refuses addresses that can be none of shards; sends no request.

    Raises:
        ConfigError: A pattern is damaged, or of a scheme that is not read.
    """
    for key in ("path", "val_path"):
        if (text := getattr(data, key)) is not None:
            for one in _list_addresses(text, f"data.{key}"):
                if not one.startswith(_WEB):
                    locate(one)


def _list_addresses(text: str, key: str) -> list[str]:
    """Returns the addresses of a setting without a look at what is there: braces are expanded, wildcards stay."""
    addresses: list[str] = []
    for pattern in text.split("::"):
        if pattern.startswith(("pipe:", "-")) or (
            "://" in pattern and not pattern.startswith(("s3://", "file://", *_WEB))
        ):
            raise ConfigError(f"{key} {pattern!r} is neither a local path nor s3:// nor https://")
        for one in _expand_braces(pattern, key):
            if one.startswith(_WEB) and (urlsplit(one).query or not urlsplit(one).path.lower().endswith(ARCHIVES)):
                raise ConfigError(f"{one} is no address of a shard, which ends with one of {', '.join(ARCHIVES)}")
            if one.startswith(_WEB) and re.search(r"[*\[]", urlsplit(one).path):
                raise ConfigError(
                    f"{one}: wildcards need a list of files, which https:// lacks; a range is written {{000..123}}"
                )
            addresses.append(one)
    return addresses


def _expand_braces(pattern: str, key: str) -> list[str]:
    number = 1
    for first, last in _RANGE.findall(pattern):
        number *= abs(int(last) - int(first)) + 1
    if number > _MAX_SHARDS:
        raise ConfigError(f"{key} {pattern} names {number:,} shards, more than {_MAX_SHARDS:,}")
    try:
        expanded = list(braceexpand(pattern, escape=False))
    except ValueError as error:
        raise ConfigError(f"{key} {pattern}: a brace is missing; a range is written {{000..123}}") from error
    if "{" in expanded[0]:  # braces without a comma or a range stay as they are
        raise ConfigError(f"{key} {pattern}: a range is written {{000..123}}, a choice {{a,b}}")
    return expanded


def _absolute(address: str) -> str:
    location = locate(address)
    return location if location.startswith("s3://") else os.path.abspath(location)  # noqa: PTH100 - keeps links


def _refuse_other_lists(address: str) -> None:
    """Refuses what looks like several addresses in another spelling."""
    exists = address.startswith("s3://") or os.path.lexists(address)
    if not exists and re.search(r"%0?\d*d", address):
        raise ConfigError(f"no file at {address}; a range of numbers is written {{000..123}}")
    if not exists and re.search(r"\.(tar|tgz|gz|xz)[,; ]+\S", address):
        raise ConfigError(f"no file at {address}; several addresses are written with :: between them")


def _match(address: str, others: list[str]) -> list[str]:
    """Returns the shards of a folder or of a name with wildcards; otherwise the address. Adds a folder's other files.

    Raises:
        ConfigError: It looks like several addresses in another spelling.
    """
    _refuse_other_lists(address)
    wild = re.search(r"[*?\[]", address)
    is_folder = not address.lower().endswith(ARCHIVES) if address.startswith("s3://") else Path(address).is_dir()
    if wild is None and not is_folder:
        return [address]
    is_folder = is_folder and (wild is None or not address.startswith("s3://"))
    root = address if is_folder or wild is None else address[: wild.start()].rpartition("/")[0]
    if not root.startswith("s3://") and not Path(root).is_dir():
        return []
    listed = [join_parts(root, name) for name in sorted(archive.walk_folder(root).names)]
    plain = {one.lower() for one in listed}
    shards = [one for one in listed if one.lower().endswith(ARCHIVES) and (is_folder or fnmatchcase(one, address))]
    copies = {one for one in shards if is_folder and _whole_of(one.lower()) in plain}
    others += [one for one in listed if is_folder and (one not in shards or one in copies)]
    return [one for one in shards if one not in copies]


def _scheme(address: str) -> str:
    return address.partition("://")[0] if "://" in address else ""


def _split_by_name(names: Sequence[str], path: str) -> dict[str, int]:
    kinds = {name: find_split(name) for name in names}
    words = {name: name_without_number(name) for name in names}
    short = {word: kind for kind, some in short_kinds(set(words.values())).items() for word in some}
    kinds = {name: short.get(word, kinds[name]) for name, word in words.items()}
    vals = [name for name, kind in kinds.items() if kind == "val"]
    tests = [name for name in vals if is_evaluation(name)]
    if "test" not in kinds.values() and 0 < len(tests) < len(vals):
        kinds |= dict.fromkeys(tests, "test")  # evaluation beside validation, as for folders
    present = set(kinds.values()) - {None}
    is_mixed = None in kinds.values() and not present.isdisjoint(("val", "test"))
    if ("train" not in present or len(present) == 1) and not is_mixed:
        if len(present) > 1:
            raise ConfigError(f"{path} has shards of {' and '.join(sorted(map(str, present)))}, but none of train")
        return dict.fromkeys(names, TRAIN)
    if unclear := [name for name, kind in kinds.items() if kind is None]:
        raise ConfigError(
            f"{path}: the names of some shards state a split, those of {len(unclear)} do not, as {unclear[0]}; "
            "give the shards of train by data.path and those of val by data.val_path"
        )
    parts = {"train": TRAIN, "val": MINIVAL if "test" in present else VAL, "test": VAL}
    return {name: parts[str(kind)] for name, kind in kinds.items()}


def find_split(name: str) -> str | None:
    """Returns the split that a name states in its last part that states one."""
    for part in reversed(name.split("/")):
        if (kind := split_of(part)) is not None:
            return kind
    return None


def _local_name(url: str) -> str:
    """Returns the path of a download below the cache: server and path, without what would lead out of it."""
    parts = urlsplit(url)
    return "/".join(one for one in (parts.netloc, *parts.path.split("/")) if one.strip("."))


def _downloads() -> Path:
    return (cache_folder() / "shards").absolute()


def _download(urls: Sequence[str]) -> Path:
    """Downloads shards that are not there yet; returns the folder. A shard that the server lacks stays absent."""
    folder = _downloads()
    make_cache(folder)

    def ensure(url: str) -> None:
        path = folder / _local_name(url)
        if path.exists():
            return
        with files.errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(files.open_ours(path.with_name(f"{path.name}.lock")), "r+") as lock, suppress(NotFoundError):
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():  # else another process has downloaded it in the meantime
                fetch(Download(url), path.parent, log.info)

    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="download") as pool:
        list(pool.map(ensure, urls))
    return folder
