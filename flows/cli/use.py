"""The verbs that hand registered models to other programs."""

from __future__ import annotations

from flows.cli.command import Command, show
from flows.cli.services import connect
from infra.errors import ConfigError
from tasks.registry.batching import Limits
from tasks.registry.export import check_targets

PORT = 8000


def export(command: Command) -> int:
    """Writes a registered model as ONNX or torch.export."""
    check_targets(command.options)
    connect(command, "s3", "mlflow")
    from tasks.registry.export import export

    for line in export(command.objects[0], command.options):
        show(line)
    return 0


def serve(command: Command) -> int:
    """Serves a registered model over HTTP until it is stopped."""
    port = _number(command, "port", PORT)
    limits = Limits(
        _number(command, "max-batch", Limits.max_batch, 1),
        _number(command, "max-wait-ms", 0) / 1000,
        _number(command, "max-requests", Limits.max_requests, 1),
    )
    connect(command, "s3", "mlflow")
    from tasks.registry.serve import serve

    serve(command.objects[0], port, limits, show)
    return 0


def _number(command: Command, option: str, default: int, least: int = 0) -> int:
    text = command.options.get(option, str(default))
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"--{option} takes a number{f' of {least} or more' if least else ''}, is {text!r}")
    return int(text)
