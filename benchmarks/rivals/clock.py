"""The one clock that every side of a loader benchmark is held against; standard library only.

A program hands over an endless iterator of batch sizes. It is run for a warm-up, which also pays for starting
workers and compiling, then for a window of some seconds. CPU is that of the whole process tree, because rivals
decode in worker processes; it is what to compare when the machine is shared with other work.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

BATCH = 50
SIDE = 224
WORKERS = 2  # processes or threads that decode, of every side
WARM_UP_S = 1.0
WINDOW_S = 4.0
MEAN_RGB = (123.675, 116.28, 103.53)  # of pixels 0..255; the usual ImageNet values
STDDEV_RGB = (58.395, 57.12, 57.375)


def measure(batches: Iterator[int]) -> None:
    """Times ``batches`` (images in each, endless) and prints the finding as the last line, JSON.

    Keys: ``images_per_s`` by the wall clock, ``cpu_ms`` an image over the process tree, ``rss_mb`` at the end
    (sum over the tree, shared pages counted in each), ``others``: share of the machine that other work took.
    """
    warm_until = time.perf_counter() + WARM_UP_S
    next(batches)  # workers start here; the warm-up below is counted from the first batch at the earliest
    warm_until = max(warm_until, time.perf_counter() + WARM_UP_S / 2)
    while time.perf_counter() < warm_until:
        next(batches)
    cpu, busy, began, images = _cpu_s(), busy_s(), time.perf_counter(), 0
    while time.perf_counter() < began + WINDOW_S:
        images += next(batches)
    wall, cpu, busy = time.perf_counter() - began, _cpu_s() - cpu, busy_s() - busy
    others = (busy - cpu) / wall / (os.cpu_count() or 1)
    found = {"images_per_s": images / wall, "cpu_ms": 1000 * cpu / images, "rss_mb": rss_mb(), "others": others}
    print(json.dumps(found), flush=True)


def finish() -> None:
    """Ends the process at once: some rivals' threads hang or crash at exit, and that is not what is measured."""
    for pid in _tree()[1:]:
        os.kill(pid, 9)
    os._exit(0)


def _tree() -> list[int]:
    """This process and all below it."""
    found = [os.getpid()]
    for pid in found:  # grows while it is walked
        for task in Path(f"/proc/{pid}/task").glob("*"):
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _cpu_s() -> float:
    """User and system seconds of the tree, those of children that ended included."""
    ticks = 0
    for pid in _tree():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(each) for each in fields[11:15])  # utime, stime, cutime, cstime (man 5 proc)
    return ticks / os.sysconf("SC_CLK_TCK")


def busy_s() -> float:
    """Seconds that all cores of the machine together have worked since it started."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    idle = fields[3] + fields[4]  # idle and iowait (man 5 proc)
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def rss_mb() -> float:
    """Resident memory of the tree."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in _tree())
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
