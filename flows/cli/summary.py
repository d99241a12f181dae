"""The summary printed after a command: result, addresses, and how to stop the services."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conf import schema
from conf.text import escaped, format_duration
from infra.services.stack import Addresses
from models.results import EvalResult, Registered, ShardResult, Summary, TrainResult, TransferResult
from models.statistics import estimate


def block(result: Any, config: schema.Config, addresses: Addresses, seconds: float) -> str:
    """The whole block; ``result`` is what the flow returned."""
    lines = ["", *map(escaped, describe_result(result, config)), "", services(addresses, config.services)]
    return "\n".join([*lines, f"time       {format_duration(seconds)}"])


def services(addresses: Addresses, settings: schema.Services) -> str:
    """Addresses of the services, and how to log in."""
    closed = [name for name in ("prefect", "mlflow") if settings.auth and getattr(settings, name) == "embedded"]
    lines = (
        f"Prefect    {addresses.prefect.removesuffix('/api')}",
        f"MLflow     {addresses.mlflow}",
        f"S3         {addresses.s3 or 'AWS'}",
        *([f"log in     {' or '.join(f'effnet open {name}' for name in closed)}"] if closed else []),
        "stop them  effnet down   (or make down)",
    )
    return "\n".join(map(escaped, lines))


def describe_result(result: Any, config: schema.Config) -> list[str]:
    """A flow's result in a few lines."""
    reused = " (found, nothing to do)" if getattr(result, "reused", False) else ""
    match result:
        case TrainResult():
            return [
                f"{result.job}{reused}",
                f"top-1      {result.top1:.2f} %, top-5 {result.top5:.2f} % of {result.n_val} val images",
                *(f"left out   {name}" for name in config.data.leave_out),
                f"weights    {result.weights_uri}",
                f"MLflow run {result.mlflow_run}",
            ]
        case EvalResult():
            top = f"top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} % of {result.n} images"
            scored = estimate(config.data.metric, result.class_correct, result.class_total)
            metric = f"; {config.data.metric} {scored.value:.2f} ± {scored.standard_error:.2f} %"
            return [f"{result.model_ref} on {result.data}: {top}{metric}"]
        case ShardResult():
            counts = f"{result.train} train, {result.minival} minival, {result.val} val"
            lost = f", {result.quarantined} unusable ones left out" if result.quarantined else ""
            listed = " lists them" if lost else ""
            return [
                f"{result.name}: {counts} in {result.shards} shards{lost}{reused}",
                f"manifest   {result.manifest_uri}{listed}",
                *(f"missing    {line}" for line in result.missing),
            ]
        case Registered():
            aliases = ", ".join(result.aliases) or "none"
            lines = [f"registered {result.name}/{result.version}{reused}, aliases: {aliases}"]
            return [*lines, f"champion   {result.verdict}"] if result.verdict else lines
        case [TransferResult(), *_]:
            return [_moved(item) for item in result]
        case Summary():
            return _family(result, config)
        case {"points": points, "missing": missing}:
            return _scaling(points, missing, result["found"])
        case {"maps": maps, "models": models, "images": images}:
            return _gallery(result, maps, models, images)
        case {"rows": rows, "speedups": speedups}:
            return _latency(rows, speedups)
        case {"objective": _, "baseline": _}:
            return _architectures(result)
        case {"best": _, "verdict": _}:
            counts = f"{len(result['refused'])} refused, {len(result['failed'])} failed"
            trained = f"trials     {len(result['trials'])} trained, {counts}; {result['found']} from earlier runs"
            return [trained, *_searched(result), *(f"failed     {line}" for line in result["failed"])]
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
    lines += ["", *_searched(summary.search)]
    lines += [f"missing    {line}" for line in summary.missing]
    if summary.jobs_found:
        lines += [f"jobs       {summary.jobs_found} of {summary.jobs} found from earlier runs"]
    return [*lines, f"report     {Path(config.run_dir).resolve() / 'latest' / 'report.html'}"]


def _scaling(points: list[dict[str, Any]], missing: list[str], reused: int) -> list[str]:
    titles = f"{'params':>12} {'multiply-adds':>14} {'px':>4} {'top-1':>7}"
    lines = [
        f"points     {len(points)}, {len(missing)} of them missing, {reused} from earlier runs",
        f"{'':40} {titles}",
    ]
    for point in points:
        factors = "d {depth:g} w {width:g} r {resolution:.4g}".format(**point)
        sizes = f"{point['params']:>12,} {point['multiply_adds']:>14,} {point['resolution_px']:>4}"
        top1 = f"{'-':>7}" if point["top1"] is None else f"{point['top1']:>6.2f}%"
        lines.append(f"{point['network']:15} {point['dimension']:10} {factors:13} {sizes} {top1}")
    return lines + [f"missing    {line}" for line in missing]


def _gallery(
    part: dict[str, Any], maps: list[dict[str, Any]], models: list[dict[str, Any]], images: list[dict[str, Any]]
) -> list[str]:
    labels = {entry["id"]: entry["label"] for entry in images}
    lines = []
    for model in models:
        model_maps = [entry for entry in maps if entry["model"] == model["name"]]
        right = sum(entry["prediction"] == labels[entry["image"]] for entry in model_maps)
        sizes = f"{model['multiply_adds']:>14,} multiply-adds, top-1 {model['top1']:.2f} %"
        lines.append(f"{model['name']:24} {model['method']:8} {sizes}, {right} of {len(model_maps)} images right")
    lines += [f"missing    {line}" for line in part["missing"]]
    return [*lines, f"maps       {part['mlflow_url']}"]


def _latency(rows: list[dict[str, Any]], speedups: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"{row['network']:20} {row['resolution']:>4} px  {row['batch1_ms']:>8.1f} ms (10 to 90 %: "
        f"{row['batch1_ms_low']:.1f} to {row['batch1_ms_high']:.1f}), {row['images_per_s']:.1f} images/s"
        for row in rows
    ]
    for speedup in speedups:
        printed = f" (paper: {speedup['paper']})" if speedup["paper"] else ""
        lines.append(f"{speedup['ours']} is {speedup['measured']:.2f} times as fast as {speedup['rival']}{printed}")
    return lines


def _searched(result: dict[str, Any]) -> list[str]:
    best, trials = result["best"], result["trials"]
    point = f"alpha {best['alpha']}, beta {best['beta']}, gamma {best['gamma']}"
    lines = [f"search     {point}: best of {len(trials)} trials (paper: 1.2, 1.1, 1.15)"]
    if result["tied"]:
        lines.append(f"tie        {result['verdict']}")
    return lines + [f"refused    {r['alpha']} {r['beta']} {r['gamma']}: {r['reason']}" for r in result["refused"]]


def _architectures(result: dict[str, Any]) -> list[str]:
    states = [trial["state"] for trial in result["trials"]]
    counts = f"{states.count('complete')} trained, {states.count('refused')} refused, {states.count('failed')} failed"
    lines = [f"trials     {counts}; {result['found']} from earlier runs"]
    titles = f"{'params':>12} {'multiply-adds':>14} {'minival':>8} {'reward':>7}"
    lines += [f"front      {titles}"]
    front = sorted((t for t in result["trials"] if t["pareto"]), key=lambda t: -float(t["multiply_adds"]))
    for trial in front + [b for b in [result["baseline"]] if b and not b["pareto"]]:
        suffix = "  B0's own" if result["baseline"] and trial["number"] == result["baseline"]["number"] else ""
        sizes = f"{trial['params']:>12,} {trial['multiply_adds']:>14,}"
        lines.append(f"{trial['number']:>10} {sizes} {trial['accuracy']:>7.2f}% {trial['reward']:>7.2f}{suffix}")
    lines += [f"missing    {line}" for line in result["missing"]]
    lines.append(f"search     {result['verdict']}")
    return [*lines, f"blocks     model.blocks=[{','.join(result['best']['blocks'])}]"]
