"""The verb that deletes what nothing points to, from the object store and the run folder: prune."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from flows.cli.command import Command, announce, ask, print_json, show_table
from flows.cli.services import connect
from infra.errors import ConfigError
from infra.machine import format_utc

if TYPE_CHECKING:
    from tasks.registry.prune import Removal


def show_removals(command: Command) -> int:
    """Prints what ``effnet prune`` would delete."""
    removals = _plan(command)
    if command.json:
        print_json(_describe(command, removals, []))
    return 0


def prune(command: Command) -> int:
    """Deletes what nothing points to, after a question unless ``--yes`` is given."""
    is_sure = "yes" in command.switches
    if not is_sure and not sys.stdin.isatty():
        raise ConfigError("effnet prune asks before it deletes, and this is no terminal: add --yes, or --dry-run")
    if not is_sure and command.json:
        raise ConfigError("effnet prune --json asks no question: add --yes, or --dry-run")
    removals = _plan(command)
    done: list[Removal] = []
    if removals and (is_sure or ask("delete them?")):
        from tasks.registry.prune import remove

        done = remove(removals, command.config, time.time())
        for removal in removals:
            if removal not in done:
                command.say(f"kept       {removal.folder}: it came into use in the meantime")
        command.say(f"deleted    {_count(done)}")
    else:
        command.say("nothing was deleted")
    if command.json:
        print_json(_describe(command, removals, done))
    return 0


def _describe(command: Command, removals: list[Removal], done: list[Removal]) -> dict[str, object]:
    """What can be deleted and what was, for ``--json``."""
    rows = [
        {
            "what": removal.what,
            "where": removal.folder,
            "objects": len(removal.entries),
            "bytes": removal.size,
            "last_written": format_utc(removal.modified),
            "deleted": removal in done,
        }
        for removal in removals
    ]
    settings = command.config.prune
    return {
        "storage": command.config.storage,
        "older_than_days": settings.older_than_days,
        "keep_nights": settings.keep_nights,
        "removals": rows,
        "bytes": sum(removal.size for removal in removals),
        "bytes_deleted": sum(removal.size for removal in done),
    }


def _plan(command: Command) -> list[Removal]:
    connect(command, "s3", "mlflow")
    announce(f"effnet prune: looking through {command.config.storage} and MLflow for what is in use")
    from tasks.registry.prune import plan_removals

    removals = plan_removals(command.config, time.time())
    rows = [
        (removal.what, f"{len(removal.entries):,}", f"{removal.size:,}", _date(removal.modified), removal.folder)
        for removal in removals
    ]
    if rows and not command.json:
        show_table(["what", "objects", "bytes", "last written", "where"], rows, right=["objects", "bytes"])
    days = command.config.prune.older_than_days
    command.say(
        f"in total   {_count(removals)}, of {command.config.storage} and {command.run_dir}, not written for "
        f"{days:g} days"
    )
    return removals


def _count(removals: list[Removal]) -> str:
    objects = sum(len(removal.entries) for removal in removals)
    return f"{objects:,} objects, {sum(removal.size for removal in removals):,} bytes"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
