"""Facts about this machine and this checkout, for provenance. Never raises: what is unknown is left out."""

from __future__ import annotations

import functools
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "prefect", "mlflow", "webdataset")


@functools.cache
def facts() -> dict[str, str]:
    """CPU, cores, memory, GPU, Python and the versions that matter."""
    found = {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "memory_gb": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f}",
        "gpu": _line(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or "none",
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def peak_memory_gb() -> float:
    """The most memory that this process has ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def commit() -> str:
    """The checkout's commit, with ``-dirty`` where files differ from it; empty outside a checkout."""
    here = Path(__file__).parent
    found = _line(["git", "-C", str(here), "rev-parse", "HEAD"])
    if not found:
        return ""
    dirty = _line(["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no"])
    return found + ("-dirty" if dirty else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _line(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""
