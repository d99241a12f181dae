"""What the trainings of a command cost before they start: images, time, bytes of checkpoints.

Speeds are those of measured training steps, interpolated in the multiply-adds of an image. What a step, a job and a
command take besides was measured in ``make reproduce``. For networks of the family nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from conf import schema
from infra.errors import ConfigError, first_line
from models.data.sources.catalog import DATA_SETS
from models.data.sources.listing import MINIVAL, VAL
from models.experiments import transfer
from models.experiments.equal_cost import match_points
from models.experiments.full_run import GPU_BYTES
from models.experiments.grid_search import grid_points, screen
from models.experiments.processors import gpu
from models.experiments.scaling_study import network_of, scaled
from models.experiments.work import (
    Parallelism,
    Work,
    count_jobs,
    count_training,
    drop_stored,
    parallelism_of,
    sum_works,
)
from models.networks.build import compute_cost
from models.networks.efficientnet.variants import VARIANTS
from models.networks.packaged import FrozenNetwork, list_frozen, model_of
from models.results import ShardResult


def count_splits(data: schema.Data) -> tuple[int, int, int] | None:
    """Returns the official numbers of train, minival and val images; None for a folder.

    The same arithmetic as ``models.data.shards.split.split_indices``, without opening the source. With ``data.limit``
    of a set that has its own val, the shares of the splits are kept.
    """
    official = DATA_SETS[data.source].images
    total = sum(official.values())
    if not total:
        return None
    kept = min(data.limit or total, total) / total
    val = official[VAL] * kept if VAL in official else round(total * kept * data.val_share)
    rest = total * kept - val
    if data.minival == "official" and MINIVAL in official:
        minival = round(official[MINIVAL] * kept)
    else:
        minival = round(rest * data.minival_share)
    return round(rest) - minival, minival, round(val)


def count_images(data: schema.Data, sharded: Mapping[str, ShardResult]) -> tuple[int, tuple[int, int, int]] | None:
    """Returns the number of classes and those of train, minival and val images; None for a folder without shards."""
    splits = count_splits(data)
    if splits is not None:
        return DATA_SETS[data.source].classes, splits
    shards = sharded.get(data.name)
    return None if shards is None else (shards.classes, (shards.train, shards.minival, shards.val))


@dataclass(frozen=True)
class Training:
    """A training that a command requests.

    Attributes:
        data: Data set.
        model: Network.
        recipe: Recipe; of a fine-tuning, that of ``transfer``.
        fine_tuned: Whether it is a fine-tuning under the protocol of ``transfer``.
    """

    data: schema.Data
    model: schema.Model
    recipe: schema.Recipe
    fine_tuned: bool = False


@dataclass(frozen=True)
class Plan:
    """The work of a command, and a line about each part that cannot be counted."""

    works: tuple[Work, ...] = ()
    unknown: tuple[str, ...] = ()


def used_sets(config: schema.Config, sets: Sequence[schema.Data], verb: str) -> list[schema.Data]:
    """Returns the data sets of a command's trainings, each fold of one for itself.

    The arguments are those of ``plan_trainings``.
    """
    trained = [] if _parts_of(config, verb) == ("transfer",) else [config.data]
    used = [*trained, *_tuned_sets(config, sets, verb)]
    folds = [data.for_seed(number) for data in used for number in range(data.folds)]
    return list({(data.name, data.fold): data for data in folds}.values())


def uses_transfer_sets(verb: str) -> bool:
    """Whether a command fine-tunes on the data sets of the transfer; every part of the study is made on its data."""
    return "transfer" in _PARTS[verb] and verb != "study"


def _tuned_sets(config: schema.Config, sets: Sequence[schema.Data], verb: str) -> list[schema.Data]:
    if "transfer" not in _parts_of(config, verb):
        return []
    return list(sets) if uses_transfer_sets(verb) else [config.data]


def is_registered(config: schema.Config) -> bool:
    """Whether the network that is fine-tuned comes from the registry, so that it is not trained here."""
    return config.model_ref is not None or config.transfer.network is not None


def list_untracked(config: schema.Config, works: Sequence[Work]) -> list[str]:
    """Names of the work from which no stored results are subtracted.

    The proposals of an architecture search are known only while it runs, the weights of a registered network only to
    the registry.
    """
    return [
        work.name
        for work in works
        if work.name == ARCHITECTURE or (is_registered(config) and work.name.startswith(_TRANSFER))
    ]


def _parts_of(config: schema.Config, verb: str) -> tuple[str, ...]:
    public = config.transfer.network
    if verb == "transfer" and is_registered(config):
        return ("transfer",)
    return tuple(part for part in _PARTS[verb] if part != "transfer" or verb != "study" or public is not None)


IsStored = Callable[[Training | FrozenNetwork], bool]


def _nothing(_: Training | FrozenNetwork) -> bool:
    return False


def plan_trainings(
    config: schema.Config,
    sets: Sequence[schema.Data],
    verb: str = "reproduce",
    is_stored: IsStored = _nothing,
    sharded: Mapping[str, ShardResult] | None = None,
    gpu_bytes: float = GPU_BYTES,
) -> Plan:
    """Counts what a command trains.

    Args:
        config: Configuration of the command.
        sets: The data sets of the transfer.
        verb: One of ``VERBS``.
        is_stored: Whether the object store has the result of a training, or the answers by frozen features.
        sharded: By name, the shards of the sets whose images are users' own.
        gpu_bytes: Memory of a GPU, on which it depends whether activations are recomputed there.
    """
    used = list({data.name: data for data in used_sets(config, sets, verb)}.values())  # folds have equal counts
    counted = {data.name: counts for data in used if (counts := count_images(data, sharded or {}))}
    unknown = [
        f"{data.name}: the number of its images is known once it is sharded (effnet shard)"
        for data in used
        if data.name not in counted
    ]
    works: list[Work] = []
    parallelism = parallelism_of(config, gpu_bytes)
    models = [replace(config.model, name=name) for name in config.variants] if verb == "reproduce" else [config.model]
    for part in _parts_of(config, verb):
        if part == "transfer":
            tuned_sets = _tuned_sets(config, sets, verb)
            for options in transfer.list_starts(config.transfer) if verb == "study" else [config.transfer]:
                sources = _list_sources(options, models, verb)
                works += _count_transfers(options, sources, tuned_sets, counted, is_stored, parallelism)
        elif config.data.name in counted:
            classes, splits = counted[config.data.name]
            try:
                if part == FEATURES:
                    works += _count_features(config, classes, splits, is_stored)
                else:
                    subtracted = _nothing if part == ARCHITECTURE else is_stored  # proposed only while it runs
                    groups = _TRAININGS[part](config, models, classes)
                    works += [_sum_group(*group, classes, splits, subtracted, parallelism) for group in groups]
            except ConfigError as error:
                unknown.append(f"{part}: {first_line(error)}")
    return Plan(tuple(works), tuple(unknown))


def _list_sources(options: schema.Transfer, models: Sequence[schema.Model], verb: str) -> list[schema.Model]:
    """The networks that are fine-tuned: a public one where it is set, else those that the command trains."""
    public = options.network if verb != "reproduce" else None
    sources = [model_of(public, VARIANTS[public].resolution)] if public else models
    return [transfer.with_side(model, options.resolution) for model in sources]


_Splits = tuple[int, int, int]


def family_gpu_hours(config: schema.Config) -> dict[str, float]:
    """GPU-hours of training each of ``variants`` once, with its evaluations, as if nothing were done yet.

    Empty for a folder, whose images are counted once it is sharded.
    """
    splits, classes = count_splits(config.data), DATA_SETS[config.data.source].classes
    if splits is None:
        return {}
    count = partial(count_training, config.recipe, classes=classes, splits=splits, parallelism=parallelism_of(config))
    return {name: count(replace(config.model, name=name)).seconds(gpu()) / 3600 for name in config.variants}


def _list_search(config: schema.Config, _models: Sequence[schema.Model], classes: int) -> _Groups:
    points, recipe = (
        screen(config.search, config.model, grid_points(config.search), classes).points,
        config.search.recipe,
    )
    networks = [scaled(config.model, point.alpha, point.beta, point.gamma) for point in points]
    return [("grid search", _seeded([config.data] * config.search.seeds, networks, recipe))]


def _list_family(config: schema.Config, models: Sequence[schema.Model], _classes: int) -> _Groups:
    return [(f"train {one.name}", [Training(config.data, one, config.recipe)]) for one in models]


def _list_maps(config: schema.Config, _models: Sequence[schema.Model], _classes: int) -> _Groups:
    options = config.explain
    networks = [
        scaled(
            replace(options.model, name=entry.network or options.model.name), entry.depth, entry.width, entry.resolution
        )
        for entry in options.models
        if entry.registered is None
    ]
    return [("activation maps", _seeded([config.data], networks, options.recipe))]


def _list_scaling(config: schema.Config, _models: Sequence[schema.Model], classes: int) -> _Groups:
    points = match_points(config.model, config.scaling, classes)
    networks = [network_of(config.model, point) for point in points]
    data = [config.data.for_seed(seed) for seed in range(config.scaling.seeds)]
    return [("scaling study", _seeded(data, networks, config.recipe))]


def _list_architecture(config: schema.Config, _models: Sequence[schema.Model], _classes: int) -> _Groups:
    """Every trial counted as B0's blocks, whose cost is the target of the search."""
    options = config.architecture
    return [(ARCHITECTURE, [Training(config.data, options.model, options.recipe)] * options.trials)]


def _seeded(data: Sequence[schema.Data], networks: Sequence[schema.Model], recipe: schema.Recipe) -> list[Training]:
    """The trainings of each network, with the data of each seed."""
    recipes = [replace(recipe, seed=recipe.seed + seed) for seed in range(len(data))]
    return [Training(*seed) for network in networks for seed in zip(data, [network] * len(data), recipes, strict=True)]


def _count_features(config: schema.Config, classes: int, splits: _Splits, is_stored: IsStored) -> list[Work]:
    """Every image classified once by each network; the regression takes about as long as a job takes besides."""
    works, options = [], config.linear
    for frozen in list_frozen(options, config.data.folds):
        multiply_adds = compute_cost(model_of(frozen.network, options.resolution), classes)[1]
        work = Work(FEATURES, 1, 0, 0, sum(splits), multiply_adds, 0)
        works.append(drop_stored(work) if is_stored(frozen) else work)
    return [sum_works(FEATURES, works)] if works else []


ARCHITECTURE, FEATURES, _TRANSFER = "architecture search", "frozen features", "transfer "
_Groups = list[tuple[str, list[Training]]]  # trainings that belong together, by their name
_TRAININGS = {
    "grid search": _list_search,
    "train": _list_family,
    "activation maps": _list_maps,
    "scaling study": _list_scaling,
    ARCHITECTURE: _list_architecture,
}
# What each command computes; latency and photographs are not counted.
_PARTS = {
    "reproduce": ("grid search", "train", "transfer", "activation maps"),
    "study": ("scaling study", FEATURES, "transfer", ARCHITECTURE),
    "search": ("grid search",),
    "train": ("train",),
    "transfer": ("train", "transfer"),
    "scaling": ("scaling study",),
    "architecture": (ARCHITECTURE,),
    "explain": ("activation maps",),
}
VERBS = tuple(_PARTS)


def _count_transfers(
    options: schema.Transfer,
    models: Sequence[schema.Model],
    sets: Sequence[schema.Data],
    counted: Mapping[str, tuple[int, _Splits]],
    is_stored: IsStored,
    parallelism: Parallelism,
) -> list[Work]:
    works = []
    for model in models:
        tuned = []
        for data in sets:
            if data.name in counted:
                work = _count_transfer(options, model, *counted[data.name], parallelism)
                training = Training(data, model, options.recipe, fine_tuned=True)
                tuned.append(drop_stored(work) if is_stored(training) else work)
        works += [sum_works(f"{_TRANSFER}{model.name}", tuned)] if tuned else []
    return works


def _count_transfer(
    options: schema.Transfer, model: schema.Model, classes: int, splits: _Splits, parallelism: Parallelism
) -> Work:
    cost = transfer.cost(options, *splits, compute_cost(model, classes)[1])
    return count_jobs(options.recipe, model, classes, parallelism, cost.jobs, cost.train_images, cost.eval_images)


def _sum_group(
    name: str,
    trainings: Sequence[Training],
    classes: int,
    splits: _Splits,
    is_stored: IsStored,
    parallelism: Parallelism,
) -> Work:
    works = []
    for training in trainings:
        work = count_training(training.recipe, training.model, classes, splits, parallelism)
        works.append(drop_stored(work) if is_stored(training) else work)
    return sum_works(name, works)
