"""Tasks of the photographs: read them, draw what registered public networks see in them, publish."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from prefect import task

from conf import compose, schema
from conf.data_set import EvalTransform
from conf.overrides import expand_home
from infra.errors import ConfigError
from models.results import PhotographNetwork, PhotographsResult
from tasks import policy
from tasks.jobs import work_key
from tasks.report import results as report_results


@dataclass(frozen=True)
class PublicNetwork:
    """A packaged network as registered."""

    name: str
    version: str  # NAME/VERSION
    model: schema.Model
    weights: tuple[str, str]  # uri and sha256


def import_config(config: schema.Config, name: str) -> schema.Config:
    """The configuration that imports one of ``photographs.networks`` from its Python package.

    Raises:
        NotFoundError: The package is not installed.
    """
    from models.networks.efficientnet.variants import VARIANTS
    from models.networks.packaged import weights_path

    facts = schema.Published(  # nothing is left to guess
        path=str(weights_path(name)),
        network=name,
        origin="lukemelas",
        preprocessing="lite",
        resolution=VARIANTS[name].resolution,
        **asdict(EvalTransform()),
    )
    return dataclasses.replace(config, published=facts)


@task(task_run_name="read photographs", **policy.BOOKKEEPING)
async def read_photographs(config: schema.Config) -> dict[str, bytes]:
    """The encoded photographs by name, read before any network is imported.

    Raises:
        ConfigError: No network, a file that does not exist, or two of one name.
        DataError: A file is no image that can be used.
    """
    return await asyncio.to_thread(read, config.photographs)


def read(options: schema.Photographs) -> dict[str, bytes]:
    """Reads as ``read_photographs`` does, and raises its errors."""
    from models.data.loading.selection import decode_squares
    from models.networks import packaged

    if not options.networks:
        raise ConfigError("photographs.networks is empty: name at least one, e.g. [efficientnet_lite0]")
    files = {Path(path).stem: Path(expand_home(path)) for path in options.images}
    if len(files) < len(options.images):
        raise ConfigError("photographs.images: two files have the same name")
    if absent := [str(path) for path in files.values() if not path.is_file()]:
        raise ConfigError(f"photographs.images: no file {absent[0]}")
    photographs = {name: path.read_bytes() for name, path in files.items()}
    photographs = photographs or {name: packaged.photograph(name) for name in packaged.PHOTOGRAPHS}
    decode_squares(photographs, 8, EvalTransform())  # raises for a damaged one
    return photographs


async def find_drawn(config: schema.Config, photographs: Mapping[str, bytes]) -> PhotographsResult | None:
    """The result of an earlier run of the same networks and photographs, if its versions are still registered."""
    return await asyncio.to_thread(_find_drawn, config, photographs)


def _find_drawn(config: schema.Config, photographs: Mapping[str, bytes]) -> PhotographsResult | None:
    from infra.tracking import registry, rest

    result = report_results.reusable_part(config, PhotographsResult, _digest_inputs(config, photographs))
    if result is None or not result.mlflow_url.startswith(rest.address()):
        return None
    try:
        for network in result.networks:
            registry.resolve_version(network.version)
    except ConfigError:  # deleted since then
        return None
    return result


def _digest_inputs(config: schema.Config, photographs: Mapping[str, bytes]) -> dict[str, str]:
    from models.networks.packaged import weights_path

    files = {f"weights of {name}": weights_path(name).read_bytes() for name in config.photographs.networks}
    return {name: hashlib.sha256(data).hexdigest() for name, data in (files | dict(photographs)).items()}


@task(task_run_name="draw photographs", **policy.BOOKKEEPING)
async def record_photographs(
    config: schema.Config, photographs: Mapping[str, bytes], networks: Sequence[PublicNetwork], parent_run: str
) -> PhotographsResult:
    """Draws each network's map of each photograph, for the report and MLflow."""
    return await asyncio.to_thread(_record, config, photographs, networks, parent_run)


def _record(
    config: schema.Config, photographs: Mapping[str, bytes], networks: Sequence[PublicNetwork], parent_run: str
) -> PhotographsResult:
    from infra.tracking import runs
    from models.experiments import gallery
    from models.experiments.photographs import classify_photographs, report_maps, report_photographs
    from models.networks.packaged import imagenet_names

    classes, names = imagenet_names(), list(photographs)
    request = compose.to_dict(config.photographs)
    run = runs.start_run(
        config.experiment,
        "photographs",
        work_key("photographs", request),
        parent=parent_run or None,
        params=request,
        tags={"role": "photographs", "profile": config.profile},
    )
    seen = [
        classify_photographs(network.model, *network.weights, photographs, len(classes), EvalTransform())
        for network in networks
    ]
    with tempfile.TemporaryDirectory(prefix="effnet-photographs-") as scratch:
        path = Path(scratch) / "photographs.png"
        columns = [seen[0].inputs, *(one.overlays for one in seen)]
        path.write_bytes(gallery.png(gallery.sheet(columns, seen[0].inputs.shape[1])))
        runs.log_file(run, path, "maps")
    result = PhotographsResult(
        networks=tuple(_row(network) for network in networks),
        photographs=report_photographs(names, seen[0].inputs),
        maps=tuple(
            cell
            for network, one in zip(networks, seen, strict=True)
            for cell in report_maps(network.name, names, one, classes)
        ),
        command=f"effnet photographs profile={config.profile}",
        mlflow_url=runs.run_url(run),
    )
    runs.finish_run(run, "FINISHED", {})
    report_results.publish_part(config, "photographs", result, _digest_inputs(config, photographs))
    return result


def _row(network: PublicNetwork) -> PhotographNetwork:
    from models.networks.build import compute_cost
    from models.networks.packaged import LITE_TOP1

    params, multiply_adds, resolution = compute_cost(network.model, 1000)
    return PhotographNetwork(
        name=network.name,
        version=network.version,
        params=params,
        multiply_adds=multiply_adds,
        resolution=resolution,
        published_top1=LITE_TOP1[network.name],
    )
