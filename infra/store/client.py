"""Clients of S3 for the other files of this package: the only place that imports boto3."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from infra.errors import ConfigError, ExpiredError
from infra.store import s3_errors
from infra.store.credentials import CredentialBackoff
from infra.store.uris import bucket_and_key

_SESSION_LOCK = threading.Lock()
_BACKOFF = CredentialBackoff()
_T = TypeVar("_T")


@dataclass(frozen=True)
class Options:
    """Read timeout, number of tries and body signing of a client."""

    timeout_s: float
    tries: int
    sign_body: bool | None = None  # None: botocore's default, which signs bodies over plain http


PATIENT = Options(60, 8)  # 3 s of tries on average: enough for a restart of the store
# Over plain http, signing hashes all bytes with sha256, which is most of the client's work; https never does it.
# Streamed objects are verified end to end: a manifest holds their size and sha256, and readers accept nothing else.
# The request itself is still signed, so nobody else can write. An attacker who can change bytes on a plain http
# connection can change those that are read as well.
STREAMING = Options(60, 8, sign_body=False)


@lru_cache(maxsize=2)
def _session_for(_environment: tuple[tuple[str, str], ...], _process: int, _generation: int) -> Any:
    # Shared by all clients with the same credentials: every session loads the description of S3, in 0.1 s.
    import boto3

    return boto3.session.Session()


@lru_cache(maxsize=8)
def _client_for(
    environment: tuple[tuple[str, str], ...], process: int, generation: int, options: Options
) -> tuple[Any, str]:
    # Returns the client and the source of its credentials. All arguments but the last only form the cache key: boto3
    # reads the variables itself, a forked process must not share sockets, and expired credentials are looked up again.
    from botocore.config import Config
    from botocore.exceptions import InvalidRegionError

    config = Config(
        connect_timeout=5,
        read_timeout=options.timeout_s,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": options.tries},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "path" if s3_errors.endpoint() else "auto",
            **({} if options.sign_body is None else {"payload_signing_enabled": options.sign_body}),
        },
    )
    session = _session_for(environment, process, generation)
    try:
        client = session.client("s3", region_name=session.region_name or "us-east-1", config=config)
    except InvalidRegionError as error:  # also a ValueError
        raise ConfigError(
            f"{session.region_name!r} is no name of a region, as us-east-1: correct AWS_DEFAULT_REGION, or the region "
            "in ~/.aws/config"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{s3_errors.endpoint()!r} is not a valid address of an object store: {error}") from error
    credentials = session.get_credentials()
    if credentials is None:
        return client, "nobody"
    return client, f"provider {credentials.method!r}, profile {session.profile_name!r}"


@contextmanager
def connect(uri: str, options: Options = PATIENT) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yields a thread-safe client and the object's bucket and key; botocore's errors become ``EffnetError``."""
    from botocore.exceptions import BotoCoreError, ClientError

    aws_variables = tuple(sorted((key, value) for key, value in os.environ.items() if key.startswith("AWS_")))
    bucket, key = bucket_and_key(uri)
    generation, provider = _BACKOFF.take(), ""
    try:
        with _SESSION_LOCK:  # creating a client is the only part of boto3 that is not thread-safe
            client, provider = _client_for(aws_variables, os.getpid(), generation, options)
        yield client, {"Bucket": bucket, "Key": key}
        _BACKOFF.accepted(generation)
    except (BotoCoreError, ClientError) as error:
        translated = s3_errors.translate_error(error, uri, provider)
        if isinstance(translated, ExpiredError):
            _BACKOFF.refused(generation)
        raise translated from error


def receive_body(uri: str, receive: Callable[[Any], _T], **arguments: str) -> _T:
    """Returns ``receive(body)`` of an object; calls it again with a new body if the connection breaks.

    Botocore itself does not retry after the first byte of an answer.
    """
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    failures = 0
    while True:
        with connect(uri) as (client, place), closing(client.get_object(**place, **arguments)["Body"]) as body:
            try:
                return receive(body)
            except (HTTPClientError, IncompleteReadError):
                failures += 1
                if failures == PATIENT.tries:
                    raise
        time.sleep(min(2.0, 0.05 * 2**failures) * random.uniform(0.5, 1.0))
