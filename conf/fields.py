"""What all settings share: the markers of their fields, and checks of their values.

A check raises ValueError with the setting, what is allowed and what was given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from conf.text import did_you_mean

MISSING: Any = "???"  # Hydra's marker for "must be given"
# Marks a setting that is newer than stored jobs and models: at its default it is not written (compose.py).
LATER = {"later": True}
# Marks a LATER setting that is newer than the keys of stored searches and studies, too: at its default it is no part of
# their digests.
NEWEST = {"later": True, "digested": False}
# A renamed setting carries ``stored_as``, or ``stored_values`` for its values: the words under which it is stored, so
# that stored jobs can be read and keep their keys (compose.py).
# Names become parts of object keys, paths, job names, names in MLflow and Prefect, and arguments of commands.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VERSION = re.compile(rf"{_NAME.pattern}/\d{{4}}-[0-9a-f]{{8}}")  # of a data set
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# Source: weed/s3api/s3bucket of SeaweedFS, which refuses these.
_RESERVED_BUCKET = re.compile(r"^[0-9]+(\.[0-9]+){3}$|^xn--|-s3alias$")
_REFERENCE = re.compile(rf"{_NAME.pattern}(@{_NAME.pattern}|/[0-9]{{1,9}})")


def require(condition: bool, message: str) -> None:
    """Raises ValueError unless the condition holds; the message names the key, the bound and the value."""
    if not condition:
        raise ValueError(message)


def require_choice(key: str, value: str | None, choices: Sequence[str]) -> None:
    """Refuses what is not one of the choices, and names the nearest; accepts None."""
    if value is not None and value not in choices:
        hint = f"; {did_you_mean(str(value), choices)}".rstrip("; ")
        raise ValueError(f"{key} must be one of {', '.join(choices)}, is {value!r}{hint}")


def require_name(key: str, value: str | None) -> None:
    """Refuses a name with characters that are special in paths or commands; accepts None and MISSING."""
    require(
        value in (None, MISSING) or bool(_NAME.fullmatch(str(value))),
        f"{key} must be 1 to 63 of A-Z a-z 0-9 . _ - and start with a letter or digit, is {value!r}",
    )


def require_port(key: str, address: str) -> None:
    """Refuses a URL whose port is not a number from 0 to 65535; accepts one without a port."""
    try:
        _ = urlsplit(address).port
    except ValueError:
        raise ValueError(f"{key} must have a number from 0 to 65535 as port, is {address!r}") from None


def require_bucket(key: str, uri: str, *, embedded: bool) -> None:
    """Refuses an ``s3://`` address with a name that no bucket has; accepts any other address.

    Args:
        key: The setting.
        uri: Its value.
        embedded: Whether the bucket is in the embedded store, which takes the names that Amazon takes today. Buckets of
            others may be older, with capitals and underscores.
    """
    name = uri.removeprefix("s3://").partition("/")[0]
    if not uri.startswith("s3://") or name.startswith("arn:"):
        return
    if embedded:
        allowed = bool(_BUCKET.fullmatch(name)) and ".." not in name and not _RESERVED_BUCKET.search(name)
        rule = "3 to 63 of a-z 0-9 . - between letters or digits, and is no IP address"
    else:  # as botocore checks before it sends a request
        allowed, rule = bool(re.fullmatch(r"[A-Za-z0-9._-]{1,255}", name)), "1 to 255 of A-Z a-z 0-9 . _ -"
    of = " with services.s3=embedded" if embedded else ""
    require(allowed, f"{key}: the name of a bucket{of} is {rule}; is {name!r}")


def is_reference(text: str) -> bool:
    """Whether a text names a version in the model registry, NAME@ALIAS or NAME/VERSION."""
    return bool(_REFERENCE.fullmatch(text))


def require_reference(key: str, value: str | None) -> None:
    """Refuses what cannot be a version in the model registry; accepts None."""
    require(
        value is None or is_reference(value),
        f"{key} must be NAME@ALIAS or NAME/VERSION, as efficientnet-b0@champion, is {value!r}",
    )


def require_version(key: str, value: str) -> None:
    """Refuses what cannot be a version of a data set."""
    require(
        bool(_VERSION.fullmatch(value)),
        f"{key} takes versions as a night names them, DATA/0002-5f0c9a31, not {value!r}",
    )
