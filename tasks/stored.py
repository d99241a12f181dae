"""Which trainings of a command have a result in the object store: looked up without a service being started.

Prefect is not imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from conf import schema
from infra import store
from infra.errors import ConfigError, EffnetError, first_line
from infra.services import stack
from infra.store.json_objects import read_object
from models.data.shards import stored as stored_shards
from models.experiments import transfer as protocol
from models.experiments.costs import Training
from models.results import ShardResult
from tasks.jobs import JobRun, result_uri, train_job, transfer_job


@dataclass(frozen=True)
class StoredTrainings:
    """What the object store holds.

    Attributes:
        contains: Whether it holds the result of a training.
        unknown: A line about each thing that could not be looked up.
    """

    contains: Callable[[Training], bool]
    unknown: tuple[str, ...] = ()


def connect_store(config: schema.Config) -> bool:
    """Connects this process to the object store; False if it is the embedded one and is not running."""
    if config.storage.startswith("file://"):
        return True
    return stack.connect_if_running(Path(config.run_dir), config.services, "s3")


def look_up(config: schema.Config, sets: Sequence[schema.Data]) -> StoredTrainings:
    """Looks up the finished jobs, and the shards on which the keys of jobs depend.

    Args:
        config: Configuration of the command.
        sets: The data sets of its trainings.
    """
    if not connect_store(config):
        return StoredTrainings(_nothing, ("the object store is not running, `effnet up` starts it",))
    try:
        files = frozenset(store.list_uris(store.join(config.storage, "jobs")))
    except EffnetError as error:
        return StoredTrainings(_nothing, (first_line(error),))
    shards: dict[str, ShardResult] = {}
    unknown = []
    for data in sets if files else ():
        try:
            if result := stored_shards.find_result(data, config.storage):
                shards[data.name] = result
        except EffnetError as error:
            unknown.append(f"{data.name}: {first_line(error)}")

    def contains(training: Training) -> bool:
        try:
            return _is_stored(config, training, shards, files)
        except ConfigError:  # it cannot be trained, which the command itself says
            return False

    return StoredTrainings(contains, tuple(unknown))


def _nothing(_: Training) -> bool:
    return False


def _is_stored(
    config: schema.Config, training: Training, shards: dict[str, ShardResult], files: frozenset[str]
) -> bool:
    config = replace(config, model=training.model)
    if training.data.name not in shards:
        return False
    if not training.fine_tuned:
        job = train_job(config, training.data, training.recipe, shards[training.data.name], None)
        return result_uri(job) in files
    options = config.transfer
    if config.model_ref or options.network or options.random_seeds or config.data.name not in shards:
        return False  # counted whole: the weights of the first two, and the jobs of further seeds, are not looked up
    source = train_job(config, config.data, config.recipe, shards[config.data.name], None)
    if result_uri(source) not in files:
        return False
    return _is_fine_tuned(config, training.data, shards[training.data.name], source, files)


def _is_fine_tuned(
    config: schema.Config, data: schema.Data, shards: ShardResult, source: JobRun, files: frozenset[str]
) -> bool:
    """Whether every point of the grid that trains to its end, or else the final job, is stored."""
    trained = read_object(result_uri(source))
    weights = (str(trained["weights_uri"]), str(trained["weights_sha256"]))
    config = replace(config, transfer=replace(config.transfer, data=data))
    jobs = [transfer_job(config, shards, point, weights) for point in protocol.grid(config.transfer)]
    return sum(result_uri(job) in files for job in jobs) >= protocol.count_final_jobs(config.transfer, shards.train)
