"""Jobs and their identity: the same request has the same key, on every machine and in later versions of this code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from conf import compose, schema
from conf.data_set import SQUASH
from infra import store
from infra.errors import ConfigError
from infra.store.json_objects import read_object
from models.data.loading.order import check_batch
from models.data.sources.listing import require_several
from models.experiments import transfer as protocol
from models.networks.efficientnet import block_strings
from models.networks.packaged import FrozenNetwork
from models.results import Point, ShardResult, result_name

RECIPE_VERSION = 4  # increment when the same configuration must train to different weights
SOLARIZE_VERSION = 5  # instead, of trainings with Solarize at level 10, which inverts images since this version
LAUNCH_FILE = "launch.yaml"  # in a run folder: how the job was last submitted, which tells where it may still be queued
MODULES = {"train": "models.train", "evaluate": "models.evaluate"}  # entry point of a job, by its kind


@dataclass(frozen=True)
class JobRun:
    """A job with its key, run folder and display name."""

    job: schema.Job
    key: str  # name and digest of the request; also the last component of job_uri
    job_uri: str
    label: str


def work_key(name: str, request: Mapping[str, Any] | str) -> str:
    """Returns ``NAME-DIGEST``, under which the work and its results are found again.

    Args:
        name: Kind of the work, as users read it.
        request: Everything that the result depends on: JSON values by name, or text.

    Raises:
        TypeError: A value is not JSON, so its digest could differ from run to run.
    """
    text = request if isinstance(request, str) else json.dumps(request, sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def train_job(
    config: schema.Config,
    data: schema.Data,
    recipe: schema.Recipe,
    shards: ShardResult,
    init_weights: tuple[str, str] | None,
    label: str = "",
    split: str = "train",
    *,
    keep_classifier: bool = False,
) -> JobRun:
    """Describes one training job. Its key is a digest of the request, so the same request is the same job."""
    # Fail early: the trainer repeats these checks, but only after about 10 s of start-up.
    block_strings.decode(config.model.blocks)
    require_several(shards.name, shards.classes)
    check_division(config, recipe, shards.train if split == "train" else shards.train + shards.minival)
    job = schema.Job(
        kind="train",
        model=config.model,
        data_name=shards.name,
        manifest_uri=shards.manifest_uri,
        manifest_sha256=shards.manifest_sha256,
        augment=data.augment,
        recipe=recipe,
        split=split,
        leave_out=list(shards.left_out),
        init_weights_uri=init_weights[0] if init_weights else None,
        init_weights_sha256=init_weights[1] if init_weights else None,
        keep_classifier=keep_classifier,
        runtime=config.runtime,
    )
    return name_job(config, job, train_name(job), label)


def check_division(config: schema.Config, recipe: schema.Recipe, images: int | None = None) -> None:
    """Checks that the processes of a job can share a batch equally.

    Args:
        config: Processes and stages.
        recipe: Batch, and how it is divided.
        images: Number of training images; None before they are counted.

    Raises:
        ConfigError: They cannot, or the batch is larger than the data.
    """
    stages = config.runtime.pipeline_stages
    if recipe.bn_groups == "sync" and stages > 1:
        raise ConfigError(
            f"recipe.bn_groups=sync is incompatible with runtime.pipeline_stages={stages}; use recipe.bn_groups=slice"
        )
    samples = recipe.global_batch if images is None else images
    check_batch(recipe.global_batch, recipe.batch_slices, config.replicas, samples)


def transfer_job(
    config: schema.Config,
    shards: ShardResult,
    point: Point,
    weights: tuple[str, str] | None,
    label: str = "",
    seed: int = 0,
) -> JobRun:
    """Describes the training of ``config.model`` on ``config.transfer.data`` by the chosen point of the grid.

    Args:
        config: Configuration of the command.
        shards: Data set.
        point: Point of the grid.
        weights: URI and sha256 of the weights that are fine-tuned; None for random ones.
        label: Display name.
        seed: Counts from the recipe's.
    """
    options = config.transfer
    samples = shards.train + shards.minival * (options.final_split != "train")
    recipe = protocol.recipe_for(options, point, samples)
    recipe = replace(recipe, seed=recipe.seed + seed)
    return train_job(config, options.data, recipe, shards, weights, label, options.final_split)


def train_name(job: schema.Job) -> str:
    """``train-b0-digits``, or ``finetune-...`` for a job that starts from weights."""
    verb = "finetune" if job.init_weights_uri is not None else "train"
    return f"{verb}-{short_name(job.model.name)}-{job.data_name}"


def evaluate_job(
    config: schema.Config, model: schema.Model, shards: ShardResult, weights: tuple[str, str], exact: str
) -> JobRun:
    """Describes an evaluation of registered weights.

    Args:
        config: Configuration of the command.
        model: The registered network.
        shards: Data set to evaluate on.
        weights: URI and sha256 of the weights.
        exact: ``NAME/VERSION`` of the registered model.
    """
    job = schema.Job(
        kind="evaluate",
        model=model,
        data_name=shards.name,
        manifest_uri=shards.manifest_uri,
        manifest_sha256=shards.manifest_sha256,
        augment=config.data.augment,
        leave_out=list(shards.left_out),
        init_weights_uri=weights[0],
        init_weights_sha256=weights[1],
        runtime=config.runtime,
    )
    return name_job(config, job, f"evaluate-{exact.replace('/', '-v')}-{shards.name}")


def features_request(config: schema.Config, shards: ShardResult, frozen: FrozenNetwork) -> dict[str, Any]:
    """What the answers of a regression on a network's features depend on."""
    options, augment = config.linear, config.data.augment
    return {
        "data": shards.manifest_sha256,
        "crop": [augment.eval_crop_pad, augment.eval_interpolation, *[SQUASH] * (augment.eval_crop_mode == SQUASH)],
        "network": frozen.network,
        "seed": frozen.seed,
        "resolution": options.resolution,
        "strengths": options.strengths,
    }


def features_uri(config: schema.Config, request: Mapping[str, Any]) -> str:
    """URI of the answers to a ``features_request``."""
    return store.join(config.storage, "linear", f"{work_key('linear', request)}.json")


def name_job(config: schema.Config, job: schema.Job, name: str, label: str = "") -> JobRun:
    """Assigns a job its key and its run folder."""
    key = _key_of(config, job, name, config.launch.processes)
    return JobRun(job, key, store.join(config.storage, "jobs", key), label or name.replace("-", " "))


def list_other_worlds(config: schema.Config, run: JobRun) -> dict[int, str]:
    """Returns the keys of the same training on other numbers of processes, by that number, where they differ."""
    job, name, stages = run.job, run.key.rpartition("-")[0], config.runtime.pipeline_stages
    if job.recipe.bn_groups == "slice":
        return {}
    slices = job.recipe.batch_slices
    sizes = [replicas * stages for replicas in range(1, slices + 1) if slices % replicas == 0]
    keys = {size: _key_of(config, job, name, size) for size in sizes}
    return {size: key for size, key in keys.items() if key != run.key}


def _key_of(config: schema.Config, job: schema.Job, name: str, processes: int) -> str:
    """The key of a job on this number of processes, however they are arranged on machines.

    With batch statistics per batch slice, the result does not depend on their number either.
    """
    request = compose.to_yaml(replace(job, runtime=schema.Runtime(), until_epoch=None))
    world = f" 1x{processes}/{config.runtime.pipeline_stages}".removesuffix("/1")  # as if on one machine
    return work_key(name, f"{_version(job)}{'' if job.recipe.bn_groups == 'slice' else world}\n{request}")


def _version(job: schema.Job) -> int:
    augment = job.augment
    solarizes = augment.policy == "v0" or (augment.policy == "randaugment" and augment.randaugment_magnitude >= 10)
    return SOLARIZE_VERSION if job.kind == "train" and solarizes else RECIPE_VERSION


def short_name(model: str) -> str:
    """``efficientnet_b3`` -> ``b3``."""
    return model.removeprefix("efficientnet_")


def stored_result(run: JobRun) -> dict[str, Any] | None:
    """The stored result of a job up to the epoch that it requests, else None."""
    uri = result_uri(run)
    return read_object(uri) if store.exists(uri) else None


def result_uri(run: JobRun) -> str:
    """URI of the job's result."""
    return store.join(run.job_uri, result_name(run.job))
