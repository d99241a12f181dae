"""Installs the project and its development packages into a virtual environment: ``make setup``.

``python infra/install.py FOLDER EXTRA,EXTRA`` instead copies the project and these extras of it into the environment,
which then needs no checkout: so the image is built (``infra/docker/Dockerfile``).

uv takes an eighth of pip's time but reads none of pip's settings, so they are passed on: an index, a folder of wheels
or a proxy that is configured for pip is used. pip installs where uv cannot. Runs before anything is installed, so it
needs nothing but Python and pip, and must parse in a Python that is too old.

``TORCH`` chooses the build of torch: ``cpu``, ``cuda`` or ``auto``, which keeps the installed one and otherwise takes
``cuda`` where ``nvidia-smi`` is present. CUDA libraries take gigabytes, so torch is installed first and by itself.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV_CPU_BUILD = ("--torch-backend", "cpu")
LOCK = str(ROOT / "constraints.txt")
TORCH_VERSION = "2.13.0"  # of constraints.txt
UV_NAMES = {  # pip's option: uv's variable
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "constraint": "UV_CONSTRAINT",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "no-cache-dir": "UV_NO_CACHE",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
# Imported once at the end, in two processes, so that Python writes the bytecode of what every command and service
# imports: a quarter of all files. uv's --compile-bytecode would compile the others too.
COMPILED = (
    ("flows", "tasks", "prefect.server.api.server", "prefect.cli.worker", "prefect.cli.deploy"),
    ("models", "infra", "mlflow.server.auth", "mlflow.cli"),
)
IMPORT_ALL = """
import importlib, pkgutil, sys, warnings
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    if "." not in name:
        for module in pkgutil.walk_packages(package.__path__, name + "."):
            if not module.name.rpartition(".")[2].startswith("_"):
                importlib.import_module(module.name)
"""


def main(argv: list[str]) -> int:
    """Installs what is missing into the environment ``argv[1]``, for use with the extras ``argv[2]`` if there are any.

    Returns:
        The exit code.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - the Python that the user has may be older
        sys.stderr.write(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; make setup PYTHON=PATH\n")
        return 2
    venv, began = Path(argv[1]).absolute(), time.monotonic()
    record = venv / ".done"
    installed = record.read_text(encoding="utf-8") if record.exists() else ""
    torch = _torch_build(os.environ.get("TORCH") or "auto", installed)
    if torch is None:
        return 2
    extras = argv[2] if len(argv) > 2 else ""
    project = ["-e", f"{ROOT}[dev]"] if not extras else [f"{ROOT}[{extras}]"]
    state = f"{torch} {_digest()} {extras}".rstrip()
    if installed == state:
        print(f"setup: {venv.name} is current (torch: {torch})")
        return 0
    print(f"setup: installing into {venv.name}, {torch} build of torch", flush=True)
    try:
        _create(venv, keep=installed.startswith(torch))
        _install(venv, torch, project)
        _compile(venv, ROOT if not extras else venv)
    except subprocess.CalledProcessError as error:
        words = [str(word) for word in error.cmd]
        sys.stderr.write(f"error: exit code {error.returncode} of: {' '.join(words)[:300]}\n")
        return 1
    record.write_text(state, encoding="utf-8")
    print(f"setup: done in {time.monotonic() - began:.0f} s")
    return 0


def _torch_build(requested: str, installed: str) -> str | None:
    if requested not in ("auto", "cpu", "cuda"):
        sys.stderr.write(f"error: TORCH={requested}: cpu, cuda or auto\n")
        return None
    if requested != "auto":
        return requested
    return installed.partition(" ")[0] or ("cuda" if shutil.which("nvidia-smi") else "cpu")


def _digest() -> str:
    """Digest of the files that decide what is installed."""
    inputs = [ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / "setup.py", Path(__file__)]
    inputs += sorted(ROOT.glob("models/**/native/*.[ch]"))
    return hashlib.sha256(b"\0".join([sys.version.encode(), *(path.read_bytes() for path in inputs)])).hexdigest()


def _create(venv: Path, keep: bool) -> None:
    """Creates the environment without pip, whose installation takes seconds: the pip of this Python is used.

    Args:
        venv: Folder of the environment.
        keep: Whether an existing one remains, because the other build of torch is not in it.
    """
    if keep and (venv / "bin" / "python").exists():
        (venv / ".done").unlink()
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv)], check=True)
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0:
        subprocess.run([venv / "bin" / "python", "-m", "ensurepip", "--default-pip"], check=True, capture_output=True)


def _install(venv: Path, torch: str, project: Sequence[str]) -> None:
    """Installs everything by uv, or by pip if uv cannot be installed or fails.

    Raises:
        CalledProcessError: An installation by pip failed; its messages are printed.
    """
    python = str(venv / "bin" / "python")
    pip = [python, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode != 0:
        pip = [sys.executable, "-m", "pip", "--python", python]
    settings = pip_settings(subprocess.run([*pip, "config", "list"], capture_output=True, text=True).stdout)
    pip += ["--disable-pip-version-check", "--quiet"]
    local = "find-links" in settings
    uv = shutil.which("uv") or str(venv / "bin" / "uv")
    if not Path(uv).exists():
        subprocess.run([*pip, "install", "-c", LOCK, "uv"], capture_output=True)
    if Path(uv).exists():
        try:
            environment = {**os.environ, **uv_environment(settings), "VIRTUAL_ENV": str(venv)}
            return _run_steps([uv, "pip", "install", "--quiet"], torch, project, local, environment, UV_CPU_BUILD)
        except subprocess.CalledProcessError:
            print("setup: uv failed, as it says above; continuing with pip, which takes minutes", flush=True)
    else:
        print("setup: uv cannot be installed; using pip, which takes minutes", flush=True)
    return _run_steps([*pip, "install"], torch, project, local, dict(os.environ))


def _run_steps(
    install: list[str],
    torch: str,
    project: Sequence[str],
    local: bool,
    environment: dict[str, str],
    cpu_build: Sequence[str] = (),
) -> None:
    """Installs torch, then the project with what it needs, then the package that would require torchvision.

    Args:
        install: The installer's command.
        torch: Build of torch.
        project: What the installer installs the project from.
        local: Whether pip has folders of wheels, where a build of torch for the CPU may be.
        environment: Variables of the installer.
        cpu_build: Option by which the installer finds the build for the CPU; pip has none.
    """
    install = [*install, "-c", LOCK]
    if torch == "cuda":
        _call([*install, f"torch!={TORCH_VERSION}+cpu"], environment)
    else:
        is_local = local and not _fails([*install, "--no-index", "--no-deps", "torch"], environment)
        if not is_local and (not cpu_build or _fails([*install, "--no-deps", *cpu_build, "torch"], environment)):
            print("setup: no CPU build of torch; taking that of the package index, which is larger", flush=True)
    _call([*install, "pip", *project], environment)
    _call([*install, "--no-deps", "pytorchcv"], environment)


def _call(argv: list[str], environment: dict[str, str]) -> None:
    subprocess.run(argv, env=environment, check=True)


def _fails(argv: list[str], environment: dict[str, str]) -> bool:
    return subprocess.run(argv, env=environment, capture_output=True).returncode != 0


def pip_settings(listing: str) -> dict[str, str]:
    """Reads ``pip config list``: the options that apply to an installation, by name.

    Args:
        listing: Lines like ``global.index-url='https://...'``; ``:env:`` is an environment variable.
    """
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # pip's precedence, ascending
        for line in listing.splitlines():
            key, equals, value = line.partition("=")
            if equals and key.startswith(f"{section}."):
                settings[key[len(section) + 1 :].lstrip(".")] = str(ast.literal_eval(value))
    return settings


def uv_environment(settings: dict[str, str]) -> dict[str, str]:
    """Variables of uv for the settings of pip; a variable that the user has set is not replaced."""
    environment: dict[str, str] = {}
    for option, variable in UV_NAMES.items():
        words = settings.get(option, "").split()
        if words and variable not in os.environ:
            environment[variable] = ("," if option == "find-links" else " ").join(words)
    if "UV_INDEX" in environment and "UV_INDEX_STRATEGY" not in os.environ:
        environment["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip takes the best version of all indexes
    return environment


def _compile(venv: Path, folder: Path) -> None:
    """Imports what every command imports; also shows that the installation works.

    Args:
        venv: Folder of the environment.
        folder: Working folder, whose modules take precedence over those of the environment.

    Raises:
        CalledProcessError: An import failed; its traceback is printed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PREFECT_HOME"] = str(venv / "prefect")  # importing Prefect's server creates its folder
    argvs = [[str(venv / "bin" / "python"), "-c", IMPORT_ALL, *names] for names in COMPILED]
    running = [subprocess.Popen(argv, env=environment, cwd=folder) for argv in argvs]
    for process in running:
        process.wait()
    for process, argv in zip(running, argvs):  # noqa: B905 - parsed by old versions of Python
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
