"""The whole paper: shard, search, train B0..B7, register, transfer, map what networks see, report.

What failure must never look like: a report that hides a missing variant, or one bad variant that takes the
others with it. Each runs to its end; failures are listed as missing in the report and fail the flow last.
"""

from __future__ import annotations

import asyncio
from functools import partial

from prefect import flow

from conf import schema
from conf.compose import compose
from flows.configure import configure, name_runs_by, now
from flows.evaluate import evaluate
from flows.explain import explain
from flows.search import search
from flows.shard import shard
from flows.train import train
from flows.transfer import transfer
from models.results import EvalResult, ShardResult, Summary
from tasks.dispatch import dispatch, fan_out
from tasks.promote import judge
from tasks.register import register
from tasks.report.publish import publish
from tasks.reproduction import VariantOutcome, finish_reproduction, start_reproduction
from tasks.train import short_name
from tasks.transfer import set_overrides


@flow(name="reproduce", flow_run_name=name_runs_by(lambda config, _: f"reproduce {config.profile} {now()}"))
async def reproduce(overrides: list[str], began: float | None = None) -> Summary:
    """Reproduces the paper at the size of the profile.

    Args:
        overrides: Command-line overrides, e.g. ``["profile=laptop"]``.
        began: Unix time at which the user's command started; by default the start of the flow.
    """
    config, overrides = configure(overrides)
    started = await start_reproduction(config, began)
    data, *transfer_data = await asyncio.gather(
        dispatch(shard, config, overrides, title=f"shard {config.data.name}"),
        *(
            dispatch(shard, config, words, title=f"shard {compose(words).transfer.data.name}", part="transfer")
            for words in set_overrides(config, overrides)
        ),
    )
    searched = await dispatch(search, config, overrides, title="search", parent_run=started.mlflow_run)
    family = (partial(one_variant, config, overrides, name, started.mlflow_run, data) for name in config.variants)
    outcomes = await fan_out(config, family)
    maps = partial(dispatch, explain, config, overrides, title="explain", parent_run=started.mlflow_run)
    [mapped] = await fan_out(config, [maps])
    summary, failures = await finish_reproduction(config, started, [data, *transfer_data], searched, outcomes, mapped)
    await publish(config, summary, started.mlflow_run)
    for failure in failures:
        raise failure
    return summary


async def one_variant(
    config: schema.Config, overrides: list[str], name: str, parent_run: str, shards: ShardResult
) -> VariantOutcome:
    """One member of the family: trained, registered, champion if it beats the one before, transferred."""
    request = [*overrides, f"model.name={name}"]
    result = await dispatch(train, config, request, title=f"train {short_name(name)}", parent_run=parent_run)
    model = schema.Model(**{**vars(config.model), "name": name})
    registered = await register(name.replace("_", "-"), result, model, config.data, shards.manifest_uri)

    async def evaluate_version(ref: str) -> EvalResult:
        version_overrides = [*overrides, f"model_ref={ref}"]
        evaluated: EvalResult = await dispatch(evaluate, config, version_overrides, title=f"evaluate {ref}")
        return evaluated

    registered = await judge(registered, shards, config.nightly.margin, evaluate_version)
    transferred = await dispatch(transfer, config, request, title=f"transfer {short_name(name)}", parent_run=parent_run)
    return VariantOutcome(result, registered, transferred)
