"""The verbs that hand registered models to other programs."""

from __future__ import annotations

import math
import os
from dataclasses import asdict

from flows.cli.command import Command, announce, print_json, show
from flows.cli.services import connect
from infra.environment import check_torch
from infra.errors import ConfigError
from tasks.registry.batching import Limits
from tasks.registry.export import FORMATS, MAX_LOSS, check_targets
from tasks.registry.export import export as write_files

PORT = 8000


def export(command: Command) -> int:
    """Writes a registered model as ONNX or torch.export."""
    paths = {name: command.options[name] for name in FORMATS if name in command.options}
    int8 = "int8" in command.switches
    check_torch(os.environ)  # before the targets, whose check imports torch for ONNX
    check_targets(paths, int8=int8)
    loss = _points(command) if int8 else None
    connect(command, "s3", "mlflow")
    announce(f"effnet export: fetching {command.objects[0]}; each file is compared with the network before it is kept")
    files = write_files(command.objects[0], paths, int8_loss=loss)
    for file in files:
        command.say(file.said)
    if command.json:
        print_json([{key: value for key, value in asdict(file).items() if key != "said"} for file in files])
    return 0


def _points(command: Command) -> float:
    text = command.options.get("max-loss", str(MAX_LOSS))
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points <= 100:
        raise ConfigError(f"--max-loss takes points of top-1, a number from 0 to 100, is {text!r}")
    return points


def serve(command: Command) -> int:
    """Serves a registered model over HTTP until it is stopped."""
    port = _number(command, "port", PORT)
    limits = Limits(
        _number(command, "max-batch", Limits.max_batch, 1),
        _number(command, "max-wait-ms", 0) / 1000,
        _number(command, "max-requests", Limits.max_requests, 1),
    )
    check_torch(os.environ)
    connect(command, "s3", "mlflow")
    announce(f"effnet serve: fetching {command.objects[0]}, and checking its digest")
    from tasks.registry.serve import serve

    serve(command.objects[0], port, limits, show)
    return 0


def _number(command: Command, option: str, default: int, least: int = 0) -> int:
    text = command.options.get(option, str(default))
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"--{option} takes a number{f' of {least} or more' if least else ''}, is {text!r}")
    return int(text)
