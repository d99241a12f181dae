"""What a user waits for besides training: the installation, help, a plan, the first line of a command and its services.

The installation goes into a temporary environment with empty caches and downloads everything from the registry.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import harness

ROOT = Path(__file__).parents[1]
EFFNET = [sys.executable, "-m", "flows"]


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=3)
    report = harness.Report(options.n)
    waits: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
        for number in range(options.n + 1):
            measured = _measure_commands(Path(folder) / f"commands-{number}")
            if number > 0:  # the first reads everything from the disk
                _collect(waits, measured)
        for number in range(options.n):
            _collect(waits, _measure_setup(Path(folder) / f"setup-{number}"))
        for name, seconds in waits.items():
            report.add(name, seconds, "s")
    harness.show(report, options.json)


def _collect(waits: dict[str, list[float]], measured: dict[str, float]) -> None:
    for name, seconds in measured.items():
        waits.setdefault(name, []).append(seconds)


def _measure_commands(folder: Path) -> dict[str, float]:
    """Seconds of each command on a new run folder."""
    shard = ["shard", "profile=laptop", "data=digits", f"run_dir={folder}"]
    waits = {
        "effnet --help": _run(*EFFNET, "--help")[1],
        "effnet train --help": _run(*EFFNET, "train", "--help")[1],
        "effnet plan, eight variants": _run(*EFFNET, "plan", "profile=laptop")[1],
        "effnet plan scaling": _run(*EFFNET, "plan", "scaling")[1],
        "a wrong setting is refused": _run(*EFFNET, *shard, "recipe.epoch=1", fails=True)[1],
    }
    try:
        for services in ("starting", "running"):
            first, end = _run(*EFFNET, *shard)
            waits |= {
                f"effnet shard, services {services}: first line": first,
                f"the same, to its end ({services})": end,
            }
    finally:
        subprocess.run([*EFFNET, "down", f"run_dir={folder}"], cwd=ROOT, check=True, capture_output=True)
    return waits


def _measure_setup(folder: Path) -> dict[str, float]:
    """Seconds of ``make setup`` with empty caches, and of the same command once everything is installed."""
    argv = [sys.executable, "infra/install.py", str(folder / "venv")]
    empty = os.environ | {"UV_CACHE_DIR": str(folder / "uv"), "PIP_CACHE_DIR": str(folder / "pip")}
    return {"make setup": _run(*argv, variables=empty)[1], "make setup again": _run(*argv, variables=empty)[1]}


def _run(*argv: str, fails: bool = False, variables: Mapping[str, str] = os.environ) -> tuple[float, float]:
    """Seconds to the first line of a command and to its end."""
    began = time.monotonic()
    process = subprocess.Popen(
        argv, cwd=ROOT, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    process.stdout.readline()
    first = time.monotonic() - began
    output = process.stdout.read()
    if (process.wait() != 0) != fails:
        raise SystemExit(f"{' '.join(argv)}: exit code {process.returncode}\n{output}")
    return first, time.monotonic() - began


if __name__ == "__main__":
    main()
