"""Calls to Prefect's API: what a busy server answers is told as such."""

from __future__ import annotations

from typing import Any

import pytest

from infra.errors import ConfigError, TransientError
from infra.services import http, prefect_api

API = prefect_api.PrefectApi("http://127.0.0.1:4200/api", "user:password")


def answering(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, Any]) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []
    left = iter(answers)

    def call(method: str, url: str, *_: Any) -> tuple[int, Any]:
        calls.append((method, url.removeprefix(API.url).partition("?")[0]))
        return next(left)

    monkeypatch.setattr(http, "call", call)
    API._tokens.clear()
    return calls


def test_a_server_too_busy_to_give_a_token_counts_as_busy_and_not_as_refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answering(monkeypatch, (503, None))
    assert prefect_api.call(API, "POST", "/flows/", {}) == (503, None)
    assert calls == [("GET", "/csrf-token")]


def test_an_expired_token_is_fetched_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    token = (200, {"token": "t"})
    calls = answering(monkeypatch, token, (201, 1), (403, None), token, (201, 2))
    assert [prefect_api.call(API, "POST", "/flows/", {}) for _ in range(2)] == [(201, 1), (201, 2)]
    assert [method for method, _ in calls] == ["GET", "POST", "POST", "GET", "POST"]


def test_a_server_without_csrf_protection_is_called_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answering(monkeypatch, (422, None), (201, 1))
    assert prefect_api.call(API, "POST", "/flows/", {}) == (201, 1)
    assert len(calls) == 2


def test_a_busy_server_is_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One 503 of Prefect, whose SQLite was locked, ended `effnet nightly --schedule`."""
    monkeypatch.setattr(prefect_api, "_PAUSE_S", 0.0)
    calls = answering(monkeypatch, (503, None), (422, None), (503, {}), (422, None), (201, 1))
    assert prefect_api.request(API, "POST", "/flows/", {}) == (201, 1)
    assert [method for method, _ in calls] == ["GET", "GET", "POST", "GET", "POST"]


def test_two_clients_of_a_busy_server_call_again_at_different_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    answering(monkeypatch, *[(503, None)] * 50, (200, 1))
    assert prefect_api.request(API, "GET", "/flows") == (200, 1)
    assert len(set(pauses)) == 50
    assert all(prefect_api._PAUSE_S / 2 <= pause <= prefect_api._PAUSE_S * 1.5 for pause in pauses)
    assert min(pauses) < 0.9 * prefect_api._PAUSE_S < 1.1 * prefect_api._PAUSE_S < max(pauses)


def test_a_server_that_stays_busy_or_silent_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_api, "_BUSY_S", -1.0)
    answering(monkeypatch, (503, None), (0, None))
    with pytest.raises(TransientError, match=r"does not answer GET /flows \(503\)$"):
        prefect_api.request(API, "GET", "/flows")
    with pytest.raises(TransientError, match=r"does not answer GET /flows \(no answer\)$"):
        prefect_api.request(API, "GET", "/flows", restart_s=-1.0)


def test_a_call_that_has_timed_out_once_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call takes its 30 s, which is longer than the time for a server that does not answer."""
    now, answers = [100.0], iter([(30.0, (0, None)), (0.1, (200, 1))])

    def call(*_: Any, **__: Any) -> tuple[int, Any]:
        took_s, answer = next(answers)
        now[0] += took_s
        return answer

    monkeypatch.setattr(prefect_api, "_PAUSE_S", 0.0)
    monkeypatch.setattr(prefect_api, "call", call)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    assert prefect_api.request(API, "GET", "/flows") == (200, 1)


def test_a_refusal_is_not_repeated_and_a_known_status_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, (401, None), (404, "unknown"), (404, None))
    with pytest.raises(ConfigError, match="refuses the credentials"):
        prefect_api.request(API, "GET", "/flows")
    with pytest.raises(ConfigError, match="refuses GET /flows: 404 unknown"):
        prefect_api.request(API, "GET", "/flows")
    assert prefect_api.request(API, "GET", "/flows", known=(404,)) == (404, None)
