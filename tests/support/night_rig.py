"""What the tests of nights share: a folder of digits that grows, a registered champion to start from, an alert sink."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import torch
from PIL import Image
from serving import serving

from conf import compose
from conf.data_set import EvalTransform
from infra.services import deployments, schedule
from infra.services.prefect_api import from_environment
from infra.tracking import runs
from models.data.sources.published import builtin
from models.networks import export
from models.networks.build import build_model
from tasks.registry.promote import champion_if_first
from tasks.registry.register import WEIGHTS, describe_network, new_version


def add_images(folder: Path, first: int, last: int) -> None:
    """Adds the digits of these numbers, each in the folder of its class."""
    digits = builtin.digits()
    for number in range(first, last):
        path = folder / f"digit-{digits.labels[number]}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(io.BytesIO(digits.read(number))).resize((32, 32)).save(path)


def register_deployments(services_dir: Path) -> None:
    """Registers the deployments with Prefect, the nights paused: theirs would start when the tests run at that time."""
    api = from_environment(os.environ)
    deployments.deploy(api, services_dir / "services", dict(os.environ))
    schedule.write(api, replace(schedule.read(api), active=False))


def register_base(name: str, storage: str, folder: Path) -> str:
    """A registered champion with random weights, of the laptop's size and of other classes."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = compose.compose([]).model
    export.save_weights(build_model(model, 5).state_dict(), folder / WEIGHTS)
    run = runs.start_run("nightly", "base", "base", params={}, tags={})
    description = describe_network(model, 24, list("abcde"), EvalTransform(0))
    version = new_version(run, name, folder, description, {"dataset": "letters"}, storage)
    champion_if_first(version, storage)
    return name


def night_settings(model: str, folder: Path, storage: str, name: str = "grown") -> list[str]:
    """Overrides of a night of one epoch on a folder; its alerts go to the webhook in the variable NIGHT_HOOK."""
    return [
        f"nightly.model={model}",
        "data@transfer.data=folder",
        f"transfer.data.path={folder}",
        f"transfer.data.name={name}",
        "transfer.data.augment.eval_crop_pad=0",
        "transfer.recipe.epochs=1",
        "nightly.chance_margin=-100",
        "nightly.alerts.webhook=NIGHT_HOOK",
        f"storage={storage}",
        f"experiment={storage.rpartition('/')[2]}",
    ]


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.texts.append(json.loads(body)["text"])  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


@contextmanager
def alert_sink() -> Iterator[tuple[str, list[str]]]:
    """A local web server: the address of its webhook, and the texts that are posted to it."""
    server = HTTPServer(("127.0.0.1", 0), _Hook)
    texts: list[str] = []
    server.texts = texts  # type: ignore[attr-defined]
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}/hook", texts
