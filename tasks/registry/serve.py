"""Serves a registered model over HTTP on this machine: images in, class names and probabilities out.

Concurrent requests are classified in batches (``batching.py``), and more than a limit of them are refused before their
body is read. The alias is looked up again every few seconds: when it has moved, the new version is fetched, verified
and loaded beside the old one, which answers until then. While MLflow does not answer, or if the new version is
damaged, the old one stays.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from conf.text import logger
from infra.errors import ArtifactError, ConfigError, DataError, first_line
from infra.services import ports
from tasks.registry.batching import Batcher, Limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.experiments.classify import Classifier

log = logger()
HOST = "127.0.0.1"
POLL_S = 5.0  # time between two looks at the alias
UPLOAD_S = 30.0  # time in which the body of a request must arrive
MAX_BYTES = 20 * 1024 * 1024  # of an image file
# A body above the limit is received up to here and dropped: a client that still sends when the connection is closed
# gets a reset, and may not see the answer.
_MAX_DROPPED = 8 * MAX_BYTES
UPLOAD_HINT = "one JPEG or PNG file, e.g. by curl --data-binary @IMAGE or curl -F file=@IMAGE"
_FILE_NAME = re.compile(rb"^content-disposition:[^\r\n]*;\s*filename\*?=", re.IGNORECASE | re.MULTILINE)
SHOWN = 5  # classes of an answer by default
PAGE = Path(__file__).with_name("serve.html")


@dataclass(frozen=True)
class Loaded:
    """A version in memory; ``exact`` is ``NAME/VERSION``."""

    exact: str
    classifier: Classifier


def load(ref: str) -> Loaded:
    """Fetches a version, verifies its digests, and loads it.

    Raises:
        ConfigError: The version does not exist.
        ArtifactError: A file differs from the registered one.
        TransientError: MLflow does not answer.
    """
    from infra.tracking import registry
    from models.experiments.classify import Classifier

    version = registry.resolve_version(ref)
    exact = f"{version.name}/{version.version}"
    with tempfile.TemporaryDirectory(prefix="effnet-serve-") as folder:
        return Loaded(exact, Classifier(*registry.fetch_weights(exact, Path(folder))))


class Serving:
    """The version that answers now, and what is counted."""

    def __init__(self, ref: str, loaded: Loaded, limits: Limits) -> None:
        self.ref, self.limits = ref, limits
        self.registry = CollectorRegistry()
        self.requests = Counter("effnet_predictions", "Requests by status", ["status"], registry=self.registry)
        self.seconds = Histogram("effnet_prediction_seconds", "Time of a prediction", registry=self.registry)
        sizes = [1, 2, 4, 8, 16, 32, 64]
        self.batches = Histogram("effnet_batch_images", "Images of a batch", registry=self.registry, buckets=sizes)
        self.in_progress = Gauge("effnet_requests_in_progress", "Requests in progress", registry=self.registry)
        self.swaps = Counter("effnet_swaps", "Times that the served version changed", registry=self.registry)
        self.served = Info("effnet_model", "The served version", registry=self.registry)
        self.admitted = 0
        self.unusable = ""  # version that the alias has moved to and that is damaged
        self.batcher = Batcher(self._classify, limits)
        self.use(loaded)

    def use(self, loaded: Loaded) -> None:
        """Serves this version from now on; requests that have begun are answered by theirs."""
        self.loaded = loaded
        self.served.info({"version": loaded.exact})

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Counts a request as in progress; raises an HTTPException with 503 if too many are."""
        if self.admitted >= self.limits.max_requests:
            raise HTTPException(503, f"{self.admitted} requests are in progress; try again", {"Retry-After": "1"})
        self.admitted += 1
        self.in_progress.inc()
        try:
            yield
        finally:
            self.admitted -= 1
            self.in_progress.dec()

    async def classify(self, data: bytes, count: int) -> tuple[str, list[tuple[str, float]]]:
        """Returns the version that answers, and the most probable classes; raises DataError for a bad image."""
        loaded = self.loaded
        pixels = await asyncio.to_thread(loaded.classifier.decode, data)
        probabilities = await self.batcher.submit((loaded, pixels))
        return loaded.exact, loaded.classifier.most_probable(probabilities, count)

    def _classify(self, items: Sequence[tuple[Loaded, NDArray[np.uint8]]]) -> list[NDArray[np.float32]]:
        """Classifies a batch; while versions change, a batch may hold images for both."""
        self.batches.observe(len(items))
        answers: list[NDArray[np.float32]] = []
        for loaded, group in groupby(items, key=lambda item: item[0]):
            answers += list(loaded.classifier.probabilities([pixels for _, pixels in group]))
        return answers

    async def follow(self) -> None:
        """Swaps the version when the alias has moved; runs until cancelled. An error that stays is logged once."""
        logged = ""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
                logged = ""
            except Exception as error:  # noqa: BLE001 - whatever a new version does, the old one is served
                if (line := first_line(error)) != logged:
                    log.warning("%s stays: %s", self.loaded.exact, line)
                logged = line

    async def refresh(self) -> None:
        """Looks at the alias once. A damaged version is not fetched again before the alias has moved.

        Raises:
            ArtifactError: The version is damaged.
            ConfigError: It does not exist.
            TransientError: MLflow does not answer.
        """
        from infra.tracking import registry

        version = await asyncio.to_thread(registry.resolve_version, self.ref)
        exact = f"{version.name}/{version.version}"
        if exact != self.unusable:
            self.unusable = ""
        if exact in (self.loaded.exact, self.unusable):
            return
        try:
            loaded = await asyncio.to_thread(load, exact)
        except ArtifactError:
            self.unusable = exact
            raise
        log.info("%s replaces %s", loaded.exact, self.loaded.exact)
        self.use(loaded)
        self.swaps.inc()


def build_app(serving: Serving) -> FastAPI:
    """Returns the application: ``/``, ``POST /predict``, ``/health`` and ``/metrics``."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = [asyncio.create_task(work) for work in (serving.follow(), serving.batcher.work())]
        yield
        for one in running:
            one.cancel()
            with suppress(asyncio.CancelledError):
                await one

    app = FastAPI(title="effnet serve", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    # A web page elsewhere that resolves its name to 127.0.0.1 must not read the answers.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    @app.exception_handler(RequestValidationError)
    def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = error.errors()[0]
        serving.requests.labels("422").inc()
        return JSONResponse({"detail": f"{wrong['loc'][-1]}={wrong['input']}: {wrong['msg']}"}, 422)

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "model": serving.loaded.exact}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(serving.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/predict")
    async def predict(request: Request, top: Annotated[int, Query(ge=1, le=1000)] = SHOWN) -> dict[str, object]:
        began = time.perf_counter()
        try:
            with serving.admit():
                exact, classes = await serving.classify(await _read_body(request), top)
        except DataError as error:
            serving.requests.labels("422").inc()
            raise HTTPException(422, f"the image cannot be used: {error}") from error
        except HTTPException as error:
            serving.requests.labels(str(error.status_code)).inc()
            raise
        except Exception:
            serving.requests.labels("500").inc()
            raise
        serving.requests.labels("200").inc()
        serving.seconds.observe(time.perf_counter() - began)
        predictions = [{"class": name, "probability": probability} for name, probability in classes]
        return {"model": exact, "predictions": predictions}

    return app


async def _read_body(request: Request) -> bytes:
    """Reads an image file, as the body or in a form; keeps no more than the limit, whatever length was announced."""
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    if header.get_content_type() == "application/json":
        raise HTTPException(415, f"the body is JSON: send {UPLOAD_HINT}")
    data, received = bytearray(), 0
    try:
        async with asyncio.timeout(UPLOAD_S):
            async for chunk in request.stream():
                received += len(chunk)
                if received <= MAX_BYTES:
                    data += chunk
                elif received > _MAX_DROPPED:
                    break
    except TimeoutError as error:
        raise HTTPException(408, f"the image did not arrive within {UPLOAD_S:g} s") from error
    if received > MAX_BYTES:
        raise HTTPException(413, f"the image has more than {MAX_BYTES // 2**20} MiB")
    if not data:
        raise HTTPException(400, f"the body is empty: send {UPLOAD_HINT}")
    if header.get_content_type() == "multipart/form-data":
        try:
            boundary = str(header.get_boundary(""))
        except ValueError as error:  # in an encoding that cannot be decoded (RFC 2231)
            raise HTTPException(400, f"the boundary of the form cannot be read: send {UPLOAD_HINT}") from error
        return _find_file(bytes(data), boundary)
    return bytes(data)


def _find_file(body: bytes, boundary: str) -> bytes:
    """Returns the content of the one file in a form, which is text between its parts (RFC 7578, RFC 2046 5.1.1)."""
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    _, *parts = (b"\r\n" + body).split(delimiter)
    if not boundary or not parts or not parts[-1].startswith(b"--"):
        raise HTTPException(
            400, f"the form is cut off, or its boundary is not the one in the header: send {UPLOAD_HINT}"
        )
    files = [part.partition(b"\r\n\r\n") for part in parts[:-1]]
    contents = [content for head, _, content in files if _FILE_NAME.search(head)]
    if len(contents) != 1:
        raise HTTPException(400, f"the form has {len(contents)} files: send {UPLOAD_HINT}")
    return contents[0]


def serve(ref: str, port: int, limits: Limits, say: Callable[[str], None]) -> None:
    """Serves a model until Ctrl-C or SIGTERM.

    Args:
        ref: ``NAME@ALIAS``, which is followed, or ``NAME/VERSION``.
        port: Port on 127.0.0.1.
        limits: Limits of batches and requests.
        say: Prints a line.

    Raises:
        ConfigError: The port is in use, or the version does not exist.
    """
    import uvicorn

    if not 0 < port < 2**16:
        raise ConfigError(f"--port {port} is not a port, which is 1 to {2**16 - 1}")
    if not ports.is_free(port):
        raise ConfigError(f"port {port} is in use; give another one: --port {port + 1}")
    serving = Serving(ref, load(ref), limits)
    say(f"{serving.loaded.exact} on http://{HOST}:{port}; Ctrl-C ends it")
    # Not uvicorn.run, which hides that a signal ended it from the exit code.
    uvicorn.Server(uvicorn.Config(build_app(serving), host=HOST, port=port, log_level="warning")).run()
