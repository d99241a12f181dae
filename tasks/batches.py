"""Refuses before a command starts anything the batches and grids that its jobs would refuse after the data are sharded.

Prefect is not imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from conf import schema
from infra.errors import ConfigError
from models.experiments.costs import is_registered
from models.experiments.grid_search import grid_points
from tasks.jobs import check_division

# The sections whose recipe a verb trains by; "" is `recipe` itself.
RECIPES: dict[str, tuple[str, ...]] = {
    "reproduce": ("search", "", "explain", "transfer"),
    "search": ("search",),
    "architecture": ("architecture",),
    "scaling": ("",),
    "train": ("",),
    "transfer": ("", "transfer"),
    "explain": ("explain",),
    "nightly": ("transfer",),
    "study": ("", "transfer", "architecture"),
}


def check_batches(verb: str, config: schema.Config) -> None:
    """Checks the grid and the batches of every recipe by which a command trains.

    Raises:
        ConfigError: The message names the setting and the two numbers that disagree.
    """
    for section in list_sections(verb, config):
        with named(section):
            check_division(config, recipe_of(config, section))
    if verb in ("reproduce", "search"):
        grid_points(config.search)


def list_sections(verb: str, config: schema.Config) -> list[str]:
    """Returns the sections by whose recipes a command trains; the empty one is ``recipe`` itself."""
    return [section for section in RECIPES.get(verb, ()) if _is_trained(verb, section, config)]


def recipe_of(config: schema.Config, section: str) -> schema.Recipe:
    """Returns the recipe of a section."""
    recipe: schema.Recipe = getattr(config, section).recipe if section else config.recipe
    return recipe


def _is_trained(verb: str, section: str, config: schema.Config) -> bool:
    """Whether a command trains by the recipe of a section, and not by other networks or none."""
    if section == "explain":
        return any(entry.registered is None for entry in config.explain.models)
    if section == "transfer" and verb == "study":
        return config.transfer.network is not None
    return not (verb == "transfer" and section == "" and is_registered(config))


@contextmanager
def named(section: str) -> Iterator[None]:
    """Names the section of the recipe that a message is about: ``search.recipe.global_batch``."""
    try:
        yield
    except ConfigError as error:
        prefix = f"{section}." if section and str(error).startswith("recipe.") else ""
        raise ConfigError(f"{prefix}{error}") from error
