"""The one table of the environment variables that do not reach unchanged what effnet starts, with the reasons.

A variable that is in no row passes: e.g. ``CUDA_VISIBLE_DEVICES``, ``NCCL_*``, ``OMPI_*``, ``PMI_*``, ``HTTPS_PROXY``,
through which data is fetched, and, of external services, ``AWS_*``, ``PREFECT_*`` and ``MLFLOW_*``, which are the
user's. Jobs on Slurm get the same without ``SLURM_*`` and ``SBATCH_*``, pods only what
``infra/launch/kubernetes.py`` names.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from conf.schema import Services
from infra.errors import ConfigError
from infra.launch.command import JOB_FOLDER, RENDEZVOUS_TOKEN, RESOLVE_S, ROUND, TOKEN_URI
from infra.store import files

COMMAND, SERVICES, JOBS = "command", "services", "jobs"  # who must not see a variable; a command's children neither


@dataclass(frozen=True)
class Dropped:
    """Variables that are not passed on.

    Attributes:
        names: Names; a trailing * stands for any end.
        by: Who drops them: the command for itself and all it starts, or only its services, or its jobs.
        reason: What they would change.
        embedded: Service that must be an embedded one for this row to count; empty for all.
        if_missing: Whether they are dropped only if they name no existing file or folder.
        if_starts: What the value begins with, in any case, where they are dropped; empty for any value.
        unless: Pattern of the values with which they pass; empty for none.
        but: Names, as in ``names``, that pass nevertheless, because they change no numbers.
        said: Whether the log names them: who sets them expects an effect on speed or numbers.
    """

    names: tuple[str, ...]
    by: tuple[str, ...]
    reason: str
    embedded: str = ""
    if_missing: bool = False
    if_starts: str = ""
    unless: str = ""
    but: tuple[str, ...] = ()
    said: bool = False


DROPPED = (
    Dropped(("AWS_*",), (COMMAND, SERVICES), "profile, keys and address of another object store", embedded="s3"),
    Dropped(("PREFECT_*",), (COMMAND, SERVICES), "address, profile and settings of another server", embedded="prefect"),
    Dropped(("MLFLOW_*",), (COMMAND, SERVICES), "address, registry and settings of another server", embedded="mlflow"),
    Dropped(
        ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"),
        (COMMAND,),
        "the run into which MLflow would log everything",
    ),
    Dropped(
        ("ALL_PROXY", "all_proxy"), (COMMAND, SERVICES), "Prefect's client fails on a SOCKS proxy", embedded="prefect"
    ),
    Dropped(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
        (COMMAND, SERVICES),
        "Prefect's client fails on a SOCKS proxy",
        embedded="prefect",
        if_starts="socks",
        said=True,
    ),
    Dropped(
        ("TMPDIR", "TEMP", "TMP", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        (COMMAND,),
        "libraries fail where these lead nowhere, even those that then need no such file",
        if_missing=True,
    ),
    Dropped(
        ("SSLKEYLOGFILE",),
        (COMMAND,),
        "secrets of all connections would be written, or every client fails where it cannot be written",
    ),
    Dropped(
        ("PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONIOENCODING", "PYTHONSTARTUP"),
        (COMMAND,),
        "settings of the user's Python session, e.g. warnings that are errors; the command undoes them",
    ),
    Dropped(
        (
            *("PYTHONDEVMODE", "PYTHONASYNCIODEBUG", "PYTHONTRACEMALLOC", "PYTHONMALLOC", "PYTHONVERBOSE"),
            *("PYTHONPROFILEIMPORTTIME", "PYTHONDUMPREFS"),
        ),
        (COMMAND,),
        "checks of a debugged Python session: services took minutes to start, and logs held thousands of lines",
    ),
    Dropped(
        ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT"),
        (COMMAND,),
        "OpenMP prints a line of its own about values that are no numbers of threads, such as 0",
        unless=r"\s*\+?0*[1-9]\d*(\s*,\s*\+?0*[1-9]\d*)*\s*",
    ),
    Dropped(("WEED_*", "S3_BUCKET*", "S3_TABLE_BUCKET*"), (SERVICES,), "options of another SeaweedFS"),
    Dropped(
        ("UVICORN_*", "GUNICORN_*", "FLASK_*", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"),
        (SERVICES,),
        "options of the web servers in Prefect and MLflow, their address and number of processes among them",
    ),
    Dropped(("OTEL_*",), (COMMAND, SERVICES), "Prefect and MLflow would send traces, or fail at an exporter's name"),
    Dropped(("PET_*",), (JOBS,), "torchrun reads each of its options from PET_OPTION"),
    Dropped(("TORCHELASTIC_*",), (JOBS,), "restart count, error file and signals of an outer torchrun"),
    Dropped(("MASTER_*",), (JOBS,), "the address of an outer job's store"),
    Dropped(("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_*", "ROLE_*"), (JOBS,), "the rank of a process in an outer job"),
    Dropped(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), (JOBS,), "the number of processes of an outer job"),
    Dropped(
        ("OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "BLIS_*"),
        (JOBS,),
        "number and places of threads: would overrule launch.threads_per_proc, or bind all ranks to the same cores",
        but=(
            *("KMP_DUPLICATE_LIB_OK", "MKL_THREADING_LAYER", "MKL_SERVICE_FORCE_INTEL"),  # conda's two OpenMP libraries
            *("OMP_STACKSIZE", "KMP_STACKSIZE", "OMP_DISPLAY_ENV", "KMP_WARNINGS"),
        ),
        said=True,
    ),
    Dropped(
        (
            *("ONEDNN_*", "DNNL_*", "MKLDNN_*", "ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
            *("OPENBLAS_CORETYPE", "NPY_*", "NVIDIA_TF32_OVERRIDE", "CUBLAS_*", "CUBLASLT_*", "CUDNN_*"),
        ),
        (COMMAND, JOBS),
        "other kernels or fewer bits than the settings state, so other numbers",
        said=True,
    ),
    Dropped(
        ("TORCH_*", "PYTORCH_*", "TORCHDYNAMO_*", "TORCHINDUCTOR_*"),
        (COMMAND, JOBS),
        "other kernels, compilation or fewer bits than the settings state, so other numbers",
        but=(
            *("TORCH_NCCL_*", "TORCH_FR_*", "TORCH_DISTRIBUTED_DEBUG", "TORCH_SHOW_CPP_STACKTRACES", "TORCH_HOME"),
            *("TORCH_CUDA_ARCH_LIST", "TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR"),
            *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"),
            *("PYTORCH_NVML_BASED_CUDA_CHECK", "TORCH_DEVICE_BACKEND_AUTOLOAD", "TORCHINDUCTOR_COMPILE_THREADS"),
            *("TORCH_LOGS", "TORCH_LOGS_FORMAT", "TORCH_LOGS_OUT", "TORCH_TRACE", "TORCHDYNAMO_VERBOSE"),
        ),
        said=True,
    ),
    Dropped((ROUND,), (JOBS,), "a rank's restart count"),
    Dropped((RENDEZVOUS_TOKEN, TOKEN_URI, RESOLVE_S, JOB_FOLDER), (JOBS,), "belong to another job"),
)
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = tuple(form(name) for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY") for form in (str.upper, str.lower))
# Variables that pass, and whose values torch checks when it is imported.
READ_BY_IMPORT = ("TORCH_LOGS", "TORCH_LOGS_FORMAT", "TORCH_LOGS_OUT", "TORCH_DISTRIBUTED_DEBUG")
_caches = [Path("runs/cache")]  # the last one counts
_COMPILE_THREADS = "TORCHINDUCTOR_COMPILE_THREADS"
_FOLDERS_OF_TORCH = ("TORCH_TRACE", "TORCHINDUCTOR_CACHE_DIR")  # made by torch.compile, which fails without them
_REASON = 120  # characters of torch's error in a message
# Variables that effnet sets, whatever their value was; the functions that set them know the value.
SET = {
    "AWS_ACCESS_KEY_ID": "key of the embedded object store",
    "AWS_SECRET_ACCESS_KEY": "as AWS_ACCESS_KEY_ID",
    "AWS_SESSION_TOKEN": "empty: a token of Amazon would invalidate the signature",
    "AWS_DEFAULT_REGION": "a region that the embedded store accepts",
    "AWS_ENDPOINT_URL_S3": "services.s3",
    "AWS_CONFIG_FILE": "none: ~/.aws/config is about another object store",
    "AWS_SHARED_CREDENTIALS_FILE": "none: as AWS_CONFIG_FILE",
    "PREFECT_API_URL": "services.prefect",
    "PREFECT_API_AUTH_STRING": "password of the embedded server",
    "PREFECT_HOME": "in the run folder, so that ~/.prefect stays unchanged",
    "PREFECT_PROFILES_PATH": "as PREFECT_HOME",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "flow runs of a lost machine are soon marked as crashed",
    "MLFLOW_TRACKING_URI": "services.mlflow",
    "MLFLOW_TRACKING_USERNAME": "login of the embedded server",
    "MLFLOW_TRACKING_PASSWORD": "as MLFLOW_TRACKING_USERNAME",
    "NETRC": "none: a login of ~/.netrc would replace that of the embedded MLflow",
    "MLFLOW_DISABLE_TELEMETRY": "nothing is sent",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "a pickled model can run anything",
    "DO_NOT_TRACK": "nothing is sent",
    "NO_PROXY": "with 127.0.0.1, which no proxy can reach",
    "no_proxy": "as NO_PROXY",
    "PYTHONUTF8": "names of files are read as UTF-8 in any locale",
    "PYTHONSAFEPATH": "a module of the user's folder is not imported instead of effnet's",
    "PYTHONPATH": "leads to effnet, before the folders of the user, which may hold modules of the same names",
    "PYTHONUNBUFFERED": "the log holds the last lines of a killed process",
    "OMP_NUM_THREADS": "launch.threads_per_proc",
    "CUDA_VISIBLE_DEVICES": "empty with launch.device=cpu, and those of a worker that its job locked",
    "EFFNET_CACHE": "the shard cache in the run folder",
    "TORCH_CPP_LOG_LEVEL": "c10d warns about IPv6 on every start",
    "MALLOC_MMAP_THRESHOLD_": "glibc keeps freed memory: 15 to 25 % of a step on a CPU",
    "MALLOC_TRIM_THRESHOLD_": "as MALLOC_MMAP_THRESHOLD_",
}


def inherited(environment: Mapping[str, str], child: str, embedded: Collection[str] = ()) -> dict[str, str]:
    """Returns the variables that are passed on.

    Args:
        environment: Variables of this process.
        child: ``COMMAND``, ``SERVICES`` or ``JOBS``.
        embedded: Services that are embedded: ``s3``, ``prefect``, ``mlflow``.
    """
    rows = [row for row in DROPPED if child in row.by and (not row.embedded or row.embedded in embedded)]
    return {name: value for name, value in environment.items() if not any(_drops(row, name, value) for row in rows)}


def describe_dropped(environment: Mapping[str, str]) -> str:
    """Returns a line about the variables of kernels, threads and proxies that are not passed on; empty without any.

    Variables that effnet sets itself, as ``OMP_NUM_THREADS``, are not named: clusters set them for every command.
    """
    dropped: dict[Dropped, list[str]] = {}
    for name, value in sorted(environment.items()):
        rows = [row for row in DROPPED if row.said and name not in SET and _drops(row, name, value)]
        if rows:  # of several, the one that names the variable in full has its reason
            dropped.setdefault(max(rows, key=lambda row: name in row.names), []).append(name)
    reasons = [f"{', '.join(dropped[row])} ({row.reason})" for row in DROPPED if row in dropped]
    return f"variables without an effect: {'; '.join(reasons)}" if reasons else ""


def clean(environment: MutableMapping[str, str], services: Services) -> None:
    """Removes what must not reach this command, nor anything that it starts."""
    embedded = [name for name in ("s3", "prefect", "mlflow") if getattr(services, name) == "embedded"]
    kept = inherited(environment, COMMAND, embedded)
    for name in [name for name in environment if name not in kept]:
        del environment[name]


def cache_folder() -> Path:
    """Returns the folder of caches: ``EFFNET_CACHE``, or that of ``use_cache`` where it is not set, or empty."""
    return Path(os.environ.get("EFFNET_CACHE") or _caches[-1])


@contextmanager
def use_cache(run_dir: Path) -> Iterator[None]:
    """Places the caches of this process in a run folder, where those of its jobs are, unless ``EFFNET_CACHE`` is set.

    No variable is set, which would outlive a command that a test calls, and no context, which threads do not inherit.
    """
    _caches.append(run_dir / "cache")
    try:
        yield
    finally:
        _caches.pop()


def make_cache(folder: Path) -> None:
    """Creates a folder of caches.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        files.make_private(folder)
        refused = "" if os.access(folder, os.W_OK | os.X_OK) else "it is not writable"
    except OSError as error:
        refused = error.strerror or type(error).__name__
    if refused:
        value = os.environ.get("EFFNET_CACHE")
        now = f", which is {value}," if value else ""
        raise ConfigError(f"no cache in {folder} ({refused}): set EFFNET_CACHE{now} to a folder that can be written")


def check_torch(environment: Mapping[str, str]) -> None:
    """Refuses variables that pass and with which no command or job could use torch; takes seconds if one is set.

    Raises:
        ConfigError: torch cannot be imported with one, or could compile nothing.
    """
    threads = environment.get(_COMPILE_THREADS)
    if threads and not threads.strip().isdecimal():
        raise ConfigError(f"{_COMPILE_THREADS} must be a number of threads, is {threads!r}: unset or correct it")
    for name in _FOLDERS_OF_TORCH:
        if (folder := environment.get(name)) and not _can_be_folder(Path(folder)):
            raise ConfigError(f"{name}={folder} is no folder that can be written: unset or correct it")
    given = {name: value for name in READ_BY_IMPORT if (value := environment.get(name))}
    if not given or (reason := _refuse_import(environment)) is None:
        return
    for name in given if len(given) > 1 else ():
        others = {key: value for key, value in environment.items() if key not in given or key == name}
        if (alone := _refuse_import(others)) is not None:
            given, reason = {name: given[name]}, alone
            break
    words = " ".join(f"{name}={value}" for name, value in given.items())
    raise ConfigError(f"torch cannot be imported with {words}: {reason}; unset or correct it")


def _refuse_import(environment: Mapping[str, str]) -> str | None:
    """Returns why torch cannot be imported with these variables, or None."""
    # Without garbage collection, at the end of the interpreter too, it takes two thirds of the time.
    code = "import atexit, gc; gc.disable(); atexit.register(gc.freeze); import torch.distributed"
    argv = [sys.executable, "-c", code]
    ended = subprocess.run(argv, env=inherited(environment, COMMAND), capture_output=True, text=True)
    if not ended.returncode:
        return None
    reason = " ".join(ended.stderr.rpartition("Error: ")[2].split()).rstrip(".")
    return reason if len(reason) <= _REASON else reason[:_REASON].rpartition(", ")[0] or f"{reason[:_REASON]}…"


def _can_be_folder(path: Path) -> bool:
    """Whether a folder can be written, or made where it is missing."""
    place = next(part for part in (path.absolute(), *path.absolute().parents) if os.path.lexists(part))
    return os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)  # noqa: PTH112 - as in _drops


def check_network(environment: Mapping[str, str]) -> None:
    """Refuses variables that pass and with which the clients of the services cannot be made.

    Raises:
        ConfigError: A file of certificates holds none, or a proxy has an address that no client reads.
    """
    for name in _CERTIFICATES:
        path = environment.get(name)
        if path and os.path.isfile(path):  # noqa: PTH113 - as in _drops
            status = os.stat(path)  # noqa: PTH116 - as in _drops
            if reason := _refuse_certificates(path, status.st_mtime_ns, status.st_size):
                raise ConfigError(f"{name}={path} is no file of certificates ({reason}): correct or unset it")
    for name in _PROXIES:
        if address := environment.get(name):
            import httpx  # as Prefect does

            try:
                httpx.HTTPTransport(proxy=address if "://" in address else f"http://{address}").close()
            except ImportError as error:  # the address is not shown: it may have a password
                raise ConfigError(
                    f"{name} is a SOCKS proxy, which Prefect's client reaches only with pip install 'httpx[socks]'; "
                    "install that, or unset it"
                ) from error
            except (ValueError, httpx.InvalidURL) as error:
                raise ConfigError(
                    f"{name} is no address of a proxy, as http://HOST:PORT: correct or unset it"
                ) from error


@lru_cache(maxsize=16)  # those of all authorities take 20 ms, and several variables name the same file
def _refuse_certificates(path: str, modified_ns: int, size: int) -> str | None:  # noqa: ARG001 - of which version
    """Returns why this version of a file of certificates cannot be read, or None."""
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        return " ".join(str(error).split())
    return None


def _drops(row: Dropped, name: str, value: str) -> bool:
    named = _is_one_of(name, row.names) and not _is_one_of(name, row.but)
    named = named and value.lower().startswith(row.if_starts)
    named = named and not (row.unless and re.fullmatch(row.unless, value))
    # os.path.exists is False, where Path.exists raises, for a folder that may not be read; SSL_CERT_DIR is a list.
    return named and not (row.if_missing and any(os.path.exists(part) for part in value.split(os.pathsep)))  # noqa: PTH110


def _is_one_of(name: str, names: Collection[str]) -> bool:
    return any(name.startswith(known[:-1]) if known.endswith("*") else name == known for known in names)
