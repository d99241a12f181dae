"""What starts nothing: the verbs plan, config and download, and the option --dry-run."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict

from conf import compose
from flows.cli.command import Command, show, show_table
from infra.errors import ConfigError


def plan(command: Command) -> int:
    """Prints the estimates of a training, and what a reproduction costs."""
    from tasks import plan as estimates

    price = _price(command.options.get("price"))
    for line in (*estimates.lines(command.config), "", *estimates.describe_costs(command.config, price)):
        show(line)
    return 0


def _price(text: str | None) -> float | None:
    try:
        price = None if text is None else float(text)
    except ValueError:
        price = math.nan
    if price is not None and not 0 <= price < math.inf:
        raise ConfigError(f"--price takes the price of a GPU-hour, a number from 0, is {text!r}")
    return price


def config(command: Command) -> int:
    """Prints all settings of a command; with ``--why`` also where each comes from."""
    from conf import sources

    settings = sources.settings(command.overrides)
    if command.json:
        print(json.dumps([asdict(setting) for setting in settings], indent=2))
    elif "why" in command.switches:
        rows = [(setting.key, json.dumps(setting.value), setting.source) for setting in settings]
        show_table(["setting", "value", "source"], rows)
    else:
        for setting in settings:
            show(f"{setting.key}={json.dumps(setting.value)}")
    return 0


def download(command: Command) -> int:
    """Downloads a data set: ``effnet download cifar10 data.path=FOLDER``, or ``data=cifar10``."""
    from models.data.sources import download

    config = compose.compose([*(f"data={name}" for name in command.objects), *command.overrides])
    download.download(config.data, show)
    return 0


def show_training(command: Command) -> int:
    """Prints what ``effnet train`` would submit, and nothing else on standard output."""
    from infra.launch.engine import ENGINES
    from tasks import dry_run

    spec = dry_run.describe_training(command.config)
    print(ENGINES[spec.launch.engine].describe(spec))
    if spec.key.endswith(dry_run.UNKNOWN):
        name = command.config.data.name
        sys.stderr.write(f"note: the digest of the job is known once the shards of {name} exist in a running store\n")
    return 0
