"""The HTTP application with a classifier that can be held: what is refused, and which version answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from infra.errors import ArtifactError, TransientError
from infra.tracking import registry
from infra.tracking.registry import Version
from tasks.registry import serve
from tasks.registry.batching import Limits
from tasks.registry.serve import Loaded, Serving, build_app


class Held:
    """A classifier that is sure of the class named after it; answers once it is released."""

    def __init__(self, name: str) -> None:
        self.name, self.release, self.batches = name, threading.Event(), []  # type: ignore[var-annotated]
        self.decoded: list[bytes] = []

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        self.decoded.append(data)
        return np.frombuffer(data, np.uint8)

    def probabilities(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.batches.append(len({image.shape for image in images}) == 1 and len(images))
        assert self.release.wait(10)
        return np.ones((len(images), 1), np.float32)

    def most_probable(self, probabilities: NDArray[np.float32], count: int) -> list[tuple[str, float]]:
        return [(self.name, float(probabilities[0]))]


def loaded(name: str) -> tuple[Loaded, Held]:
    held = Held(name)
    return Loaded(name, held), held  # type: ignore[arg-type]


async def open_client(serving: Serving) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, while its batches are worked off."""
    work = asyncio.create_task(serving.batcher.work())
    transport = httpx.ASGITransport(app=build_app(serving))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{serve.HOST}") as client:
        yield client
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work


async def until(condition: Any) -> None:
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("waited for 5 s")


def metric(text: str, name: str) -> float:
    return float(text.partition(f"\n{name} ")[2].partition("\n")[0])


def test_more_requests_than_the_limit_are_refused_and_later_ones_are_not() -> None:
    async def main() -> None:
        version, held = loaded("pets/1")
        serving = Serving("pets@champion", version, Limits(max_requests=2))
        async for client in open_client(serving):
            waiting = [asyncio.create_task(client.post("/predict", content=b"x")) for _ in range(2)]
            await until(lambda: serving.admitted == 2)
            refused = await client.post("/predict", content=b"x")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["detail"] == "2 requests are in progress; try again"
            assert metric((await client.get("/metrics")).text, "effnet_requests_in_progress") == 2
            assert (await client.get("/health")).status_code == 200
            held.release.set()
            assert [(await one).status_code for one in waiting] == [200, 200]
            assert (await client.post("/predict", content=b"x")).status_code == 200
            counted = (await client.get("/metrics")).text
            assert metric(counted, 'effnet_predictions_total{status="503"}') == 1
            assert metric(counted, 'effnet_predictions_total{status="200"}') == 3
            assert metric(counted, "effnet_requests_in_progress") == 0
            assert metric(counted, "effnet_batch_images_sum") == 3

    asyncio.run(main())


def test_a_request_is_answered_by_the_version_that_was_served_when_it_came() -> None:
    async def main() -> None:
        (old, old_held), (new, new_held) = loaded("pets/1"), loaded("pets/2")
        serving = Serving("pets@champion", old, Limits())
        async for client in open_client(serving):
            first = asyncio.create_task(client.post("/predict", content=b"x"))
            await until(lambda: old_held.batches)
            before = asyncio.create_task(client.post("/predict", content=b"x"))
            await until(lambda: serving.batcher._queue.qsize() == 1)
            serving.use(new)
            after = asyncio.create_task(client.post("/predict", content=b"another size"))
            await until(lambda: serving.batcher._queue.qsize() == 2)
            old_held.release.set()
            new_held.release.set()
            answers = [(await one).json() for one in (first, before, after)]
            assert [answer["model"] for answer in answers] == ["pets/1", "pets/1", "pets/2"]
            assert [answer["predictions"][0]["class"] for answer in answers] == ["pets/1", "pets/1", "pets/2"]
            assert (old_held.batches, new_held.batches) == ([1, 1], [1])
            assert 'effnet_model_info{version="pets/2"} 1.0' in (await client.get("/metrics")).text

    asyncio.run(main())


FILE = b"\xff\xd8 two \r\n\r\n lines --x and a \x00"


def test_a_file_of_a_form_is_classified_as_if_it_were_the_body_and_the_other_fields_are_ignored() -> None:
    """As ``curl -F file=@IMAGE`` sends it."""

    async def main() -> None:
        version, held = loaded("pets/1")
        held.release.set()
        async for client in open_client(Serving("pets@champion", version, Limits())):
            for fields in ({}, {"note": "from a camera"}):
                files = {"file": ("a photo.jpg", FILE, "image/jpeg")}
                answer = await client.post("/predict", files=files, data=fields)
                assert answer.json()["model"] == "pets/1", answer.text
            body = (
                b'preamble\r\n--x y\r\ncontent-disposition: form-data; name=a; filename="b"\r\n\r\n%s\r\n--x y--' % FILE
            )
            quoted = {"content-type": 'Multipart/Form-Data; boundary="x y"'}
            assert (await client.post("/predict", content=body, headers=quoted)).status_code == 200
            assert held.decoded == [FILE] * 3

    asyncio.run(main())


def test_a_form_without_one_file_and_a_body_of_json_are_refused_by_how_an_image_is_sent() -> None:
    async def main() -> None:
        version, held = loaded("pets/1")
        async for client in open_client(Serving("pets@champion", version, Limits())):
            two = [("file", ("a.jpg", FILE)), ("file", ("b.jpg", FILE))]
            one = client.build_request("POST", "/predict", files=[two[0]])
            cut = {"content": one.read()[:-10], "headers": {"content-type": one.headers["content-type"]}}
            unnamed = {"content": one.read(), "headers": {"content-type": "multipart/form-data"}}
            none = {"content": b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n"}
            none |= {"headers": {"content-type": "multipart/form-data; boundary=x"}}
            encoded = none | {"headers": {"content-type": "multipart/form-data; boundary*=idna''abc"}}
            hint = "send one JPEG or PNG file, e.g. by curl --data-binary @IMAGE or curl -F file=@IMAGE"
            requests: list[tuple[dict[str, Any], int, str]] = [
                ({"files": two}, 400, "the form has 2 files"),
                (none, 400, "the form has 0 files"),
                (cut, 400, "the form is cut off, or its boundary is not the one in the header"),
                (unnamed, 400, "the form is cut off, or its boundary is not the one in the header"),
                (encoded, 400, "the boundary of the form cannot be read"),
                ({"json": {"image": "aGk="}}, 415, "the body is JSON"),
            ]
            for request, status, said in requests:
                answer = await client.post("/predict", **request)
                assert (answer.status_code, answer.json()["detail"]) == (status, f"{said}: {hint}")
            assert held.decoded == []

    asyncio.run(main())


async def answer_to(chunks: AsyncIterator[bytes]) -> tuple[int, bytes, int]:
    """Status and body of the answer to an upload, and how many requests are still served."""
    serving = Serving("pets@champion", loaded("pets/1")[0], Limits())
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        body = await anext(chunks, None)
        return {"type": "http.request", "body": body or b"", "more_body": body is not None}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", serve.HOST.encode())]
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}
    await build_app(serving)({**scope, "http_version": "1.1", "scheme": "http"}, receive, send)  # type: ignore[arg-type]
    return sent[0]["status"], sent[1]["body"], serving.admitted


def test_a_body_that_does_not_arrive_in_time_is_refused(monkeypatch: Any) -> None:
    monkeypatch.setattr(serve, "UPLOAD_S", 0.05)

    async def slow_body() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(0.5)
        yield b"x"

    status, body, admitted = asyncio.run(answer_to(slow_body()))
    assert (status, admitted) == (408, 0)
    assert b"did not arrive within 0.05 s" in body


def test_a_body_that_is_too_large_is_received_to_its_end_so_that_the_client_sees_the_answer() -> None:
    arrived = []

    async def large_body(mebibytes: int) -> AsyncIterator[bytes]:
        for number in range(mebibytes):
            arrived.append(number)
            yield bytes(2**20)

    status, body, _ = asyncio.run(answer_to(large_body(25)))
    assert (status, len(arrived)) == (413, 25)
    assert b"more than 20 MiB" in body
    arrived.clear()
    assert asyncio.run(answer_to(large_body(1000)))[0] == 413
    assert len(arrived) < 200, "not without a limit"


def test_a_wrong_parameter_is_refused_in_one_sentence_and_counted() -> None:
    async def calls() -> None:
        model, _ = loaded("m")
        async for client in open_client(Serving("m", model, Limits())):
            answer = await client.post("/predict?top=abc", content=b"1")
            assert (answer.status_code, answer.json()["detail"][:9]) == (422, "top=abc: ")
            assert isinstance(answer.json()["detail"], str)
            assert 'effnet_predictions_total{status="422"} 1.0' in (await client.get("/metrics")).text

    asyncio.run(calls())


def test_a_damaged_version_is_fetched_once_and_named_once_while_the_old_one_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[Any] = [2, 2, 2, TransientError("MLflow does not answer"), TransientError("MLflow does not answer"), 3]
    fetched: list[str] = []

    def resolve(_ref: str) -> Version:
        number = ends.pop(0) if len(ends) > 1 else ends[0]
        if isinstance(number, Exception):
            raise number
        return Version("b0", number, "", (), {})

    def load(ref: str) -> Loaded:
        fetched.append(ref)
        if ref == "b0/2":
            raise ArtifactError("weights.safetensors is damaged")
        return loaded(ref)[0]

    monkeypatch.setattr(registry, "resolve_version", resolve)
    monkeypatch.setattr(serve, "load", load)
    monkeypatch.setattr(serve, "POLL_S", 0.0)

    async def follow() -> str:
        serving = Serving("b0@champion", loaded("b0/1")[0], Limits())
        work = asyncio.create_task(serving.follow())
        await until(lambda: serving.loaded.exact == "b0/3")
        work.cancel()
        return serving.loaded.exact

    with caplog.at_level("INFO"):
        assert asyncio.run(follow()) == "b0/3"
    assert fetched == ["b0/2", "b0/3"]
    assert caplog.messages == [
        "b0/1 stays: weights.safetensors is damaged",
        "b0/1 stays: MLflow does not answer",
        "b0/3 replaces b0/1",
    ]
