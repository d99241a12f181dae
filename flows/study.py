"""What the paper does beside its family: scaling study, architecture search, latency; then the report of all of it.

What failure must never look like: an experiment that is lost because the one before it failed. Each runs to its own
end, the report shows what came of it, and the first failure fails the flow last. The same command again goes on.
"""

from __future__ import annotations

from prefect import flow

from conf.text import logger
from flows.architecture import architecture
from flows.configure import configure, name_runs_by, now
from flows.latency import latency
from flows.report import report
from flows.scaling import scaling
from infra.errors import EffnetError, first_line
from tasks.dispatch import dispatch

log = logger()
# One after another: nothing may run beside the latency's clock, and the report comes last.
PARTS = (scaling, architecture, latency, report)


@flow(name="study", flow_run_name=name_runs_by(lambda config, _: f"study {config.profile} {now()}"))
async def study(overrides: list[str]) -> str:
    """Runs every part, whatever becomes of the others; returns the report's path.

    Raises:
        EffnetError: the first part's that failed, after all others have run.
    """
    config, overrides = configure(overrides)
    failures: list[EffnetError] = []
    page = ""
    for part in PARTS:
        try:
            page = await dispatch(part, config, overrides, title=part.name)
        except EffnetError as error:
            log.warning("%s failed: %s", part.name, first_line(error))
            failures.append(error)
    if failures:
        raise failures[0]
    return page
