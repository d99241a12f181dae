"""The one seam for where jobs run.

To add an engine, write a module with the attributes of ``Engine`` and add its row to ``ENGINES``. An engine only starts
and ends processes: how far a job is and why it failed, the trainer reports in the job's run folder.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from conf import schema
from infra.launch import kubernetes, local, slurm, workpool
from infra.launch.job import Handle, JobSpec

H = TypeVar("H", bound=Handle)


class Engine(Protocol[H]):
    """The functions of an engine's module. They block; a supervisor calls them in threads."""

    @property
    def POLL_S(self) -> float:  # noqa: N802 - a constant of the module
        """Polling interval."""

    @property
    def LIMITED(self) -> bool:  # noqa: N802 - a constant of the module
        """Whether the submitter limits the number of concurrent jobs (``launch.jobs_at_once``), or a queue does."""

    def check(self, launch: schema.Launch, /) -> None:
        """Refuses, before anything is started or written, what ``submit`` would refuse later.

        Raises:
            ConfigError: The engine is not available here, or refuses the request; the message names the setting.
        """

    def describe(self, spec: JobSpec, /) -> str:
        """Returns what ``submit`` would submit, as text without credentials; calls no service.

        Raises:
            ConfigError: The request cannot be written as text.
        """

    def submit(self, spec: JobSpec, /) -> H:
        """Starts or queues a job.

        Raises:
            ConfigError: The engine refuses the request; the message names the setting.
            QueueFullError: It accepts no more jobs of this user until some have ended.
            TransientError: The engine does not respond.
        """

    def find(self, spec: JobSpec, /) -> H | None:
        """Returns the queued or running job of this key, whoever submitted it; None if there is none."""

    def poll(self, job: H, /) -> int | None:
        """Returns None while the job is queued or runs, then its exit code; 0 if the engine does not know it.

        128 + N means that signal N ended it. The objects in the run folder take precedence over the code.
        """

    def logs(self, job: H, /) -> str:
        """Returns the last lines that the workers printed."""

    def cancel(self, job: H, /) -> None:
        """Ends a job in order and waits for its end; an adopted or ended job is left as it is."""


ENGINES: dict[str, Engine[Any]] = {"local": local, "workpool": workpool, "slurm": slurm, "kubernetes": kubernetes}
