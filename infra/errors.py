"""The tree of errors, and the exit code each one ends a command with.

::

    EffnetError
    ├── PermanentError          trying again changes nothing
    │   ├── ConfigError     2   a person's mistake: key, value, missing path, wrong credentials
    │   ├── DataError       3   the bytes are not what the manifest says
    │   ├── NotFoundError   3   no object or file at this URI
    │   ├── DivergedError   4   the loss exploded or is not a number any more
    │   ├── ArtifactError   5   a checkpoint or a model that is damaged or does not fit
    │   ├── ResumeError     6   there are checkpoints, but none that verifies: never silently from step 0
    │   ├── ChangedError    7   configuration, data or code are not those of the checkpoint
    │   ├── CapacityError  10   out of memory; the message names the setting
    │   └── JobError        1   a worker failed; its last lines are in the message
    └── TransientError      75  the outside did not answer; the same call may work later
        ├── PreemptedError  8   asked to end (SIGTERM); everything is saved, the same command goes on
        ├── HungError       9   no progress within a limit; the stacks are saved
        ├── LostError      75   the processes of a job were killed from outside
        └── ExpiredError    75  the store says that the credentials have expired; new ones may lie there soon

The doors (``flows/__main__.py``, ``models/train.py``) print the message as one line and exit with
``exit_code``; every other place lets the error pass. ``tasks/policy.py`` retries ``TransientError`` only.
"""

from __future__ import annotations

from conf.text import first_line as first_line  # callers say errors.first_line
from conf.text import printable


class EffnetError(Exception):
    """Root of all errors that we raise on purpose; the message is escaped where it is made (conf/text.py).

    So it is safe wherever it goes: a terminal, a log, Prefect's states, MLflow's tags, ``failure.json``.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


class PermanentError(EffnetError):
    """Trying again changes nothing."""


class ConfigError(PermanentError):
    """A person's mistake. The message says what is wrong, where, and what to do."""

    exit_code = 2


class DataError(PermanentError):
    """Bytes of a shard, sample or manifest are not what they should be."""

    exit_code = 3


class NotFoundError(PermanentError):
    """There is no object or file at this URI."""

    exit_code = 3


class DivergedError(PermanentError):
    """Training left the finite numbers, or the loss exploded, and rewinding did not help."""

    exit_code = 4


class ArtifactError(PermanentError):
    """A checkpoint or a registered model is damaged or does not fit the network."""

    exit_code = 5


class ResumeError(PermanentError):
    """A job has checkpoints, and not one verifies. It does not start over by itself."""

    exit_code = 6


class ChangedError(PermanentError):
    """A job would go on under another configuration, other data or other code than it began with."""

    exit_code = 7


class CapacityError(PermanentError):
    """The memory of the GPU or the machine does not suffice."""

    exit_code = 10


class JobError(PermanentError):
    """A training job failed for a reason of its own."""


class TransientError(EffnetError):
    """The outside did not answer or was busy. The same call may work later."""

    exit_code = 75


class PreemptedError(TransientError):
    """The job was asked to end and has saved its state."""

    exit_code = 8


class HungError(TransientError):
    """A process of the job made no progress for too long."""

    exit_code = 9


class LostError(TransientError):
    """The processes of a job were killed from outside: by a person, the system, or with their machine."""


class ExpiredError(TransientError):
    """The credentials were good and have expired. Whoever rotates them may be about to."""


def kind_of(exit_code: int, name: str = "") -> type[EffnetError]:
    """The error that a process ended with, by its exit code; ``JobError`` for any code that names none.

    Args:
        exit_code: as in the tree above.
        name: of the class, where it is known; it tells those of one code apart.
    """
    kinds = (
        ConfigError,
        DataError,
        DivergedError,
        ArtifactError,
        ResumeError,
        ChangedError,
        CapacityError,
        PreemptedError,
        HungError,
        LostError,
        TransientError,
    )
    alike = [kind for kind in kinds if kind.exit_code == exit_code]  # the general one last
    return next((kind for kind in alike if kind.__name__ == name), alike[-1] if alike else JobError)
