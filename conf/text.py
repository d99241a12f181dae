"""Makes text from outside safe to print: names of files and classes, command-line arguments, errors of libraries.

This module is in the lowest layer because refused overrides are printed too.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable

QUOTE = "  | "  # opens a line that is quoted from a log
_DAYS_FROM_H = 48


def escaped(text: str) -> str:
    r"""One line without effect on a terminal: control characters, line breaks and bidi overrides as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable(message: str) -> str:
    """Like ``escaped``, but keeps the line breaks before quoted lines (``QUOTE``); idempotent."""
    line_break = f"\n{QUOTE}"
    return line_break.join(map(escaped, message.split(line_break)))


def quoted(log: str) -> str:
    """The lines of a log as the end of a message, each on its own line."""
    return "".join(f"\n{QUOTE}{escaped(line.expandtabs())}" for line in log.splitlines())


def first_line(error: BaseException) -> str:
    """The first line of an error that is not blank, or else the name of its class. Never raises."""
    try:
        lines = (line.strip() for line in str(error).splitlines())
        return escaped(next(line for line in lines if line))
    except Exception:  # noqa: BLE001 - only blank lines, or a library's broken __str__
        return type(error).__name__


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The question ``did you mean 'resnet50'?`` for a word that is none of the choices; empty if none is similar."""
    by_lower = {choice.lower(): choice for choice in sorted(choices, key=len, reverse=True)}
    word = word.lower()
    near = difflib.get_close_matches(word, by_lower, n=1, cutoff=0.5)
    near += [choice for choice in by_lower if len(choice) > 1 and word.endswith(choice)]  # b3 for efficientnet_b3
    near += [choice for choice in by_lower if choice.endswith(f"_{word}")]  # efficientnet_b3 for b3
    return f"did you mean {by_lower[near[0]]!r}?" if near else ""


def list_some(items: Iterable[str], at_most: int = 5, separator: str = ", ") -> str:
    """The first items, and how many more there are: ``a, b, c and 7 more``, or ``a: 1; b: 2; and 7 more``."""
    items = list(items)
    shown, more = separator.join(items[:at_most]), len(items) - at_most
    return f"{shown}{separator.rstrip(', ')} and {more:,} more" if more > 0 else shown


def count(number: int, noun: str) -> str:
    """``1 image`` or ``2,000 images``, for a noun whose plural ends in s."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def format_duration(seconds: float) -> str:
    """``37 d 17 h``, ``3 h 12 min``, ``41 min 12 s`` or ``42 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= _DAYS_FROM_H:
        return f"{hours // 24:,} d {hours % 24} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def logger(name: str = "effnet") -> logging.Logger:
    """The logger of this name; every message is escaped before any handler sees it."""
    log = logging.getLogger(name)
    if _escape_record not in log.filters:
        log.addFilter(_escape_record)
    return log


def _escape_record(record: logging.LogRecord) -> bool:
    # On the logger, not on a handler: Prefect adds its own handlers.
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):  # arguments that do not fit: a log line must not stop the work
        message = f"{record.msg} {record.args!r}"
    record.msg, record.args = printable(message), ()
    return True
