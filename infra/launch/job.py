"""A job as engines see it: a run folder, an entry point, and the resources that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from conf import schema


@dataclass(frozen=True)
class JobSpec:
    """What an engine runs."""

    key: str  # name and digest of the request; by it an engine finds the job again
    label: str  # display name
    module: str  # entry point, e.g. models.train; its only argument is the run folder
    job_uri: str  # run folder in the object store, STORAGE/jobs/KEY
    launch: schema.Launch
    run_dir: Path  # local files of this machine


class Handle(Protocol):
    """A submitted job."""

    @property
    def adopted(self) -> bool:
        """Whether another supervisor submitted it; cancelling then leaves it running."""

    @property
    def queued(self) -> bool:
        """Whether it waits for a machine, as of the last poll."""

    @property
    def reason(self) -> str:
        """Why it waits, as of the last poll; empty if the engine does not say."""

    @property
    def log(self) -> str:
        """Where its output is: a path or an address."""
