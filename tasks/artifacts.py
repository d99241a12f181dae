"""What a flow run shows on its page in Prefect beside its log: progress of its jobs, links to MLflow and the report.

Prefect on SQLite refuses requests in bursts, and its client then waits and repeats them. None of these is worth an
error or a wait: progress is sent by a task of its own, and a request that fails is dropped.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    aupdate_progress_artifact,
)
from prefect.context import FlowRunContext, TaskRunContext

from conf.text import logger
from infra.errors import EffnetError, first_line

log = logger()
UPDATE_S = 10.0  # between two updates of a job's progress
_FIRST_S = 2.0  # between two looks at whether a job has begun
_LAST_S = 5.0  # for the update at the end of a job
_ATTEMPT_S = 20.0  # Prefect's client repeats a refused request after 2, 4, 8, 16 and 32 s


@asynccontextmanager
async def show_progress(
    key: str, read: Callable[[], Mapping[str, Any]], describe: Callable[[Mapping[str, Any]], str], mlflow_run: str
) -> AsyncIterator[None]:
    """Shows the progress of a job as an artifact of the flow run while the block runs; nothing outside of a flow run.

    Args:
        key: Key of the job, the title of the artifact.
        read: Function that returns the status of the job, with ``step`` and ``steps`` once it trains.
        describe: Function from a status to its description in Markdown.
        mlflow_run: The run that the description links to; empty for none.
    """
    if not _is_in_flow_run():
        yield
        return
    ended = asyncio.Event()
    updates = asyncio.create_task(_send_progress(key, read, describe, mlflow_run, ended))
    try:
        yield
        ended.set()
        await asyncio.wait([updates], timeout=_LAST_S)
    finally:
        updates.cancel()


async def _send_progress(
    key: str,
    read: Callable[[], Mapping[str, Any]],
    describe: Callable[[Mapping[str, Any]], str],
    mlflow_run: str,
    ended: asyncio.Event,
) -> None:
    key = _key(key)
    url = await _run_url(mlflow_run)
    link = f"\n\n[charts in MLflow]({url})" if url else ""
    artifact: UUID | None = None
    shown: Mapping[str, Any] = {}
    while not ended.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), _FIRST_S if artifact is None else UPDATE_S)
        try:
            status = await asyncio.to_thread(read)
            if "step" not in status or status == shown:
                continue
            percent = 100 * status["step"] / max(1, status["steps"])
            text = describe(status) + link
            if artifact is None:
                artifact = await acreate_progress_artifact(percent, key, text)
            else:
                await aupdate_progress_artifact(artifact, percent, text)
            shown = status
        except Exception as error:  # noqa: BLE001 - a page must not end a training
            log.debug("no progress in Prefect: %s", first_line(error))


def _key(text: str) -> str:
    """A key of an artifact, with what Prefect allows."""
    return re.sub(r"[^a-z0-9-]+", "-", text.lower())


async def _run_url(mlflow_run: str) -> str:
    """Address of a run's page; empty if there is none, or MLflow does not answer."""
    from infra.tracking import runs

    if not mlflow_run:
        return ""
    with suppress(EffnetError):
        return await asyncio.to_thread(runs.run_url, mlflow_run)
    return ""


async def link_run(mlflow_run: str) -> None:
    """Links the flow run to a run in MLflow."""
    if url := await _run_url(mlflow_run):
        await _link("mlflow-run", url, "MLflow run", "Settings, charts, data set and files in MLflow")


async def link_version(name: str, version: int) -> None:
    """Links the flow run to a version in MLflow's registry."""
    from infra.tracking import registry

    if _is_in_flow_run():
        url = registry.version_url(name, version)
        await _link("registered-model", url, f"{name}/{version}", "Card of the version in MLflow's registry")


async def link_night(mlflow_run: str, file: str) -> None:
    """Links the flow run to the page of a line of nights; the arguments are those of ``link_report``."""
    if url := await _run_url(mlflow_run):
        await _link("night-page", f"{url}/artifacts/{file}", "page of the line", "Its nights, versions and champions")


async def show_outcome(line: str, outcome: str, verdict: str) -> None:
    """Shows what came of a night; the artifacts of the nights of a line have one key, so Prefect lists them together.

    Args:
        line: Line of champions.
        outcome: Outcome of the gate, ``skipped``, or how the night failed.
        verdict: The reason in words.
    """
    if not _is_in_flow_run():
        return
    text = re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", verdict)  # a message may hold any character
    said = f"# {outcome}\n\n{text}\n"
    await attempt(acreate_markdown_artifact(said, key=_key(f"night-{line}"), description=f"The night of {line}"))


async def link_report(mlflow_run: str, file: str) -> None:
    """Links the flow run to the report, a copy of which is an artifact of a run in MLflow.

    Args:
        mlflow_run: That run.
        file: Path of the copy among the run's artifacts.
    """
    if url := await _run_url(mlflow_run):
        await _link("report", f"{url}/artifacts/{file}", "report", "Everything that has run so far, beside the paper")


async def _link(key: str, url: str, text: str, description: str) -> None:
    if _is_in_flow_run():
        await attempt(acreate_link_artifact(url, key=key, link_text=text, description=description))


async def attempt(request: Awaitable[object]) -> None:
    """Waits for a request to Prefect; one that fails is a warning, since only a page lacks something."""
    try:
        await asyncio.wait_for(request, _ATTEMPT_S)
    except TimeoutError:
        log.warning("an artifact is missing in Prefect, which does not accept it within %.0f s", _ATTEMPT_S)
    except Exception as error:  # noqa: BLE001 - the work itself is done
        log.warning("an artifact is missing in Prefect: %s", first_line(error))


def _is_in_flow_run() -> bool:
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None
