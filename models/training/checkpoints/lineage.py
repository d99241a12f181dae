"""What a job is, as its checkpoints remember it; a resume under anything else is refused, with the difference."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import models
from conf import compose
from conf.schema import Job, Runtime
from infra.errors import ChangedError

log = logging.getLogger("effnet")
_SHOWN = 5


def identity(job: Job) -> dict[str, Any]:
    """Configuration by dotted key, the data's digest among it, and the digest of the code that trains."""
    asked = compose.to_dict(replace(job, runtime=Runtime(), until_epoch=None))
    return {**_flat(asked), "code": code_digest(), "torch": torch.__version__.split("+")[0]}


def code_digest() -> str:
    """sha256 of every source file of ``models/``, shortened."""
    whole = hashlib.sha256()
    root = Path(models.__path__[0])
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".c", ".h")):
        whole.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]


def check(saved: dict[str, Any], now: dict[str, Any], accept: bool, uri: str) -> list[str]:
    """Compares what a checkpoint was made by with what would go on from it.

    Args:
        saved: identity in the checkpoint.
        now: of this job.
        accept: go on in spite of differences.
        uri: of the checkpoint, for the message.

    Returns:
        the differences that were accepted, one line each.

    Raises:
        ChangedError: there are differences, and ``accept`` is false.
    """
    saved, now = ({k: v for k, v in each.items() if not k.startswith("runtime.")} for each in (saved, now))
    keys = [key for key in sorted(saved.keys() | now.keys()) if saved.get(key) != now.get(key)]
    changes = [f"{key}: {saved.get(key)} -> {now.get(key)}" for key in keys]
    if changes and not accept:
        more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        raise ChangedError(
            f"checkpoint {uri} was made by another job ({'; '.join(changes[:_SHOWN])}{more}); give it "
            "another run folder, or go on with --accept-changes"
        )
    for change in changes:
        log.warning("resuming in spite of a change: %s", change)
    return changes


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
