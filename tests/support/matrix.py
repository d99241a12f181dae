"""The cases of a matrix of which `make test` runs a few, and `make test-all` all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def with_slow_rest(cases: Iterable[Any], plain: int = 1) -> list[Any]:
    """The cases of ``pytest.mark.parametrize``; those after the first ``plain`` are marked slow."""
    every = list(cases)
    return every[:plain] + [_slow(case) for case in every[plain:]]


def _slow(case: Any) -> Any:
    if hasattr(case, "marks"):  # of pytest.param, with a name or marks of its own
        return pytest.param(*case.values, marks=[*case.marks, pytest.mark.slow], id=case.id)
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
