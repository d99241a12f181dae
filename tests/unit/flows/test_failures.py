"""What a failed flow run shows: one line in a deployment's run, the error itself in a terminal."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from conf.compose import OverrideError
from flows import failures
from infra.errors import ConfigError, TransientError

REQUEST = httpx.Request("POST", "http://127.0.0.1:9/api/flow_runs/")
URL = "http://127.0.0.1:9/api"


def refusal(status: int) -> Exception:
    answer = httpx.Response(status, request=REQUEST, text="{}")
    return PrefectHTTPStatusError.from_httpx_error(httpx.HTTPStatusError("refused", request=REQUEST, response=answer))


def run(error: Exception) -> Any:
    async def fail(overrides: list[str]) -> str:
        raise error

    return asyncio.run(failures.report_failures(fail)([]))


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "deployment_run", lambda: "as of a worker")
    monkeypatch.setenv("PREFECT_API_URL", URL)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal(503), f"Prefect at {URL} does not answer (503); another run with the same parameters does what"),
        (httpx.ConnectError("refused"), f"Prefect at {URL} does not answer (ConnectError); another run"),
        (refusal(401), f"Prefect at {URL} refuses the credentials (401)"),
        (ConfigError("data.path=/nope is not a folder"), "data.path=/nope is not a folder"),
        (OverrideError("no setting named 'recipe.epoch'"), "no setting named 'recipe.epoch'"),
    ],
)
@pytest.mark.usefixtures("deployed")
def test_a_known_failure_of_a_deployment_is_a_failed_state_and_a_log_line_without_traceback(
    error: Exception, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("ERROR", "effnet"):
        state = run(error)
    assert state.is_failed()
    assert state.message.startswith(message)
    assert [record.getMessage() for record in caplog.records] == [state.message]
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.usefixtures("deployed")
def test_an_unknown_failure_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError())


def test_in_a_terminal_the_error_is_raised() -> None:
    with pytest.raises(ConfigError, match="as it is"):
        run(ConfigError("as it is"))
    with pytest.raises(PrefectHTTPStatusError):  # explained by the command (flows/cli/session.py)
        run(refusal(503))
    assert isinstance(failures.explain_prefect(refusal(503)), TransientError)
