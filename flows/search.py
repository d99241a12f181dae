"""The grid search of the paper's section 3.3: one training job for each (alpha, beta, gamma)."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import flow

from conf.compose import compose
from flows.train import train
from tasks.dispatch import dispatch
from tasks.search import record_search, start_search, trial_overrides


@flow(name="search")
async def search(overrides: list[str], parent_run: str = "") -> dict[str, Any]:
    """Trains every point of the grid and chooses the best on minival.

    Returns:
        ``trials``, ``best``, ``tied`` (within one standard error of the best), ``budget``, ``tolerance``.
    """
    config = compose(overrides)
    points, run = await start_search(config, parent_run)
    results = await asyncio.gather(
        *(
            dispatch(
                train,
                config,
                [*overrides, *trial_overrides(config, point)],
                title=f"trial {point.alpha} {point.beta} {point.gamma}",
                parent_run=run,
                role="trial",
                label=f"trial {point.alpha} {point.beta} {point.gamma}",
            )
            for point in points
        ),
        return_exceptions=True,  # a trial that diverges does not end the search
    )
    return await record_search(config, run, points, results)
