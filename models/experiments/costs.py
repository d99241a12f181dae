"""What trainings cost before they start: images, time of one processor, bytes of checkpoints.

Speeds are those of measured training steps, interpolated in the multiply-adds of an image. Data loading and evaluation
are not counted. For networks of the family nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from conf import schema
from infra.errors import ConfigError, first_line
from models.data.sources.catalog import DATA_SETS
from models.data.sources.listing import MINIVAL, VAL
from models.experiments import transfer
from models.experiments.full_run import FULL_RUNS, GPU
from models.experiments.grid_search import grid_points, screen
from models.experiments.scaling_study import scaled
from models.networks.build import compute_cost

STARTUP_S = 2.9  # from launch to first step. Source: benchmarks/README.md, startup, two cores, n = 5
_FLATS = 4  # float32 vectors in a checkpoint: weights, average, and two of the optimizer


@dataclass(frozen=True)
class Processor:
    """Measured training speeds of one processor.

    Attributes:
        name: For people.
        source: What was measured.
        speeds: Multiply-adds of an image and images per second, by multiply-adds.
    """

    name: str
    source: str
    speeds: tuple[tuple[int, float], ...]

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
)


@dataclass(frozen=True)
class Work:
    """Trainings that belong together.

    Attributes:
        name: For people.
        jobs: Number of trainings.
        steps: Steps of all of them.
        images: Training images of all of them, each counted once per epoch.
        multiply_adds: Of one image and one forward pass; the mean over images where the networks differ.
        stored: Bytes of checkpoints and weights in the object store.
    """

    name: str
    jobs: int
    steps: int
    images: int
    multiply_adds: int
    stored: int

    def seconds(self, processor: Processor) -> float:
        """Seconds on one processor."""
        return self.images / processor.images_per_s(self.multiply_adds)


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


def plan_trainings(config: schema.Config, sets: Sequence[schema.Data]) -> tuple[list[Work], list[str]]:
    """Returns what ``effnet reproduce`` trains, but for its maps: the grid search, each variant, and its transfer.

    Args:
        config: Configuration of the command.
        sets: The data sets of the transfer.

    Returns:
        The work, and a line about each part that cannot be counted.
    """
    counted = {data.name: splits for data in (config.data, *sets) if (splits := count_splits(data))}
    unknown = [
        f"{data.name}: the number of its images is known once it is sharded"
        for data in (config.data, *sets)
        if data.name not in counted
    ]
    works: list[Work] = []
    models = [replace(config.model, name=name) for name in config.variants]
    if config.data.name in counted:
        classes, train = DATA_SETS[config.data.source].classes, counted[config.data.name][0]
        try:
            works.append(_count_search(config, classes, train))
        except ConfigError as error:
            unknown.append(f"grid search: {first_line(error)}")
        works += [
            _sum(f"train {model.name}", [_count_training(config.recipe, model, classes, train)]) for model in models
        ]
    for model in models:
        tuned = [
            _count_transfer(config.transfer, model, DATA_SETS[data.source].classes, counted[data.name])
            for data in sets
            if data.name in counted
        ]
        works += [_sum(f"transfer {model.name}", tuned)] if tuned else []
    return works, unknown


def _count_search(config: schema.Config, classes: int, train: int) -> Work:
    points = screen(config.search, config.model, grid_points(config.search), classes).points
    trials = [scaled(config.model, point.alpha, point.beta, point.gamma) for point in points] * config.search.seeds
    return _sum("grid search", [_count_training(config.search.recipe, trial, classes, train) for trial in trials])


def _count_transfer(options: schema.Transfer, model: schema.Model, classes: int, splits: tuple[int, int, int]) -> Work:
    params, multiply_adds, _ = compute_cost(model, classes)
    cost = transfer.cost(options, *splits, multiply_adds)
    steps = cost.train_images // options.recipe.global_batch
    stored = cost.jobs * _count_stored(options.recipe, params)
    return Work("", cost.jobs, steps, cost.train_images, multiply_adds, stored)


def _count_training(recipe: schema.Recipe, model: schema.Model, classes: int, images: int) -> Work:
    params, multiply_adds, _ = compute_cost(model, classes)
    steps = recipe.epochs * (images // recipe.global_batch)
    return Work("", 1, steps, steps * recipe.global_batch, multiply_adds, _count_stored(recipe, params))


def _count_stored(recipe: schema.Recipe, params: int) -> int:
    """Bytes that a job leaves in the store: checkpoints, the best average, and the weights of the result."""
    return 4 * params * (recipe.keep_checkpoints * _FLATS + 2)


def _sum(name: str, works: Sequence[Work]) -> Work:
    images = sum(work.images for work in works)
    mean = sum(work.multiply_adds * work.images for work in works) / max(1, images)
    jobs, steps, stored = (sum(getattr(work, key) for work in works) for key in ("jobs", "steps", "stored"))
    return Work(name, jobs, steps, images, round(mean), stored)
