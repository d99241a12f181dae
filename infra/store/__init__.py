"""Bytes and files at ``s3://bucket/key`` and ``file:///absolute/path``; the only file that imports boto3.

Plain functions on URIs. Endpoint and credentials come from boto3's own chain (``AWS_ENDPOINT_URL_S3``,
``AWS_ACCESS_KEY_ID``, profiles, ...), never from arguments. Every function may raise:

- ``TransientError``: the store does not answer, or answers 5xx or half an object, after eight tries in some seconds;
- ``ExpiredError``, one of them: the credentials have expired; the next call asks the chain again, once a second;
- ``ConfigError``: unknown scheme, missing bucket, missing or refused credentials, full disk;
- ``NotFoundError``: there is nothing at the URI (where a function reads).

A *folder* URI (``list_uris``, ``list_sizes``, ``delete_prefix``) means what stands below it: ``a/b`` never
touches ``a/bc``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from infra.errors import ConfigError, DataError, EffnetError, ExpiredError, NotFoundError, TransientError
from infra.store import files, s3_errors
from infra.store.credentials import CredentialBackoff
from infra.store.multipart import MultipartStream
from infra.store.uris import bucket_and_key, local_path
from infra.store.uris import join as join  # callers say store.join

PART_BYTES = 8 * 2**20  # two shards at a time, with three parts each on the way: 64 MiB
STREAM_TIMEOUT_S = 10.0  # without a byte, in stream_range
_CHUNK_BYTES = 2**20
_STREAM_BYTES = 2**18  # a piece is still in the processor's cache when it is written, and malloc reuses its memory
_SESSION_LOCK = threading.Lock()
_TURNS = CredentialBackoff()
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Manners:
    """How long a call waits for the next byte, how often botocore tries again, and whether it signs bodies."""

    timeout_s: float
    tries: int
    sign_body: bool | None = None  # None: botocore's choice, which is to sign what goes over plain http


_PATIENT = _Manners(60, 8)  # 3 s of tries on average: a restart of the store
# Signing means a sha256 of all bytes over plain http, most of the client's work; https never does it. What is
# streamed is checked end to end: its size and sha256 stand in a manifest, and no reader takes anything else. The
# request itself is signed as ever, so nobody else can write; who can change bytes on a plain http wire can do as
# much to those that are read.
_STREAMING = _Manners(60, 8, sign_body=False)


@lru_cache(maxsize=2)
def _session_for(_environment: tuple[tuple[str, str], ...], _process: int, _generation: int) -> Any:
    # One for all clients of the same credentials: each would read the description of S3 anew, for 0.1 s.
    import boto3

    return boto3.session.Session()


@lru_cache(maxsize=8)
def _client_for(
    environment: tuple[tuple[str, str], ...], process: int, generation: int, manners: _Manners
) -> tuple[Any, str]:
    # All but the last are only the caches' key: boto3 reads the variables itself, a fork may not share our sockets,
    # and expired credentials are looked up anew. Returns the client and where its credentials come from.
    from botocore.config import Config

    config = Config(
        connect_timeout=5,
        read_timeout=manners.timeout_s,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": manners.tries},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "path" if s3_errors.endpoint() else "auto",
            **({} if manners.sign_body is None else {"payload_signing_enabled": manners.sign_body}),
        },
    )
    session = _session_for(environment, process, generation)
    try:
        client = session.client("s3", region_name=session.region_name or "us-east-1", config=config)
    except ValueError as error:
        raise ConfigError(f"{s3_errors.endpoint()!r} is no address of an object store: {error}") from error
    found = session.get_credentials()
    return client, f"provider {found.method!r}, profile {session.profile_name!r}" if found else "nobody"


@contextmanager
def _s3(uri: str, manners: _Manners = _PATIENT) -> Iterator[tuple[Any, dict[str, str]]]:
    """A thread-safe client and the object's place; what botocore raises inside leaves as our error."""
    from botocore.exceptions import BotoCoreError, ClientError

    known = tuple(sorted((key, value) for key, value in os.environ.items() if key.startswith("AWS_")))
    bucket, key = bucket_and_key(uri)
    generation, provider = _TURNS.take(), ""
    try:
        with _SESSION_LOCK:  # making a client is the one thing in boto3 that is not thread-safe
            client, provider = _client_for(known, os.getpid(), generation, manners)
        yield client, {"Bucket": bucket, "Key": key}
        _TURNS.accepted(generation)
    except (BotoCoreError, ClientError) as error:
        told = s3_errors.translate_error(error, uri, provider)
        if isinstance(told, ExpiredError):
            _TURNS.refused(generation)
        raise told from error


def _received(uri: str, receive: Callable[[Any], _T], **which: str) -> _T:
    """What ``receive`` makes of an object's body; it is called again, with a new body, where one breaks off.

    Botocore's own tries end with the first byte of an answer.
    """
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    broken_off = 0
    while True:
        with _s3(uri) as (client, place), closing(client.get_object(**place, **which)["Body"]) as body:
            try:
                return receive(body)
            except (HTTPClientError, IncompleteReadError):
                broken_off += 1
                if broken_off == _PATIENT.tries:
                    raise
        time.sleep(min(2.0, 0.05 * 2**broken_off) * random.uniform(0.5, 1.0))


def read(uri: str) -> bytes:
    """All bytes at ``uri``."""
    if path := local_path(uri):
        with files.errors(path):
            return path.read_bytes()
    return cast(bytes, _received(uri, lambda body: body.read()))


def read_range(uri: str, start: int, length: int) -> bytes:
    """Exactly ``length`` (> 0) bytes from offset ``start``; a ``DataError`` when the object ends before."""
    if path := local_path(uri):
        data = files.read_range(path, start, length)
    else:
        data = _received(uri, lambda body: body.read(), Range=f"bytes={start}-{start + length - 1}")
    if len(data) != length:
        raise DataError(f"{uri}: {length} bytes from offset {start} asked, {len(data)} there")
    return data


def stream_range(uri: str, start: int, length: int, of: int) -> Iterator[bytes]:
    """``length`` (> 0) bytes from offset ``start``, piece by piece as they come.

    Tries once: who reads knows how far it came, and asks again for the rest. Pieces may end early without an error.

    Args:
        uri: of the object.
        start: first byte.
        length: how many.
        of: bytes that the whole object has.

    Raises:
        TransientError: no answer, or no byte for ten seconds.
        DataError: the object has another size.
    """
    if path := local_path(uri):
        found = files.size(path)
        if found != of:
            raise DataError(f"{uri} has {found} bytes, not {of}")
        for at in range(start, start + length, _CHUNK_BYTES):
            yield files.read_range(path, at, min(_CHUNK_BYTES, start + length - at))
        return
    with _s3(uri, _Manners(STREAM_TIMEOUT_S, 1)) as (client, place):
        answer = client.get_object(**place, Range=f"bytes={start}-{start + length - 1}")
        with closing(answer["Body"]) as body:
            wanted = f"bytes {start}-{start + length - 1}/{of}"
            if (got := answer.get("ContentRange")) != wanted:
                raise DataError(f"{uri}: asked for {wanted!r}, the store sends {got!r}")
            yield from body.iter_chunks(_STREAM_BYTES)


def size(uri: str) -> int:
    """Bytes at ``uri``."""
    if path := local_path(uri):
        return files.size(path)
    with _s3(uri) as (client, place):
        return int(client.head_object(**place)["ContentLength"])


def exists(uri: str) -> bool:
    """Whether there is an object or file (a folder is neither)."""
    try:
        size(uri)
    except NotFoundError:
        return False
    return True


def write(uri: str, data: bytes, *, if_absent: bool = False) -> bool:
    """Puts ``data`` at ``uri``, whole or not at all, and returns True.

    With ``if_absent`` what is there stays, and the answer is False; of many writers at once one gets True.
    """
    if path := local_path(uri):
        return files.write_if_absent(path, data) if if_absent else files.write(path, data)
    with _s3(uri) as (client, place):
        if not if_absent:
            client.put_object(**place, Body=data)
            return True
        try:
            client.put_object(**place, Body=data, IfNoneMatch="*")
        except client.exceptions.ClientError as error:
            if s3_errors.error_code(error) not in s3_errors.PRECONDITION_FAILED:
                raise
            # A retry meets the object that its own first try wrote, when only the answer was lost.
            tried_again = error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
            return tried_again and read(uri) == data
        return True


def read_json(uri: str) -> Any:
    """The object that the JSON text at ``uri`` means.

    Raises:
        DataError: it is not JSON.
    """
    return parse_json(read(uri), uri)


def parse_json(text: bytes, uri: str) -> Any:
    """What the JSON ``text`` from ``uri`` means; errors as of ``read_json``."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{uri}: not JSON: {error}") from error


def write_json(uri: str, obj: Any) -> None:
    """``obj`` as indented JSON with sorted keys, so that equal objects give equal bytes."""
    write(uri, (json.dumps(obj, indent=2, sort_keys=True) + "\n").encode())


def list_uris(prefix: str) -> list[str]:
    """URIs of all objects below the folder ``prefix``, sorted; none when there are none."""
    if path := local_path(prefix):
        return [f"file://{found}" for found in files.files_under(path)]
    return [uri for uri, _ in list_sizes(prefix)]


def list_sizes(prefix: str) -> list[tuple[str, int]]:
    """URI and bytes of each object below the folder ``prefix``, sorted; a thousand of them a request."""
    if path := local_path(prefix):
        return [(f"file://{found}", files.size(found)) for found in files.files_under(path)]
    bucket, key = bucket_and_key(prefix.rstrip("/") + "/")
    with _s3(prefix) as (client, _):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        items = [item for page in pages for item in page.get("Contents", [])]
    return sorted((f"s3://{bucket}/{item['Key']}", int(item["Size"])) for item in items)


def delete(uri: str) -> None:
    """Deletes one object or file; fine when there is none."""
    if path := local_path(uri):
        with files.errors(path):
            path.unlink(missing_ok=True)
        return
    with _s3(uri) as (client, place):
        client.delete_object(**place)


def delete_prefix(uri: str) -> int:
    """Deletes everything below the folder ``uri``; how many objects that were.

    Raises:
        ConfigError: ``uri`` is a whole bucket or the root folder.
    """
    path = local_path(uri)
    if uri.rstrip("/") in ("file:", f"s3://{bucket_and_key(uri)[0]}"):
        raise ConfigError(f"{uri}: a whole bucket or disk is not deleted from here")
    if path:
        return files.delete_under(path)
    found = list_uris(uri)
    with _s3(uri) as (client, place):
        for start in range(0, len(found), 1000):  # S3's own limit of one call
            keys = [{"Key": bucket_and_key(each)[1]} for each in found[start : start + 1000]]
            answer = client.delete_objects(Bucket=place["Bucket"], Delete={"Objects": keys, "Quiet": True})
            if failed := answer.get("Errors"):
                raise TransientError(f"{uri}: {len(failed)} objects stayed: {failed[0].get('Code')}")
    return len(found)


def download(uri: str, path: Path) -> None:
    """Streams the object to ``path``, which appears only when all bytes are there."""
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

        _received(uri, receive)


@contextmanager
def open_write(uri: str, part_bytes: int = PART_BYTES) -> Iterator[BinaryIO]:
    """A stream to ``uri`` in bounded memory; the object appears when the block ends well, and never else.

    An object smaller than ``part_bytes`` (S3 wants at least 5 MiB) becomes one PUT.
    """
    if path := local_path(uri):
        with files.open_atomic(path) as stream:
            yield stream
        return
    with _s3(uri, _STREAMING) as (client, place):
        parts = MultipartStream(client, place, part_bytes)
        try:
            yield cast(BinaryIO, parts)
            parts.finish()
        except BaseException:
            with suppress(EffnetError), _s3(uri):  # the first error is the one to tell
                parts.abort()
            raise


def upload(path: Path, uri: str) -> None:
    """Copies a file to ``uri``."""
    with files.errors(path), path.open("rb") as origin, open_write(uri) as stream:
        shutil.copyfileobj(origin, stream, _CHUNK_BYTES)


def ensure_root(uri: str) -> None:
    """Makes the bucket or the folder of ``uri`` when it is missing."""
    if path := local_path(uri):
        with files.errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return
    with _s3(uri) as (client, place):
        bucket, region = place["Bucket"], client.meta.region_name
        try:
            client.head_bucket(Bucket=bucket)
            return
        except client.exceptions.ClientError as error:
            if s3_errors.error_code(error) not in s3_errors.MISSING:
                raise
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with suppress(client.exceptions.BucketAlreadyOwnedByYou):  # two starters at once
            client.create_bucket(Bucket=bucket, **where)
