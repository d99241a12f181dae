"""Which trainings of a command have a result in the object store: looked up without a service being started.

Prefect is not imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from conf import schema
from infra import store
from infra.errors import ConfigError, EffnetError, first_line
from infra.services import stack
from infra.store.json_objects import read_object
from models.data.shards import stored as stored_shards
from models.data.sources.catalog import DATA_SETS
from models.experiments import costs
from models.experiments import transfer as protocol
from models.experiments.costs import IsStored, Training
from models.networks.packaged import FrozenNetwork
from models.results import Point, ShardResult
from tasks.jobs import features_request, features_uri, result_uri, train_job, transfer_job

Shards = dict[tuple[str, int], ShardResult]  # by name of the data set and number of the fold
FindShards = Callable[[schema.Data, str], ShardResult | None]


@dataclass(frozen=True)
class StoredTrainings:
    """What the object store holds.

    Attributes:
        contains: Whether it holds the result of a training, or the answers by frozen features.
        unknown: A line about each thing that could not be looked up.
        sharded: By name, the shards of the sets that grow: those of the files as they are, else the last ones.
        remarks: A line about each of these sets whose files have changed since.
    """

    contains: IsStored
    unknown: tuple[str, ...] = ()
    sharded: Mapping[str, ShardResult] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def connect_store(config: schema.Config) -> bool:
    """Connects this process to the object store; False if it is the embedded one and is not running."""
    if config.storage.startswith("file://"):
        return True
    return stack.connect_if_running(Path(config.run_dir), config.services, "s3")


def look_up(
    config: schema.Config, sets: Sequence[schema.Data], find: FindShards = stored_shards.find_result
) -> StoredTrainings:
    """Looks up the finished jobs, and the shards on which the keys of jobs depend.

    Args:
        config: Configuration of the command.
        sets: The data sets of its trainings.
        find: Function that finds the shards of a data set; of a command that runs those that it was started on.
    """
    if not connect_store(config):
        return StoredTrainings(_nothing, ("the object store is not running, `effnet up` starts it",))
    try:
        folders = [store.join(config.storage, name) for name in ("jobs", "linear")]
        files = frozenset(uri for folder in folders for uri in store.list_uris(folder))
    except EffnetError as error:
        return StoredTrainings(_nothing, (first_line(error),))
    shards: Shards = {}
    sharded: dict[str, ShardResult] = {}
    unknown, remarks = [], []
    for data in sets:
        if _is_counted(data) and not files:
            continue
        try:
            if result := find(data, config.storage):
                shards[data.name, data.fold] = result
            if not _is_counted(data) and (last := result or stored_shards.find_last_result(data, config.storage)):
                sharded[data.name] = last
                if result is None:
                    remarks.append(f"{data.name}: counted as it was sharded last, its files have changed since")
        except EffnetError as error:
            unknown.append(f"{data.name}: {first_line(error)}")

    def contains(work: Training | FrozenNetwork) -> bool:
        if isinstance(work, FrozenNetwork):
            of_data = shards.get((config.data.name, config.data.for_seed(work.fold).fold))
            return of_data is not None and features_uri(config, features_request(config, of_data, work)) in files
        try:
            return _is_stored(config, work, shards, files)
        except ConfigError:  # it cannot be trained, which the command itself says
            return False

    return StoredTrainings(contains, tuple(dict.fromkeys(unknown)), sharded, tuple(dict.fromkeys(remarks)))


def find_sharded(config: schema.Config, sets: Sequence[schema.Data]) -> dict[str, ShardResult]:
    """Returns the last shards of the sets that no table counts, by name; of none if the store does not answer."""
    uncounted = [data for data in sets if not _is_counted(data)]
    if not uncounted or not connect_store(config):
        return {}
    with suppress(EffnetError):
        results = {data.name: stored_shards.find_last_result(data, config.storage) for data in uncounted}
        return {name: result for name, result in results.items() if result is not None}
    return {}


def _is_counted(data: schema.Data) -> bool:
    """Whether a table has the numbers of its images and classes, which those of users' images have not."""
    return bool(DATA_SETS[data.source].classes)


def _nothing(_: Training | FrozenNetwork) -> bool:
    return False


def _is_stored(config: schema.Config, training: Training, shards: Shards, files: frozenset[str]) -> bool:
    config = replace(config, model=training.model)
    of_data = shards.get((training.data.name, training.data.fold))
    if of_data is None:
        return False
    if not training.fine_tuned:
        job = train_job(config, training.data, training.recipe, of_data, None)
        return result_uri(job) in files
    weights = _find_source(config, shards, files)
    return weights is not None and _is_fine_tuned(config, training.data, shards, weights, files)


def _find_source(config: schema.Config, shards: Shards, files: frozenset[str]) -> tuple[str, str] | None:
    """URI and sha256 of the weights that are fine-tuned; None if they are not there, or registered ones."""
    of_data = shards.get((config.data.name, config.data.fold))
    if costs.is_registered(config) or of_data is None:
        return None
    job = train_job(config, config.data, config.recipe, of_data, None)
    if result_uri(job) not in files:
        return None
    trained = read_object(result_uri(job))
    return str(trained["weights_uri"]), str(trained["weights_sha256"])


def _is_fine_tuned(
    config: schema.Config, data: schema.Data, shards: Shards, weights: tuple[str, str], files: frozenset[str]
) -> bool:
    """Whether every point of the grid that trains to its end, or else the final job, is stored, with all seeds."""
    options = replace(config.transfer, data=data)
    config = replace(config, transfer=options)

    def contains(point: Point, start: tuple[str, str] | None, seed: int = 0) -> bool:
        of_seed = shards.get((data.name, data.for_seed(seed).fold))
        return of_seed is not None and result_uri(transfer_job(config, of_seed, point, start, seed=seed)) in files

    points = [point for point in protocol.grid(options) if contains(point, weights)]
    if len(points) < protocol.count_final_jobs(options, shards[data.name, data.fold].train):
        return False
    starts = [(start, seed) for start in (weights, None) for seed in range(options.random_seeds)]
    return any(all(contains(point, *start) for start in starts) for point in points)
