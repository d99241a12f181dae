"""Text from outside, made safe to show: names of files and classes, words of the command line, errors of libraries.

It stands in the lowest layer because an override that is refused is shown too.
"""

from __future__ import annotations

import logging

QUOTE = "  | "  # opens a line that is quoted from a log


def escaped(text: str) -> str:
    r"""One line on which no terminal acts: control characters, line breaks and bidi overrides as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable(message: str) -> str:
    """As ``escaped``, but for the line breaks before quoted lines (``QUOTE``); twice is the same as once."""
    line_break = f"\n{QUOTE}"
    return line_break.join(map(escaped, message.split(line_break)))


def quoted(log: str) -> str:
    """The lines of a log as a message ends with them, each on a line of its own."""
    return "".join(f"\n{QUOTE}{escaped(line.expandtabs())}" for line in log.splitlines())


def first_line(error: BaseException) -> str:
    """The first line of an error that says something; its class where it says nothing. Never raises."""
    try:
        lines = (line.strip() for line in str(error).splitlines())
        return escaped(next(line for line in lines if line))
    except Exception:  # noqa: BLE001 - nothing but blanks, or a library's broken __str__
        return type(error).__name__


def logger(name: str = "effnet") -> logging.Logger:
    """The logger of this name, each message of which leaves escaped, to whatever handler."""
    log = logging.getLogger(name)
    if _escape_record not in log.filters:
        log.addFilter(_escape_record)
    return log


def _escape_record(record: logging.LogRecord) -> bool:
    # On the logger and not on a handler: Prefect adds handlers of its own to it.
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):  # arguments that do not fit: a line in a log stops nobody's work
        message = f"{record.msg} {record.args!r}"
    record.msg, record.args = printable(message), ()
    return True
