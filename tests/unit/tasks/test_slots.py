"""What a job says that has lost its slot."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tasks import slots


class Server:
    """Answers as Prefect's client does when a lease is gone: its slots are taken, then free, then taken."""

    def __init__(self, free: list[bool]) -> None:
        self.free = free
        self.expired = asyncio.Event()

    async def renew_concurrency_lease(self, lease_id: UUID, _seconds: float) -> None:
        raise _refusal(410)

    async def increment_concurrency_slots_with_lease(self, *_: Any) -> httpx.Response:
        if not self.free:
            self.expired.set()
            await asyncio.Event().wait()
        if self.free.pop(0):
            return httpx.Response(200, json={"lease_id": str(uuid4())})
        raise _refusal(423)


def _refusal(code: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("", request=httpx.Request("POST", "http://x"), response=httpx.Response(code))


def test_a_job_that_loses_its_slot_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(slots, "_RENEW_S", 0.0)

    async def renew() -> list[UUID]:
        server, held = Server([False, False, False, True, False, False]), [uuid4()]
        keeper = asyncio.create_task(slots._renew_lease(server, held, uuid4(), "train b7", 1))  # type: ignore[arg-type]
        await server.expired.wait()
        keeper.cancel()
        return held

    held = asyncio.run(renew())
    assert len(held) == 2
    assert caplog.messages == ["train b7 continues without its slot of `accelerator`: another job has it now"] * 2
