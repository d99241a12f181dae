"""Identity of a job, stored in its checkpoints.

Resuming with another configuration, data or code is refused, and the differences are shown.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch

from conf import compose
from conf.schema import Job, Runtime
from conf.text import list_some
from infra import machine
from infra.errors import ChangedError
from models.networks import native

log = logging.getLogger("effnet")


def identity(job: Job) -> dict[str, Any]:
    """Returns the configuration by dotted key, including the data's digest, and what computes: code, layers, torch."""
    config = compose.to_dict(replace(job, runtime=Runtime(), until_epoch=None))
    in_c = native.load() is not None and not torch.cuda.is_available()  # other bits than torch's layers
    computes = {"code": code_digest(), "layers": "C" if in_c else "torch", "torch": torch.__version__.split("+")[0]}
    return {**compose.flatten(config), **computes}


def code_digest() -> str:
    """Returns the first 16 digits of the sha256 over all source files of ``models/``."""
    return machine.training_code()


def check(saved: dict[str, Any], now: dict[str, Any], accept: bool, uri: str) -> list[str]:
    """Compares the identity in a checkpoint with that of the job that resumes from it.

    Args:
        saved: Identity in the checkpoint.
        now: Identity of this job.
        accept: Whether to resume despite differences.
        uri: URI of the checkpoint, for messages.

    Returns:
        The accepted differences, one line each.

    Raises:
        ChangedError: There are differences, and ``accept`` is false.
    """
    saved, now = (
        {key: value for key, value in items.items() if not key.startswith("runtime.")} for items in (saved, now)
    )
    keys = [key for key in sorted(saved.keys() | now.keys()) if saved.get(key) != now.get(key)]
    changes = [f"{key}: {saved.get(key)} -> {now.get(key)}" for key in keys]
    if changes and not accept:
        raise ChangedError(
            f"checkpoint {uri} was written by a different job ({list_some(changes, separator='; ')}); use "
            "another run folder, or resume with --accept-changes"
        )
    for change in changes:
        log.warning("resuming despite a change: %s", change)
    return changes
