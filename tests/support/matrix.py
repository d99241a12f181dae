"""The cases of a matrix of which `make test` runs a few, and `make test-all` all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def with_slow_rest(cases: Iterable[Any], plain: int = 1) -> list[Any]:
    """The cases of ``pytest.mark.parametrize``; those after the first ``plain`` are marked slow."""
    every = list(cases)
    slow = [pytest.param(*(c if isinstance(c, tuple) else (c,)), marks=pytest.mark.slow) for c in every[plain:]]
    return every[:plain] + slow
