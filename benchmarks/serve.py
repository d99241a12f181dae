"""`effnet serve` beside MLflow's plain scoring server: the same registered network, on this machine, in turns.

Both get the same JPEG of ImageNet's usual size: ours as the body of a request, MLflow's as base64 in JSON, which its
server and our package decode. Requests one by one, and 16 at a time, over connections that stay open. Counted are
requests per second, and the CPU time that the processes of a server spend on one, which other work on the machine
changes less. MLflow's server runs one worker process; with more, each holds the network.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import harness
from conf import schema
from conf.data_set import EvalTransform
from conf.schema import Services
from infra.services import stack
from infra.tracking import registration, registry, runs
from models.networks import export
from models.networks.build import build_model, resolve_architecture
from models.networks.description import MEAN_RGB, STDDEV_RGB, config_json

MODELS = {"laptop B0": schema.Model(width=0.25, depth=0.25, resolution=0.25), "B0": schema.Model()}
CLASSES, PIXELS, REQUESTS, CONCURRENT, PATIENCE_S = 1000, (375, 500), 64, 16, 120.0
OURS, RIVAL = "effnet serve", "mlflow models serve"


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=5)
    report = harness.Report(options.n)
    with tempfile.TemporaryDirectory(prefix="effnet-bench-") as folder:
        run_dir = Path(folder)
        stack.up(run_dir, Services(), jobs_at_once=1, say=lambda _: None, only=("s3", "mlflow"))
        try:
            for name, model in MODELS.items():
                _compare(name, model, run_dir, options.n, report)
        finally:
            stack.down(run_dir)
    harness.show(report, options.json)


def _compare(name: str, model: schema.Model, run_dir: Path, n: int, report: harness.Report) -> None:
    ref = _register(name.lower().replace(" ", "-"), model, run_dir / name)
    image = _photograph()
    table = {"dataframe_split": {"columns": ["image"], "data": [[base64.b64encode(image).decode()]]}}
    requests = {
        OURS: ("/predict", image, {"Content-Type": "image/jpeg"}),
        RIVAL: ("/invocations", json.dumps(table).encode(), {"Content-Type": "application/json"}),
    }
    ours, rival = _free_port(), _free_port()
    effnet = [sys.executable, "-m", "flows", "serve", ref, "--port", str(ours), f"run_dir={run_dir}"]
    mlflow = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "--model-uri",
        f"models:/{ref}",
        "--env-manager",
        "local",
    ]
    with (
        _server(effnet, ours, "/health", run_dir / "ours.log") as our_session,
        _server([*mlflow, "--port", str(rival)], rival, "/ping", run_dir / "rival.log") as rival_session,
    ):
        ports, sessions = {OURS: ours, RIVAL: rival}, {OURS: our_session, RIVAL: rival_session}
        rates: dict[tuple[str, int], list[float]] = {}
        cpu_ms: dict[tuple[str, int], list[float]] = {}
        for count in range(-1, n):  # the first pass warms up
            for concurrent in (1, CONCURRENT):
                for side, (path, body, headers) in requests.items():
                    spent = _cpu_seconds(sessions[side])
                    rate = _rate(ports[side], path, body, headers, concurrent)
                    if count >= 0:
                        rates.setdefault((side, concurrent), []).append(rate)
                        spent = _cpu_seconds(sessions[side]) - spent
                        cpu_ms.setdefault((side, concurrent), []).append(1000 * spent / REQUESTS)
    for unit, values in (("requests/s", rates), ("CPU ms a request", cpu_ms)):
        medians = {
            key: report.add(f"{name}: {key[0]}, {key[1]} at a time", measured, unit) for key, measured in values.items()
        }
        for concurrent in (1, CONCURRENT):
            ratio = medians[OURS, concurrent] / medians[RIVAL, concurrent]
            report.ratios[f"{name}: ours/MLflow, {concurrent} at a time, {unit}"] = ratio


def _register(name: str, model: schema.Model, folder: Path) -> str:
    """Registers a network with random weights; returns ``NAME/VERSION``."""
    folder.mkdir()
    network = build_model(model, CLASSES).eval()
    export.save_weights(network.state_dict(), folder / registry.WEIGHTS)
    side = resolve_architecture(model).resolution
    mean, std = ([value / 255 for value in values] for values in (MEAN_RGB, STDDEV_RGB))
    names = [f"class {number}" for number in range(CLASSES)]
    config = config_json(model, resolution=side, class_names=names, mean=mean, std=std, transform=EvalTransform(32))
    (folder / registry.CONFIG).write_text(config)
    module, images = export.serving_module(network), export.example(side)
    run = runs.start_run("benchmarks", name, name, params={}, tags={})
    loaded = registration.Loaded(module, images, export.logits(module, images))
    registration.register(run, name, load=lambda: loaded, files=folder, tags={})
    return f"{name}/{registry.resolve_version(f'{name}/1').version}"


def _photograph() -> bytes:
    """A JPEG with the detail of a photograph, about 60 kB."""
    coarse = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(PIXELS[::-1], Image.Resampling.BICUBIC).save(file, "JPEG", quality=92)
    return file.getvalue()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(command: list[str], port: int, health: str, log: Path) -> Iterator[int]:
    """A server that answers, by the id of its session; ended afterwards."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                _send(http.client.HTTPConnection("127.0.0.1", port, timeout=10), "GET", health)
                break
            except (OSError, http.client.HTTPException):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"{command[3]} does not answer: {log.read_text()[-2000:]}") from None
                time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _cpu_seconds(session: int) -> float:
    """CPU time of all processes of a session so far."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = file.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _rate(port: int, path: str, body: bytes, headers: Mapping[str, str], concurrent: int) -> float:
    """Requests per second over ``concurrent`` connections."""
    local = threading.local()

    def send(_: int) -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        _send(local.connection, "POST", path, body, headers)

    with ThreadPoolExecutor(concurrent) as pool:
        began = time.perf_counter()
        list(pool.map(send, range(REQUESTS)))
        return REQUESTS / (time.perf_counter() - began)


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    connection.request(method, path, body, dict(headers or {}))
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path} answered {answer.status}: {text[:300]!r}")


if __name__ == "__main__":
    main()
