"""What starts nothing: the verbs plan, config and download, and the option --dry-run."""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
from dataclasses import asdict

from conf import compose
from conf.text import did_you_mean
from flows.cli import verbs
from flows.cli.command import Command, ask, print_json, show, show_table
from flows.cli.session import check_given_paths, check_settings
from infra.environment import check_torch
from infra.errors import ConfigError


def plan(command: Command) -> int:
    """Prints the networks of a command and what its trainings cost."""
    check_torch(os.environ)
    from models.experiments.costs import VERBS
    from tasks import plan as estimates

    verb = command.objects[0] if command.objects else "reproduce"
    if verb not in (names := (*VERBS, "nightly")):
        hint = f"effnet {verb} is not estimated;" if verb in verbs.VERBS else did_you_mean(verb, names)
        raise ConfigError(" ".join(filter(None, [f"effnet plan {verb}:", hint, f"it takes {', '.join(names)}"])))
    price, config = _price(command.options.get("price")), command.config
    check_given_paths(verb, config)
    probes = "probe" in command.switches
    if verb == "nightly":
        if probes:
            raise ConfigError("effnet plan nightly has no --probe: its champion is known to the registry only")
        return _plan_night(command)
    probed = estimates.probe(config, verb) if probes else None
    if command.json:
        print_json(estimates.to_json(config, command.overrides, price, verb, probed))
        return 0
    priced = estimates.describe_costs(config, command.overrides, price, verb, probed)
    shown = itertools.chain(estimates.lines(config, verb), [""], priced)
    for line in shown:
        show(line)
    return 0


def _plan_night(command: Command) -> int:
    """Prints what a night would do."""
    from tasks.nights import plan as nights

    stopped = nights.find_stopped(command.config)
    if stopped:
        command.say(stopped)
    night = None if stopped else nights.count_night(command.config)
    for line in nights.describe(night) if night is not None else ():
        command.say(line)
    if command.json:
        counted = None if night is None else asdict(night)
        print_json({"verb": "nightly", "night": counted, "notes": [stopped] if stopped else []})
    return 0


def confirm_budget(command: Command) -> None:
    """Asks in a terminal whether a command may run whose estimate exceeds ``budget``; ``--yes`` is the answer.

    Raises:
        ConfigError: It may not, or this is no terminal.
    """
    budget = command.config.budget
    if "yes" in command.switches or (budget.hours is None and budget.gpu_hours is None):
        return
    from tasks import plan as estimates

    if over := estimates.exceeded_budget(command.config, command.overrides, command.verb):
        if not sys.stdin.isatty():
            raise ConfigError(f"{over}; --yes runs it nevertheless, effnet plan {command.verb} shows the parts")
        if not ask(f"{over}. run it?"):
            raise ConfigError("nothing was started")


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
        # The value is last, since no column is padded to the length of a list.
        rows = [(setting.key, setting.source, json.dumps(setting.value, ensure_ascii=False)) for setting in settings]
        show_table(["setting", "source", "value"], rows)
    else:
        for setting in settings:
            show(f"{setting.key}={json.dumps(setting.value, ensure_ascii=False)}")
    return 0


def show_jobs(command: Command) -> int:
    """Prints how the jobs of a verb would be submitted, and nothing else on standard output."""
    from infra.launch.engine import ENGINES
    from models.experiments.costs import VERBS
    from tasks import dry_run

    check_settings(command.verb, command.config)
    spec = dry_run.describe_any(command.config, command.verb)
    print(ENGINES[spec.launch.engine].describe(spec))
    verb, key = command.verb, dry_run.KEY
    counts = f"; `effnet plan {verb}` counts them" if verb in VERBS else ""
    sys.stderr.write(f"note: each job of effnet {verb} is submitted so, with its key in place of {key}{counts}\n")
    return 0


def download(command: Command) -> int:
    """Downloads a data set: ``effnet download cifar10 data.path=FOLDER``, or ``data=cifar10``."""
    from models.data.sources import catalog

    config = compose.compose([*(f"data={name}" for name in command.objects), *command.overrides])
    catalog.download(config.data, show)
    return 0


def show_training(command: Command) -> int:
    """Prints what ``effnet train`` would submit, and nothing else on standard output."""
    from infra.launch.engine import ENGINES
    from tasks import dry_run

    check_settings("train", command.config)
    spec = dry_run.describe_training(command.config)
    print(ENGINES[spec.launch.engine].describe(spec))
    if spec.key.endswith(dry_run.UNKNOWN):
        name = command.config.data.name
        sys.stderr.write(f"note: the digest of the job is known once the shards of {name} exist in a running store\n")
    return 0
