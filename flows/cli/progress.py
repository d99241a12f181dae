"""Progress display of a flow: bars in a terminal, plain lines elsewhere. Driven by logging only."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from conf.text import escaped, logger


def attach(quiet: bool = False) -> AbstractContextManager[Any]:
    """Shows the ``effnet`` log on stderr; in a terminal as bars, for as long as the context is open.

    Args:
        quiet: Show warnings and errors only.
    """
    log = logger()
    log.setLevel(logging.INFO)
    log.propagate = False
    if quiet or not sys.stderr.isatty():
        lines = _Lines(logging.WARNING if quiet else logging.NOTSET)
        log.addHandler(lines)
        return nullcontext()
    # Rich's markup is off everywhere: it would drop the [train-00001.tar] of a message, and raise at a [/red].
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True, markup=False, emoji=False, highlight=False),
        transient=True,
    )
    bars = _Bars(progress)
    for source in (log, logger("effnet-progress")):  # the second logger: frequent progress updates
        source.setLevel(logging.INFO)
        source.propagate = False
        source.addHandler(bars)
    return progress


class _Lines(logging.Handler):
    """One plain line per event."""

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
            line = Text.assemble((time.strftime("%H:%M:%S"), "dim"), " ", record.getMessage())
            self.progress.console.print(line)
            return
        job = escaped(status["job"])
        if job not in self.bars:
            self.bars[job] = self.progress.add_task(job, total=status["steps"], text="")
        text = record.getMessage().partition(": ")[2]
        done = status["step"] >= status["steps"]
        self.progress.update(self.bars[job], completed=status["step"], text=text, visible=not done)
