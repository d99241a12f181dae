"""The verbs that start nothing: plan, download."""

from __future__ import annotations

from conf import compose
from flows.cli.command import Command, show


def plan(command: Command) -> int:
    """Prints the estimates of a training."""
    from tasks import plan as estimates

    for line in estimates.lines(command.config):
        show(line)
    return 0


def download(command: Command) -> int:
    """Downloads a data set: ``effnet download cifar10 data.path=FOLDER``, or ``data=cifar10``."""
    from models.data.sources import download

    config = compose.compose([*(f"data={name}" for name in command.objects), *command.overrides])
    download.download(config.data, show)
    return 0
