"""Splits and joins URIs; performs no I/O."""

from __future__ import annotations

from pathlib import Path

from infra.errors import ConfigError


def join(root: str, *parts: str) -> str:
    """Returns ``root/part/part`` with single slashes.

    Raises:
        ConfigError: A part contains ``..``, which would leave the root.
    """
    pieces = [piece for part in parts for piece in part.split("/") if piece]
    if ".." in pieces:
        raise ConfigError(f"{'/'.join(parts)!r} may not leave {root}")
    return "/".join([root.rstrip("/"), *pieces])


def local_path(uri: str) -> Path | None:
    """Returns the path of a ``file://`` URI, None for an ``s3://`` URI.

    Raises:
        ConfigError: The scheme is another one, the file path is relative, or the bucket is missing.
    """
    if uri.startswith("file:///"):
        return Path(uri.removeprefix("file://"))
    if uri.startswith("s3://") and bucket_and_key(uri)[0]:
        return None
    raise ConfigError(f"{uri!r} is neither s3://bucket/key nor file:///absolute/path")


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Splits ``s3://bucket/a/b`` into ``("bucket", "a/b")``."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
