"""The experiments beside the family: scaling study, architecture search, latency; then the report.

What failure must never look like: an experiment that is lost because the one before it failed. Each runs to its
end, the report shows its result, and the first failure fails the flow last. The same command resumes.
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
# One after another: nothing may run during the latency measurement, and the report comes last.
PARTS = (scaling, architecture, latency, report)


@flow(name="study", flow_run_name=name_runs_by(lambda config, _: f"study {config.profile} {now()}"))
async def study(overrides: list[str]) -> str:
    """Runs every part even if others fail; returns the path of the report.

    Raises:
        EffnetError: The error of the first failed part, after all others have run.
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
