"""What a person sees while a flow works: bars in a terminal, plain lines elsewhere. Fed by logging alone."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

PLAIN_PERIOD_S = 10.0  # between two lines of one job, unless it entered a new epoch


def attach() -> AbstractContextManager[Any]:
    """Shows the ``effnet`` log on stderr; in a terminal as bars, for as long as the context is open."""
    logger = logging.getLogger("effnet")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not sys.stderr.isatty():
        logger.addHandler(_Lines())
        return nullcontext()
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(), console=console, transient=True,
    )  # fmt: skip
    logger.addHandler(_Bars(progress))
    return progress


class _Lines(logging.Handler):
    """One line an event; of a job's progress one an epoch, or one in ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, tuple[int, float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        status = getattr(record, "progress", None)
        if status is not None:
            epoch, at = self.shown.get(status["job"], (0, 0.0))
            if status["epoch"] == epoch and time.monotonic() - at < PLAIN_PERIOD_S:
                return
            self.shown[status["job"]] = (status["epoch"], time.monotonic())
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {record.getMessage()}\n")


class _Bars(logging.Handler):
    """One bar for each job that runs; other events are lines above the bars."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress
        self.bars: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        status = getattr(record, "progress", None)
        if status is None:
            self.progress.console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {record.getMessage()}", highlight=False)
            return
        job = status["job"]
        if job not in self.bars:
            self.bars[job] = self.progress.add_task(job, total=status["steps"], text="")
        text = record.getMessage().partition(": ")[2]
        done = status["step"] >= status["steps"]
        self.progress.update(self.bars[job], completed=status["step"], text=text, visible=not done)
