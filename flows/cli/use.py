"""The verbs that hand registered models to other programs."""

from __future__ import annotations

from flows.cli.command import Command, show
from flows.cli.services import connect
from infra.errors import ConfigError
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
    port = command.options.get("port", str(PORT))
    if not port.isdecimal():
        raise ConfigError(f"--port takes a number, is {port!r}")
    connect(command, "s3", "mlflow")
    from tasks.registry.serve import serve

    serve(command.objects[0], int(port), show)
    return 0
