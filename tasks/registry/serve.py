"""Serves a registered model over HTTP on this machine: images in, class names and probabilities out.

The alias is looked up again every few seconds: when it has moved, the new version is fetched, verified and loaded
beside the old one, which answers until then. While MLflow does not answer, or if the new version is damaged, the old
one stays.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

from conf.text import logger
from infra.errors import ConfigError, DataError, first_line
from infra.services import ports

if TYPE_CHECKING:
    from models.experiments.classify import Classifier

log = logger()
HOST = "127.0.0.1"
POLL_S = 5.0  # time between two looks at the alias
MAX_BYTES = 20 * 1024 * 1024  # of an image file
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

    def __init__(self, ref: str, loaded: Loaded) -> None:
        self.ref, self.loaded = ref, loaded
        self.registry = CollectorRegistry()
        self.requests = Counter("effnet_predictions", "Requests by status", ["status"], registry=self.registry)
        self.seconds = Histogram("effnet_prediction_seconds", "Time of a prediction", registry=self.registry)
        self.swaps = Counter("effnet_swaps", "Times that the served version changed", registry=self.registry)

    async def follow(self) -> None:
        """Swaps the version when the alias has moved; runs until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - whatever a new version does, the old one is served
                log.warning("%s stays: %s", self.loaded.exact, first_line(error))

    async def refresh(self) -> None:
        """Looks at the alias once."""
        from infra.tracking import registry

        version = await asyncio.to_thread(registry.resolve_version, self.ref)
        if f"{version.name}/{version.version}" != self.loaded.exact:
            loaded = await asyncio.to_thread(load, f"{version.name}/{version.version}")
            log.info("%s replaces %s", loaded.exact, self.loaded.exact)
            self.loaded = loaded
            self.swaps.inc()


def build_app(serving: Serving) -> FastAPI:
    """Returns the application: ``/``, ``POST /predict``, ``/health`` and ``/metrics``."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(serving.follow())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    app = FastAPI(title="effnet serve", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    # A web page elsewhere that resolves its name to 127.0.0.1 must not read the answers.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return PAGE.read_text()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "model": serving.loaded.exact}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(serving.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/predict")
    async def predict(request: Request, top: Annotated[int, Query(ge=1, le=1000)] = SHOWN) -> dict[str, object]:
        loaded, began = serving.loaded, time.perf_counter()
        try:
            data = await _read_body(request)
            classes = await asyncio.to_thread(loaded.classifier.classify, data, top)
        except DataError as error:
            serving.requests.labels("422").inc()
            raise HTTPException(422, f"the image cannot be used: {error}") from error
        except HTTPException as error:
            serving.requests.labels(str(error.status_code)).inc()
            raise
        serving.requests.labels("200").inc()
        serving.seconds.observe(time.perf_counter() - began)
        predictions = [{"class": name, "probability": probability} for name, probability in classes]
        return {"model": loaded.exact, "predictions": predictions}

    return app


async def _read_body(request: Request) -> bytes:
    """Reads an image file; stops at the limit, whatever length the request announced."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BYTES:
            raise HTTPException(413, f"the image has more than {MAX_BYTES // 2**20} MiB")
    if not data:
        raise HTTPException(400, "the body is empty: send a JPEG or PNG file, e.g. curl --data-binary @IMAGE")
    return bytes(data)


def serve(ref: str, port: int, say: Callable[[str], None]) -> None:
    """Serves a model until Ctrl-C or SIGTERM.

    Args:
        ref: ``NAME@ALIAS``, which is followed, or ``NAME/VERSION``.
        port: Port on 127.0.0.1.
        say: Prints a line.

    Raises:
        ConfigError: The port is in use, or the version does not exist.
    """
    import uvicorn

    if not 0 < port < 2**16:
        raise ConfigError(f"--port {port} is not a port, which is 1 to {2**16 - 1}")
    if not ports.is_free(port):
        raise ConfigError(f"port {port} is in use; give another one: --port {port + 1}")
    serving = Serving(ref, load(ref))
    say(f"{serving.loaded.exact} on http://{HOST}:{port}; Ctrl-C ends it")
    # Not uvicorn.run, which hides that a signal ended it from the exit code.
    uvicorn.Server(uvicorn.Config(build_app(serving), host=HOST, port=port, log_level="warning")).run()
