"""The short block that ends a command."""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path
from typing import Any

from conf import schema
from infra.local import Addresses
from models.results import EvalResult, Registered, ShardResult, Summary, TrainResult


def block(result: Any, config: schema.Config, addresses: Addresses, seconds: float) -> str:
    """What came of a flow, where to look, and how to stop the services."""
    return "\n".join(["", described(result, config), "", services(addresses), f"time       {clock(seconds)}"])


def services(addresses: Addresses) -> str:
    """Where the services are."""
    return "\n".join([
        f"Prefect    {addresses.prefect.removesuffix('/api')}",
        f"MLflow     {addresses.mlflow}",
        f"S3         {addresses.s3 or 'AWS'}",
        "stop them  effnet down   (or make down)",
    ])  # fmt: skip


def clock(seconds: float) -> str:
    """``754.2`` -> ``12 min 34 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@singledispatch
def described(result: Any, config: schema.Config) -> str:  # noqa: ARG001 - the other kinds need it
    """One result in words."""
    return str(result)


@described.register
def _(result: TrainResult, config: schema.Config) -> str:  # noqa: ARG001
    found = " (found, nothing to do)" if result.reused else ""
    return (f"{result.job}{found}\ntop-1      {result.top1:.2f} %  top-5 {result.top5:.2f} %  of {result.n_val} val images\n"
            f"weights    {result.weights_uri}\nMLflow run {result.mlflow_run}")  # fmt: skip


@described.register
def _(result: EvalResult, config: schema.Config) -> str:  # noqa: ARG001
    return f"{result.model_ref} on {result.data}: top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} % of {result.n} images"


@described.register
def _(result: ShardResult, config: schema.Config) -> str:  # noqa: ARG001
    found = " (found, nothing to do)" if result.reused else ""
    return (f"{result.name}: {result.train} train, {result.minival} minival, {result.val} val in {result.shards} shards{found}\n"
            f"manifest   {result.manifest_uri}")  # fmt: skip


@described.register
def _(result: Registered, config: schema.Config) -> str:  # noqa: ARG001
    found = " (found, nothing new to do)" if result.reused else ""
    return f"registered {result.name}/{result.version}{found}, aliases: {', '.join(result.aliases) or 'none'}"


@described.register
def _(result: Summary, config: schema.Config) -> str:
    head = f"{'':16} {'params':>12} {'multiply-adds':>14} {'px':>4} {'top-1':>7} {'top-5':>7} {'transfer':>9}  registered"
    moved = {row["name"]: row["top1"] for row in result.transfer}
    lines = [head]
    for row in result.variants:
        lines.append(
            f"{row['name']:16} {row['params']:>12,} {row['multiply_adds']:>14,} {row['resolution']:>4} "
            f"{row['top1']:>6.2f}% {row['top5']:>6.2f}% {moved[row['name']]:>8.2f}%  "
            f"{row['registered_name']}/{row['registered_version']}"
        )
    best = result.search["best"]
    lines += ["", f"search     alpha {best['alpha']}, beta {best['beta']}, gamma {best['gamma']} of "
              f"{len(result.search['trials'])} trials (paper: 1.2, 1.1, 1.15)",
              f"report     {Path(config.run_dir).resolve() / 'latest' / 'report.html'}"]  # fmt: skip
    return "\n".join(lines + [f"missing    {line}" for line in result.missing])


@described.register
def _(result: str, config: schema.Config) -> str:  # noqa: ARG001
    return f"report     {result}"
