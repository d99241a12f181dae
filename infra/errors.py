"""The exception hierarchy and the exit code of each class.

::

    EffnetError
    ├── PermanentError          retrying does not help
    │   ├── ConfigError     2   a user's mistake: key, value, missing path, wrong credentials
    │   ├── DataError       3   the bytes do not match the manifest
    │   │   └── AppendError 3   images cannot be appended to a data set: it must be sharded anew
    │   ├── NotFoundError   3   no object or file at this URI
    │   ├── DivergedError   4   the loss exploded or became NaN
    │   ├── ArtifactError   5   a checkpoint or model is damaged or does not match the network
    │   ├── ResumeError     6   checkpoints exist, but none verifies: never restarts silently from step 0
    │   ├── ChangedError    7   configuration, data or code differ from those of the checkpoint
    │   ├── CapacityError  10   out of memory; the message names the setting
    │   ├── BelowTargetError 11 a training is below runtime.stop_below; its checkpoint is kept
    │   └── JobError        1   a worker failed; its last lines are in the message
    └── TransientError      75  an external system did not answer; the same call may succeed later
        ├── PreemptedError  8   stopped by SIGTERM; the state is saved and the same command resumes
        ├── HungError       9   no progress within a time limit; the stack traces are saved
        ├── LostError      75   the processes of a job were killed externally
        ├── QueueFullError 75   a scheduler accepts no more jobs of this user until some have ended
        └── ExpiredError    75  the store rejects the credentials as expired; they may be rotated soon

The entry points (``flows/__main__.py``, ``models/train.py``) print the message as one line and exit with
``exit_code``; all other code lets the error propagate. ``tasks/policy.py`` retries ``TransientError`` only.
"""

from __future__ import annotations

from conf.text import first_line as first_line  # callers say errors.first_line
from conf.text import printable


class EffnetError(Exception):
    """Root of all errors that effnet raises deliberately; the constructor escapes the message (conf/text.py).

    The message is therefore safe in a terminal, a log, a Prefect state, an MLflow tag and ``failure.json``.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


class PermanentError(EffnetError):
    """An error that a retry cannot fix."""


class ConfigError(PermanentError):
    """A user's mistake. The message says what is wrong, where, and what to do."""

    exit_code = 2


class DataError(PermanentError):
    """The bytes of a shard, sample or manifest are not the expected ones."""

    exit_code = 3


class AppendError(DataError):
    """Images cannot be appended to a data set: one is in it under another class, or it has lost shards."""


class NotFoundError(PermanentError):
    """No object or file exists at this URI."""

    exit_code = 3


class DivergedError(PermanentError):
    """The loss became non-finite or exploded, and rewinding did not help."""

    exit_code = 4


class ArtifactError(PermanentError):
    """A checkpoint or a registered model is damaged or does not match the network."""

    exit_code = 5


class ResumeError(PermanentError):
    """A job has checkpoints, but none verifies. It does not restart from scratch automatically."""

    exit_code = 6


class ChangedError(PermanentError):
    """A job would resume with a configuration, data or code other than those it started with."""

    exit_code = 7


class CapacityError(PermanentError):
    """The GPU or the machine has too little memory."""

    exit_code = 10


class BelowTargetError(PermanentError):
    """A training was below the accuracy of a rule in ``runtime.stop_below``; its state is saved."""

    exit_code = 11


class JobError(PermanentError):
    """A training job failed because of an error in one of its workers."""


# Failures of one network of several that are trained. Any other error would fail all of them, as an unreachable store
# does, or says nothing about the network: it ends the whole, and the same command resumes.
OF_ONE_NETWORK = (DivergedError, CapacityError, BelowTargetError, JobError, ResumeError)


class TransientError(EffnetError):
    """An external system did not answer or was busy. The same call may succeed later."""

    exit_code = 75


class PreemptedError(TransientError):
    """The job was asked to stop and has saved its state."""

    exit_code = 8


class HungError(TransientError):
    """A process of the job made no progress for too long."""

    exit_code = 9


class LostError(TransientError):
    """The processes of a job were killed externally: by a user, by the system, or with their machine."""


class QueueFullError(TransientError):
    """A scheduler accepts no more jobs of this user until some have ended."""


class ExpiredError(TransientError):
    """The credentials were valid and have expired. They may be rotated soon."""


def kind_of(exit_code: int, name: str = "") -> type[EffnetError]:
    """Returns the error class that matches the exit code of a process; ``JobError`` for any other code.

    Args:
        exit_code: Exit code, as listed in the module docstring.
        name: Name of the class, if known; it distinguishes classes that share an exit code.
    """
    kinds = (
        ConfigError,
        DataError,
        DivergedError,
        ArtifactError,
        ResumeError,
        ChangedError,
        CapacityError,
        BelowTargetError,
        PreemptedError,
        HungError,
        LostError,
        TransientError,
    )
    matches = [kind for kind in kinds if kind.exit_code == exit_code]  # the base class last
    return next((kind for kind in matches if kind.__name__ == name), matches[-1] if matches else JobError)
