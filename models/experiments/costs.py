"""What the trainings of a command cost before they start: images, time, bytes of checkpoints.

Speeds are those of measured training steps, interpolated in the multiply-adds of an image. What a step, a job and a
command take besides was measured in ``make reproduce``. For networks of the family nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from conf import schema
from infra.errors import ConfigError, first_line
from models.data.sources.catalog import DATA_SETS
from models.data.sources.listing import MINIVAL, VAL
from models.experiments import transfer
from models.experiments.full_run import FULL_RUNS, GPU
from models.experiments.grid_search import grid_points, screen
from models.experiments.scaling_study import network_of, scaled
from models.networks.build import compute_cost
from models.networks.efficientnet.variants import VARIANTS
from models.networks.packaged import model_of

# Source: the log of `make reproduce`, two cores of an AMD EPYC, commit `7e70acd`, n = 1; docs/operations.md
# compares the estimate with other runs.
STEP_S = 0.015  # a step of two processes on CPU cores: loading, exchange of gradients, services on the same cores
JOB_S = 5.5  # from the last step of a job to the first of the next one, evaluations excluded
COMMAND_S = 28.0  # services, flow, shards and report of a command
_FORWARD = 3  # a forward pass is a third of a training step: gradients of inputs and of weights take as long each
_FLATS = 4  # float32 vectors in a checkpoint: weights, average, and two of the optimizer


@dataclass(frozen=True)
class Processor:
    """Measured training speeds of one processor.

    Attributes:
        name: For people.
        source: What was measured.
        speeds: Multiply-adds of an image and images per second, by multiply-adds.
        step_s: Seconds that a step of all processes takes besides, if the speeds exclude them.
    """

    name: str
    source: str
    speeds: tuple[tuple[int, float], ...]
    step_s: float = 0.0

    def images_per_s(self, multiply_adds: int) -> float:
        """Images per second, interpolated on logarithms.

        Above the table, multiply-adds per second are those of its last row. Below it, images per second are those of
        its first row, since a smaller network is not faster in proportion.
        """
        (smallest, fastest), (largest, slowest) = self.speeds[0], self.speeds[-1]
        if multiply_adds <= smallest:
            return fastest
        if multiply_adds >= largest:
            return slowest * largest / multiply_adds
        above = next(index for index, (known, _) in enumerate(self.speeds) if known >= multiply_adds)
        (x0, y0), (x1, y1) = self.speeds[above - 1], self.speeds[above]
        share = math.log(multiply_adds / x0) / math.log(x1 / x0)
        return math.exp((1 - share) * math.log(y0) + share * math.log(y1))


@cache
def gpu() -> Processor:
    """The GPU of ``models/experiments/full_run.py``, with the speeds of its rows."""
    sizes = {name: compute_cost(schema.Model(name=name), 1000)[1] for name in FULL_RUNS}
    speeds = tuple((sizes[name], run.images_per_s) for name, run in FULL_RUNS.items())
    return Processor(
        GPU, "B0 and B4 measured in bf16, the others interpolated or limited (models/experiments/full_run.py)", speeds
    )


# Source: benchmarks/README.md, `python -m benchmarks.step`, n = 3.
CPU_CORE = Processor(
    "CPU core",
    "AMD EPYC: networks of profile=laptop; B0, B3, and B7 at 160 px (benchmarks/README.md, step)",
    (
        (359_792, 3606.0),
        (2_244_928, 1496.0),
        (8_279_808, 566.0),
        (385_814_752, 32.5 / 2),
        (1_827_141_392, 7.39 / 2),
        (2_644_768_704, 6.56 / 2),
    ),
    STEP_S,
)


@dataclass(frozen=True)
class Work:
    """Trainings that belong together.

    Attributes:
        name: For people.
        jobs: Number of trainings.
        steps: Steps of all of them.
        images: Training images of all of them, each counted once per epoch.
        evaluated: Images of all their evaluations.
        multiply_adds: Of one image and one forward pass; the mean over images where the networks differ.
        stored: Bytes of checkpoints and weights in the object store.
    """

    name: str
    jobs: int
    steps: int
    images: int
    evaluated: int
    multiply_adds: int
    stored: int

    def seconds(self, processor: Processor) -> float:
        """Seconds of one processor that trains and evaluates and does nothing else."""
        return (self.images + self.evaluated / _FORWARD) / processor.images_per_s(self.multiply_adds)

    def wall_s(self, processor: Processor, processes: int) -> float:
        """Seconds of all jobs, one after another, each on that many processors, if the speed grows with their number.

        Args:
            processor: Kind of processor.
            processes: Number of processes of a job.
        """
        return self.seconds(processor) / processes + self.steps * processor.step_s + self.jobs * JOB_S


def total_wall_s(works: Sequence[Work], processor: Processor, processes: int) -> float:
    """Returns the seconds that a command takes which does this work."""
    return sum(work.wall_s(processor, processes) for work in works) + COMMAND_S


def count_splits(data: schema.Data) -> tuple[int, int, int] | None:
    """Returns the official numbers of train, minival and val images; None for a folder.

    The same arithmetic as ``models.data.shards.layout.split_indices``, without opening the source. With ``data.limit``
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


@dataclass(frozen=True)
class Plan:
    """The work of a command, and a line about each part that cannot be counted."""

    works: tuple[Work, ...] = ()
    unknown: tuple[str, ...] = ()


def plan_trainings(config: schema.Config, sets: Sequence[schema.Data], verb: str = "reproduce") -> Plan:
    """Counts what a command trains, as if nothing were done yet.

    Args:
        config: Configuration of the command.
        sets: The data sets of the transfer.
        verb: One of ``VERBS``.
    """
    parts, public = _PARTS[verb], config.transfer.network
    sets = [config.data] if verb == "study" else sets  # every part of the study is made on them
    if verb == "transfer" and (config.model_ref is not None or public is not None):  # not trained here
        parts = ("transfer",)
    if verb == "study" and public is None:
        parts = tuple(part for part in parts if part != "transfer")
    used = [*([] if parts == ("transfer",) else [config.data]), *(sets if "transfer" in parts else [])]
    counted = {data.name: splits for data in used if (splits := count_splits(data))}
    unknown = [
        f"{data.name}: the number of its images is known once it is sharded"
        for data in used
        if data.name not in counted
    ]
    works: list[Work] = []
    models = [replace(config.model, name=name) for name in config.variants] if verb == "reproduce" else [config.model]
    sources = [model_of(public, VARIANTS[public].resolution)] if public and verb != "reproduce" else models
    sources = [transfer.with_side(model, config.transfer.resolution) for model in sources]
    for part in parts:
        if part == "transfer":
            works += _count_transfers(config.transfer, sources, sets, counted)
        elif config.data.name in counted:
            classes, splits = DATA_SETS[config.data.source].classes, counted[config.data.name]
            try:
                works += _COUNTERS[part](config, models, classes, splits)
            except ConfigError as error:
                unknown.append(f"{part}: {first_line(error)}")
    return Plan(tuple(works), tuple(unknown))


_Splits = tuple[int, int, int]


def _count_search(config: schema.Config, _models: Sequence[schema.Model], classes: int, splits: _Splits) -> list[Work]:
    points = screen(config.search, config.model, grid_points(config.search), classes).points
    trials = [scaled(config.model, point.alpha, point.beta, point.gamma) for point in points] * config.search.seeds
    return [_sum("grid search", [_count_training(config.search.recipe, trial, classes, splits) for trial in trials])]


def _count_family(config: schema.Config, models: Sequence[schema.Model], classes: int, splits: _Splits) -> list[Work]:
    return [_sum(f"train {one.name}", [_count_training(config.recipe, one, classes, splits)]) for one in models]


def _count_maps(config: schema.Config, _models: Sequence[schema.Model], classes: int, splits: _Splits) -> list[Work]:
    options = config.explain
    networks = [
        scaled(
            replace(options.model, name=entry.network or options.model.name), entry.depth, entry.width, entry.resolution
        )
        for entry in options.models
        if entry.registered is None
    ]
    return [_sum("activation maps", [_count_training(options.recipe, one, classes, splits) for one in networks])]


def _count_scaling(config: schema.Config, _models: Sequence[schema.Model], classes: int, splits: _Splits) -> list[Work]:
    trainings = []
    for point in config.scaling.points:
        work = _count_training(config.recipe, network_of(config.model, point), classes, splits)
        if config.scaling.equal_cost is not None and point.dimension != "baseline":
            baseline = network_of(config.model, schema.Point(point.network))
            cost = config.scaling.equal_cost * compute_cost(baseline, classes)[1]
            work = replace(work, multiply_adds=round(cost))
        trainings += [work] * config.scaling.seeds
    return [_sum("scaling study", trainings)]


def _count_architecture(
    config: schema.Config, _models: Sequence[schema.Model], classes: int, splits: _Splits
) -> list[Work]:
    """Every trial counted as B0's blocks, whose cost is the target of the search."""
    options = config.architecture
    trial = _count_training(options.recipe, options.model, classes, splits)
    return [_sum("architecture search", [trial] * options.trials)]


def _count_features(
    config: schema.Config, _models: Sequence[schema.Model], classes: int, splits: _Splits
) -> list[Work]:
    """Every image classified once by each network; the regression takes about as long as a job takes besides."""
    options, weights = config.linear, 1 + config.linear.seeds
    sizes = [compute_cost(model_of(name, options.resolution), classes)[1] for name in options.networks]
    if not sizes:
        return []
    jobs = len(sizes) * weights
    return [Work("frozen features", jobs, 0, 0, sum(splits) * jobs, sum(sizes) // len(sizes), 0)]


_COUNTERS = {
    "grid search": _count_search,
    "train": _count_family,
    "activation maps": _count_maps,
    "scaling study": _count_scaling,
    "architecture search": _count_architecture,
    "frozen features": _count_features,
}
# What each command computes; latency and photographs are not counted.
_PARTS = {
    "reproduce": ("grid search", "train", "transfer", "activation maps"),
    "study": ("scaling study", "frozen features", "transfer", "architecture search"),
    "search": ("grid search",),
    "train": ("train",),
    "transfer": ("train", "transfer"),
    "scaling": ("scaling study",),
    "architecture": ("architecture search",),
    "explain": ("activation maps",),
}
VERBS = tuple(_PARTS)


def _count_transfers(
    options: schema.Transfer,
    models: Sequence[schema.Model],
    sets: Sequence[schema.Data],
    counted: Mapping[str, _Splits],
) -> list[Work]:
    works = []
    for model in models:
        tuned = [
            _count_transfer(options, model, DATA_SETS[data.source].classes, counted[data.name])
            for data in sets
            if data.name in counted
        ]
        works += [_sum(f"transfer {model.name}", tuned)] if tuned else []
    return works


def _count_transfer(options: schema.Transfer, model: schema.Model, classes: int, splits: _Splits) -> Work:
    params, multiply_adds, _ = compute_cost(model, classes)
    cost = transfer.cost(options, *splits, multiply_adds)
    steps = cost.train_images // options.recipe.global_batch
    stored = cost.jobs * _count_stored(options.recipe, params)
    return Work("", cost.jobs, steps, cost.train_images, cost.eval_images, multiply_adds, stored)


def _count_training(recipe: schema.Recipe, model: schema.Model, classes: int, splits: _Splits) -> Work:
    train, minival, val = splits
    params, multiply_adds, _ = compute_cost(model, classes)
    steps = recipe.epochs * (train // recipe.global_batch)
    evaluated = -(-recipe.epochs // recipe.eval_every_epochs) * minival + val
    stored = _count_stored(recipe, params)
    return Work("", 1, steps, steps * recipe.global_batch, evaluated, multiply_adds, stored)


def _count_stored(recipe: schema.Recipe, params: int) -> int:
    """Bytes that a job leaves in the store: checkpoints, the best average, and the weights of the result."""
    return 4 * params * (recipe.keep_checkpoints * _FLATS + 2)


def _sum(name: str, works: Sequence[Work]) -> Work:
    images = sum(work.images for work in works)
    mean = sum(work.multiply_adds * work.images for work in works) / max(1, images)
    jobs, steps, evaluated, stored = (
        sum(getattr(work, key) for work in works) for key in ("jobs", "steps", "evaluated", "stored")
    )
    return Work(name, jobs, steps, images, evaluated, round(mean), stored)
