"""The one table of verbs: parser, help, flows and their tests are made from it.

To add a verb, add a row to its group. It names the flow that it runs, or else the function that it calls.
"""

from __future__ import annotations

from flows.cli.verbs.experiments import DATA, EXPERIMENTS, REPRODUCTION
from flows.cli.verbs.operations import MACHINES, RUNS
from flows.cli.verbs.registry import MODELS, REGISTRY
from flows.cli.verbs.verb import Verb

__all__ = ["GROUPS", "VERBS", "Verb"]

# In the order of `effnet --help` and of the README.
GROUPS: dict[str, dict[str, Verb]] = {
    "reproduction": REPRODUCTION,
    "data": DATA,
    "experiments": EXPERIMENTS,
    "models": MODELS,
    "registry": REGISTRY,
    "runs": RUNS,
    "machines": MACHINES,
}
VERBS: dict[str, Verb] = {name: verb for group in GROUPS.values() for name, verb in group.items()}
