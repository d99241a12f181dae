"""Tasks of the linear evaluation: the answers of a network, found or computed; comparisons; the report's part."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from prefect import task

from conf import schema
from conf.text import logger
from infra import store
from infra.store.json_objects import read_object
from models.networks.packaged import FrozenNetwork
from models.results import LinearResult, LinearRow, ShardResult
from tasks import policy
from tasks.jobs import features_request, features_uri
from tasks.report import results as report_results

log = logger()


@dataclass(frozen=True)
class StoredAnswers:
    """The answers of a network.

    Attributes:
        correct: A 1 for each image of val that was classified correctly, else a 0.
        majority: Percentage of val in its most frequent class.
        reused: Whether an earlier run computed them.
    """

    frozen: FrozenNetwork
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
        return StoredAnswers(frozen, str(stored["correct"]), float(stored["majority"]), reused=True)
    answers, majority = classify_val(frozen, shards, config)
    correct = "".join("01"[int(one)] for one in answers)
    store.write_json(uri, {"correct": correct, "majority": majority, "request": request})
    log.info("%s: %.2f %% of %d images of val", frozen.title, 100 * answers.mean(), len(answers))
    return StoredAnswers(frozen, correct, majority, reused=False)


@task(task_run_name="compare features", **policy.BOOKKEEPING)
async def record_linear(config: schema.Config, shards: ShardResult, answers: Sequence[StoredAnswers]) -> LinearResult:
    """Compares the networks and writes the report's part ``linear``."""
    return await asyncio.to_thread(_record, config, shards, answers)


def _record(config: schema.Config, shards: ShardResult, answers: Sequence[StoredAnswers]) -> LinearResult:
    import numpy as np

    from models.experiments.linear_evaluation import compare_networks

    by_network = {
        name: [np.array(list(one.correct)) == "1" for one in answers if one.frozen.network == name]
        for name in config.linear.networks
    }
    comparisons, verdicts = compare_networks(by_network)
    result = LinearResult(
        data=shards.name,
        n=len(answers[0].correct),
        resolution=config.linear.resolution,
        majority=answers[0].majority,
        rows=tuple(row for name in config.linear.networks for row in _rows(config, name, answers)),
        comparisons=tuple(comparisons),
        verdicts=tuple(verdicts),
        reused=sum(one.reused for one in answers),
        command=f"effnet linear profile={config.profile}",
    )
    report_results.publish_part(config, "linear", result, report_results.digests([shards]))
    return result


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
        if top1:
            rows.append(
                LinearRow(
                    network=network,
                    weights=weights,
                    params=params,
                    multiply_adds=multiply_adds,
                    top1=sum(top1) / len(top1),
                    seed_top1=top1,
                    n=len(group[0].correct),
                )
            )
    return rows
