"""The embedded services on 127.0.0.1: object store, Prefect, MLflow and a Prefect worker.

All their files are under ``RUN_DIR/services`` (mode 0700)::

    state.json  credentials.json  grpc.key    the chosen ports; the secrets (0600)
    database                                  services.database at the first start
    open-NAME.html                            redirects a browser to a service, logged in (0600)
    NAME.process.json  logs/NAME.log          the running process; its current and (.1) previous log
    s3/  prefect/  mlflow/                    their data

A service whose address is configured is external: it is used, but never started, stopped or changed. The worker
belongs to the embedded Prefect. Other users of this machine cannot access the object store without the keys, nor
Prefect and MLflow without the passwords, unless ``services.auth=false``.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conf.schema import Services
from infra import store
from infra.environment import clean
from infra.errors import ConfigError, TransientError
from infra.services import databases, deployments, http, keys, login, ports, processes, programs, startup
from infra.services.prefect_api import PrefectApi
from infra.store import files

NAMES = ("s3", "prefect", "mlflow", "worker")


@dataclass(frozen=True)
class Addresses:
    """Addresses of the services. ``s3`` is empty for Amazon S3; ``prefect`` ends with ``/api``."""

    s3: str
    prefect: str
    mlflow: str


@dataclass(frozen=True)
class StartedServices:
    """Result of ``up``: ``names`` were started by this call, in this order; the others were already running."""

    names: tuple[str, ...]
    addresses: Addresses


def prepare(run_dir: Path, services: Services) -> Addresses:
    """Chooses ports and creates keys if missing; starts nothing and waits for nothing.

    Raises:
        ConfigError: The folder cannot be written, or no port is free.
    """
    folder = _folder(run_dir)
    if file := next((path for path in (folder, *folder.parents) if path.is_file()), None):
        raise ConfigError(f"run_dir={run_dir} must be a folder, and {file} is a file: name another one")
    with files.errors(folder):
        files.make_private(folder)
        folder.chmod(0o700)
        keys.credentials(folder)
    running = [name for name in NAMES if processes.running(folder, name)]
    previous = _chosen_ports(folder)
    chosen = ports.choose(previous, running, owner=str(folder))
    if chosen != previous:
        files.write(folder / "state.json", json.dumps({"ports": chosen}, indent=2).encode())
    return _addresses(services, chosen)


def environment(run_dir: Path, services: Services) -> dict[str, str]:
    """Returns the variables that Prefect, boto3 and MLflow need before they are imported; calls ``prepare``."""
    addresses = prepare(run_dir, services)
    folder = _folder(run_dir)
    env = {
        "PREFECT_API_URL": addresses.prefect,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(deployments.HEARTBEAT_S),  # the automation expects it so often
        "MLFLOW_TRACKING_URI": addresses.mlflow,
        "DO_NOT_TRACK": "1",
        "PYTHONUTF8": "1",  # of child processes; this one has read its locale
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    secrets = keys.credentials(folder)
    env |= _login_variables(services, secrets)
    if services.prefect == "embedded":
        env["PREFECT_HOME"] = str(folder / "prefect")  # ~/.prefect stays unchanged
        env["PREFECT_PROFILES_PATH"] = str(folder / "prefect" / "profiles.toml")  # else .env of the working folder says
    if services.mlflow == "embedded":
        env["NETRC"] = os.devnull  # requests would send its login for any host instead
    if services.s3 != "aws":
        env["AWS_ENDPOINT_URL_S3"] = addresses.s3
    if services.s3 == "embedded":
        env |= {
            "AWS_ACCESS_KEY_ID": secrets["access_key"],
            "AWS_SECRET_ACCESS_KEY": secrets["secret_key"],
            "AWS_SESSION_TOKEN": "",  # a token left over from Amazon would invalidate the signature
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,  # ~/.aws is about another object store
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
    if "embedded" in (services.s3, services.prefect, services.mlflow):
        for name in ("NO_PROXY", "no_proxy"):  # a company's proxy cannot reach 127.0.0.1 of this machine
            others = [host for host in os.environ.get(name, "").split(",") if host and host != ports.HOST]
            env[name] = ",".join([*others, ports.HOST])
    return env


def connect(run_dir: Path, services: Services) -> dict[str, str]:
    """Makes this process and its children use the services, whatever the user's shell exports; starts nothing.

    Returns:
        The variables that it set in ``os.environ``, those of ``environment``.
    """
    env = environment(run_dir, services)  # before the removal: it recognises inherited passwords
    clean(os.environ, services)
    os.environ.update(env)
    return env


def connect_if_running(run_dir: Path, services: Services, name: str) -> bool:
    """Makes this process use a service that runs or is external; writes nothing.

    Args:
        run_dir: The run directory.
        services: Addresses of the services, or ``embedded``.
        name: ``s3`` or ``mlflow``.

    Returns:
        False if it is an embedded service that does not run.
    """
    address = getattr(services, name)
    if address == "embedded":
        if processes.running(_folder(run_dir), name) is None:
            return False
        connect(run_dir, services)
    elif address != "aws":
        os.environ["AWS_ENDPOINT_URL_S3" if name == "s3" else "MLFLOW_TRACKING_URI"] = address
    return True


def _login_variables(services: Services, secrets: dict[str, str]) -> dict[str, str]:
    """Returns the login variables of clients: generated passwords for embedded services, the user's for external ones.

    Includes passwords with ``services.auth=false`` too, because the services may have been started with it on.
    """
    prefect = {"PREFECT_API_AUTH_STRING": f"{keys.USER}:{secrets['prefect_password']}"}
    mlflow = {"MLFLOW_TRACKING_USERNAME": keys.USER, "MLFLOW_TRACKING_PASSWORD": secrets["mlflow_password"]}
    env: dict[str, str] = {}
    for address, login_variables, neutral in (
        (services.prefect, prefect, {"PREFECT_API_KEY": ""}),
        (
            services.mlflow,
            mlflow,
            {"MLFLOW_TRACKING_TOKEN": "", "MLFLOW_TRACKING_AUTH": "", "MLFLOW_TRACKING_AWS_SIGV4": "false"},
        ),
    ):
        if address == "embedded":
            env |= login_variables | {name: value for name, value in neutral.items() if os.environ.get(name)}
        elif all(os.environ.get(name) == value for name, value in login_variables.items()):
            env |= dict.fromkeys(login_variables, "")  # inherited embedded passwords: not for an external server
    return env


def up(
    run_dir: Path, services: Services, *, jobs_at_once: int, say: Callable[[str], None], only: Collection[str] = NAMES
) -> StartedServices:
    """Starts the missing services concurrently and returns when all requested services are healthy.

    Sets ``environment`` in ``os.environ``, because the object store is tested through ``infra.store``. If anything
    fails, or the user presses Ctrl-C, the services that this call started are stopped again.

    Args:
        run_dir: The run directory; the data of the services is in its folder ``services``.
        services: Addresses of the services, or ``embedded``.
        jobs_at_once: Value of Prefect's concurrency limit ``accelerator``.
        say: Callback that receives progress lines for the user.
        only: Names, from ``NAMES``, of the requested services.

    Raises:
        ConfigError: A service died at its start; the message holds the last lines of its log.
        TransientError: A service was not healthy in time.
    """
    if unknown := set(only) - set(NAMES):
        raise ConfigError(f"no services {sorted(unknown)}; there are {', '.join(NAMES)}")
    folder = _folder(run_dir)
    prepare(run_dir, services)
    with _lock(folder, say):
        env = environment(run_dir, services)
        os.environ.update(env)
        requested = [name for name in NAMES if name in only and _is_embedded(services, name)]
        database = services.database
        if {"prefect", "mlflow"} & {*requested}:
            database = databases.remember(folder, database)
        stack = startup.Stack(folder, _chosen_ports(folder), env, services.s3 == "embedded", services.auth, database)
        names = startup.bring_up(stack, requested, jobs_at_once, say)
        return StartedServices(tuple(names), _addresses(services, stack.ports))


def check(services: Services, storage: str) -> None:
    """Checks, before work begins, that external services answer and that the store has its bucket.

    Raises:
        ConfigError: A service does not answer or refuses the credentials; before work begins, a user's mistake.
    """
    for name, page in (("prefect", "/health"), ("mlflow", "/health")):
        url = getattr(services, name)
        if url != "embedded" and not http.answers(url.rstrip("/") + page):
            raise ConfigError(f"services.{name}: {url} does not answer; start it or set services.{name}=embedded")
    try:
        store.ensure_root(storage)
    except TransientError as error:
        raise ConfigError(str(error)) from error


def down(run_dir: Path, only: Collection[str] | None = None, say: Callable[[str], None] = lambda _: None) -> list[str]:
    """Stops the services of this run directory, whoever started them; returns the names of those that were running.

    Never touches an unrelated process with a reused process id, and no flow run of a worker elsewhere.

    Args:
        run_dir: The run directory.
        only: Names, from ``NAMES``, of the services to stop; all by default.
        say: Callback that receives a line for the user for each flow run that continues elsewhere.
    """
    folder = _folder(run_dir)
    names = [name for name in NAMES if only is None or name in only]
    if not folder.exists():
        return []
    with _lock(folder, lambda _: None):
        # The worker first: its flow runs still report to Prefect and write to the store.
        stopped: list[str] = []
        if "worker" in names:
            if processes.running(folder, "worker"):
                for run in deployments.cancel_runs(_prefect_api(folder)):
                    say(f"left running: {run}")
            stopped = processes.stop(folder, ["worker"])
        stopped += processes.stop(folder, [name for name in names if name != "worker"])
        if "s3" in stopped:
            programs.remove_sockets(_chosen_ports(folder))
        if stopped and not any(processes.running(folder, name) for name in NAMES):
            ports.release(str(folder))
        return stopped


def status(run_dir: Path, services: Services) -> dict[str, str]:
    """Returns one status line per service; chooses and starts nothing."""
    folder = _folder(run_dir)
    chosen = _chosen_ports(folder)
    lines: dict[str, str] = {}
    for name in NAMES:
        if not _is_embedded(services, name):
            lines[name] = f"yours: {_describe_external(services, name)}"
        elif not chosen or (process := processes.running(folder, name)) is None:
            lines[name] = "not running"
        else:
            url = startup.url(chosen, name)
            where = f"as process {process.pid}" if name == "worker" else f"at {url}"  # a worker has no address
            is_healthy = startup.answers(url, name, _prefect_api(folder))
            lines[name] = (
                f"running {where}"
                if is_healthy
                else f"started {where}, but does not answer; see {processes.log_path(folder, name)}"
            )
    return lines


def _describe_external(services: Services, name: str) -> str:
    """The address of a service that is not embedded; workers have none, only the server that they take runs from."""
    if name == "worker":
        return f"those that take runs from {services.prefect}, whose page Work Pools lists them"
    return str(getattr(services, name))


def login_warnings(run_dir: Path, services: Services) -> list[str]:
    """Returns a warning per running embedded service that needs no password or contradicts ``services.auth``."""
    folder = _folder(run_dir)
    chosen = _chosen_ports(folder)
    names = [name for name in login.PAGES if _is_embedded(services, name) and processes.running(folder, name)]
    lines = [login.warning(startup.url(chosen, name), name, services.auth) for name in names if chosen]
    return [line for line in lines if line is not None]


def open_in_browser(run_dir: Path, services: Services, name: str) -> str:
    """Opens the pages of ``prefect`` or ``mlflow`` in a browser, logged in; returns the message to print.

    Raises:
        ConfigError: The page does not exist, or the service is not running.
    """
    if name not in login.PAGES:
        raise ConfigError(f"effnet open {name}: there are {' and '.join(login.PAGES)}")
    address = getattr(services, name)
    if address != "embedded":
        return login.show(address.removesuffix("/api"))
    folder = _folder(run_dir)
    if not _chosen_ports(folder) or processes.running(folder, name) is None:
        raise ConfigError(f"{programs.TITLES[name]} of {run_dir} does not run; start it with `effnet up`")
    return login.show_logged_in(folder, startup.url(_chosen_ports(folder), name), name)


def _prefect_api(folder: Path) -> PrefectApi:
    url = f"{startup.url(_chosen_ports(folder), 'prefect')}/api"
    return PrefectApi(url, f"{keys.USER}:{keys.credentials(folder)['prefect_password']}")


def _folder(run_dir: Path) -> Path:
    return run_dir.resolve() / "services"


def _is_embedded(services: Services, name: str) -> bool:
    return bool(getattr(services, "prefect" if name == "worker" else name) == "embedded")


def _chosen_ports(folder: Path) -> dict[str, int]:
    """Returns the ports in ``state.json``; empty if it is missing or damaged, so that they are chosen again."""
    try:
        recorded = json.loads((folder / "state.json").read_bytes())["ports"]
        chosen = {name: recorded[name] for name in ports.PREFERRED}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return chosen if all(type(port) is int and 0 < port < 2**16 for port in chosen.values()) else {}


def _addresses(services: Services, chosen: dict[str, int]) -> Addresses:
    at = {name: f"http://{ports.HOST}:{port}" for name, port in chosen.items()}
    given = {"embedded": at["s3"], "aws": ""}
    return Addresses(
        s3=given.get(services.s3, services.s3),
        prefect=f"{at['prefect']}/api" if services.prefect == "embedded" else services.prefect,
        mlflow=at["mlflow"] if services.mlflow == "embedded" else services.mlflow,
    )


@contextmanager
def _lock(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Locks the services of this folder for one process; the system releases the lock when that process dies."""
    with (folder / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is starting or stopping these services; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
