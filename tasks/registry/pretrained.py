"""Imports a published checkpoint into the registry, with its provenance."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from conf import compose, schema
from conf.data_set import EvalTransform
from conf.experiments import CLASSES_GIVEN
from conf.text import logger
from infra.errors import EffnetError
from models.results import Registered
from tasks import policy
from tasks.classes import CLASS_NAMES
from tasks.jobs import work_key
from tasks.registry.card import imported_card
from tasks.registry.family import describe_family
from tasks.registry.promote import champion_if_first
from tasks.registry.register import WEIGHTS, describe_network, new_version

if TYPE_CHECKING:
    from infra.tracking.registry import Version
    from models.networks.pretrained import PretrainedWeights

log = logger()
# Source: the license files of tensorflow/tpu, huggingface/pytorch-image-models, pytorch/vision and
# lukemelas/EfficientNet-PyTorch.
LICENSES = {"timm": "Apache-2.0", "timm_tf": "Apache-2.0", "torchvision": "BSD-3-Clause", "lukemelas": "Apache-2.0"}


@task(task_run_name="import published weights", **policy.BOOKKEEPING)
async def import_published(config: schema.Config, parent_run: str = "") -> Registered:
    """Reads the published weights, checks every tensor, and registers them; as champion if the name has none.

    Args:
        config: Configuration of the command.
        parent_run: Parent MLflow run.

    Raises:
        ConfigError: No path, an unsupported file type, or a network, origin or class count other than requested.
        NotFoundError: No such file.
        ArtifactError: The file is damaged, has another sha256, or fits no network of effnet.
        TransientError: MLflow or the store does not respond; the same call resumes later.
    """
    return await asyncio.to_thread(_import, config, parent_run)


def _import(config: schema.Config, parent_run: str = "") -> Registered:
    from infra.tracking import runs
    from models.experiments import published_file

    options = config.published
    file = published_file.read(options)
    weights, classes = file.weights, list(file.class_names)
    if weights.guesses:
        log.warning(
            "%s: guessed from the name of the file and what is usual for its origin: %s; "
            "published.origin, .preprocessing, .resolution, .crop_pad, .interpolation, .crop_mode, .class_file set it",
            Path(str(options.path)).name,
            ", ".join(weights.guesses),
        )
    name = options.name or f"{weights.model.name}-{weights.origin}".replace("_", "-")
    source_tags = _describe_source(weights, file.uri, file.sha256) | {CLASS_NAMES: file.class_source}
    source_tags["weights"] = options.weights or "moving average if there is one"
    log.info(
        "importing %s of %s as %s: %s parameters, %d classes, %s px",
        weights.model.name,
        weights.origin,
        name,
        f"{int(source_tags['params']):,}",
        weights.classes,
        source_tags["resolution"],
    )  # the rest is in the run's parameters and on the card
    usual = asdict(EvalTransform())
    crop = "".join(f"\n{key} {value}" for key, value in asdict(weights.transform).items() if value != usual[key])
    named = f"\nclasses {json.dumps(classes)}" if file.class_source == CLASSES_GIVEN else ""
    kind = f"\nweights {options.weights}" if options.weights else ""
    key = work_key(f"import-{name}", f"{file.sha256}\n{compose.to_yaml(weights.model)}{crop}{named}{kind}")
    tags = {"role": "import", **source_tags}
    parent = parent_run or None
    run = runs.start_run(config.experiment, f"import {name}", key, parent=parent, params=source_tags, tags=tags)
    try:
        version = _register_weights(weights, run, name, classes, source_tags, config.storage)
    except BaseException:
        with suppress(EffnetError):  # the original error matters more than one of MLflow
            runs.finish_run(run, "FAILED", {})
        raise
    registered = champion_if_first(version, config.storage)
    runs.finish_run(run, "FINISHED", {})
    return registered


def _register_weights(
    weights: PretrainedWeights, run: str, name: str, classes: list[str], tags: dict[str, str], storage: str
) -> Version:
    from infra.tracking import cards
    from models.networks import export
    from models.networks.build import resolve_architecture

    with tempfile.TemporaryDirectory(prefix="effnet-import-") as scratch:
        export.save_weights(weights.state_dict, Path(scratch) / WEIGHTS)
        resolution = resolve_architecture(weights.model).resolution
        license_name = LICENSES[weights.origin]
        searched = {"variant": weights.model.name, "license": license_name}
        description = describe_network(weights.model, resolution, classes, weights.transform)
        version = new_version(run, name, Path(scratch), description, searched | tags, storage)
    ref = f"{version.name}/{version.version}"
    text = imported_card(ref, weights.classes, weights.transform, tags, license_name)
    cards.describe_version(version.name, version.version, text, {"card.md": text}, {}, None)
    describe_family(version.name)
    return version


def _describe_source(weights: PretrainedWeights, uri: str, sha256: str) -> dict[str, str]:
    """Tags of the weights: their source and the numerics used for them."""
    from models.networks.build import compute_cost

    params, multiply_adds, resolution = compute_cost(weights.model, weights.classes)
    return {
        "network": weights.model.name,
        "source": uri,
        "source_sha256": sha256,
        "origin": weights.origin,
        "padding": weights.model.padding,
        "bn_epsilon": str(weights.model.bn_epsilon),
        "preprocessing": weights.model.preprocessing,
        "params": str(params),
        "multiply_adds": str(multiply_adds),
        "resolution": str(resolution),
        **{key: str(value) for key, value in asdict(weights.transform).items()},
        "guessed": ", ".join(weights.guesses) or "nothing",
    }
