"""The tree of errors, and the exit code each one ends a command with.

::

    EffnetError
    ├── PermanentError          trying again changes nothing
    │   ├── ConfigError     2   a person's mistake: key, value, missing path, wrong credentials
    │   ├── DataError       3   the bytes are not what the manifest says
    │   ├── NotFoundError   3   no object or file at this URI
    │   ├── DivergedError   4   the loss is not a number any more
    │   ├── ArtifactError   5   a checkpoint or a model that is damaged or does not fit
    │   └── JobError        1   a worker failed; its last lines are in the message
    └── TransientError      75  the outside did not answer; the same call may work later
        └── ExpiredError    75  the store says that the credentials have expired; new ones may lie there soon

The doors (``flows/__main__.py``, ``models/train.py``) print the message as one line and exit with
``exit_code``; every other place lets the error pass. ``tasks/policy.py`` retries ``TransientError`` only.
"""


class EffnetError(Exception):
    """Root of all errors that we raise on purpose."""

    exit_code = 1


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
    """Training left the finite numbers."""

    exit_code = 4


class ArtifactError(PermanentError):
    """A checkpoint or a registered model is damaged or does not fit the network."""

    exit_code = 5


class JobError(PermanentError):
    """A training job failed for a reason of its own."""


class TransientError(EffnetError):
    """The outside did not answer or was busy. The same call may work later."""

    exit_code = 75


class ExpiredError(TransientError):
    """The credentials were good and have expired. Whoever rotates them may be about to."""


def kind_of(exit_code: int) -> type[EffnetError]:
    """The error that a process ended with, by its exit code; ``JobError`` for any code that names none."""
    kinds = (ConfigError, DataError, DivergedError, ArtifactError, TransientError)
    return next((kind for kind in kinds if kind.exit_code == exit_code), JobError)
