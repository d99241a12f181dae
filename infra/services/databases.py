"""The databases of the embedded Prefect and MLflow: SQLite files, or two databases of a PostgreSQL server.

Both programs keep the revision of their tables in a table of the same name, so they cannot share one database.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from infra.errors import ConfigError
from infra.store import files

SQLITE = "sqlite"
_NAMES = ("prefect", "mlflow")


def remember(folder: Path, setting: str) -> str:
    """Returns the database that the services of a folder keep their data in, and records it at their first start.

    Args:
        folder: Folder of the services.
        setting: ``services.database``; with its default, SQLite, the recorded one counts.

    Raises:
        ConfigError: They have another one: with this one their runs and models would seem lost.
    """
    path = folder / "database"
    with files.errors(path):
        files.write_if_absent(path, setting.encode())
        recorded = path.read_text(encoding="utf-8")
    if setting not in (recorded, SQLITE):
        raise ConfigError(
            f"services.database: the services of {folder} keep their data in {recorded}; take that, or another run_dir"
        )
    return recorded


def url(setting: str, name: str, driver: str) -> str:
    """Returns the SQLAlchemy URL of a service's database on PostgreSQL; empty for SQLite.

    Args:
        setting: ``services.database``.
        name: Name of the service.
        driver: Driver that the service uses.
    """
    if setting == SQLITE:
        return ""
    return f"{setting.replace('postgresql://', f'postgresql+{driver}://', 1)}_{name}"


def create_missing(setting: str) -> list[str]:
    """Creates the databases of ``services.database`` that are missing; returns their names.

    Raises:
        ConfigError: The server does not answer or refuses the user, or the driver is not installed.
    """
    if setting == SQLITE:
        return []
    try:
        import psycopg2
        from psycopg2 import sql
    except ImportError as error:
        message = "services.database: PostgreSQL needs a driver; run `pip install 'effnet[postgres]'`"
        raise ConfigError(message) from error
    prefix = urlsplit(setting).path.removeprefix("/")
    created = []
    try:
        # The database `postgres` exists on every server.
        connection = psycopg2.connect(setting.removesuffix(prefix) + "postgres", connect_timeout=10)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT datname FROM pg_database")
                present = {row[0] for row in cursor.fetchall()}
                for database in (f"{prefix}_{name}" for name in _NAMES):
                    if database not in present:
                        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
                        created.append(database)
        finally:
            connection.close()
    except psycopg2.Error as error:
        text = " ".join(str(error).split())
        raise ConfigError(
            f"services.database: {text}; the password is read from PGPASSWORD or PGPASSFILE, never from the URL"
        ) from error
    return created
