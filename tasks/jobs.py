"""The identity of work: the same request has the same key, on every machine and in later versions of this code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def work_key(name: str, request: Mapping[str, Any] | str) -> str:
    """Returns ``NAME-DIGEST``, under which the work and its results are found again.

    Args:
        name: Kind of the work, for people.
        request: Everything that the result depends on: JSON values by name, or text.

    Raises:
        TypeError: A value is not JSON, so its digest could differ from run to run.
    """
    text = request if isinstance(request, str) else json.dumps(request, sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
