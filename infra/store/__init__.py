"""Reads and writes objects at ``s3://bucket/key`` and ``file:///absolute/path``; only client.py imports boto3.

Plain functions on URIs. Endpoint and credentials come from boto3's provider chain (``AWS_ENDPOINT_URL_S3``,
``AWS_ACCESS_KEY_ID``, profiles, ...), never from arguments. Every function may raise:

- ``TransientError``: no answer, a 5xx answer or a truncated object after eight tries in a few seconds;
- ``ExpiredError``, a subclass: the credentials have expired; the chain is queried again, at most once a second;
- ``ConfigError``: unknown scheme, missing bucket, missing or refused credentials, full disk;
- ``NotFoundError``: nothing exists at the URI (functions that read).

A *folder* URI (``list_uris``, ``list_sizes``, ``delete_prefix``) means the objects below it: ``a/b`` never
touches ``a/bc``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from infra.errors import ConfigError, DataError, EffnetError, NotFoundError
from infra.store import client as s3
from infra.store import files, s3_errors
from infra.store.multipart import MultipartStream
from infra.store.uris import bucket_and_key, local_path
from infra.store.uris import join as join  # callers say store.join

PART_BYTES = 8 * 2**20  # two shards concurrently, three parts of each in flight: 64 MiB
STREAM_TIMEOUT_S = 10.0  # longest wait for a byte in stream_range
_CHUNK_BYTES = 2**20
_STREAM_BYTES = 2**18  # small enough to be in the CPU cache when it is written, and malloc reuses the memory


@dataclass(frozen=True, order=True)
class Entry:
    """An object in a listing: its URI, size in bytes, and when it was last written, in unix seconds.

    ``etag`` is the object store's mark of the content; empty for files.
    """

    uri: str
    size: int
    modified: float
    etag: str = ""


def read(uri: str) -> bytes:
    """Returns all bytes at ``uri``."""
    if path := local_path(uri):
        with files.errors(path):
            return path.read_bytes()
    return cast(bytes, s3.receive_body(uri, lambda body: body.read()))


def read_range(uri: str, start: int, length: int) -> bytes:
    """Returns exactly ``length`` (> 0) bytes from offset ``start``; ``DataError`` if the object is shorter."""
    if path := local_path(uri):
        data = files.read_range(path, start, length)
    else:
        data = s3.receive_body(uri, lambda body: body.read(), Range=f"bytes={start}-{start + length - 1}")
    if len(data) != length:
        raise DataError(f"{uri}: {length} bytes from offset {start} requested, {len(data)} received")
    return data


def stream_range(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
    """Yields ``length`` (> 0) bytes from offset ``start`` in pieces, as they arrive.

    Tries once: the caller counts the received bytes and requests the rest. The stream may end early without an error.

    Args:
        uri: URI of the object.
        start: Offset of the first byte.
        length: Number of bytes.
        of: Size of the whole object in bytes.

    Raises:
        TransientError: no answer, or no byte for ten seconds.
        DataError: the object has another size.
    """
    if path := local_path(uri):
        actual = files.size(path)
        if actual != of:
            raise DataError(f"{uri} has {actual} bytes, not {of}")
        for at in range(start, start + length, _CHUNK_BYTES):
            yield files.read_range(path, at, min(_CHUNK_BYTES, start + length - at))
        return
    with s3.connect(uri, s3.Options(STREAM_TIMEOUT_S, 1)) as (client, place):
        answer = client.get_object(**place, Range=f"bytes={start}-{start + length - 1}")
        with closing(answer["Body"]) as body:
            expected = f"bytes {start}-{start + length - 1}/{of}"
            if (received := answer.get("ContentRange")) != expected:
                raise DataError(f"{uri}: requested {expected!r}, the store sends {received!r}")
            yield from body.iter_chunks(_STREAM_BYTES)


def size(uri: str) -> int:
    """Returns the size of ``uri`` in bytes."""
    if path := local_path(uri):
        return files.size(path)
    with s3.connect(uri) as (client, place):
        return int(client.head_object(**place)["ContentLength"])


def find_entry(uri: str) -> Entry:
    """Returns the entry of one object."""
    if path := local_path(uri):
        return Entry(uri, files.size(path), files.modified(path))
    with s3.connect(uri) as (client, place):
        head = client.head_object(**place)
    return Entry(uri, int(head["ContentLength"]), head["LastModified"].timestamp(), head.get("ETag", ""))


def exists(uri: str) -> bool:
    """Whether an object or file exists at ``uri`` (a folder is neither)."""
    try:
        size(uri)
    except NotFoundError:
        return False
    return True


def write(uri: str, data: bytes, *, if_absent: bool = False) -> bool:
    """Writes ``data`` to ``uri`` atomically and returns True.

    With ``if_absent``, an existing object is kept and the result is False; of concurrent writers exactly one gets True.
    """
    if path := local_path(uri):
        return files.write_if_absent(path, data) if if_absent else files.write(path, data)
    with s3.connect(uri) as (client, place):
        if not if_absent:
            client.put_object(**place, Body=data)
            return True
        try:
            client.put_object(**place, Body=data, IfNoneMatch="*")
        except client.exceptions.ClientError as error:
            if s3_errors.error_code(error) not in s3_errors.PRECONDITION_FAILED:
                raise
            # A retry meets the object that its first try wrote if only the answer was lost.
            retried = error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
            return retried and read(uri) == data
        return True


def read_json(uri: str) -> Any:
    """Reads and parses the JSON text at ``uri``.

    Raises:
        DataError: The text is not JSON.
    """
    return parse_json(read(uri), uri)


def parse_json(text: bytes, uri: str) -> Any:
    """Parses the JSON ``text`` from ``uri``; raises as ``read_json`` does."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{uri}: not JSON: {error}") from error


def write_json(uri: str, obj: Any) -> None:
    """Writes ``obj`` as indented JSON with sorted keys, so that equal objects give equal bytes."""
    write(uri, (json.dumps(obj, indent=2, sort_keys=True) + "\n").encode())


def list_uris(prefix: str) -> list[str]:
    """Returns the URIs of all objects below the folder ``prefix``, sorted; an empty list if none exists."""
    if path := local_path(prefix):
        return [f"file://{file}" for file in files.files_under(path)]
    return [uri for uri, _ in list_sizes(prefix)]


def list_sizes(prefix: str) -> list[tuple[str, int]]:
    """Returns URI and size of every object below the folder ``prefix``, sorted; one request per thousand objects."""
    return [(entry.uri, entry.size) for entry in list_entries(prefix)]


def list_entries(prefix: str, at_most: int | None = None) -> list[Entry]:
    """Returns the objects below the folder ``prefix``, all or so many, sorted; one request per thousand objects."""
    if path := local_path(prefix):
        measured = ((file, files.measure(file)) for file in files.files_under(path)[:at_most])
        return [Entry(f"file://{file}", *facts) for file, facts in measured if facts is not None]
    bucket, key = bucket_and_key(prefix.rstrip("/") + "/")
    with s3.connect(prefix) as (client, _):
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=key, PaginationConfig={"MaxItems": at_most}
        )
        items = [item for page in pages for item in page.get("Contents", [])]
    return sorted(
        Entry(f"s3://{bucket}/{item['Key']}", int(item["Size"]), item["LastModified"].timestamp(), item.get("ETag", ""))
        for item in items
    )


def delete(uri: str) -> None:
    """Deletes one object or file; does nothing if it does not exist."""
    if path := local_path(uri):
        with files.errors(path):
            path.unlink(missing_ok=True)
        return
    with s3.connect(uri) as (client, place):
        client.delete_object(**place)


def delete_prefix(uri: str) -> int:
    """Deletes everything below the folder ``uri`` and returns the number of deleted objects.

    Raises:
        ConfigError: ``uri`` is an entire bucket or the root folder.
    """
    path = local_path(uri)
    if uri.rstrip("/") in ("file:", f"s3://{bucket_and_key(uri)[0]}"):
        raise ConfigError(f"{uri}: a whole bucket or disk is not deleted from here")
    if path:
        return files.delete_under(path)
    uris = list_uris(uri)
    delete_objects(uris)
    return len(uris)


def delete_objects(uris: Sequence[str]) -> None:
    """Deletes objects of one bucket, or files; those that do not exist are ignored."""
    if not uris or local_path(uris[0]):
        for uri in uris:
            delete(uri)
        return
    with s3.connect(uris[0]) as (client, place):
        for start in range(0, len(uris), 1000):  # S3's limit per call
            keys = [{"Key": bucket_and_key(item)[1]} for item in uris[start : start + 1000]]
            answer = client.delete_objects(Bucket=place["Bucket"], Delete={"Objects": keys, "Quiet": True})
            if failed := answer.get("Errors"):
                first = {"Error": failed[0], "ResponseMetadata": answer["ResponseMetadata"]}
                raise client.exceptions.ClientError(first, f"DeleteObjects, {len(failed)} of {len(keys)}")


def download(uri: str, path: Path) -> None:
    """Streams the object to ``path``, which appears only when all bytes have arrived."""
    source = local_path(uri)
    with files.open_atomic(path) as stream:
        if source:
            with files.errors(source), source.open("rb") as origin:
                shutil.copyfileobj(origin, stream, _CHUNK_BYTES)
            return

        def receive(body: Any) -> None:
            stream.seek(0)
            stream.truncate()
            for chunk in body.iter_chunks(_CHUNK_BYTES):
                stream.write(chunk)

        s3.receive_body(uri, receive)


@contextmanager
def open_write(uri: str, part_bytes: int = PART_BYTES) -> Iterator[BinaryIO]:
    """Yields a stream to ``uri`` in bounded memory; the object appears only if the block ends without an error.

    An object smaller than ``part_bytes`` (S3 requires at least 5 MiB) is written in one PUT.
    """
    if path := local_path(uri):
        with files.open_atomic(path) as stream:
            yield stream
        return
    with s3.connect(uri, s3.STREAMING) as (client, place):
        parts = MultipartStream(client, place, part_bytes)
        try:
            yield cast(BinaryIO, parts)
            parts.finish()
        except BaseException:
            with suppress(EffnetError), s3.connect(uri):  # the first error is the one to report
                parts.abort()
            raise


def upload(path: Path, uri: str) -> None:
    """Copies a file to ``uri``."""
    with files.errors(path), path.open("rb") as origin, open_write(uri) as stream:
        shutil.copyfileobj(origin, stream, _CHUNK_BYTES)


def ensure_root(uri: str) -> None:
    """Creates the bucket or the folder of ``uri`` if it is missing."""
    if path := local_path(uri):
        with files.errors(path):
            files.make_folder(path)
        return
    with s3.connect(uri) as (client, place):
        bucket, region = place["Bucket"], client.meta.region_name
        try:
            client.head_bucket(Bucket=bucket)
            return
        except client.exceptions.ClientError as error:
            if s3_errors.error_code(error) not in s3_errors.MISSING:
                raise
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with suppress(client.exceptions.BucketAlreadyOwnedByYou):  # two processes start concurrently
            client.create_bucket(Bucket=bucket, **where)
