"""Imports a published checkpoint into the registry, with its provenance."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from conf import compose, schema
from conf.data_set import EvalTransform
from conf.text import logger
from infra import store
from infra.errors import ArtifactError, ConfigError, EffnetError
from models.results import Registered
from tasks import policy
from tasks.classes import CLASS_NAMES, GIVEN
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
    from models.networks import checkpoint_file, packaged, pretrained

    options = config.published
    if options.path is None:
        raise ConfigError("which file? e.g. published.path=/weights/tf_efficientnet_b0_aa-827b6e33.pth")
    uri = options.path if "://" in options.path else f"file://{Path(options.path).resolve()}"
    data = store.read(uri)
    sha256 = hashlib.sha256(data).hexdigest()
    if options.sha256 is not None and not sha256.startswith(options.sha256.lower()):
        raise ArtifactError(f"{options.path} has sha256 {sha256}, published.sha256 says {options.sha256}")
    tensors = checkpoint_file.read(data, options.path, options.weights)
    weights = pretrained.convert(tensors, options, options.path)
    classes, class_source = _name_classes(weights.classes, options.class_file)
    if options.class_file is None and not packaged.has_weights(sha256):
        weights = replace(weights, guesses=(*weights.guesses, f"class names {class_source}"))
    if weights.guesses:
        log.warning(
            "%s: guessed from the name of the file and what is usual for its origin: %s; "
            "published.origin, .preprocessing, .resolution, .crop_pad, .interpolation, .crop_mode, .class_file set it",
            Path(options.path).name,
            ", ".join(weights.guesses),
        )
    name = options.name or f"{weights.model.name}-{weights.origin}".replace("_", "-")
    source_tags = _describe_source(weights, uri, sha256) | {CLASS_NAMES: class_source}
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
    named = "" if options.class_file is None else f"\nclasses {json.dumps(classes)}"
    key = work_key(f"import-{name}", f"{sha256}\n{compose.to_yaml(weights.model)}{crop}{named}")
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


def _name_classes(count: int, file: str | None) -> tuple[list[str], str]:
    """Names of the classes, which no published file has, and where they are from.

    Without ``published.class_file`` they are ImageNet's for 1,000 classes, and otherwise their numbers.

    Raises:
        ConfigError: The file has another number of names, or there is none.
    """
    from models.data.sources.class_file import read_class_names
    from models.networks.packaged import imagenet_names

    if file is not None:
        names = read_class_names(file, "published.class_file")
        if len(names) != count:
            raise ConfigError(f"published.class_file {file} has {len(names)} names, the weights have {count} classes")
        return names, GIVEN
    names = list(imagenet_names())
    return (names, "of ImageNet") if count == len(names) else ([str(number) for number in range(count)], "unknown")


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
