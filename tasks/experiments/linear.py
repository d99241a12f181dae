"""Tasks of the linear evaluation: the answers of a network, found or computed; comparisons; the report's part."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect import task

from conf import schema
from conf.text import logger
from infra import store
from infra.store.json_objects import read_object
from models.experiments.paired import count_tested, group_by_fold, mean_over_images
from models.networks.packaged import FrozenNetwork
from models.results import LinearResult, LinearRow, ShardResult
from tasks import policy
from tasks.jobs import features_request, features_uri
from tasks.report import results as report_results

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logger()


@dataclass(frozen=True)
class StoredAnswers:
    """The answers of a network.

    Attributes:
        shards: The images, with the fold that is val.
        correct: A 1 for each image of val that was classified correctly, else a 0.
        majority: Percentage of val in its most frequent class.
        reused: Whether an earlier run computed them.
    """

    frozen: FrozenNetwork
    shards: ShardResult
    correct: str
    majority: float
    reused: bool


@task(task_run_name="features of {frozen.title}", **policy.STORE_WORK)
async def classify(config: schema.Config, shards: ShardResult, frozen: FrozenNetwork) -> StoredAnswers:
    """Classifies val by a regression on the network's features, unless the answers are stored.

    Raises:
        DataError: A shard or an image is damaged.
        NotFoundError: The package of the weights is not installed.
    """
    return await asyncio.to_thread(_classify, config, shards, frozen)


def _classify(config: schema.Config, shards: ShardResult, frozen: FrozenNetwork) -> StoredAnswers:
    from models.experiments.linear_evaluation import classify_val

    request = features_request(config, shards, frozen)
    uri = features_uri(config, request)
    if store.exists(uri):
        stored = read_object(uri)
        return StoredAnswers(frozen, shards, str(stored["correct"]), float(stored["majority"]), reused=True)
    answers, majority = classify_val(frozen, shards, config)
    correct = "".join("01"[int(one)] for one in answers)
    store.write_json(uri, {"correct": correct, "majority": majority, "request": request})
    log.info("%s: %.2f %% of %d images of val", frozen.title, 100 * answers.mean(), len(answers))
    return StoredAnswers(frozen, shards, correct, majority, reused=False)


@task(task_run_name="compare features", **policy.BOOKKEEPING)
async def record_linear(config: schema.Config, answers: Sequence[StoredAnswers]) -> LinearResult:
    """Compares the networks and writes the report's part ``linear``."""
    return await asyncio.to_thread(_record, config, answers)


def _record(config: schema.Config, answers: Sequence[StoredAnswers]) -> LinearResult:
    from models.experiments.linear_evaluation import compare_networks

    public, random = {}, {}
    for name in config.linear.networks:
        folds = _by_fold([one for one in answers if one.frozen.network == name])
        public[name] = [next(_bits(one) for one in fold if one.frozen.seed is None) for fold in folds]
        random[name] = [[_bits(one) for one in fold if one.frozen.seed is not None] for fold in folds]
    shards = [fold[0].shards for fold in _by_fold(answers)]
    fitted = min(one.train + one.minival for one in shards)
    comparisons, verdicts = compare_networks(public, random, max(one.val for one in shards) / fitted)
    images = [fold[0] for fold in _by_fold(answers)]
    n = sum(len(one.correct) for one in images)
    result = LinearResult(
        data=shards[0].name,
        n=n,
        resolution=config.linear.resolution,
        majority=sum(one.majority * len(one.correct) for one in images) / n,
        rows=tuple(row for name in config.linear.networks for row in _rows(config, name, answers)),
        comparisons=tuple(comparisons),
        verdicts=tuple(verdicts),
        reused=sum(one.reused for one in answers),
        command=f"effnet linear profile={config.profile}",
    )
    report_results.publish_part(config, "linear", result, report_results.digests(shards))
    return result


def _bits(stored: StoredAnswers) -> NDArray[np.bool_]:
    import numpy as np

    bits: NDArray[np.bool_] = np.array(list(stored.correct)) == "1"
    return bits


def _by_fold(answers: Sequence[StoredAnswers]) -> list[list[StoredAnswers]]:
    return group_by_fold(answers, [one.shards for one in answers])


def _rows(config: schema.Config, network: str, answers: Sequence[StoredAnswers]) -> list[LinearRow]:
    from models.networks.build import compute_cost
    from models.networks.packaged import model_of

    params, multiply_adds, _ = compute_cost(model_of(network, config.linear.resolution), 1000)
    of_network = [one for one in answers if one.frozen.network == network]
    groups = {
        "ImageNet": [one for one in of_network if one.frozen.seed is None],
        "random": [one for one in of_network if one.frozen.seed is not None],
    }
    rows = []
    for weights, group in groups.items():
        top1 = tuple(100 * one.correct.count("1") / len(one.correct) for one in group)
        shards = [one.shards for one in group]
        if top1:
            rows.append(
                LinearRow(
                    network=network,
                    weights=weights,
                    params=params,
                    multiply_adds=multiply_adds,
                    top1=mean_over_images(top1, shards),
                    seed_top1=top1,
                    n=count_tested(shards),
                )
            )
    return rows
