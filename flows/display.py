"""What a person sees while a flow works: bars in a terminal, plain lines elsewhere. Fed by logging alone."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


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
    bars = _Bars(progress)
    for each in (logger, logging.getLogger("effnet-progress")):  # the second: every second's progress
        each.setLevel(logging.INFO)
        each.propagate = False
        each.addHandler(bars)
    return progress


class _Lines(logging.Handler):
    """One plain line an event."""

    def emit(self, record: logging.LogRecord) -> None:
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
