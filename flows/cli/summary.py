"""The summary printed after a command: result, addresses, and how to stop the services."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from conf import schema
from conf.text import escaped, format_duration
from infra.services.stack import Addresses
from models.experiments.transfer import describe_starts
from models.results import (
    ArchitectureResult,
    EvalResult,
    GalleryResult,
    GateResult,
    LatencyResult,
    LinearResult,
    PhotographsResult,
    Registered,
    ScalingResult,
    SearchResult,
    ShardResult,
    StudyResult,
    Summary,
    TrainResult,
    TransferResult,
)
from models.statistics import estimate


def block(result: Any, config: schema.Config, addresses: Addresses, seconds: float) -> str:
    """The whole block; ``result`` is what the flow returned."""
    lines = [
        "",
        *map(escaped, describe_result(result, config)),
        "",
        services(addresses, config.services, config.run_dir),
    ]
    return "\n".join([*lines, f"time       {format_duration(seconds)}"])


def to_json(result: Any) -> str:
    """The result as JSON, for ``--json``."""
    items = result if isinstance(result, list) else [result]
    plain = [asdict(item) if is_dataclass(item) and not isinstance(item, type) else str(item) for item in items]
    return json.dumps(plain if isinstance(result, list) else plain[0], indent=2, default=list)


def exit_code(result: Any) -> int:
    """Exit code of a command whose flow ended without an error: 1 for a gate that did not pass."""
    return 1 if isinstance(result, GateResult) and not result.passed else 0


def services(addresses: Addresses, settings: schema.Services, run_dir: str = schema.Config.run_dir) -> str:
    """Addresses of the services, how to log in, and how to stop those of this run folder."""
    closed = [name for name in ("prefect", "mlflow") if settings.auth and getattr(settings, name) == "embedded"]
    effnet = _how_to_call()
    is_usual = run_dir == schema.Config.run_dir
    place = "" if is_usual else f" run_dir={shlex.quote(run_dir)}"  # without it, others would be stopped, or none
    lines = (
        f"Prefect    {addresses.prefect.removesuffix('/api')}",
        f"MLflow     {addresses.mlflow}",
        f"S3         {addresses.s3 or 'AWS'}",
        *([f"log in     {' or '.join(f'{effnet} open {name}{place}' for name in closed)}"] if closed else []),
        f"stop them  {effnet} down{place}{'   (or make down)' * is_usual}",
    )
    return "\n".join(map(escaped, lines))


def _how_to_call() -> str:
    """``effnet``, or its path where the environment is not activated, as after ``make reproduce``."""
    script = Path(sys.executable).with_name("effnet")
    return os.path.relpath(script) if shutil.which("effnet") is None and script.exists() else "effnet"


def describe_result(result: Any, config: schema.Config) -> list[str]:
    """A flow's result in a few lines."""
    match result:
        case TrainResult():
            return _train(result, config)
        case EvalResult():
            return _evaluation(result, config)
        case ShardResult():
            return _shards(result)
        case Registered():
            return _registered(result)
        case [TransferResult(), *_]:
            verdicts = [f"verdict    {verdict}" for verdict in describe_starts(result)]
            return [line for item in result for line in _transfer(item)] + verdicts
        case Summary():
            return _family(result, config)
        case ScalingResult():
            return _scaling(result)
        case StudyResult():
            return _study(result, config)
        case GalleryResult():
            return _gallery(result)
        case GateResult():
            return [f"{check.outcome:8} {check.name}: {check.text}" for check in result.checks]
        case LinearResult():
            return _linear(result)
        case PhotographsResult():
            return _photographs(result)
        case LatencyResult():
            return _latency(result)
        case ArchitectureResult():
            return _architectures(result)
        case SearchResult():
            counts = f"{len(result.refused)} refused, {len(result.failed)} failed"
            trained = f"trials     {len(result.trials)} trained, {counts}; {result.found} from earlier runs"
            return [trained, *_search(result), *(f"failed     {line}" for line in result.failed)]
        case _:
            return [f"report     {result}"]


def _reused(result: TrainResult | ShardResult | Registered) -> str:
    return " (found, nothing to do)" if result.reused else ""


def _train(result: TrainResult, config: schema.Config) -> list[str]:
    return [
        f"{result.job}{_reused(result)}",
        f"top-1      {result.top1:.2f} %, top-5 {result.top5:.2f} % of {result.n_val} val images",
        *(f"excluded   {name}" for name in config.data.leave_out),
        f"weights    {result.weights_uri}",
        *(_registered(result.registered) if result.registered else []),
        f"MLflow run {result.mlflow_run}",
    ]


def _evaluation(result: EvalResult, config: schema.Config) -> list[str]:
    top = f"top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} % of {result.n} images"
    scored = estimate(config.data.metric, result.class_correct, result.class_total)
    metric = f"; {config.data.metric} {scored.value:.2f} ± {scored.standard_error:.2f} %"
    assumed = [f"assumed    {result.assumed}"] if result.assumed else []
    tracked = [f"MLflow run {result.mlflow_run}"] if result.mlflow_run else []
    return [f"{result.model_ref} on {result.data}: {top}{metric}", *assumed, *tracked]


def _shards(result: ShardResult) -> list[str]:
    counts = f"{result.train} train, {result.minival} minival, {result.val} val"
    lost = f", {result.quarantined} unusable images excluded" if result.quarantined else ""
    listed = " lists them" if lost else ""
    return [
        f"{result.name}: {counts} in {result.shards} shards{lost}{_reused(result)}",
        f"manifest   {result.manifest_uri}{listed}",
        *(f"missing    {line}" for line in result.missing),
        *(f"unused     {line}" for line in result.unused),
        *(f"classes    {line}" for line in result.class_differences),
        *(f"duplicates {line}" for line in result.duplicates),
    ]


def _registered(result: Registered) -> list[str]:
    aliases = ", ".join(result.aliases) or "none"
    lines = [f"registered {result.name}/{result.version}{_reused(result)}, aliases: {aliases}"]
    lines += [f"champion   {result.verdict}"] if result.verdict else []
    return [*lines, *([f"page       {result.page}"] if result.page else [])]


def _transfer(result: TransferResult) -> list[str]:
    chosen = f"rate {result.chosen.lr_per_256:g} per 256, decay {result.chosen.weight_decay:g}"
    tried = f", best of {len(result.grid)} points" if result.grid else ""
    error = "" if result.standard_error is None else f" ± {result.standard_error:.2f}"
    accuracy = f"{result.value:.2f}{error} % {result.metric} of {result.n} test images"
    line = f"{result.network} on {result.data}: {accuracy} ({result.protocol}: {chosen}{tried})"
    return [line, *(_registered(result.registered) if result.registered else [])]


def _family(summary: Summary, config: schema.Config) -> list[str]:
    titles = f"{'params':>12} {'multiply-adds':>14} {'px':>4} {'top-1':>7} {'top-5':>7} {'transfer':>9}"
    lines = [f"{'':16} {titles}  registered"]
    fine_tuned = {row.name: f"{row.value:>8.2f}%" for row in reversed(summary.transfer)}  # on the first data set
    for row in summary.variants:
        sizes = f"{row.params:>12,} {row.multiply_adds:>14,} {row.resolution:>4}"
        accuracies = f"{row.top1:>6.2f}% {row.top5:>6.2f}% {fine_tuned.get(row.name, '-'):>9}"
        lines.append(f"{row.name:16} {sizes} {accuracies}  {row.registered_name}/{row.registered_version}")
    lines += ["", *(_search(summary.search) if summary.search else [])]
    lines += _missing(summary.missing)
    if summary.estimate_s is not None and not summary.jobs_found:
        lines += [f"estimated  {format_duration(summary.estimate_s)} before it started"]
    if summary.jobs_found:
        lines += [f"jobs       {summary.jobs_found} of {summary.jobs} found from earlier runs"]
    return [*lines, f"report     {Path(config.run_dir).resolve() / 'latest' / 'report.html'}"]


def _missing(lines: Sequence[str]) -> list[str]:
    return [f"missing    {line}" for line in lines]


def _scaling(result: ScalingResult) -> list[str]:
    titles = f"{'params':>12} {'multiply-adds':>14} {'px':>4} {'top-1':>7}"
    lines = [
        f"points     {len(result.points)}, {len(result.missing)} of them missing, {result.found} from earlier runs",
        f"{'':40} {titles}",
    ]
    for point in result.points:
        factors = f"d {point.depth:.4g} w {point.width:.4g} r {point.resolution:.4g}"
        sizes = f"{point.params:>12,} {point.multiply_adds:>14,} {point.resolution_px:>4}"
        top1 = f"{'-':>7}" if point.top1 is None else f"{point.top1:>6.2f}%"
        lines.append(f"{point.network:15} {point.dimension:10} {factors:13} {sizes} {top1}")
    return lines + [f"verdict    {verdict}" for verdict in result.verdicts] + _missing(result.missing)


def _study(result: StudyResult, config: schema.Config) -> list[str]:
    lines = []
    for name, part in result.parts.items():
        lines += [f"{name}:", *(f"  {line}" for line in describe_result(part, config)), ""]
    return [*lines, f"report     {result.report}"]


def _gallery(result: GalleryResult) -> list[str]:
    labels = {image.id: image.label for image in result.images}
    lines = []
    for model in result.models:
        predicted = [entry.prediction == labels[entry.image] for entry in result.maps if entry.model == model.name]
        sizes = f"{model.multiply_adds:>14,} multiply-adds, top-1 {model.top1:.2f} %"
        lines.append(f"{model.name:24} {model.method:8} {sizes}, {sum(predicted)} of {len(predicted)} images right")
    assumed = [f"assumed    {model.name}: {model.assumed}" for model in result.models if model.assumed]
    return [*lines, *assumed, *_missing(result.missing), f"maps       {result.mlflow_url}"]


def _linear(result: LinearResult) -> list[str]:
    lines = [
        f"{row.network:20} {row.weights:8} {row.multiply_adds:>13,} multiply-adds, top-1 {row.top1:.2f} %"
        for row in result.rows
    ]
    lines.append(f"tested on {result.n} images of {result.data}; their most frequent class has {result.majority:.1f} %")
    return lines + [f"verdict    {verdict}" for verdict in result.verdicts]


def _photographs(result: PhotographsResult) -> list[str]:
    lines = [f"{network.name:20} {network.version}" for network in result.networks]
    for cell in result.maps:
        named = ", ".join(f"{name} {p:.3f}" for name, p in zip(cell.classes, cell.probabilities, strict=True))
        lines.append(f"{cell.photograph:20} {cell.network:20} {named}")
    return [*lines, f"maps       {result.mlflow_url}"]


def _latency(result: LatencyResult) -> list[str]:
    lines = [
        f"{row.network:20} {row.resolution:>4} px  {row.batch1_ms:>8.1f} ms (10 to 90 %: "
        f"{row.batch1_ms_low:.1f} to {row.batch1_ms_high:.1f}), {row.images_per_s:.1f} images/s"
        + (f" (paper: {row.paper_latency_s:g} s)" if row.paper_latency_s else "")
        for row in result.rows
    ]
    for speedup in result.speedups:
        printed = f" (paper: {speedup.paper})" if speedup.paper else ""
        lines.append(f"{speedup.ours} is {speedup.measured:.2f} times as fast as {speedup.rival}{printed}")
    return lines


def _search(result: SearchResult) -> list[str]:
    best = result.best
    point = f"alpha {best.alpha}, beta {best.beta}, gamma {best.gamma}"
    lines = [f"search     {point}: best of {len(result.trials)} trials (paper: 1.2, 1.1, 1.15)"]
    if result.tied:
        lines.append(f"tie        {result.verdict}")
    if result.equal_cost_verdict:
        lines.append(f"cost       {result.equal_cost_verdict}")
    return lines + [f"refused    {r.alpha} {r.beta} {r.gamma}: {r.reason}" for r in result.refused]


def _architectures(result: ArchitectureResult) -> list[str]:
    states = [trial.state for trial in result.trials]
    counts = f"{states.count('complete')} trained, {states.count('refused')} refused, {states.count('failed')} failed"
    lines = [f"trials     {counts}; {result.found} from earlier runs"]
    lines += [f"front      {'params':>12} {'multiply-adds':>14} {'minival':>8} {'reward':>7}"]
    front = sorted((trial for trial in result.trials if trial.pareto), key=lambda trial: -trial.multiply_adds)
    baseline = result.baseline
    for trial in front + ([baseline] if baseline and not baseline.pareto else []):
        suffix = "  baseline (B0)" if baseline and trial.number == baseline.number else ""
        sizes = f"{trial.params:>12,} {trial.multiply_adds:>14,}"
        lines.append(f"{trial.number:>10} {sizes} {trial.accuracy:>7.2f}% {trial.reward:>7.2f}{suffix}")
    lines += [*_missing(result.missing), f"search     {result.verdict}"]
    return [*lines, *([f"blocks     model.blocks=[{','.join(result.best.blocks)}]"] if result.best else [])]
