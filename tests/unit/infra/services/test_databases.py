"""Which database the services of a run folder keep their data in."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import ConfigError
from infra.services import databases

POSTGRESQL = "postgresql://effnet@db.example/effnet"


def test_the_database_of_the_first_start_counts(tmp_path: Path) -> None:
    assert databases.remember(tmp_path, POSTGRESQL) == POSTGRESQL
    assert databases.remember(tmp_path, POSTGRESQL) == POSTGRESQL
    assert databases.remember(tmp_path, "sqlite") == POSTGRESQL, "the default of a later command"


@pytest.mark.parametrize("first", ["sqlite", POSTGRESQL])
def test_another_database_is_refused(first: str, tmp_path: Path) -> None:
    databases.remember(tmp_path, first)
    with pytest.raises(ConfigError, match=f"keep their data in {first}"):
        databases.remember(tmp_path, "postgresql://effnet@db.example/other")
