"""Describes this machine and this checkout, for provenance. Never raises; unknown values are omitted."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import platform
import resource
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CODE = Path(__file__).resolve().parents[1]  # the checkout, or site-packages
COMMAND, COMMAND_TAG = "EFFNET_COMMAND", "command"  # variable of this process, and tag of its runs in MLflow
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of CPU time, or max, and per how many
CPUS = Path("/proc/cpuinfo")
PACKAGES = ("torch", "prefect", "mlflow", "webdataset")


@functools.cache
def facts() -> dict[str, str]:
    """Returns the CPU, cores, memory, GPU and its driver, and the versions of Python and the main packages."""
    line = _first_output_line(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    gpu, _, driver = line.rpartition(", ") if ", " in line else (line, "", "")
    description = {
        "cpu": _cpu_name(),
        "cores": str(os.cpu_count()),
        "memory_gb": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f}",
        "gpu": gpu or "none",
        **({"driver": driver} if driver else {}),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            description[package] = version(package)
        except PackageNotFoundError:
            continue
    return description


def cores() -> int:
    """Returns the cores that this process may use: those it may run on, within the CPU limit of its container."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text(encoding="utf-8").split()
        return max(1, min(usable, int(quota) // int(period)))
    except (OSError, ValueError):  # no limit, or no control group of version 2
        return usable


def gpus() -> list[str]:
    """Returns the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or the indices of all.

    As in CUDA, the first invalid index, often -1, hides itself and all that follow it.
    """
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        named = (gpu.strip() for gpu in visible.split(","))
        return list(itertools.takewhile(lambda gpu: gpu and not gpu.startswith("-"), named))
    return [line.strip() for line in _output_lines(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"])]


def import_path() -> dict[str, str]:
    """Returns the variables with which a child process imports this code, in whatever folder it starts.

    With ``PYTHONSAFEPATH`` no module of the user's folder, such as ``models.py``, is imported instead; ``PYTHONPATH``
    leads to a checkout that is not installed, and precedes what the user has set there.
    """
    variables = {"PYTHONSAFEPATH": "1"}
    theirs = os.environ.get("PYTHONPATH")
    if theirs or str(CODE) != sysconfig.get_path("purelib"):
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CODE), theirs]))
    return variables


def has_avx512() -> bool:
    """Whether the cores have the AVX-512 instructions for which the layers in C and torch's kernels are faster."""
    return "avx512f" in _read_cpu("flags").split()


def format_utc(unix: float) -> str:
    """Returns ``2026-11-26 08:12:44 UTC`` for a time in Unix seconds."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix))


def peak_memory_gb() -> float:
    """Returns the peak resident memory of this process, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


@functools.cache  # this process runs the code that it found at its start
def commit() -> str:
    """Returns the commit of the checkout, with ``-dirty`` if tracked files differ; empty outside a checkout."""
    folder = Path(__file__).parent
    head = _first_output_line(["git", "-C", str(folder), "rev-parse", "HEAD"])
    if not head:
        return ""
    dirty = _first_output_line(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    return head + ("-dirty" if dirty else "")


@functools.cache
def training_code() -> str:
    """Returns the first 16 digits of the sha256 over all source files of ``models/``: what trains."""
    hasher = hashlib.sha256()
    root = CODE / "models"
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".c", ".h")):
        hasher.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()[:16]


def _cpu_name() -> str:
    return _read_cpu("model name") or platform.processor() or platform.machine()


def _read_cpu(field: str) -> str:
    """Returns a field of the first core's description by Linux; empty if there is none."""
    try:
        lines = CPUS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _first_output_line(argv: list[str]) -> str:
    return next(iter(_output_lines(argv)), "")


def _output_lines(argv: list[str]) -> list[str]:
    try:
        process = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return process.stdout.strip().splitlines() if process.returncode == 0 else []
