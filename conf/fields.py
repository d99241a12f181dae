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


def require_reference(key: str, value: str | None) -> None:
    """Refuses what cannot be a version in the model registry; accepts None."""
    require(
        value is None or bool(_REFERENCE.fullmatch(value)),
        f"{key} must be NAME@ALIAS or NAME/VERSION, as efficientnet-b0@champion, is {value!r}",
    )


def require_version(key: str, value: str) -> None:
    """Refuses what cannot be a version of a data set."""
    require(
        bool(_VERSION.fullmatch(value)),
        f"{key} takes versions as a night names them, DATA/0002-5f0c9a31, not {value!r}",
    )
