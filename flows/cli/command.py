"""A parsed command, as the functions of ``flows/cli/`` receive it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conf import schema
from conf.text import printable

FLAGS = {  # of verbs that train; the same as runtime.KEY=true
    "ledger": "write ledger.jsonl into the run folder: the samples of each step, and the sha256 of the final state",
    "accept-changes": "resume although configuration, data or code changed since the checkpoint; recorded",
}


@dataclass(frozen=True)
class Command:
    """A verb with its configuration.

    Attributes:
        verb: The verb.
        objects: Words that are not settings, e.g. the name of a model.
        overrides: Settings as they were typed.
        config: The configuration that the settings result in.
        json: Whether the result is printed as JSON.
        quiet: Whether progress is not printed.
        switches: Options without a value that were given.
        options: Values of the verb's options that were given.
    """

    verb: str
    objects: tuple[str, ...]
    overrides: list[str]
    config: schema.Config
    json: bool = False
    quiet: bool = False
    switches: frozenset[str] = frozenset()
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        """The run folder, absolute."""
        return Path(self.config.run_dir).resolve()

    def say(self, line: str) -> None:
        """Prints a line with control characters escaped; on standard error if the result is printed as JSON."""
        (announce if self.json else show)(line)


def print_json(result: object) -> None:
    """Prints the result of a command as one JSON document."""
    print(json.dumps(result, indent=2, default=list), flush=True)


def show(line: str) -> None:
    """Prints a line with control characters escaped."""
    print(printable(line), flush=True)


def announce(line: str) -> None:
    """Prints on standard error what a command begins with that takes seconds before its first result."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def ask(question: str) -> bool:
    """Asks in the terminal, on standard error; an empty answer or the end of the input is a no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Prints columns of equal width; those named in ``right`` are aligned to the right.

    Args:
        titles: Titles of the columns.
        rows: One cell per column.
        right: Titles of columns of numbers.
    """
    cells = [list(titles), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        aligned = (
            cell.rjust(width) if title in right else cell.ljust(width)
            for cell, width, title in zip(row, widths, titles, strict=True)
        )
        print("  ".join(aligned).rstrip())
