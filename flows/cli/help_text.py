"""The text of ``effnet --help`` and ``effnet VERB --help``, which argparse could not lay out in groups and columns."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping

from conf.compose import options
from flows.cli.verbs import GROUPS, VERBS, Verb

_KEYS = 28  # columns of a setting; a longer one stands on a line of its own
SHARED = {
    "profile=NAME": f"size of everything: {', '.join(options('profile'))} (default laptop)",
    "run_dir=PATH": "local files: services, logs, cache, reports (default runs)",
    "storage=s3://BUCKET/PREFIX": "where data, checkpoints and weights go",
    "services.s3=URL": "yours instead of the embedded one; also services.prefect, services.mlflow",
    "services.auth=false": "Prefect and MLflow ask for no password: every local user can run code as you",
}


def list_verbs() -> str:
    """The verbs by group, each with its summary."""
    lines = []
    for title, verbs in GROUPS.items():
        lines += ["", title, *_columns({name: verb.summary for name, verb in verbs.items()}, 12)]
    return "\n".join(lines[1:])


def usage(name: str) -> str:
    """The first line of a verb's help."""
    return " ".join(["effnet", name, *VERBS[name].objects, "[options]", "[key=value ...]"])


def describe(verb: Verb) -> str:
    """What the help of a verb says before its options: summary, notes, examples and settings."""
    lines = [verb.summary]
    for note in verb.notes:
        lines += ["", *textwrap.wrap(note, _width())]
    if verb.examples:
        lines += ["", "examples:", *(f"  {_command(example)}" for example in verb.examples)]
    if verb.settings:
        lines += ["", "settings:", *_columns(verb.settings, _KEYS)]
    if verb.shared_settings:
        lines += ["", "settings of every command:", *_columns(SHARED, _KEYS)]
    if verb.settings or verb.shared_settings:
        lines += ["", "`effnet config` prints all settings; docs/configuration.md explains them."]
    return "\n".join(lines)


def describe_settings(verb: Verb, width: int) -> str:
    """The settings of a verb for the page of its deployment, without those of the worker, in ``width`` columns."""
    profile = {key: meaning for key, meaning in SHARED.items() if key.startswith("profile=")}
    return "\n".join(_columns(profile | dict(verb.settings), _KEYS, width))


def _command(example: str) -> str:
    """An example as it is typed; most are those of ``effnet``."""
    return f"effnet {example}" if example.split()[0] in VERBS else example


def _columns(rows: Mapping[str, str], column: int, width: int = 0) -> Iterator[str]:
    """Lines of two columns: what is typed, and what it means."""
    indent = " " * (column + 4)
    for word, meaning in rows.items():
        first = f"  {word}".ljust(len(indent))
        if len(word) > column:
            yield f"  {word}"
            first = indent
        yield from textwrap.wrap(
            meaning, width or _width(), initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
        ) or [first.rstrip()]


def _width() -> int:
    return max(shutil.get_terminal_size().columns, 60)
