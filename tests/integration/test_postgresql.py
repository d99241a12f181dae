"""The embedded Prefect and MLflow on a real PostgreSQL server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from postgresql_cluster import PASSWORD, cluster, programs

from conf.schema import Services
from infra.errors import ConfigError
from infra.services import databases, stack
from infra.services.prefect_api import call, from_environment

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.skipif(programs() is None, reason="Debian's package postgresql is not installed"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    # Not in pytest's folder, which the user postgres must not enter.
    with tempfile.TemporaryDirectory(prefix="effnet-pg-") as folder:
        Path(folder).chmod(0o755)
        with cluster(Path(folder) / "cluster") as address:
            yield address


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


def names(server: str) -> set[str]:
    connection = psycopg2.connect(f"postgresql://{server}/postgres")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database")
            return {row[0] for row in cursor.fetchall()}
    finally:
        connection.close()


def test_missing_databases_are_created_once_and_others_are_left_alone(server: str, password: None) -> None:
    before = names(server)
    setting = f"postgresql://{server}/team"
    assert databases.create_missing(setting) == ["team_prefect", "team_mlflow"]
    assert names(server) == before | {"team_prefect", "team_mlflow"}
    assert databases.create_missing(setting) == []
    assert databases.create_missing("sqlite") == []


def test_a_server_that_refuses_is_one_line_that_names_the_variables(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(ConfigError, match=r"password authentication failed .* PGPASSWORD or PGPASSFILE") as refused:
        databases.create_missing(f"postgresql://{server}/team")
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="Connection refused"):
        databases.create_missing("postgresql://effnet@127.0.0.1:9/team")


@pytest.mark.services
@pytest.mark.slow
def test_what_prefect_and_mlflow_hold_is_there_after_a_restart(server: str, password: None, tmp_path: Path) -> None:
    settings = Services(database=f"postgresql://{server}/effnet")
    before = dict(os.environ)
    try:
        for attempt in (1, 2):
            lines: list[str] = []
            given = settings if attempt == 1 else Services()  # the database is given once
            stack.up(tmp_path, given, jobs_at_once=attempt, say=lines.append, only=("s3", "prefect", "mlflow"))
            assert ("databases created: effnet_prefect, effnet_mlflow" in lines) == (attempt == 1)
            api = from_environment(os.environ)
            if attempt == 1:
                flow = call(api, "POST", "/flows/", {"name": "kept"})[1]["id"]
                from infra.tracking import runs

                run = runs.start_run("kept", "run", "key", parent=None, params={}, tags={})
                runs.finish_run(run, "FINISHED", {"top1": 1.0}, {})
            else:
                assert call(api, "GET", f"/flows/{flow}")[1]["name"] == "kept"
                assert runs.find_finished("kept", "key") == run
                assert call(api, "GET", "/v2/concurrency_limits/accelerator")[1]["limit"] == 2
            stack.down(tmp_path)
        assert not list((tmp_path / "services").rglob("mlflow.db"))
        assert not list((tmp_path / "services").rglob("prefect.db"))
    finally:
        stack.down(tmp_path)
        os.environ.clear()
        os.environ.update(before)
