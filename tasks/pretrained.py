"""A public checkpoint becomes a version in the registry, with where it came from."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from conf import compose, schema
from conf.text import logger
from infra import store
from infra.errors import ArtifactError, ConfigError, TransientError
from models.results import Registered
from tasks import policy
from tasks.promote import champion_if_first
from tasks.register import WEIGHTS, new_version

if TYPE_CHECKING:
    from infra.tracking.registry import Version
    from models.networks.pretrained import PretrainedWeights

log = logger()


@task(task_run_name="import published weights", **policy.BOOKKEEPING)
async def import_published(config: schema.Config) -> Registered:
    """Reads ``published.path``, checks every tensor of it, and registers it; champion where the name has none.

    Raises:
        ConfigError: no path, another kind of file, or another network, origin or class count than asked for.
        NotFoundError: there is no such file.
        ArtifactError: it is damaged, not the file that was meant, or fits none of our networks.
        TransientError: MLflow or the store do not answer; the same call goes on later.
    """
    return await asyncio.to_thread(_import, config)


def _import(config: schema.Config) -> Registered:
    from infra.tracking import runs
    from models.networks import pretrained

    asked = config.published
    if asked.path is None:
        raise ConfigError("which file? e.g. published.path=/weights/tf_efficientnet_b0_aa-827b6e33.pth")
    uri = asked.path if "://" in asked.path else f"file://{Path(asked.path).resolve()}"
    data = store.read(uri)
    sha256 = hashlib.sha256(data).hexdigest()
    if asked.sha256 is not None and not sha256.startswith(asked.sha256.lower()):
        raise ArtifactError(f"{asked.path} has sha256 {sha256}, published.sha256 says {asked.sha256}")
    found = pretrained.convert(pretrained.read(data, asked.path), asked, asked.path)
    name = asked.name or f"{found.model.name}-{found.origin}".replace("_", "-")
    facts = _facts(found, uri, sha256)
    log.info("%s", ", ".join(f"{key} {value}" for key, value in facts.items()))
    digest = hashlib.sha256(f"{sha256}\n{compose.to_yaml(found.model)}".encode()).hexdigest()[:10]
    tags = {"role": "import", **facts}
    run = runs.start_run(config.experiment, f"import {name}", f"import-{name}-{digest}", params=facts, tags=tags)
    try:
        version = _registered(found, run, name, facts)
    except BaseException:
        with suppress(TransientError):  # the error at hand matters more than MLflow's silence
            runs.finish_run(run, "FAILED", {})
        raise
    registered = champion_if_first(version)
    runs.finish_run(run, "FINISHED", {})
    return registered


def _registered(found: PretrainedWeights, run: str, name: str, facts: dict[str, str]) -> Version:
    from models.networks import export
    from models.networks.build import resolve_architecture

    with tempfile.TemporaryDirectory(prefix="effnet-import-") as scratch:
        export.save_weights(found.state_dict, Path(scratch) / WEIGHTS)
        classes = [str(number) for number in range(found.classes)]  # no file names them
        crop_pad = schema.Augment().eval_crop_pad
        side = resolve_architecture(found.model).resolution
        return new_version(run, name, Path(scratch), found.model, side, classes, crop_pad, facts)


def _facts(found: PretrainedWeights, uri: str, sha256: str) -> dict[str, str]:
    """What is known of the weights: their source, and the numerics that were taken for them."""
    from models.networks.build import compute_cost

    params, multiply_adds, resolution = compute_cost(found.model, found.classes)
    return {
        "network": found.model.name,
        "source": uri,
        "source_sha256": sha256,
        "origin": found.origin,
        "padding": found.model.padding,
        "bn_epsilon": str(found.model.bn_epsilon),
        "preprocessing": found.model.preprocessing,
        "params": str(params),
        "multiply_adds": str(multiply_adds),
        "resolution": str(resolution),
    }
