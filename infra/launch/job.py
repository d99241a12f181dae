"""A job: its request in the run folder, and what engines see, which is an entry point and the resources it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from conf import compose, schema
from infra import store
from infra.errors import ConfigError

REQUEST_FILE = "config.yaml"  # in a run folder: from it any machine can run the job


def read_request(job_uri: str) -> schema.Job:
    """Reads the request of a job from its run folder.

    Raises:
        NotFoundError: The folder has none.
        ConfigError: It is damaged, or of another version of effnet.
    """
    uri = store.join(job_uri, REQUEST_FILE)
    try:
        return compose.from_yaml(schema.Job, store.read(uri))
    except compose.OverrideError as error:
        raise ConfigError(f"{uri} does not describe a job: {error}") from error


def write_request(job_uri: str, job: schema.Job) -> None:
    """Writes the request of a job into its run folder."""
    store.write(store.join(job_uri, REQUEST_FILE), compose.to_yaml(job).encode())


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
