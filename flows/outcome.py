"""The short block that ends a command: what came of it, where to look, how to stop the services."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf import schema
from infra.local import Addresses
from models.results import EvalResult, Registered, ShardResult, Summary, TrainResult, TransferResult
from models.statistics import estimate


def block(result: Any, config: schema.Config, addresses: Addresses, seconds: float) -> str:
    """The whole block; ``result`` is what the flow returned."""
    return "\n".join(["", *described(result, config), "", services(addresses), f"time       {clock(seconds)}"])


def services(addresses: Addresses) -> str:
    """Where the services are."""
    return "\n".join(
        [
            f"Prefect    {addresses.prefect.removesuffix('/api')}",
            f"MLflow     {addresses.mlflow}",
            f"S3         {addresses.s3 or 'AWS'}",
            "stop them  effnet down   (or make down)",
        ]
    )


def clock(seconds: float) -> str:
    """``754.2`` -> ``12 min 34 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def described(result: Any, config: schema.Config) -> list[str]:
    """A flow's result in a few lines."""
    found = " (found, nothing to do)" if getattr(result, "reused", False) else ""
    match result:
        case TrainResult():
            return [
                f"{result.job}{found}",
                f"top-1      {result.top1:.2f} %, top-5 {result.top5:.2f} % of {result.n_val} val images",
                f"weights    {result.weights_uri}",
                f"MLflow run {result.mlflow_run}",
            ]
        case EvalResult():
            top = f"top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} % of {result.n} images"
            scored = estimate(config.data.metric, result.class_correct, result.class_total)
            own = f"; {config.data.metric} {scored.value:.2f} ± {scored.standard_error:.2f} %"
            return [f"{result.model_ref} on {result.data}: {top}{own}"]
        case ShardResult():
            counts = f"{result.train} train, {result.minival} minival, {result.val} val"
            return [f"{result.name}: {counts} in {result.shards} shards{found}", f"manifest   {result.manifest_uri}"]
        case Registered():
            aliases = ", ".join(result.aliases) or "none"
            return [f"registered {result.name}/{result.version}{found}, aliases: {aliases}"]
        case [TransferResult(), *_]:
            return [_moved(each) for each in result]
        case Summary():
            return _family(result, config)
        case {"best": best, "trials": trials}:
            return [_best(best, trials)]
        case _:
            return [f"report     {result}"]


def _moved(result: TransferResult) -> str:
    chosen = f"rate {result.chosen['lr_per_256']:g} per 256, decay {result.chosen['weight_decay']:g}"
    tried = f", best of {len(result.grid)} points" if result.grid else ""
    accuracy = f"{result.value:.2f} ± {result.standard_error:.2f} % {result.metric} of {result.n} test images"
    return f"{result.network} on {result.data}: {accuracy} ({result.protocol}: {chosen}{tried})"


def _family(summary: Summary, config: schema.Config) -> list[str]:
    titles = f"{'params':>12} {'multiply-adds':>14} {'px':>4} {'top-1':>7} {'top-5':>7} {'transfer':>9}"
    lines = [f"{'':16} {titles}  registered"]
    moved = {row["name"]: row["value"] for row in reversed(summary.transfer)}  # on the first set
    for row in summary.variants:
        sizes = f"{row['params']:>12,} {row['multiply_adds']:>14,} {row['resolution']:>4}"
        accuracies = f"{row['top1']:>6.2f}% {row['top5']:>6.2f}% {moved[row['name']]:>8.2f}%"
        lines.append(f"{row['name']:16} {sizes} {accuracies}  {row['registered_name']}/{row['registered_version']}")
    lines += ["", _best(summary.search["best"], summary.search["trials"])]
    lines += [f"missing    {line}" for line in summary.missing]
    if summary.jobs_found:
        lines += [f"jobs       {summary.jobs_found} of {summary.jobs} found from earlier runs"]
    return [*lines, f"report     {Path(config.run_dir).resolve() / 'latest' / 'report.html'}"]


def _best(best: dict[str, Any], trials: list[dict[str, Any]]) -> str:
    point = f"alpha {best['alpha']}, beta {best['beta']}, gamma {best['gamma']}"
    return f"search     {point}: best of {len(trials)} trials (paper: 1.2, 1.1, 1.15)"
